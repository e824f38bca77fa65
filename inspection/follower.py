"""What is added to the log's files while somebody looks: nothing twice, nothing left out, whatever rotates them."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, NamedTuple, Self, cast

from inspection.files import LONGEST_LINE
from inspection.search import UNREADABLE

_PLAIN, _PACKED = ".ndjson", ".ndjson.gz"
_CHUNK_BYTES: Final = 1024 * 1024
_BLOCK_BYTES: Final = 64 * 1024
#: A file that is gone is read for so many times more: who writes it may not have noticed.
_FAREWELLS: Final = 3
#: A file that has not been written for so many seconds is kept in mind, not open.
_ASLEEP_AFTER: Final = 3600.0
_HEAD: Final = b'{"timestamp":"'
_KEY: Final = b'"timestamp":"'
_STAMP: Final = 27


class _State(NamedTuple):
    """How a file was when it was last looked at: its plain size in bytes, and its time of writing in nanoseconds."""

    size: int
    written: int


class _Source:
    """Live: one file, and how far it has been read. A plain one may grow; a `packed` one is read once."""

    def __init__(self, name: str, file: IO[bytes] | None, state: _State, *, packed: bool = False) -> None:
        self.file = file
        self.state = state
        self._stem = name.removesuffix(_PLAIN)
        self.packed = packed
        self.farewells = 0
        self._begun = b""
        self._skipping = False

    def lines(self) -> list[bytes]:
        """Return the lines that were finished since the last time, or part of them where there are many."""
        if self.file is None:
            return []
        try:
            if self.looked_at().size < self.file.tell() and not self.packed:  # it was cut, and begins again
                self.file.seek(0)
                self._begun = b""
            chunk = self.file.read(_CHUNK_BYTES)
        except UNREADABLE:
            self.close()
            return []
        return self._whole(chunk) if chunk else []

    def looked_at(self) -> _State:
        """Return how the file is now, also when it has no name any more."""
        if self.file is not None and not self.packed:
            found = os.fstat(self.file.fileno())
            self.state = _State(found.st_size, found.st_mtime_ns)
        return self.state

    def is_another(self, name: str) -> bool:
        """Tell whether what has its inode is another file by now: it was not held open, and is gone.

        Rotation lengthens a name, and nothing unpacks a file.
        """
        if self.packed:
            return name.endswith(_PLAIN)
        return self.file is None and name != self._stem + _PLAIN and not name.startswith(f"{self._stem}-")

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def _whole(self, chunk: bytes) -> list[bytes]:
        *lines, begun = (self._begun + chunk).split(b"\n")
        if self._skipping and lines:
            self._skipping = False
            del lines[0]
        if len(begun) > LONGEST_LINE:
            self._skipping = True
            begun = b""
        self._begun = begun
        return lines


class Follower:
    """Live: the lines that come into a folder's log files, or one file, from the moment it is made on.

    A file is known by its inode, not by its name: one that is renamed goes on, a new one is read from its beginning,
    one that was cut is read from its new beginning, a line without its end is waited for. `read` never waits for
    anything but the disk; with nothing new it lists the folder and looks at the size of each file that is written.
    """

    def __init__(self, place: Path) -> None:
        self._name = place.name if place.is_file() else None
        self._folder = place.parent if self._name else place
        self._sources: dict[int, _Source] = {}
        self._packed: set[int] = set()
        for entry in self._entries():
            with suppress(OSError):
                self._meet_old(entry)

    def __repr__(self) -> str:
        """Show what is followed."""
        return f"<Follower {self._folder} {len(self._sources)} files>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def begins(self) -> Mapping[int, int]:
        """Where in each file reading will go on, in bytes, by the file's inode."""
        return {
            inode: source.file.tell() if source.file else source.state.size for inode, source in self._sources.items()
        }

    def read(self) -> list[bytes]:
        """Return the lines that were finished since the last time, by their timestamps; there may be more at once.

        Without their line ends. Empty when there is nothing new; at most 1 MiB of each file.
        """
        self._look_around()
        found = [lines for source in self._sources.values() if (lines := source.lines())]
        if len(found) < 2:  # a file's own order is not touched
            return found[0] if found else []
        stamped = [(stamp, line) for lines in found for stamp, line in stamps(lines)]
        stamped.sort(key=lambda pair: pair[0])
        return [line for _, line in stamped]

    def close(self) -> None:
        """Close the files."""
        for source in self._sources.values():
            source.close()

    def _look_around(self) -> None:
        """Meet the files that have come, and take leave of those that are gone."""
        present = set()
        for entry in self._entries():
            inode = entry.inode()
            present.add(inode)
            self._forget_another(inode, entry.name)
            with suppress(OSError):
                if inode not in self._sources and inode not in self._packed:
                    self._meet_new(entry)
                elif inode in self._sources:
                    self._look_at(entry, self._sources[inode])
        for inode in [inode for inode in self._sources if inode not in present]:
            self._take_leave(inode)
        self._packed &= present

    def _forget_another(self, inode: int, name: str) -> None:
        """Forget a file whose inode has been given to a new one."""
        if name.endswith(_PLAIN):
            self._packed.discard(inode)
        if inode in self._sources and self._sources[inode].is_another(name):
            self._sources.pop(inode).close()

    def _look_at(self, entry: os.DirEntry[str], source: _Source) -> None:
        """Wake a file that was written again, and let one sleep that was not."""
        if source.file is None and entry.name.endswith(_PLAIN):
            if entry.stat().st_size == source.state.size:
                return
            file, found = _opened(entry)
            if found.st_ino == entry.inode():
                source.file = file
                file.seek(min(source.state.size, found.st_size))
            else:  # renamed meanwhile: this one is met, or woken, by its own name
                file.close()
        elif source.file is not None and _is_old(source.state):
            source.close()

    def _take_leave(self, inode: int) -> None:
        source = self._sources[inode]
        source.farewells += 1
        if source.farewells > _FAREWELLS:
            source.close()
            del self._sources[inode]

    def _meet_old(self, entry: os.DirEntry[str]) -> None:
        """Note a file that was there before, and where its last whole line ends."""
        if entry.name.endswith(_PACKED):
            self._packed.add(entry.inode())
            return
        file, found = None, entry.stat()
        if not _is_old(_State(found.st_size, found.st_mtime_ns)):
            file, found = _opened(entry)
            file.seek(last_end(file, found.st_size))
        self._sources[found.st_ino] = _Source(entry.name, file, _State(found.st_size, found.st_mtime_ns))

    def _meet_new(self, entry: os.DirEntry[str]) -> None:
        """Read a file from its beginning, unless it is one of those that are known, in its other form."""
        if entry.name.endswith(_PLAIN):
            self._meet_plain(entry)
            return
        found = entry.stat()
        self._packed.add(found.st_ino)
        state = _State(_unpacked_size(entry), found.st_mtime_ns)
        if not any(_is_packed(source.looked_at(), state) for source in self._sources.values()):
            unpacked = cast("IO[bytes]", gzip.open(entry.path))  # noqa: SIM115 - the source closes it
            self._sources[found.st_ino] = _Source(entry.name, unpacked, state, packed=True)

    def _meet_plain(self, entry: os.DirEntry[str]) -> None:
        """Read a plain file: the one that is opened, for the one that was listed may have been renamed meanwhile."""
        file, found = _opened(entry)
        if found.st_ino in self._sources:
            file.close()
            return
        state = _State(found.st_size, found.st_mtime_ns)
        if any(source.packed and _is_packed(state, source.state) for source in self._sources.values()):
            file.seek(state.size)
        self._sources[found.st_ino] = _Source(entry.name, file, state)

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        with suppress(OSError), os.scandir(self._folder) as entries:
            yield from (entry for entry in entries if self._is_wanted(entry))

    def _is_wanted(self, entry: os.DirEntry[str]) -> bool:
        if self._name is not None:
            return entry.name == self._name or entry.inode() in self._sources
        return entry.name.endswith((_PLAIN, _PACKED))


