"""Admission: how fast pages begin when more are asked for than a worker can make.

On an event loop all that has begun takes turns. A worker that begins whatever comes has ever more pages under way, each
slower than before, until none is done in time and their calls crowd each other out of the upstreams' bulkheads. So a
few pages begin in each turn of the loop, and the others wait, first come first served. A turn lasts as long as the work
in it: a loop with time to spare turns thousands of times a second and lets everybody in; one that is busy lets in what
it can do. No rate has to be guessed, and pages that wait for slow upstreams hold up no others.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Final

from gateway.log import events
from gateway.serving.health import Short

#: What is said to a request that is refused: no id, for it is not in the log by itself.
OVERLOADED: Final = Short(
    503,
    b'{"type":"urn:tributary:problem:overloaded","title":"Service Unavailable","status":503}',
    "application/problem+json",
    ((b"retry-after", b"1"),),
)
_PER_TURN: Final = 8
_REPORT_EVERY: Final = 1.0


class Admission:
    """Lets pages begin, on the loop it was made in. Live: prints how many wait.

    Who has waited for `max_wait` seconds is refused. Refusals are logged by route, once a second at most.
    """

    def __init__(self, max_wait: float) -> None:
        self._max_wait = max_wait
        self._loop = asyncio.get_running_loop()
        self._begun = 0  # in this turn of the loop
        self._waiting: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._refused: Counter[str | None] = Counter()
        self._report: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        """Show how many pages wait to begin."""
        return f"<Admission waiting={len(self._waiting)}>"

    def at_once(self) -> bool:
        """Let a page begin now, if few have in this turn of the loop; while others wait, none is let in before them."""
        if self._begun == 0:
            self._loop.call_soon(self._turn)
        elif self._begun >= _PER_TURN:
            return False
        self._begun += 1
        return True

    async def wait(self) -> float | None:
        """Wait for a page's turn; returns how many seconds that took, or None where it has waited for too long."""
        turn: asyncio.Future[bool] = self._loop.create_future()
        arrived = self._loop.time()
        self._waiting.append((arrived, turn))
        return self._loop.time() - arrived if await turn else None

    def refused(self, route: str | None) -> None:
        """Count a request that could not begin."""
        self._refused[route] += 1
        if self._report is None:
            self._tell()

    def close(self) -> None:
        """Log what has not been logged yet."""
        if self._report is not None:
            self._report.cancel()
        self._log()

    def _turn(self) -> None:
        """Begin a turn of the loop: the next few begin, and who has waited too long behind them is refused.

        Those in front are let in however long that took: it may be that one page held up the loop, and all is well now.
        """
        self._begun = 0
        latest = self._loop.time() - self._max_wait
        while self._waiting and (self._begun < _PER_TURN or self._waiting[0][0] <= latest):
            _, turn = self._waiting.popleft()
            if not turn.done():  # cancelled, where the server has let go of it
                begins = self._begun < _PER_TURN
                turn.set_result(begins)
                self._begun += begins
        if self._begun:
            self._loop.call_soon(self._turn)

    def _tell(self) -> None:
        """Log who was refused, and again in a second if there are more by then."""
        self._report = self._loop.call_later(_REPORT_EVERY, self._tell) if self._refused else None
        self._log()

    def _log(self) -> None:
        for route, count in self._refused.items():
            events.requests_shed(route=route, count=count, waiting=len(self._waiting))
        self._refused.clear()
