"""Where lines end up: standard output, and a file for each process. Both write whole lines, whatever happens."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

#: A pipe takes this much in one piece, however many processes write to it.
_PIPE_BYTES: Final = 4096
_FILE_BYTES: Final = 64 * 1024
_FILE_MODE: Final = 0o640


class Stream:
    """A file descriptor that belongs to the whole process, as standard output does. `render` is for a terminal."""

    def __init__(self, descriptor: int, name: str, render: Callable[[bytes], bytes] | None = None) -> None:
        self.name = name
        self._descriptor = descriptor
        self._render = render
        self._begun = _Begun()

    def write(self, lines: list[bytes]) -> int:
        """Write lines in pieces that do not mix with another process's; returns how many are lost."""
        if self._render is not None:
            lines = [self._render(line) for line in lines]
        return self._begun.write(self._descriptor, lines, _PIPE_BYTES)

    def forget(self) -> None:
        """Keep the descriptor: a forked process shares it."""
        self._begun = _Begun()

    def close(self) -> None:
        """Leave the descriptor open: it is not ours."""


class File:
    """This process's own file, `gateway-<pid>.ndjson` in a directory. Made with its first line.

    It is made again when it has been moved or removed, so that rotation needs no signal and a lost directory is mended.
    """

    def __init__(self, directory: Path) -> None:
        self.name = "file"
        self._directory = directory
        self._descriptor: int | None = None
        self._begun = _Begun()

    def write(self, lines: list[bytes]) -> int:
        """Append lines; returns how many are lost."""
        lost = self._leave_moved()
        try:
            descriptor = self._descriptor if self._descriptor is not None else self._open()
        except OSError:
            return lost + len(lines)
        return lost + self._begun.write(descriptor, lines, _FILE_BYTES)

    def forget(self) -> None:
        """Let go of the parent's file; a forked process has its own."""
        self.close()
        self._begun = _Begun()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def _path(self) -> Path:
        return self._directory / f"gateway-{os.getpid()}.ndjson"

    def _open(self) -> int:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        return self._descriptor

    def _leave_moved(self) -> int:
        """Close a file that is no longer where it was made; returns whether a line was left half written in it."""
        if self._descriptor is None:
            return 0
        try:
            there = os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except OSError:
            there = False
        if there:
            return 0
        lost = int(self._begun.rest != b"")
        self.forget()
        return lost


class _Begun:
    """Keeps lines whole: what could not be written of a line that was begun is written before anything else."""

    def __init__(self) -> None:
        self.rest = b""

    def write(self, descriptor: int, lines: list[bytes], most: int) -> int:
        """Write lines in order, at most so many bytes at a time; returns how many were lost."""
        if self.rest:
            self.rest = self.rest[_write(descriptor, self.rest) :]
            if self.rest:
                return len(lines)
        lost = len(lines)
        for piece in _pieces(lines, most):
            written = _write(descriptor, b"".join(piece))
            lost -= self._kept(piece, written)
            if written < sum(map(len, piece)):
                break
        return lost

    def _kept(self, piece: list[bytes], written: int) -> int:
        """Count the lines that were written or, the last of them, begun."""
        for nth, line in enumerate(piece):
            if written < len(line):
                self.rest = line[written:] if written else b""
                return nth + bool(written)
            written -= len(line)
        return len(piece)


def _pieces(lines: list[bytes], most: int) -> Iterator[list[bytes]]:
    """Put lines, with their ends, together as long as they fit."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) >= most:
            yield piece
            piece, size = [], 0
        piece.append(line + b"\n")
        size += len(line) + 1
    if piece:
        yield piece


def _write(descriptor: int, data: bytes) -> int:
    """Write as much as can be, and return how much was."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            _wait_for(descriptor)
        except OSError:
            break
    return len(data) - len(rest)


def _wait_for(descriptor: int) -> None:
    """Wait until a descriptor that somebody made non-blocking takes more."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
