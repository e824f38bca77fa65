"""How well one value of a field tells where trouble gathered: all of it there, and little else but trouble."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

_LEAST_COUNT: Final = 20
_LEAST_CONTRAST: Final = 1.25
_LEAST_GROWTH: Final = 1.1
_LEAST_SHIFT: Final = 0.01
_SURE: Final = 4.0


class Side(NamedTuple):
    """What one value had in one of the two windows: lines, those in trouble, the milliseconds of all, their p95."""

    lines: int
    troubled: int
    time: float
    p95: float | None

    @property
    def troubled_share(self) -> float:
        """The share of its lines that were in trouble."""
        return self.troubled / self.lines if self.lines else 0.0

    @property
    def mean(self) -> float:
        """Milliseconds."""
        return self.time / self.lines if self.lines else 0.0


class Value(NamedTuple):
    """One value of a field in both windows."""

    unit: int
    field: str
    value: str
    bad: Side
    base: Side


def trouble(value: Value, total: Value) -> float:
    """Return how well a value tells where the new trouble is: 1 if all of it is there, and all there is in trouble.

    0 where there is about as much as anywhere else.
    """
    usual = (value.base if value.base.lines >= _LEAST_COUNT else total.base).troubled_share
    new = value.bad.troubled - value.bad.lines * usual
    chance = _SURE * math.sqrt(value.bad.lines * usual * (1 - usual)) + 2
    # It is no less than this value's, though elsewhere there may be less than before.
    everywhere = max(new, total.bad.troubled - total.bad.lines * total.base.troubled_share)
    if new <= chance or new / value.bad.lines < _LEAST_CONTRAST * everywhere / total.bad.lines:
        return 0.0
    return _harmonic(new / everywhere, new / (value.bad.lines * (1 - usual)))


def slowness(value: Value, total: Value) -> float:
    """Return the same for time: 1 if all of the time that is new passes there, and all time there is new."""
    if min(value.bad.lines, value.base.lines) < _LEAST_COUNT or value.bad.mean < value.base.mean * _LEAST_GROWTH:
        return 0.0
    new, everywhere = value.bad.mean - value.base.mean, total.bad.mean - total.base.mean
    if everywhere <= 0 or new < _LEAST_CONTRAST * everywhere:
        return 0.0
    share_of_all = value.bad.lines * new / (total.bad.lines * everywhere)
    return _harmonic(min(share_of_all, 1.0), new / value.bad.mean)


def _harmonic(recall: float, precision: float) -> float:
    return 2 * recall * precision / (recall + precision) if recall > 0 and precision > 0 else 0.0


def surely_shifted(value: Value, total: Value) -> bool:
    """Tell whether a value's share differs by more than chance makes it, and by something that counts."""
    if not total.bad.lines or not total.base.lines:
        return False
    bad, base = value.bad.lines / total.bad.lines, value.base.lines / total.base.lines
    both = (value.bad.lines + value.base.lines) / (total.bad.lines + total.base.lines)
    spread = math.sqrt(both * (1 - both) * (1 / total.bad.lines + 1 / total.base.lines))
    return abs(bad - base) > max(_SURE * spread, _LEAST_SHIFT)
