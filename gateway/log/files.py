"""The files of a log directory: what their names say, and how one that is full or left behind is set aside.

gateway-<pid>.ndjson                the file a process writes
gateway-<pid>.count                 how many lines it has handed over (count.py)
gateway-<pid>-<time>.ndjson[.gz]    one set aside; `time` is that of its last line, UTC, to the microsecond
gateway-<pid>-<time>.count          the count of a process that ended without taking it along
gateway-<pid>-<time>.part           one that is being compressed
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from gateway.log.count import Claim

CURRENT: Final = "ndjson"
PACKED: Final = "ndjson.gz"
COUNT: Final = "count"
PART: Final = "part"
_NAME: Final = re.compile(
    r"gateway-([1-9][0-9]{0,9})(?:-([0-9]{8}T[0-9]{6}\.[0-9]{6}Z))?\.(ndjson|ndjson\.gz|count|part)"
)
_STAMP: Final = "%Y%m%dT%H%M%S.%fZ"
# A file that has no count may be a living process's, whose count could not be made or was removed. Such a process finds
# out that its file was set aside before it writes again, and makes another; it is left alone while it is likely to
# write, so that nothing depends on that.
_ABANDONED_AFTER: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """A file is set aside at `file_bytes`; what is set aside is kept for `keep_days` and within `keep_bytes` in all."""

    file_bytes: int = 128 * 1024 * 1024
    keep_days: float = 14.0
    keep_bytes: int = 4 * 1024 * 1024 * 1024


class Entry(NamedTuple):
    """A file of the log, by its name. `stamp` is the time in it, which sorts as text; None for what is in use."""

    pid: int
    stamp: str | None
    kind: str

    def path(self, directory: Path) -> Path:
        """Return where it is."""
        stem = f"gateway-{self.pid}-{self.stamp}" if self.stamp else f"gateway-{self.pid}"
        return directory / f"{stem}.{self.kind}"


def listed(directory: Path) -> Iterator[Entry]:
    """Yield the log's files; what is named otherwise is not the log's. Nothing where there is no directory."""
    with suppress(OSError):
        for path in directory.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and (match[2] is None or _moment(match[2])):
                yield Entry(int(match[1]), match[2], match[3])


def age(stamp: str) -> timedelta:
    """Return how long ago a stamp's time was."""
    return datetime.now(UTC) - (_moment(stamp) or datetime.now(UTC))


def set_aside(directory: Path, pid: int, last_written: float) -> Entry:
    """Rename a process's file by the time of its last line, in seconds since 1970; returns it under its new name.

    Only for who holds the claim. Raises OSError: FileNotFoundError if there is no file.
    """
    aside = Entry(pid, _next_stamp(directory, pid, last_written), CURRENT)
    Entry(pid, None, CURRENT).path(directory).rename(aside.path(directory))
    return aside


def claimed(directory: Path, pid: int) -> Claim | None:
    """Return the claim on a process's files, None where another has it. Raises OSError."""
    return Claim.on(Entry(pid, None, COUNT).path(directory))


def adopt(directory: Path, pid: int) -> None:
    """Set aside what a dead process of that pid left, its count beside its file. A living one's is not touched.

    Raises OSError.
    """
    count, current = (Entry(pid, None, kind).path(directory) for kind in (COUNT, CURRENT))
    if not count.exists() and not _abandoned(current):
        return
    claim = claimed(directory, pid)
    if claim is None:
        return
    try:
        if claim.counted() or _abandoned(current):
            adopt_claimed(directory, pid, claim)
        else:
            claim.remove()
    finally:
        claim.drop()


def adopt_claimed(directory: Path, pid: int, claim: Claim) -> None:
    """Set aside a dead process's file and count, which this process has claimed; the claim is void then."""
    # The file goes first: if this process too dies in between, the count is still there to say that the file's is dead.
    try:
        written = Entry(pid, None, CURRENT).path(directory).stat().st_mtime
        stamp = set_aside(directory, pid, written).stamp
    except FileNotFoundError:
        stamp = _next_stamp(directory, pid, claim.changed())
    if claim.counted():
        claim.rename(Entry(pid, stamp, COUNT).path(directory))
    else:
        claim.remove()


def _abandoned(current: Path) -> bool:
    """Tell whether a file is there and has not been written for an hour."""
    try:
        return time.time() - current.stat().st_mtime > _ABANDONED_AFTER
    except FileNotFoundError:
        return False


def _next_stamp(directory: Path, pid: int, seconds: float) -> str:
    """Return a time as it stands in a name, later than every other of that pid, whatever the clock says."""
    newest = max((entry.stamp for entry in listed(directory) if entry.pid == pid and entry.stamp), default=None)
    moment = datetime.fromtimestamp(seconds, UTC)
    former = _moment(newest) if newest else None
    if former is not None and moment <= former:
        moment = former + timedelta(microseconds=1)
    return moment.strftime(_STAMP)


def _moment(stamp: str) -> datetime | None:
    try:
        return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
