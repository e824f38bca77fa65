"""The one moment by which an answer is due, made at the door and handed down to every call and retry."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A moment on the running event loop's clock, in seconds; ordered, so the earlier of two is `min(a, b)`."""

    at: float

    @classmethod
    def within(cls, seconds: float) -> Deadline:
        """Return the moment `seconds` from now."""
        return cls(asyncio.get_running_loop().time() + seconds)

    def remaining(self) -> float:
        """Seconds left; negative once it has passed."""
        return self.at - asyncio.get_running_loop().time()
