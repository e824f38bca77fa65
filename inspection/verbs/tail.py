"""`tail`: the log's last lines, of all files together, and those that come."""

from __future__ import annotations

import argparse
import heapq
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec

from inspection.database import Logs
from inspection.fault import Unanswerable, nearest
from inspection.fields import Fields
from inspection.files import LIVE, places
from inspection.filters import Filter
from inspection.follower import Follower, last_end, stamp_of, stamps
from inspection.question import Question, Verb
from inspection.search import UNREADABLE, lines_of, opened
from inspection.showing.lines import safe, shown
from inspection.showing.paint import DIM, Paint
from inspection.times import stamp

_LINES: Final = 50
_BLOCK_BYTES: Final = 64 * 1024
_PACKED: Final = (".gz", ".zst")
_WAIT: Final = 0.25
_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_SHORT: Final = {"warn": "warning", "crit": "critical", "err": "error"}
_LATEST: Final = b"\xff"
#: Lines of one process may be this far out of order, in seconds, where threads log.
_DISORDER: Final = timedelta(seconds=2)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-F", "--follow", action="store_true", help="go on with the lines that come, until Ctrl-C")
    parser.add_argument("-n", "--lines", type=int, metavar="N", help="so many lines (default: 50; all with --since)")
    parser.add_argument(
        "-l", "--level", metavar="LEVEL", help="of this level and above: debug, info, warn, error, crit"
    )


def answer(question: Question) -> Iterator[msgspec.Raw]:
    """Yield the lines that were asked for, as they are in the log: by their timestamps, then as they come.

    What is no JSON is among them only where people read it, and nothing is asked of a line. Raises Unanswerable for a
    level that is none, or no number of lines.
    """
    if question.options.lines is not None and question.options.lines < 1:
        raise Unanswerable("-n is a number of lines, 1 at least")
    asked = _Asked(question)
    return (msgspec.Raw(line) for line in _lines(question, asked))


def _lines(question: Question, asked: _Asked) -> Iterator[bytes]:
    options = question.options
    if LIVE in question.files:
        stream = sys.stdin.buffer
        yield from filter(asked.holds, (line[max(line.find(b"{"), 0) :].rstrip(b"\n") for line in stream))
        return
    with ExitStack() as closing:
        followed = places(options.dir) if options.follow else ()
        followers = [closing.enter_context(Follower(place)) for place in followed]
        begins = {inode: at for follower in followers for inode, at in follower.begins.items()}
        ends = begins if followers else None
        count = options.lines if options.lines is not None else _LINES if question.window.since is None else None
        if count is None:
            yield from _since(question.files, asked, ends)
        else:
            yield from _last(question.files, count, asked, ends)
        while followers:
            came = [line for follower in followers for line in follower.read()]
            yield from filter(asked.holds, came)
            if not came:
                time.sleep(_WAIT)


class _Asked:
    """What is asked of a line: a level, a window, filters. Much is found out without decoding it.

    Where lines are of times before `begin` or after `end`, none that is asked for is before or after them in its file.
    """

    def __init__(self, question: Question) -> None:
        self._window = question.window
        self._filters = question.filters
        self._levels = _levels(question.options.level)
        self._marks = [f'"{level}"'.encode() for level in self._levels]
        self._parts = [part for condition in self._filters if (part := _part(condition))]
        since, until = self._window.texts
        self.begin = _shifted(since, -_DISORDER) if since else b""
        self.end = _shifted(until, _DISORDER) if until else b"\xff"
        self._everything = not (self._levels or self._filters or since or until or question.options.json)

    def may_be_in(self, text: bytes) -> bool:
        """Tell whether a line that is asked for can be in a text, by what it must have in it."""
        return (not self._marks or any(mark in text for mark in self._marks)) and all(
            part in text for part in self._parts
        )

    def holds(self, line: bytes) -> bool:
        """Tell whether a line is asked for."""
        if self._everything:
            return line != b""
        if not self.may_be_in(line):
            return False
        try:
            fields = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return isinstance(fields, dict) and self._fits(fields)

    def _fits(self, fields: Mapping[str, Any]) -> bool:
        when = fields.get("timestamp")
        return (
            isinstance(when, str)
            and self._window.has(when)
            and (not self._levels or fields.get("level") in self._levels)
            and all(condition.holds(fields) for condition in self._filters)
        )


def _levels(written: str | None) -> Sequence[str]:
    if written is None:
        return ()
    level = _SHORT.get(written.lower(), written.lower())
    if level not in _LEVELS:
        raise Unanswerable(f"there is no level {written!r}{nearest(level, _LEVELS)}")
    return _LEVELS[_LEVELS.index(level) :]


def _part(condition: Filter) -> bytes | None:
    """Return what a line must have in it to meet a condition, if that can be told from its bytes."""
    plain = condition.value.isascii() and condition.value.isprintable() and not set(condition.value) & set('"\\')
    return condition.value.encode() if condition.sign == "=" and plain and not condition.number else None


class _Head(NamedTuple):
    """The next line of a file that is read backwards, by its timestamp, or how late that can be at most."""

    stamp: bytes
    line: bytes | None
    rest: Iterator[tuple[bytes, bytes]]


