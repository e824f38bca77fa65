"""The log's files read as text, as they lie: which is faster than as JSON where a text in them is sought."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from isal import isal_zlib

from inspection.files import renamed

_CHUNK_BYTES: Final = 4 * 1024 * 1024
_PACKED_BYTES: Final = 256 * 1024
_GZIP: Final = 16 + isal_zlib.MAX_WBITS
_THREADS: Final = 2
#: What reading a file can end in: it is gone, cut off, or not compressed at all.
UNREADABLE: Final[tuple[type[Exception], ...]] = (
    OSError,
    EOFError,
    zlib.error,
    isal_zlib.error,  # type: ignore[assignment]  # its stub takes it for an instance
)


def containing(files: Sequence[Path], part: str) -> Iterator[bytes]:
    """Yield the lines in which a text occurs, whole and file by file; a file ends where it cannot be read on."""
    sought = part.encode()
    with ThreadPoolExecutor(_THREADS) as pool:  # the interpreter's lock is let go of while a file is read and unpacked
        for lines in pool.map(lambda path: list(_found(path, sought)), files):
            yield from lines


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield a plain or gzip file's lines without their ends, as far as it can be read; the last may be half a line."""
    begun = b""
    for piece in _pieces(path):
        *lines, begun = (begun + piece).split(b"\n")
        yield from lines
    if begun:
        yield begun


def opened(path: Path) -> IO[bytes]:
    """Open a file, also one that has just been rotated away. Raises OSError."""
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        for other in renamed(path):
            return other.open("rb", buffering=0)
        raise


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield a file's contents in large pieces, unpacked, as far as it can be read."""
    with suppress(*UNREADABLE), opened(path) as file:
        if Path(str(file.name)).suffix == ".gz":
            yield from _unpacked(file)
        else:
            while piece := file.read(_CHUNK_BYTES):
                yield piece


def _unpacked(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what a gzip file holds, which may be several one after the other."""
    unpacker = isal_zlib.decompressobj(_GZIP)
    while packed := file.read(_PACKED_BYTES):
        while packed:
            if piece := unpacker.decompress(packed):
                yield piece
            packed = unpacker.unused_data
            if unpacker.eof:
                unpacker = isal_zlib.decompressobj(_GZIP)


def _found(path: Path, sought: bytes) -> Iterator[bytes]:
    begun = b""
    for piece in _pieces(path):
        end = piece.rfind(b"\n") + 1
        if end:
            yield from _in_lines(begun + piece[:end], sought)
        begun = piece[end:] if end else begun + piece
    yield from _in_lines(begun, sought)


def _in_lines(lines: bytes, sought: bytes) -> Iterator[bytes]:
    end = 0
    while (at := lines.find(sought, end)) >= 0:
        begin, end = lines.rfind(b"\n", 0, at) + 1, lines.find(b"\n", at)
        end = end if end >= 0 else len(lines)
        yield lines[begin:end]
