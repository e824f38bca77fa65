"""The bulkhead: so many attempts in flight at one upstream and no more, so that a slow one drowns no other."""

from __future__ import annotations

import asyncio
from collections import deque


class Bulkhead:
    """Permits for `limit` attempts at once; `max_waiting` more may wait their turn, `max_wait` seconds each at most.

    Live: prints how many are in flight and waiting. A permit that is given back goes straight to who has waited
    longest, so that nobody who has just come is before them.
    """

    def __init__(self, limit: int, max_waiting: int, max_wait: float) -> None:
        self.limit = limit
        self.in_flight = 0
        self._max_waiting = max_waiting
        self._max_wait = max_wait
        self._queue: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        """Show how full it is."""
        return f"<Bulkhead in_flight={self.in_flight} of {self.limit} waiting={self.waiting}>"

    @property
    def waiting(self) -> int:
        """How many wait for a permit."""
        return len(self._queue)

    def is_free(self) -> bool:
        """Tell whether there is a permit to be had at once."""
        return self.in_flight < self.limit

    def enter_at_once(self) -> bool:
        """Take a permit if there is one."""
        if self.in_flight >= self.limit:
            return False
        self.in_flight += 1
        return True

    async def enter(self, until: float) -> bool:
        """Take a permit, first come first served; False if there is none by `until` (on the loop's clock)."""
        return self.enter_at_once() or (len(self._queue) < self._max_waiting and await self._waited(until))

    def leave(self) -> None:
        """Give a permit back."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1

    async def _waited(self, until: float) -> bool:
        """Wait in the queue for a permit; False if time runs out."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout_at(min(until, loop.time() + self._max_wait)):
                await turn
        except BaseException as error:
            self._give_up(turn)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        """Leave the queue; a turn that has come at the same moment is the next one's."""
        if not turn.cancelled():
            self.leave()
        elif turn in self._queue:
            self._queue.remove(turn)
