"""Somebody's SELECT in a process of its own, which is killed if need be.

DuckDB neither stops nor minds its limit of memory while it evaluates a single expression, such as a list of a thousand
million numbers. The system does, when it is a process's.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from inspection.database import Logs, Table
from inspection.fault import Unanswerable
from inspection.fields import Fields
from inspection.filters import Filter
from inspection.times import Window

_MEMORY: Final = 1024 * 1024 * 1024
_START_TIME: Final = 5.0
_TOO_MUCH: Final = "stopped, for it took too much memory or time; narrow it with --since or -f"
_INHERITED: Final = ("PYTHON", "COVERAGE", "PATH", "LD_LIBRARY_PATH", "LANG", "LC_")
_ROOT: Final = Path(__file__).parent.parent


class Asked(msgspec.Struct):
    """What the process is asked: a SELECT, and of which lines."""

    files: list[str]
    fields: dict[str, str]
    window: Window
    filters: list[Filter]
    select: str
    limit: int
    seconds: float


class Answered(msgspec.Struct):
    """What it answers: a table, or why there is none."""

    table: tuple[list[str], list[str], list[list[Any]], bool] | None = None
    fault: str = ""


def table(
    files: Sequence[Path],
    fields: Fields,
    window: Window,
    filters: Sequence[Filter],
    select: str,
    *,
    limit: int,
    seconds: float,
) -> Table:
    """Return what a SELECT gives, as Logs.table does, in a process of its own. Values are such as JSON has.

    Raises Unanswerable as Logs.table does, and when the process needs more than 1 GiB, or does not stop in time.
    """
    paths = [str(path.absolute()) for path in files]
    asked = Asked(paths, dict(fields.types), window, list(filters), select, limit, seconds)
    with tempfile.TemporaryDirectory(prefix="tributary-logs-") as folder:
        try:
            process = subprocess.run(
                [sys.executable, "-m", "inspection.sandbox"],
                input=msgspec.msgpack.encode(asked),
                capture_output=True,
                cwd=_ROOT,
                env={**_kept(), "TMPDIR": folder, "HOME": folder},
                timeout=seconds + _START_TIME,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unanswerable(_TOO_MUCH) from None
    if process.returncode:
        raise Unanswerable(_TOO_MUCH)
    sys.stderr.write(process.stderr.decode(errors="replace"))
    answered = msgspec.msgpack.decode(process.stdout, type=Answered)
    if answered.table is None:
        raise Unanswerable(answered.fault)
    names, types, rows, more = answered.table
    return Table(names, types, [tuple(row) for row in rows], more)


def main() -> None:
    """Answer what standard input asks on standard output."""
    asked = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Asked)
    fields = Fields.of(asked.fields)
    try:
        logs = Logs([Path(path) for path in asked.files], fields, asked.window, asked.filters)
        _limit()
        found = logs.table(asked.select, limit=asked.limit, seconds=asked.seconds)
        rows = [[plain(value) for value in row] for row in found.rows]
        answered = Answered((found.names, found.types, rows, found.more))
    except Unanswerable as fault:
        answered = Answered(fault=str(fault))
    sys.stdout.buffer.write(msgspec.msgpack.encode(answered))


def plain(value: Any) -> Any:
    """Return a value of DuckDB's as JSON has it; what JSON has none for as text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value if not isinstance(value, int) or abs(value) < 1 << 63 else str(value)
    if isinstance(value, (list, tuple)):
        return [plain(below) for below in value]
    if isinstance(value, Mapping):
        return {str(key): plain(below) for key, below in value.items()}
    return _scalar(value)


def _kept() -> dict[str, str]:
    """Return what the process inherits of the environment: how Python runs, and no secret."""
    return {name: value for name, value in os.environ.items() if name.startswith(_INHERITED)}


def _scalar(value: Any) -> Any:
    match value:
        case Decimal():
            return float(value)
        case datetime():
            return value.isoformat(timespec="microseconds")
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case _:
            return str(value)


def _limit() -> None:
    """Let this process have so much memory and no more, and leave no core behind; some systems have no such limit."""
    for kind, most in ((resource.RLIMIT_DATA, _MEMORY), (resource.RLIMIT_CORE, 0)):
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    main()
