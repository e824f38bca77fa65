"""Text in columns that line up, for what people read in a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

_GAP: Final = "  "
_CUT: Final = "\u2026"
_NOTHING: Final = frozenset({"", "-"})


def columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> Iterator[str]:
    """Yield one line a row; the columns numbered in `right` line up at their ends. All rows are of one length."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield _GAP.join(
            cell.rjust(width) if number in right else cell.ljust(width) for number, (cell, width) in enumerate(cells)
        ).rstrip()


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[str]) -> list[str]:
    """Return a head's line and one a row, without the columns that say nothing; those named in `left` begin in line."""
    told = [number for number in range(len(head)) if any(row[number] not in _NOTHING for row in rows)]
    right = [place for place, number in enumerate(told) if head[number] not in left]
    return list(columns([[row[number] for number in told] for row in (head, *rows)], right))


def clipped(text: str, width: int) -> str:
    """Return a text without its middle, where it is longer than that; its end often tells more than its beginning."""
    if len(text) <= width:
        return text
    kept = width - len(_CUT)
    return text[: kept - kept // 2] + _CUT + text[len(text) - kept // 2 :]
