"""Numbers as people read them: short, and none where there is none."""

from __future__ import annotations

from typing import Final

_NONE: Final = "-"


def number(count: int) -> str:
    """Return a count with its thousands apart."""
    return f"{count:,}"


def rate(per_second: float) -> str:
    """Return a rate with as many decimals as it is small."""
    return f"{per_second:.2f}" if per_second < 10 else f"{per_second:,.1f}"


def share(part: float | None) -> str:
    """Return a share, 0 to 1, in per cent: two digits of it where it is small."""
    if part is None:
        return _NONE
    percent = part * 100
    if percent == 0 or percent >= 10:
        return f"{percent:.0f}%"
    return f"{percent:.1f}%" if percent >= 0.1 else "<0.1%"


def milliseconds(time: float | None) -> str:
    """Return milliseconds, with a decimal where it matters."""
    if time is None:
        return _NONE
    return f"{time:.1f}" if time < 100 else f"{time:,.0f}"


def size(count: float) -> str:
    """Return bytes in the unit that fits."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
