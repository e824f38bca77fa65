"""The one moment by which an answer is due, made at the door and handed down to every call and retry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec


class Deadline(msgspec.Struct, frozen=True, eq=False):
    """A moment on a clock, the running event loop's, in seconds; ordered, so the earlier of two is `min(a, b)`."""

    at: float
    clock: Callable[[], float]

    def __lt__(self, other: Deadline) -> bool:
        """Tell whether this is the earlier of two."""
        return self.at < other.at

    @classmethod
    def within(cls, seconds: float) -> Deadline:
        """Return the moment `seconds` from now."""
        clock = asyncio.get_running_loop().time
        return cls(clock() + seconds, clock)

    def remaining(self) -> float:
        """Seconds left; negative once it has passed."""
        return self.at - self.clock()
