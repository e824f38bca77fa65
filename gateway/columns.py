"""Text in columns that line up, for what people read in a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

_GAP = "  "


def columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> Iterator[str]:
    """Yield one line a row; the columns numbered in `right` line up at their ends. All rows are of one length."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield _GAP.join(
            cell.rjust(width) if number in right else cell.ljust(width) for number, (cell, width) in enumerate(cells)
        ).rstrip()
