"""The log as it is written, for all who watch it: one follower a worker, and each line is looked at once.

Nothing here waits for a reader: one that is slow loses its oldest batches, and is told how many lines that were.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import msgspec
from django.urls import reverse

from gateway.console.rows import row
from inspection.fields import Fields
from inspection.files import decoded, found, sample
from inspection.filters import Filter, parse
from inspection.follower import Follower, stamps

_logger = logging.getLogger(__name__)

MOST_TAILS: Final = 50
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_EVERY: Final = 0.5
_HEARTBEAT: Final = 15.0
#: Lines that a batch shows: more than a person can read in that time. Of those before, somewhat more.
_MOST_LINES: Final = 50
_MOST_LATEST: Final = 100
_MOST_BATCHES: Final = 8
#: How much is looked through, at most, for the latest lines that a new reader wants: of so many files, the last bytes;
#: fewer for one who wants all.
_LATEST_FILES: Final = 8
_LATEST_BYTES: Final = 1024 * 1024
_LATEST_BYTES_OF_ALL: Final = 128 * 1024
_MOST_READS: Final = 16
_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)


class Wanted(NamedTuple):
    """Which lines somebody wants to see: of this level and above, and that meet all conditions."""

    level: str = LEVELS[0]
    conditions: tuple[Filter, ...] = ()

    def holds(self, line: bytes) -> bool:
        """Tell whether a line is wanted, decoding it only where it must be."""
        if self == _EVERYTHING:
            return True
        return any(self._fits(fields) for fields in decoded([line]))

    def _fits(self, fields: Mapping[str, Any]) -> bool:
        level = fields.get("level")
        grave = LEVELS.index(level) >= LEVELS.index(self.level) if level in LEVELS else self.level == LEVELS[0]
        return grave and all(condition.holds(fields) for condition in self.conditions)


_EVERYTHING: Final = Wanted()


def wanted(directory: Path, level: str, conditions: Sequence[str]) -> Wanted:
    """Return what somebody's words ask for. Raises Unanswerable. Reads files: not for the loop."""
    fields = Fields(sample(found([directory]) if conditions and directory.exists() else ()))
    return Wanted(level if level in LEVELS else LEVELS[0], tuple(parse(written, fields) for written in conditions))


class Batch(NamedTuple):
    """Some lines as an event of the stream: `shown` of them are in it, `left_out` are not."""

    event: bytes
    shown: int
    left_out: int


class Tail:
    """Live: one reader's batches that have not been sent yet."""

    def __init__(self, which: Wanted) -> None:
        self.which = which
        self.begun = False
        self._batches: deque[Batch] = deque()
        self._lost = 0
        self._ended = False
        self._more = asyncio.Event()

    def __repr__(self) -> str:
        """Show what is wanted and how much waits."""
        return f"<Tail {self.which} {len(self._batches)} batches>"

    def put(self, batch: Batch) -> None:
        """Add a batch; of too many the oldest is lost."""
        self._batches.append(batch)
        if len(self._batches) > _MOST_BATCHES:
            oldest = self._batches.popleft()
            self._lost += oldest.shown + oldest.left_out
        self._more.set()

    def end(self) -> None:
        """Let it end when it has sent what it has."""
        self._ended = True
        self._more.set()

    async def events(self) -> AsyncIterator[bytes]:
        """Yield the stream's events as they come, and a comment where none has for a while, until it ends."""
        while not (self._ended and not self._batches):
            with suppress(TimeoutError):
                async with asyncio.timeout(_HEARTBEAT):
                    await self._more.wait()
            if not self._more.is_set():
                yield b": nothing new\n\n"
            self._more.clear()
            if self._lost:
                lost, self._lost = self._lost, 0
                yield _event("lost", {"count": lost})
            while self._batches:
                yield self._batches.popleft().event


