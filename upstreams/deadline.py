"""The one moment by which an answer is due, made at the door and handed down to every call and retry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A moment on a clock, the running event loop's, in seconds; ordered, so the earlier of two is `min(a, b)`."""

    at: float
    clock: Callable[[], float] = field(compare=False, repr=False)

    @classmethod
    def within(cls, seconds: float) -> Deadline:
        """Return the moment `seconds` from now."""
        clock = asyncio.get_running_loop().time
        return cls(clock() + seconds, clock)

    def remaining(self) -> float:
        """Seconds left; negative once it has passed."""
        return self.at - self.clock()
