"""How many lines a process has handed to its log: eight bytes in a file, which outlive the process, however it ends.

The file, `gateway-<pid>.count`, is locked by its process as long as that lives: so the files of a dead process are told
from those of a living one.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

_NUMBER: Final = struct.Struct("<Q")
_MODE: Final = 0o640
_pack: Final = _NUMBER.pack_into  # in one step


class Tally:
    """The number of the last line handed over (0 before the first), and where it stands, little endian.

    That is memory of the process's own, or a mapped file. `memory` is never closed, only let go of: a thread may be
    about to write to it.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count from nothing, in memory of this process's own."""
        self.number = 0
        self.memory: bytearray | mmap.mmap = bytearray(_NUMBER.size)

    def __repr__(self) -> str:
        """Show the number."""
        return f"<Tally {self.number}>"

    def count(self, number: int) -> None:
        """Put a line's number there."""
        self.number = number  # before it stands anywhere: who moves the count sees by it what it has overwritten
        _pack(self.memory, 0, number)

    def move(self, memory: bytearray | mmap.mmap) -> None:
        """Count there from now on, and bring the number along, also one that another thread counts meanwhile."""
        self.memory = memory
        while _read(memory) < self.number:
            _pack(memory, 0, self.number)


class Claim:
    """A process's files are this one's to write, or a dead one's are its to put in order: the lock on their count."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def on(cls, path: Path) -> Claim | None:
        """Take the lock of the count at this path, which is made if it is not there; None if somebody else has it.

        Raises OSError where there can be no file or no lock.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        claim = cls(path, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            claim.drop()
            return None
        except OSError:
            claim.drop()
            raise
        if claim.stands():
            return claim
        claim.drop()  # between its opening and its locking, who had it has removed or renamed it
        return None

    def stands(self) -> bool:
        """Tell whether the locked file is still the one at the path."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def counted(self) -> bool:
        """Tell whether a process has counted in this file."""
        return os.fstat(self._descriptor).st_size == _NUMBER.size

    def changed(self) -> float:
        """Return when a number was last seen to come into the file, in seconds since 1970."""
        return os.fstat(self._descriptor).st_mtime

    def hold(self, tally: Tally) -> None:
        """Count in this file. Raises OSError."""
        # Room is taken by writing, not by making it longer: a mapped page for which the disk has no room kills.
        if os.pwrite(self._descriptor, bytes(_NUMBER.size), 0) < _NUMBER.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        tally.move(mmap.mmap(self._descriptor, _NUMBER.size))

    def rename(self, path: Path) -> None:
        """Keep the count under another name."""
        self._path.rename(path)

    def remove(self) -> None:
        """Remove the count, unless another has come in its place."""
        if self.stands():
            with suppress(OSError):
                self._path.unlink()

    def drop(self) -> None:
        """Let go: of the lock too, once nothing counts in the file any more."""
        with suppress(OSError):
            os.close(self._descriptor)


def _read(memory: bytearray | mmap.mmap) -> int:
    number: int = _NUMBER.unpack_from(memory)[0]
    return number
