"""What is read for the log's files: mostly the files, else copies of what is wanted of them, or can be read of them."""

from __future__ import annotations

import gzip
import re
import shutil
import sys
import tempfile
import weakref
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import IO, Final

from inspection.files import LONGEST_LINE, renamed
from inspection.times import Window, stamp

_TIMESTAMP: Final = re.compile(rb'"timestamp":"([^"]{19,40})"')
_OUT_OF_ORDER: Final = timedelta(minutes=1)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC) + _OUT_OF_ORDER
_WORTH_CUTTING: Final = 8 * 1024 * 1024
_STEP: Final = 64 * 1024
_BLOCK: Final = 1024 * 1024


class Sources:
    """The files to read for a window of a log. Live: makes copies, which last as long as it does.

    Of a large file whose end has all of the window, the end. Of a damaged one, as much as can be read.
    """

    def __init__(self, files: Sequence[Path], window: Window) -> None:
        self._of: dict[Path, Path] = {path: path for path in files}
        self._were = {path: _identity(path) for path in files}
        self._salvaged: set[Path] = set()
        if window.since is not None:
            since = stamp(max(window.since, _EARLIEST) - _OUT_OF_ORDER).encode()
            for path in files:
                with suppress(OSError):  # gone meanwhile: whoever reads it will say so
                    self._of[path] = self._end(path, since)

    def __repr__(self) -> str:
        """Show what is read."""
        return f"<Sources {' '.join(map(str, self.paths))}>"

    @property
    def paths(self) -> list[Path]:
        """What to read."""
        return list(self._of.values())

    @property
    def copies(self) -> Mapping[Path, Path]:
        """The copies among them, each with the log's file it is of."""
        return {read: path for path, read in self._of.items() if read != path}

    def mend(self, complaint: str) -> bool:
        """Find something else to read for the files that a complaint names; False when it names none.

        One that is gone is found under its new name, of a damaged one is read what can be; what is left out is said.
        """
        broken = [path for path, read in self._of.items() if str(read) in complaint]
        for path in broken:
            del self._of[path]
            if not path.exists():
                self._of |= {other: other for other in renamed(path) if other not in self._of}
            elif path not in self._salvaged and _salvage(path, copy := self._copy(path)):
                self._salvaged.add(path)
                self._of[path] = copy
            else:
                sys.stderr.write(f"Left out, for it cannot be read: {path}\n")
        return bool(broken)

    def moved(self) -> bool:
        """Tell whether files have been set aside and begun anew since, and read them under both names from now on.

        Of one that is gone by now what was read is all there was.
        """
        now = {path: _identity(path) for path, read in self._of.items() if read == path}
        moved = [path for path, identity in now.items() if identity not in {None, self._were.get(path, identity)}]
        self._were |= now
        for path in moved:
            self._of |= {other: other for other in renamed(path) if other not in self._of}
        return bool(moved)

    @cached_property
    def _folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="tributary-logs-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _copy(self, path: Path) -> Path:
        """Return a path for a copy, in a folder of its own: names can be the same in several folders."""
        return Path(tempfile.mkdtemp(dir=self._folder)) / path.name

    def _end(self, path: Path, since: bytes) -> Path:
        """Return a copy of the end of a file, from a timestamp on, or the file if that is not worth it.

        Lines are in order of time, but for the minute that `since` allows for.
        """
        size = path.stat().st_size
        if path.suffix != ".ndjson" or size < _WORTH_CUTTING:
            return path
        with path.open("rb") as file:
            start = _offset(file, size, since)
            if start < size / 2:
                return path
            file.seek(start)
            with (copied := self._copy(path)).open("wb") as copy:
                shutil.copyfileobj(file, copy, _BLOCK)
        return copied


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of its name; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _offset(file: IO[bytes], size: int, timestamp: bytes) -> int:
    """Return where, in a file of lines in order of time, those before a timestamp end, or a little earlier."""
    low, high = 0, size
    while high - low > _STEP:
        middle = (low + high) // 2
        file.seek(middle)
        found = _TIMESTAMP.search(file.read(4 * _STEP))
        if found and found[1] < timestamp:
            low = middle
        else:
            high = middle
    file.seek(low)
    return low + len(file.readline(LONGEST_LINE)) if low else 0


def _salvage(path: Path, copy: Path) -> bool:
    """Copy the lines of a file that are whole, as far as it can be read; False if there are none."""
    count = 0
    with suppress(OSError, EOFError, zlib.error), _opened(path, "rb") as damaged, _opened(copy, "wb") as whole:
        while line := damaged.readline(LONGEST_LINE):
            if line.endswith(b"\n"):
                whole.write(line)
                count += 1
            else:
                _pass_line(damaged)
    return count > 0


def _opened(path: Path, mode: str) -> IO[bytes]:
    """Open a file; one whose name says that it is packed is unpacked, and is packed quickly rather than well."""
    if path.suffix == ".gz":
        return gzip.open(path, mode, compresslevel=1)  # type: ignore[return-value]
    return path.open(mode)


def _pass_line(file: IO[bytes]) -> None:
    """Read to the end of a line that is too long."""
    while (part := file.readline(LONGEST_LINE)) and not part.endswith(b"\n"):
        pass
