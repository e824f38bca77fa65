"""Where the upstream clients say what happened. Whoever opens a fleet decides what becomes of it."""

from __future__ import annotations

from typing import Protocol

from upstreams.outcome import Attempt


class Journal(Protocol):
    """Told of each step as it ends; must not raise and must not wait."""

    def attempt_finished(self, upstream: str, call: str, attempt: Attempt) -> None:
        """One try ended, well or not, cancelled or not: told once for each that was begun."""

    def retry_scheduled(self, upstream: str, call: str, attempt: Attempt, wait: float) -> None:
        """After this failed attempt the next is made in `wait` seconds."""
