"""The gateway's processes, by what they leave beside their files: whether they run, and how many lines they logged.

`gateway-<pid>.count` lies beside a process's file, `gateway-<pid>-<time>.count` beside those of one that was killed:
the number of the last line it handed to its file, eight bytes, little endian. Its process keeps it locked while it
lives.
"""

from __future__ import annotations

import fcntl
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_FILE: Final = re.compile(r"gateway-([0-9]{1,10})(?:-([0-9T.]+Z))?\.ndjson(?:\.gz|\.zst)?")
_COUNT: Final = re.compile(r"gateway-([0-9]{1,10})(?:-([0-9T.]+Z))?\.count")
_NUMBER_BYTES: Final = 8


class Name(NamedTuple):
    """What a file's name says: whose it is, and the time of its last line if it was set aside."""

    pid: int
    stamp: str | None


class Count(NamedTuple):
    """A count: by its process's name, how many lines were handed over, and whether the process is alive."""

    name: Name
    number: int
    running: bool


def named(path: Path) -> Name | None:
    """Return what a log file's name says; None for a name that is none of the gateway's."""
    match = _FILE.fullmatch(path.name)
    return Name(int(match[1]), match[2]) if match else None


def counts(folder: Path) -> list[Count]:
    """Return the counts in a folder, those of what is in use last; one that cannot be read is left out."""
    found = []
    with suppress(OSError):
        for path in folder.iterdir():
            match = _COUNT.fullmatch(path.name)
            if match is None:
                continue
            with suppress(OSError):
                found.append(_count(path, Name(int(match[1]), match[2])))
    return sorted(found, key=lambda count: (count.name.pid, count.name.stamp or "9"))


def state(folder: Path, process: str) -> str:
    """Tell of a process, by its service.instance.id, whether it is `running` or `ended`, or whether that is `unknown`.

    Unknown is what another machine's process does, unless its count is here, and one's that keeps no count.
    """
    host, _, pid = process.rpartition("-")
    here = next((count for count in counts(folder) if str(count.name.pid) == pid and count.name.stamp is None), None)
    if here is not None:
        return "running" if here.running else "ended"
    return (
        "ended" if host == socket.gethostname() and pid.isdecimal() and not Path(f"/proc/{pid}").exists() else "unknown"
    )


def _count(path: Path, name: Name) -> Count:
    with path.open("rb") as file:
        number = int.from_bytes(file.read(_NUMBER_BYTES), "little")
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Count(name, number, running=True)
        return Count(name, number, running=False)
