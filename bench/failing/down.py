"""One of five upstreams answers 503 to everything for a while, under a steady load: what it and the others feel."""

from __future__ import annotations

import asyncio
import datetime
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from bench.failing.progress import say
from bench.failing.scene import Page, scene, steadily
from bench.failing.services import Knobs
from bench.figures import Figure, percentile

_SICK = 4
_NAME = "five"
_WARM_UP = 5.0
_BEFORE = 25.0
_OUTAGE = 25.0
_LONGEST_RECOVERY = 80.0  # more than the longest time that a breaker is open
_AMPLIFICATION = 1.2
_PROBES = 1.0
_DELAY = 10.0  # ms


class Line(msgspec.Struct):
    """What is of interest in a line of the log."""

    event: str
    timestamp: datetime.datetime
    upstream: str | None = None
    kind: str | None = None
    sent: bool = False
    duration_ms: float = 0.0
    to: str | None = None
    open_ms: float | None = None

    @property
    def ended(self) -> float:
        """When it was logged, on the clock of the machine."""
        return self.timestamp.timestamp()

    @property
    def began(self) -> float:
        """When what it tells of began."""
        return self.ended - self.duration_ms / 1000


class Seen:
    """Pages as their client saw them, and the moments between which the upstream was down."""

    def __init__(self) -> None:
        self.pages: dict[str, list[Page]] = {"five": [], "four": []}
        self.warm = self.down = self.well = 0.0

    def p99(self, name: str, since: float, until: float) -> float:
        """Return a page's p99 between two moments, in milliseconds."""
        return percentile((page.took * 1000 for page in self.pages[name] if since <= page.at < until), 99)


async def measure(rate: float) -> list[Figure]:
    """Load the gateway, take the upstream down and up again, and read in the log what came of it.

    `rate` is pages a second; every other one asks all five upstreams, the rest the four that stay well.
    """
    with tempfile.TemporaryDirectory() as log:
        seen = await _load(log, rate)
        lines = [line for line in _lines(Path(log)) if line.upstream == _NAME and line.ended >= seen.down]
    return _figures(seen, lines)


async def _load(log: str, rate: float) -> Seen:
    seen = Seen()
    ended = asyncio.Event()

    async def ask(number: int) -> None:
        name = "four" if number % 2 else "five"
        seen.pages[name].append(await on.page(name))

    async with scene(log) as on, asyncio.TaskGroup() as group:
        group.create_task(steadily(rate, ask, ended))
        await _pass(_WARM_UP, "warming up")
        seen.warm = time.time()
        await _pass(_BEFORE, "all are well")
        seen.down = time.time()
        await on.turn(_SICK, Knobs(failures=1.0))
        await _pass(_OUTAGE, "one is down")
        await on.turn(_SICK, Knobs())
        seen.well = time.time()
        await _closed(Path(log))
        ended.set()
    return seen


async def _pass(seconds: float, what: str) -> None:
    for second in range(round(seconds)):
        say(f"down: {what}, {round(seconds) - second} s to go")
        await asyncio.sleep(1)


async def _closed(log: Path) -> None:
    """Wait until the log says that the breaker is closed. Raises TimeoutError."""
    async with asyncio.timeout(_LONGEST_RECOVERY):
        while True:
            say("down: all are well again, waiting for the breaker to close")
            await asyncio.sleep(1)
            changes = [line for line in _lines(log) if line.event == "breaker.changed"]
            if changes and changes[-1].to == "closed":
                return


def _lines(log: Path) -> Iterator[Line]:
    """Read what is whole of the log, without the events that are not of interest."""
    for path in log.glob("*.ndjson"):
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n") and (b'"attempt.finished"' in line or b'"breaker.changed"' in line):
                    yield msgspec.json.decode(line, type=Line)


def _figures(seen: Seen, lines: list[Line]) -> list[Figure]:
    changes = [line for line in lines if line.event == "breaker.changed"]
    attempts = [line for line in lines if line.event == "attempt.finished" and line.sent]
    opened = next(line.ended for line in changes if line.to == "open")
    closed = changes[-1].ended
    longest = [line.open_ms for line in changes if line.open_ms is not None][-1] / 1000
    before, during = seen.p99("four", seen.warm, seen.down), seen.p99("four", seen.down, seen.well)
    return [
        *_attempts(attempts, seen.down, opened, closed),
        Figure(
            "p99 of the page without it, before and during",
            f"{before:.1f} ms, {during:.1f} ms: {during - before:+.1f} ms",
            f"at most {_DELAY:+.0f} ms",
            ok=during - before <= _DELAY,
        ),
        Figure(
            "p99 of the page with it, before and while open",
            f"{seen.p99('five', seen.warm, seen.down):.1f} ms, {seen.p99('five', opened, seen.well):.1f} ms",
        ),
        Figure(
            "well again until closed",
            f"{closed - seen.well:.1f} s",
            f"within the open time, {longest:.1f} s",
            ok=closed - seen.well <= longest,
        ),
        Figure("down until open", f"{opened - seen.down:.1f} s"),
    ]


def _attempts(attempts: list[Line], down: float, opened: float, closed: float) -> Iterable[Figure]:
    kinds = Counter(line.kind for line in attempts if down <= line.began <= opened)
    amplification = kinds.total() / kinds["first"]
    probes = [line.began for line in attempts if opened < line.began <= closed]
    rate = len(probes) / (closed - opened)
    most = max((sum(since <= probe < since + 1 for probe in probes) for since in probes), default=0)
    yield Figure(
        "attempts for each call until it opened",
        f"{amplification:.3f} ({kinds['first']} first, {kinds['retry']} retries)",
        f"at most {_AMPLIFICATION}",
        ok=amplification <= _AMPLIFICATION,
    )
    yield Figure(
        "attempts a second while it was not closed",
        f"{rate:.2f} ({len(probes)} in {closed - opened:.1f} s; most within a second: {most})",
        f"at most {_PROBES:g}",
        ok=rate <= _PROBES,
    )
