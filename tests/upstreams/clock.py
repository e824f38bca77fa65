"""Time as a test tells it: nothing waits for it, and it goes on only when a test says so."""

from __future__ import annotations


class Clock:
    """A monotonic clock that stands at `now` seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
