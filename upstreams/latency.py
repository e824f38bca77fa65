"""How long an upstream's latest answers took: what a hedge waits for when nobody has said how long."""

from __future__ import annotations

from collections import deque
from typing import Final

_LATEST: Final = 500
_LEAST: Final = 100
_RENEWED_EVERY: Final = 50


class Latencies:
    """The durations of the latest useful answers, in seconds. Live: prints their 95th percentile."""

    def __init__(self) -> None:
        self._durations: deque[float] = deque(maxlen=_LATEST)
        self._new = 0
        self.p95: float | None = None  # None until there are enough to tell

    def __repr__(self) -> str:
        """Show how many there are, and the percentile."""
        return f"<Latencies of {len(self._durations)} p95={self.p95}>"

    def add(self, duration: float) -> None:
        """Add one; the percentile is made anew after every fifty."""
        self._durations.append(duration)
        self._new += 1
        if self._new >= _RENEWED_EVERY and len(self._durations) >= _LEAST:
            self._new = 0
            self.p95 = sorted(self._durations)[len(self._durations) * 95 // 100]
