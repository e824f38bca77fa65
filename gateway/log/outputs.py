"""Where lines end up: standard output, and a file for each process. Both write whole lines, whatever happens."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.log.archive import Archive
from gateway.log.count import Claim, Tally
from gateway.log.files import CURRENT, Entry, Limits, adopt_claimed, claimed, set_aside

#: A pipe takes this much in one piece, however many processes write to it.
_PIPE_BYTES: Final = 4096
_FILE_BYTES: Final = 64 * 1024
_FILE_MODE: Final = 0o640
#: Who sets aside what a dead process left has the claim on it for milliseconds.
_CLAIM_WAITS: Final = 20
_CLAIM_WAIT: Final = 0.01


class Stream:
    """A file descriptor that belongs to the whole process, as standard output does. `render` is for a terminal."""

    def __init__(self, descriptor: int, name: str, render: Callable[[bytes], bytes] | None = None) -> None:
        self.name = name
        self._descriptor = descriptor
        self._render = render
        self._piece = _PIPE_BYTES
        self._begun = _Begun()

    def begin(self) -> None:
        """See what the descriptor leads to: a file takes much more in one piece than a pipe or a socket."""
        if stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            self._piece = _FILE_BYTES

    def write(self, lines: list[bytes]) -> int:
        """Write lines in pieces that do not mix with another process's; returns how many are lost."""
        if self._render is not None:
            lines = [self._render(line) for line in lines]
        return self._begun.write(self._descriptor, lines, self._piece)

    def forget(self) -> None:
        """Keep the descriptor: a forked process shares it."""
        self._begun = _Begun()

    def close(self) -> None:
        """Leave the descriptor open: it is not ours."""


class File:
    """This process's own file, `gateway-<pid>.ndjson` in a directory. Made with its first line.

    One that has reached its size is set aside, and another made; so it is when it has been moved or removed, so that
    rotation needs no signal and a lost directory is mended. `tally` is kept beside it, for when the process is killed.
    """

    def __init__(self, directory: Path, tally: Tally, limits: Limits) -> None:
        self.name = "file"
        self._directory = directory
        self._tally = tally
        self._limits = limits
        self._begin()

    def _begin(self) -> None:
        # Asked for with each write, and kept: a new Path interns its name, and the interpreter's table of interned
        # strings, two megabytes of it, is made anew whenever so many have come and gone.
        self._path = Entry(os.getpid(), None, CURRENT).path(self._directory)
        self._descriptor: int | None = None
        self._written: os.stat_result | None = None
        self._begun = _Begun()
        self._claim: Claim | None = None
        self._closed = False
        self._waits = _CLAIM_WAITS
        self._whole = True
        self._archive = Archive(self._directory, self._limits)

    def begin(self) -> None:
        """Have lines be counted from now on, also those that are lost before the first is written."""
        with suppress(OSError):
            self._take()

    def write(self, lines: list[bytes]) -> int:
        """Append lines; returns how many are lost."""
        lost = self._leave_moved()
        if self._claim is None and not self._closed:  # where there are no locks, lines are written all the same
            with suppress(OSError):
                self._take()
            lost += self._leave_moved()
        try:
            descriptor = self._descriptor if self._descriptor is not None else self._open()
        except OSError:
            self._whole = False
            return lost + len(lines)
        missed = self._begun.write(descriptor, lines, _FILE_BYTES)
        self._whole = not missed and not self._begun.rest
        self._set_aside_full(descriptor)
        return lost + missed

    def forget(self) -> None:
        """Let go of the parent's file and count; a forked process has its own."""
        self._close()
        if self._claim is not None:
            self._claim.drop()
        self._begin()

    def close(self) -> None:
        """Close the file, and remove the count unless it has a loss to tell of.

        The next line opens the file again, and is not counted: a server that was told to stop says two words more, and
        dies by the signal before they may be written, which is no loss to tell of.
        """
        self._closed = True
        self._close()
        if self._claim is not None:
            self._let_go(self._claim, remove=self._whole)

    def _open(self) -> int:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        self._written = os.fstat(self._descriptor)
        return self._descriptor

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)

    def _take(self) -> None:
        """Get the claim on the files of this pid, and count beside them. Raises OSError."""
        if self._claim is not None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        claim = self._claimed()
        if claim is None:
            return
        try:
            claim.hold(self._tally)
        except OSError:
            claim.remove()  # a count that nobody has locked would be a dead process's
            claim.drop()
            raise
        self._claim = claim
        self._archive.tidy()

    def _claimed(self) -> Claim | None:
        """Return the claim once nothing of another process's is left; at first, wait a little for who is tidying up."""
        while True:
            claim = claimed(self._directory, os.getpid())
            if claim is None and not self._waits:
                return None
            if claim is None:
                self._waits -= 1
                time.sleep(_CLAIM_WAIT)
            elif claim.counted() or self._is_anothers():
                try:
                    adopt_claimed(self._directory, os.getpid(), claim)
                finally:
                    claim.drop()
            else:
                return claim

    def _is_anothers(self) -> bool:
        """Tell whether the file that is there was written by another process."""
        return self._path.exists() and not self._is_there()

    def _is_there(self) -> bool:
        """Tell whether the file that was written last is still where it was made."""
        try:
            return self._written is not None and os.path.samestat(self._path.stat(), self._written)
        except OSError:
            return False

    def _leave_moved(self) -> int:
        """Close a file that is no longer where it was made; returns whether a line was left half written in it."""
        if self._written is None or self._is_there():
            return 0
        lost = int(self._begun.rest != b"")
        self._begun = _Begun()
        self._leave()
        if self._claim is not None and not self._claim.stands():
            self._let_go(self._claim, remove=False)
        return lost

    def _leave(self) -> None:
        """Close the file, not to come back to it."""
        self._close()
        self._written = None

    def _let_go(self, claim: Claim, *, remove: bool) -> None:
        self._claim = None
        self._tally.move(bytearray(self._tally.memory[:]))
        if remove:
            claim.remove()
        claim.drop()

    def _set_aside_full(self, descriptor: int) -> None:
        """Set aside a file that has reached its size, between two lines; one that cannot be moved goes on."""
        if self._claim is None or self._begun.rest or os.fstat(descriptor).st_size < self._limits.file_bytes:
            return
        with suppress(OSError):
            set_aside(self._directory, os.getpid(), time.time())
            self._leave()
            self._archive.tidy()


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
            data = b"\n".join([*piece, b""])
            written = _write(descriptor, data)
            if written < len(data):
                return lost - self._kept(piece, written)
            lost -= len(piece)
        return lost

    def _kept(self, piece: list[bytes], written: int) -> int:
        """Count the lines that were written or, the last of them, begun; at least a byte of them was not."""
        kept = 0
        while written > len(piece[kept]):
            written -= len(piece[kept]) + 1
            kept += 1
        self.rest = piece[kept][written:] + b"\n" if written else b""
        return kept + bool(written)


def _pieces(lines: list[bytes], most: int) -> Iterator[list[bytes]]:
    """Put lines together as long as they fit, with their ends."""
    if sum(map(len, lines)) + len(lines) <= most:
        yield lines
        return
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) >= most:
            yield piece
            piece, size = [], 0
        piece.append(line)
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