def _last(files: Sequence[Path], count: int, asked: _Asked, ends: Mapping[int, int] | None) -> list[bytes]:
    """Return the last lines that are asked for, of all files by their timestamps, reading no more than is needed.

    `ends` says by inode up to where a file is read: of one that is not named, nothing.
    """
    found: list[bytes] = []
    heads = [_Head(_latest(path), None, _backwards(path, asked, count, ends)) for path in files]
    while heads and len(found) < count:
        nth = max(range(len(heads)), key=lambda nth: heads[nth].stamp)
        head = heads.pop(nth)
        if head.stamp < asked.begin:
            continue
        if head.line is not None and asked.holds(head.line):
            found.append(head.line)
        after = next(head.rest, None)
        if after is not None:
            stamp, line = after
            heads.append(_Head(stamp or head.stamp, line, head.rest))
    found.reverse()
    return found


def _since(files: Sequence[Path], asked: _Asked, ends: Mapping[int, int] | None) -> Iterator[bytes]:
    """Yield the lines of the window that are asked for, of all files by their timestamps."""
    streams = [stamps(_onwards(path, asked, ends)) for path in files]
    for when, line in heapq.merge(*streams, key=lambda pair: pair[0]):
        if when > asked.end:
            return
        if asked.holds(line):
            yield line


def _latest(path: Path) -> bytes:
    """Return what no line's timestamp in a file is later than: when it was written last."""
    try:
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, ValueError, OverflowError):
        return _LATEST
    return stamp(written + _DISORDER).encode()


def _shifted(timestamp: str, by: timedelta) -> bytes:
    try:
        return stamp(datetime.fromisoformat(timestamp) + by).encode()
    except OverflowError:  # at the beginning or the end of all time
        return timestamp.encode()


def _backwards(path: Path, asked: _Asked, count: int, ends: Mapping[int, int] | None) -> Iterator[tuple[bytes, bytes]]:
    """Yield a file's lines with their timestamps, the last first; of a compressed one only those that are asked for."""
    with suppress(*UNREADABLE):
        if path.name.endswith(_PACKED):
            lines = deque(filter(asked.holds, _unpacked(path)), count)
            yield from ((stamp_of(line), line) for line in reversed(lines))
        else:
            with opened(path) as file:
                yield from ((stamp_of(line), line) for line in _from_end(file, _end(file, ends), asked))


def _unpacked(path: Path) -> Iterator[bytes]:
    """Yield the lines of a compressed file, as far as it can be read; what zstd packed only DuckDB can read."""
    if path.name.endswith(".zst"):
        yield from Logs([path], Fields()).texts("")
        return
    yield from lines_of(path)


def _end(file: IO[bytes], ends: Mapping[int, int] | None) -> int:
    found = os.fstat(file.fileno())
    return found.st_size if ends is None else min(ends.get(found.st_ino, 0), found.st_size)


def _from_end(file: IO[bytes], end: int, asked: _Asked) -> Iterator[bytes]:
    """Yield lines, the last first; one that is not whole is not there yet."""
    end = last_end(file, end)
    begun = b""
    while end > 0:
        begin = max(end - _BLOCK_BYTES, 0)
        file.seek(begin)
        block = file.read(end - begin) + begun
        first, whole, rest = block.partition(b"\n")
        if whole and asked.may_be_in(rest):
            yield from (line for line in reversed(rest.split(b"\n")) if line)
        begun, end = first + whole, begin
    if begun.rstrip(b"\n"):
        yield begun.rstrip(b"\n")


def _onwards(path: Path, asked: _Asked, ends: Mapping[int, int] | None) -> Iterator[bytes]:
    """Yield a file's lines from where the window begins."""
    if path.name.endswith(_PACKED):
        yield from _unpacked(path)
        return
    with suppress(*UNREADABLE), opened(path) as file:
        end = _end(file, ends)
        at = _place(file, asked.begin, end)
        file.seek(at)
        yield from _until(file, at, end, asked)


def _until(file: IO[bytes], at: int, end: int, asked: _Asked) -> Iterator[bytes]:
    begun = b""
    while at < end and (chunk := file.read(min(_BLOCK_BYTES, end - at))):
        at += len(chunk)
        lines, whole, begun = (begun + chunk).rpartition(b"\n")
        if whole and asked.may_be_in(lines):
            yield from (line for line in lines.split(b"\n") if line)


def _place(file: IO[bytes], begin: bytes, end: int) -> int:
    """Return where in a file, whose lines are in order, those of a timestamp begin, or a little before."""
    low, high = 0, end
    while high - low > _BLOCK_BYTES:
        middle = (low + high) // 2
        file.seek(middle)
        _, *lines = file.read(_BLOCK_BYTES).split(b"\n")
        found = next((stamp for line in lines[:-1] if (stamp := stamp_of(line))), b"")
        if found and found < begin:
            low = middle
        else:
            high = middle
    file.seek(low)
    return low + (file.read(_BLOCK_BYTES).find(b"\n") + 1 if low else 0)


def _show(line: Any, _: Question, paint: Paint) -> Iterator[str]:
    text = bytes(line)
    try:
        fields = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fields = None
    yield shown(fields, paint) if isinstance(fields, dict) else paint(DIM, safe(text.decode(errors="replace")))


TAIL: Final = Verb("tail", "The last lines of all files by their time, and those that come.", _arguments, answer, _show)
