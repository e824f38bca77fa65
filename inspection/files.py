"""The log's files: a folder's plain, gzip and zstd files together, some files by name, or what comes in on stdin."""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from inspection.fault import Unanswerable
from inspection.times import Window, parsed

_ENDINGS: Final = (".ndjson", ".ndjson.gz", ".ndjson.zst")
_SAMPLE_BYTES: Final = 256 * 1024
_SAMPLED_FILES: Final = 8
_GLANCE_BYTES: Final = 8 * 1024
#: In bytes. A longer line is none of the gateway's, and is passed over.
LONGEST_LINE: Final = 4 * 1024 * 1024
STDIN: Final = "-"
#: Standard input, where it is read as it comes.
LIVE: Final = Path("/dev/stdin")


def places(given: Sequence[str] | None) -> list[Path]:
    """Return where the log is: what was given, else LOG_DIR, else `logs` here."""
    return [Path(place) for place in given or [os.environ.get("LOG_DIR") or "logs"]]


def found(places: Sequence[Path]) -> list[Path]:
    """Return the log files that some folders and files are, the latest written last. Raises Unanswerable.

    Of a file that is there plain and packed, as it is while it is being packed, the plain one counts.
    """
    files: dict[Path, float] = {}
    for place in places:
        if not place.exists():
            raise Unanswerable(f"there is no {place}: name the log's folder with --dir, or in LOG_DIR")
        for path in _files(place):
            with suppress(FileNotFoundError):  # rotated away meanwhile
                files[path] = path.stat().st_mtime
    whole = [path for path in files if path.suffix == ".ndjson" or path.with_suffix("") not in files]
    return sorted(whole, key=lambda path: (files[path], path))


def within(files: Sequence[Path], window: Window) -> list[Path]:
    """Return the files that can have lines in a window: those written to since it began."""
    if window.since is None:
        return list(files)
    since = window.since.timestamp()
    kept = []
    for path in files:
        with suppress(FileNotFoundError):
            if path.stat().st_mtime >= since:
                kept.append(path)
    return kept


@contextmanager
def spooled(stream: IO[bytes]) -> Iterator[Path]:
    """Yield a file with all that a stream brings; what stands before a line's first brace is cut off."""
    with tempfile.TemporaryDirectory(prefix="tributary-logs-") as folder:
        path = Path(folder) / "stdin.ndjson"
        with path.open("wb") as file:
            for line in stream:
                file.write(line[max(line.find(b"{"), 0) :])
        yield path


def sample(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yield lines from the beginnings and ends of the latest files, to see what fields they have."""
    for path in files[-_SAMPLED_FILES:]:
        with suppress(OSError, EOFError, zlib.error):
            for part in _parts(path, _SAMPLE_BYTES):
                yield from decoded(part.splitlines())


def extent(files: Sequence[Path]) -> tuple[str, str] | None:
    """Return the first and the last timestamp in files, as far as their beginnings and ends tell; None without any."""
    found: list[str] = []
    for path in files:
        with suppress(OSError, EOFError, zlib.error):
            for part in _parts(path, _GLANCE_BYTES):
                found += [at for line in decoded(part.splitlines()) if parsed(at := line["timestamp"])]
    return (min(found), max(found)) if found else None


def decoded(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the lines that are log lines, decoded; all else is passed over."""
    for line in lines:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = msgspec.json.decode(line)
            if isinstance(value, dict) and isinstance(value.get("timestamp"), str):
                yield value


def renamed(path: Path) -> list[Path]:
    """Return what a file that is gone is called now: rotation lengthens its name."""
    stem = path.name.removesuffix(".ndjson")
    return [other for other in _files(path.parent) if other.name.startswith((f"{stem}-", f"{path.name}."))]


def _files(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from (path for path in place.iterdir() if path.name.endswith(_ENDINGS) and path.is_file())
    else:
        yield place


def _parts(path: Path, size: int) -> Iterator[bytes]:
    """Yield the first and the last bytes of a file; of a compressed one only the first, and of zstd none."""
    if path.name.endswith(".zst"):
        return
    if path.name.endswith(".gz"):
        with gzip.open(path) as unpacked:
            yield unpacked.read(size)
        return
    with path.open("rb") as file:
        yield file.read(size)
        end = file.seek(0, os.SEEK_END)
        if end > size:
            file.seek(max(end - size, size))
            yield file.read()
