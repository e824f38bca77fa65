"""What a process and all that it started have used: CPU time, memory. From Linux's /proc."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

_TICK = 1_000_000 / os.sysconf("SC_CLK_TCK")
_PARENT, _USER = 1, 11


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            children[int(_fields(stat)[_PARENT])].append(int(stat.parent.name))
    found = [pid]
    for one in found:  # grows as it is read
        found += children[one]
    return found


def cpu(pids: list[int]) -> list[float]:
    """Return the CPU time of each process, in microseconds: user's and system's, of threads that have ended too."""
    return [sum(map(int, _fields(Path(f"/proc/{pid}/stat"))[_USER : _USER + 2])) * _TICK for pid in pids]


def memory(pids: list[int], *, peak: bool) -> float:
    """Return the resident memory of processes, in bytes: the most since they began, or what it is now."""
    return sum(_kilobytes(pid, "VmHWM:" if peak else "VmRSS:") for pid in pids) * 1024.0


def _kilobytes(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _fields(stat: Path) -> list[str]:
    """Return the fields that follow the name of the program, which may have any character in it."""
    return stat.read_text().rpartition(") ")[2].split()
