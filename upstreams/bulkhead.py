"""The bulkhead: so many attempts in flight at one upstream and no more, so that a slow one drowns no other."""

from __future__ import annotations

import asyncio


class Bulkhead:
    """Permits for `limit` attempts at once; `max_waiting` more may wait their turn, `max_wait` seconds each at most.

    Live: prints how many are in flight and waiting.
    """

    def __init__(self, limit: int, max_waiting: int, max_wait: float) -> None:
        self.limit = limit
        self.waiting = 0
        self.in_flight = 0
        self._max_waiting = max_waiting
        self._max_wait = max_wait
        self._permits = asyncio.Semaphore(limit)

    def __repr__(self) -> str:
        """Show how full it is."""
        return f"<Bulkhead in_flight={self.in_flight} of {self.limit} waiting={self.waiting}>"

    def is_free(self) -> bool:
        """Tell whether there is a permit to be had at once."""
        return not self._permits.locked()

    async def enter(self, until: float) -> bool:
        """Take a permit, first come first served; False if there is none by `until` (on the loop's clock)."""
        if self.is_free():
            await self._permits.acquire()
        elif not await self._waited(until):
            return False
        self.in_flight += 1
        return True

    def leave(self) -> None:
        """Give the permit back."""
        self.in_flight -= 1
        self._permits.release()

    async def _waited(self, until: float) -> bool:
        """Wait in the queue for a permit; False if the queue is full or time runs out."""
        if self.waiting >= self._max_waiting:
            return False
        self.waiting += 1
        try:
            async with asyncio.timeout_at(min(until, asyncio.get_running_loop().time() + self._max_wait)):
                return await self._permits.acquire()
        except TimeoutError:
            return False
        finally:
            self.waiting -= 1
