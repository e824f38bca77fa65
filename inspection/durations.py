"""Percentiles from counts: durations fall into buckets half a per cent wide, so that any number of them fits."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

_PER_E: Final = 200
_LONGEST: Final = 1e12

#: A line's duration in SQL, in milliseconds. None is longer than thirty years.
DURATION: Final = f"least(duration_ms, {_LONGEST:g})"
#: The bucket of a line's duration, in SQL. None is shorter than a microsecond.
BUCKET: Final = f"CAST(round(ln(greatest(0.001, {DURATION})) * {_PER_E}) AS INTEGER)"


def at(bucket: int | None, longest: float | None) -> float | None:
    """Return the milliseconds that a bucket stands for, within a quarter of a per cent; none above the longest."""
    if bucket is None or longest is None:
        return None
    return round(min(math.exp(bucket / _PER_E), longest), 3)


class Durations:
    """Live: how many durations fell into which bucket, and the longest of them, in milliseconds."""

    def __init__(self) -> None:
        self.longest: float | None = None
        self._counts: Counter[int] = Counter()

    def __repr__(self) -> str:
        """Show how many there are, and the longest."""
        return f"<Durations {self._counts.total()} longest={self.longest}>"

    def add(self, bucket: int, count: int, longest: float) -> None:
        """Count durations that fell into a bucket."""
        self._counts[bucket] += count
        self.longest = max(longest, self.longest or 0.0)

    def percentile(self, percent: float) -> float | None:
        """Return what so many per cent of the durations did not exceed, in milliseconds; None without any."""
        rank = math.ceil(self._counts.total() * percent / 100)
        for bucket in sorted(self._counts):
            rank -= self._counts[bucket]
            if rank <= 0:
                return at(bucket, self.longest)
        return None
