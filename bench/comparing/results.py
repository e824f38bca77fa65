"""The result files: what was measured last of each work, and the runs that these figures are of."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from bench.comparing.rows import Row

FOLDER = Path(__file__).parent.parent / "results"


class Run(msgspec.Struct, kw_only=True):
    """What a run's figures were made on and with; `date` names it, and `load_before` is of the minute before it."""

    run: str
    processor: str
    cores: int
    load_before: float
    system: str
    date: str
    commit: str | None
    versions: dict[str, str]

    def __str__(self) -> str:
        """Say all of it in one line."""
        commit = f"commit {self.commit}" if self.commit else "outside of a repository"
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        machine = f"{self.processor}, {self.cores} cores, {self.system}, load before {self.load_before:g}"
        return f"make {self.run}, {self.date[:10]} {self.date[11:16]} UTC, {commit}; {machine}; {versions}"


class Results(msgspec.Struct, frozen=True):
    """Rows, in the order they were measured in, and the runs that they name, the newest first."""

    rows: Sequence[Row]
    runs: Sequence[Run]

    def of(self, work: str) -> list[Row]:
        """Return a work's rows; none if it has not been measured."""
        return [row for row in self.rows if row.work == work]

    def row(self, work: str, server: str) -> Row | None:
        """Return what a server came to at a work, if that was measured."""
        return next((row for row in self.rows if (row.work, row.server) == (work, server)), None)

    def captions(self, rows: Iterable[Row]) -> list[str]:
        """Say of each run that these rows are of when, where and with what it was."""
        named = {row.run for row in rows}
        return [str(run) for run in self.runs if run.date in named]

    def with_run(self, run: Run, found: Sequence[Row]) -> Results:
        """Return these results with a run's; of works that it did not measure, what there is stays."""
        works = {row.work for row in found}
        new = [msgspec.structs.replace(row, run=run.date) for row in found]
        rows = [*new, *(row for row in self.rows if row.work not in works)]
        named = {row.run for row in rows}
        return Results(rows, [run, *(earlier for earlier in self.runs if earlier.date in named - {run.date})])


def read(folder: Path = FOLDER) -> Results:
    """Read the result files; without them there are no results."""
    if not (folder / "bench.json").exists():
        return Results([], [])
    rows = msgspec.json.decode((folder / "bench.json").read_bytes(), type=list[Row])
    return Results(rows, msgspec.json.decode((folder / "machine.json").read_bytes(), type=list[Run]))


def write(results: Results, folder: Path = FOLDER) -> None:
    """Write the result files, a row a line."""
    folder.mkdir(exist_ok=True)
    lines = ",\n".join(msgspec.json.encode(row).decode() for row in results.rows)
    (folder / "bench.json").write_text(f"[\n{lines}\n]\n")
    (folder / "machine.json").write_bytes(msgspec.json.format(msgspec.json.encode(results.runs), indent=2) + b"\n")


def wrapped(captions: Iterable[str], width: int) -> list[str]:
    """Return captions as lines of at most so many characters."""
    return [line for caption in captions for line in textwrap.wrap(caption, width)]