class Watch:
    """Live, of a worker's loop: who watches its log directory; follows it while anybody does."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tails: set[Tail] = set()
        self._following: asyncio.Task[None] | None = None
        self._come = asyncio.Event()

    def __repr__(self) -> str:
        """Show how many watch what."""
        return f"<Watch {self._directory} {len(self._tails)} tails>"

    @property
    def full(self) -> bool:
        """Whether nobody more is let in."""
        return len(self._tails) >= MOST_TAILS

    @contextmanager
    def tail(self, which: Wanted) -> Iterator[Tail]:
        """Yield what a new reader reads: the latest lines first, then those that come."""
        tail = Tail(which)
        self._tails.add(tail)
        self._come.set()
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow())
        try:
            yield tail
        finally:
            self._tails.discard(tail)
            self._come.set()

    async def _follow(self) -> None:
        """Look for new lines again and again, as long as there is somebody to see them."""
        with _told_to_stop(self._end):
            follower = await asyncio.to_thread(Follower, self._directory)
            try:
                while self._tails:
                    self._come.clear()
                    await self._look(follower)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_EVERY):
                            await self._come.wait()
            except Exception:
                _logger.exception("the log cannot be followed")
            finally:
                follower.close()
                self._end()  # whoever is left asks again

    async def _look(self, follower: Follower) -> None:
        """Hand out what is new: to a reader who has just come, the latest lines."""
        new = {tail.which for tail in self._tails if not tail.begun}
        old = {tail.which for tail in self._tails if tail.begun}
        tails = list(self._tails)
        begun = {tail: tail.begun for tail in tails}
        latest, came = await asyncio.to_thread(_read, self._directory, follower, new, old | new)
        for tail in tails:
            if not begun[tail]:
                tail.put(latest[tail.which])
                tail.begun = True
            if batch := came.get(tail.which):
                tail.put(batch)
            await asyncio.sleep(0)  # between one reader's answer and the next there is time for pages

    def _end(self) -> None:
        for tail in self._tails:
            tail.end()


#: A loop's own; another directory, which only tests set, has another watch.
_watches: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Path, Watch]]] = WeakKeyDictionary()


def watch(directory: Path) -> Watch:
    """Return this worker's watch over a log directory."""
    watches = _watches.setdefault(asyncio.get_running_loop(), {})
    return watches.setdefault(directory, Watch(directory))


def _read(
    directory: Path, follower: Follower, new: set[Wanted], present: set[Wanted]
) -> tuple[dict[Wanted, Batch], dict[Wanted, Batch]]:
    """Return the latest lines for those who are new, and what has come for all; without an entry where nothing has."""
    latest = {which: _latest(directory, follower, which) for which in new}
    lines = [line for _ in range(_MOST_READS) for line in follower.read()]
    rendered: dict[bytes, str] = {}
    came = {}
    for which in present:
        fitting = [line for line in lines if which.holds(line)]
        if fitting:
            came[which] = _batch("lines", fitting, _MOST_LINES, rendered)
    return latest, came


def _latest(directory: Path, follower: Follower, which: Wanted) -> Batch:
    """Return the last lines before those that the follower will read."""
    most = _LATEST_BYTES_OF_ALL if which == _EVERYTHING else _LATEST_BYTES
    stamped: list[tuple[bytes, bytes]] = []
    for path in [path for path in found([directory]) if path.suffix == ".ndjson"][-_LATEST_FILES:]:
        with suppress(OSError), path.open("rb") as file:
            end = follower.begins.get(os.fstat(file.fileno()).st_ino, 0)
            begin = max(end - most, 0)
            file.seek(begin)
            stamped += stamps(file.read(end - begin).split(b"\n")[bool(begin) : -1])
    stamped.sort(key=itemgetter(0))
    return _batch("latest", [line for _, line in stamped if which.holds(line)], _MOST_LATEST, {})


def _batch(name: str, lines: Sequence[bytes], most: int, rendered: dict[bytes, str]) -> Batch:
    """Return an event with the last of some lines, the latest first; `rendered` keeps what others may need too."""
    shown = lines[: -most - 1 : -1]
    trace = reverse("ops:trace")
    for line in shown:
        if line not in rendered:
            rendered[line] = row(line, trace)
    left_out = len(lines) - len(shown)
    event = _event(name, {"rows": [rendered[line] for line in shown], "left_out": left_out})
    return Batch(event, len(shown), left_out)


def _event(name: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


@contextmanager
def _told_to_stop(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` when a signal tells this process to end, and then whoever listened for it before.

    A server that is to end waits for its answers, and tells them nothing: without this, a tail would keep it waiting.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    former = {number: handler for number in _STOPPING if callable(handler := signal.getsignal(number))}

    def told(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)
        former[signal.Signals(number)](number, frame)

    for number in former:
        signal.signal(number, told)
    try:
        yield
    finally:
        for number, handler in former.items():
            if signal.getsignal(number) is told:
                signal.signal(number, handler)
