"""Breakers that an operator holds open or closed in every worker of this machine.

A file says which, so that it works whoever writes it, survives a restart, and needs no worker to be found: each looks
at it twice a second. A hold that has a time ends by itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from gateway.running.tasks import reap
from upstreams import Fleet
from upstreams.breaker import State

_FILE: Final = "breakers.json"
_EVERY: Final = 0.5
_MODE: Final = 0o640
_STATES: Final[Mapping[str, Literal[State.OPEN, State.CLOSED]]] = {"open": State.OPEN, "closed": State.CLOSED}

_logger = logging.getLogger(__name__)


class Hold(msgspec.Struct, frozen=True):
    """What a breaker is held in, by whom, and until when (seconds since 1970; None: until it is let go)."""

    state: Literal["open", "closed"]
    by: str
    until: float | None = None

    @property
    def left(self) -> float | None:
        """How many seconds it has yet to go; None if it has no end."""
        return None if self.until is None else self.until - time.time()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.left is not None and self.left <= 0


def holds(directory: Path) -> dict[str, Hold]:
    """Return the holds there are, by upstream. Raises OSError or msgspec.DecodeError for a file that cannot be read."""
    try:
        content = (directory / _FILE).read_bytes()
    except FileNotFoundError:
        return {}
    try:
        found = msgspec.json.decode(content, type=dict[str, Hold])
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
    return {upstream: hold for upstream, hold in found.items() if not hold.over}


def hold(directory: Path, upstream: str, held: Hold | None) -> None:
    """Hold an upstream's breaker, or (None) let it go. Raises OSError.

    A file that cannot be read is written anew: what it said is lost.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with os.fdopen(_lock(directory / f".{_FILE}.lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found: dict[str, Hold] = {}
        with suppress(msgspec.DecodeError):
            found = holds(directory)
        found.pop(upstream, None)
        if held is not None:
            found[upstream] = held
        _replace(directory / _FILE, msgspec.json.encode(found))


@asynccontextmanager
async def followed(directory: Path | None, fleet: Fleet) -> AsyncIterator[None]:
    """Keep a fleet's breakers as the directory's file says; without a directory nobody can hold them."""
    if directory is None:
        yield
        return
    following = _Following(directory, fleet)
    await following.look()
    task = asyncio.create_task(following.run())
    try:
        yield
    finally:
        await reap([task])


class _Following:
    """Live: what this worker's breakers are held in."""

    def __init__(self, directory: Path, fleet: Fleet) -> None:
        self._directory = directory
        self._fleet = fleet
        self._applied: dict[str, Hold] = {}
        self._fault = ""

    def __repr__(self) -> str:
        """Show what is held."""
        return f"<Following {self._applied}>"

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(_EVERY)
            await self.look()

    async def look(self) -> None:
        """Do as the file says; one that cannot be read changes nothing, and is complained of once."""
        try:
            wanted = await asyncio.to_thread(holds, self._directory)
        except (OSError, msgspec.DecodeError) as error:
            if str(error) != self._fault:
                self._fault = str(error)
                _logger.warning("%s cannot be read: %s", self._directory / _FILE, error)
            return
        self._fault = ""
        for upstream in [name for name in self._applied if name not in wanted]:
            over = self._applied.pop(upstream).over
            self._fleet.force(upstream, None, "(its time is over)" if over else "")
        for upstream, held in wanted.items():
            if self._applied.get(upstream) != held:
                self._applied[upstream] = held
                self._fleet.force(upstream, _STATES[held.state], f"by {held.by}", held.left)


def _lock(path: Path) -> int:
    """Open the file whose lock who writes must have. Raises OSError, also for a link: it could lead root anywhere."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    except FileExistsError:
        return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    _leave_to(path.parent, descriptor)
    return descriptor


def _leave_to(directory: Path, descriptor: int) -> None:
    """Give a file that root has just made to whom the folder belongs to: the workers read and write there too."""
    if os.geteuid() == 0:
        owner = directory.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole, or not at all."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), _MODE)
            _leave_to(path.parent, file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
