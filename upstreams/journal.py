"""Where the upstream clients say what happened. Whoever opens a fleet decides what becomes of it."""

from __future__ import annotations

from typing import Protocol

from upstreams.outcome import Attempt


class Journal(Protocol):
    """Told of each step as it ends; must not raise and must not wait.

    What derives from this may leave out what it does not care for.
    """

    def attempt_finished(self, upstream: str, call: str, attempt: Attempt) -> None:
        """One try ended, well or not, cancelled or not: told once for each that was begun."""
        return

    def retry_scheduled(self, upstream: str, call: str, attempt: Attempt, wait: float) -> None:
        """After this failed attempt the next is made in `wait` seconds."""
        return

    def breaker_changed(self, upstream: str, former: str, state: str, reason: str, time: float | None) -> None:
        """The breaker went from one state to another; `time` is for how many seconds it stays open."""
        return

    def host_ejected(self, upstream: str, host: str, reason: str, time: float) -> None:
        """One of several hosts is left out for `time` seconds."""
        return

    def flight_joined(self, upstream: str, call: str, leader: str, trace_id: str) -> None:
        """A call shares the answer of an identical one under way: the leader's name, and its request's trace."""
        return
