"""What becomes of files that were set aside: compressed, and in time removed, by a thread that nobody waits for.

Any number of processes do this in one directory at once. A lock on a file says that somebody compresses it; a file that
is gone was somebody else's to remove.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from isal import isal_zlib

from gateway.log.files import COUNT, CURRENT, PACKED, PART, Entry, Limits, adopt, age, listed

#: ISA-L's own levels: on log lines 1 takes a quarter of the time that zlib takes at 3, and its files are 7 % larger.
_LEVEL: Final = 1
_GZIP: Final = 16 + isal_zlib.MAX_WBITS
#: Both small, for glibc keeps what a thread has used for other threads, and there may be eight of its arenas to a
#: processor. More memory makes neither the files smaller nor the work quicker; less does the contrary of both.
_MEMORY: Final = 3
_CHUNK_BYTES: Final = 64 * 1024
_MODE: Final = 0o640
_LINES: Final = frozenset({CURRENT, PACKED})


class Archive:
    """Puts a log directory in order whenever it is asked to, in a thread that ends when there is no more to do.

    The thread has no lower priority than others: kept waiting while it has the interpreter's lock, it would keep the
    event loop waiting too. It has that lock for microseconds; ISA-L and the disk do their work without.
    """

    def __init__(self, directory: Path, limits: Limits) -> None:
        self._directory = directory
        self._limits = limits
        self._asked = threading.Event()
        self._busy = threading.Lock()

    def tidy(self) -> None:
        """Ask for it; returns at once."""
        self._asked.set()
        if self._busy.acquire(blocking=False):
            try:
                threading.Thread(target=self._run, name="log-archive", daemon=True).start()
            except RuntimeError:  # no more threads: the next time will do
                self._busy.release()

    def _run(self) -> None:
        try:
            while self._asked.is_set():
                self._asked.clear()
                adopt_dead(self._directory)
                compress(self._directory)
                prune(self._directory, self._limits)
        finally:
            self._busy.release()
        if self._asked.is_set():  # since the last look
            self.tidy()


def adopt_dead(directory: Path) -> None:
    """Set aside what processes left that died."""
    for pid in {entry.pid for entry in listed(directory) if entry.stamp is None and entry.pid != os.getpid()}:
        with suppress(OSError):
            adopt(directory, pid)


def compress(directory: Path) -> None:
    """Compress what was set aside, the oldest first. What cannot be, for want of room, stays as it is."""
    plain = [entry for entry in listed(directory) if entry.stamp and entry.kind == CURRENT]
    for entry in sorted(plain, key=_stamp):
        with suppress(OSError):
            _compress(entry, directory)


def prune(directory: Path, limits: Limits) -> None:
    """Remove what is too old, then the oldest until all are small enough together. Never a file that is in use."""
    sizes = {entry: size for entry in listed(directory) if (size := _size(entry, directory)) is not None}
    total = sum(size for entry, size in sizes.items() if entry.kind in _LINES)
    for entry in sorted((entry for entry in sizes if entry.stamp), key=_stamp):
        aged = age(_stamp(entry)) > timedelta(days=limits.keep_days)
        if entry.kind in _LINES and (aged or total > limits.keep_bytes):
            total -= sizes[entry]
            _remove(entry, directory)
            _remove(entry._replace(kind=COUNT), directory)  # the older files that it is about are gone already
        elif (entry.kind == COUNT and aged) or (entry.kind == PART and not _plain(entry).path(directory).exists()):
            _remove(entry, directory)


def _compress(entry: Entry, directory: Path) -> None:
    plain, part, packed = (entry._replace(kind=kind).path(directory) for kind in (CURRENT, PART, PACKED))
    with plain.open("rb", buffering=0) as source:
        fcntl.flock(source, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(source.fileno())
        if not os.path.samestat(found, plain.stat()):
            return
        try:
            _pack(source.fileno(), part)
            if source.read(1):
                raise BlockingIOError(errno.EAGAIN, "somebody is still writing to it")  # noqa: TRY301
            os.utime(part, ns=(found.st_atime_ns, found.st_mtime_ns))
            part.rename(packed)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        plain.unlink()


def _pack(source: int, path: Path) -> None:
    """Write a file compressed, and have it on the disk: the plain one is about to go. Raises OSError."""
    compressor = isal_zlib.compressobj(_LEVEL, wbits=_GZIP, memLevel=_MEMORY)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
    with os.fdopen(descriptor, "wb", buffering=_CHUNK_BYTES) as part:
        while chunk := os.read(source, _CHUNK_BYTES):
            part.write(compressor.compress(chunk))
        part.write(compressor.flush())
        part.flush()
        os.fsync(descriptor)


def _plain(part: Entry) -> Entry:
    """Return what a part is, or was, the compressed form of."""
    return part._replace(kind=CURRENT)


def _stamp(entry: Entry) -> str:
    return entry.stamp or ""


def _size(entry: Entry, directory: Path) -> int | None:
    try:
        return entry.path(directory).stat().st_size
    except OSError:
        return None


def _remove(entry: Entry, directory: Path) -> None:
    with suppress(OSError):
        entry.path(directory).unlink()
