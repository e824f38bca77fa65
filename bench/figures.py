"""What was measured beside what was wanted, and the table that shows both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure in words. `ok` is whether it is as wanted; None for one that stands beside others to compare."""

    name: str
    measured: str
    wanted: str = ""
    ok: bool | None = None

    @property
    def verdict(self) -> str:
        """`ok`, `short`, or nothing where nothing was wanted."""
        return {True: "ok", False: "short", None: ""}[self.ok]


def percentile(values: Iterable[float], percent: int) -> float:
    """Return the value below which so many percent of the values are. Raises IndexError when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def table(figures: Sequence[Figure]) -> str:
    """Lay figures out for reading: figure, measured, wanted, verdict."""
    rows = [("figure", "measured", "wanted", ""), *((f.name, f.measured, f.wanted, f.verdict) for f in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