def stamps(lines: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield lines with their timestamps as they are written; one without has that of the line before it."""
    stamp = b""
    for line in lines:
        stamp = stamp_of(line) or stamp
        yield stamp, line


def stamp_of(line: bytes) -> bytes:
    """Return a line's timestamp as it is written, without decoding the line; empty if there is none."""
    begin = len(_HEAD) if line.startswith(_HEAD) else line.find(_KEY) + len(_KEY)
    return line[begin : begin + _STAMP] if begin >= len(_KEY) else b""


def last_end(file: IO[bytes], size: int) -> int:
    """Return where the last whole line of a file of some size ends."""
    end = size
    while end > 0:
        begin = max(end - _BLOCK_BYTES, 0)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _opened(entry: os.DirEntry[str]) -> tuple[IO[bytes], os.stat_result]:
    """Open a file, and tell which one it is: its name may lead to another by now. Raises OSError."""
    file = Path(entry.path).open("rb", buffering=0)  # noqa: SIM115 - the source closes it
    return file, os.fstat(file.fileno())


def _is_old(state: _State) -> bool:
    return time.time() - state.written / 1e9 > _ASLEEP_AFTER


def _is_packed(plain: _State, packed: _State) -> bool:
    """Tell whether a compressed file is what has become of a plain one: the time of writing goes along."""
    return plain.written == packed.written and plain.size % 2**32 == packed.size


def _unpacked_size(entry: os.DirEntry[str]) -> int:
    """Return what a gzip file's last bytes say of its plain size (RFC 1952: modulo 2^32). Raises OSError."""
    with Path(entry.path).open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little")
