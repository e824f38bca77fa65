"""The retry budget: a token bucket that keeps retries and hedges from multiplying an upstream's load when it fails."""

from __future__ import annotations

from collections.abc import Callable

from upstreams.policy import Budget


class RetryBudget:
    """The tokens of one upstream in this worker. Live: prints how many are left.

    Begins full. `clock` is monotonic.
    """

    def __init__(self, policy: Budget, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._tokens = float(policy.burst)
        self._since = clock()

    def __repr__(self) -> str:
        """Show the tokens, without what this second has earned."""
        return f"<RetryBudget {self._tokens:.1f} of {self._policy.burst}>"

    def earn(self) -> None:
        """Add what a call earns whose first attempt succeeded."""
        if self._tokens < self._policy.burst:
            self._tokens = min(self._tokens + self._policy.share, self._policy.burst)

    def spend(self) -> bool:
        """Take a token for one more attempt; False if there is none."""
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._since) * self._policy.floor, self._policy.burst)
        self._since = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
