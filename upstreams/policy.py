"""How failures of an upstream are met: frozen policies, each of which can say what is wrong with its values.

`None` in a policy's place turns it off. All times are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

_MAX_STATUS = 599
_MIN_STATUS = 400
_SHORTEST_WINDOW = 0.001


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed attempt is made again: at most `attempts` in all, counting the first.

    The wait before attempt n+1 is drawn evenly from 0 to `first_wait` * 2^(n-1) seconds, at most `longest_wait` (full
    jitter), or what the upstream's Retry-After asks for. `statuses` are the answers worth another attempt; a 429 only
    when it says when. Nothing is retried past the page's deadline.
    """

    attempts: int = 3
    first_wait: float = 0.025
    longest_wait: float = 0.25
    statuses: tuple[int, ...] = (429, 502, 503, 504)

    def faults(self) -> Iterator[str]:
        """Say what is wrong with these values, a sentence each."""
        if not (is_count(self.attempts) and self.attempts >= 1):
            yield f"retry.attempts must be 1 or more, not {self.attempts!r}"
        if not (is_number(self.longest_wait) and self.longest_wait >= 0):
            yield f"retry.longest_wait must be 0 seconds or more, not {self.longest_wait!r}"
        elif not (is_number(self.first_wait) and 0 <= self.first_wait <= self.longest_wait):
            yield f"retry.first_wait must be from 0 to longest_wait, not {self.first_wait!r}"
        yield from status_faults("retry.statuses", self.statuses)


@dataclass(frozen=True, slots=True)
class Budget:
    """How many attempts beyond each call's first an upstream is spared: retries and hedges together.

    A token bucket in each worker. Every call whose first attempt does not fail earns `share` of a token, and every
    second `floor` tokens; a retry or a hedge costs one; `burst` is the most that is kept, and what it begins with. An
    upstream that fails all the time thus gets no more than its calls, what had been kept, and the floor.
    """

    share: float = 0.2
    floor: float = 1.0
    burst: int = 10

    def faults(self) -> Iterator[str]:
        """Say what is wrong with these values, a sentence each."""
        if not (is_number(self.share) and 0 <= self.share <= 1):
            yield f"budget.share must be from 0 to 1 attempt for each call, not {self.share!r}"
        if not (is_number(self.floor) and self.floor >= 0):
            yield f"budget.floor must be 0 attempts a second or more, not {self.floor!r}"
        if not (is_count(self.burst) and self.burst >= 1):
            yield f"budget.burst must be 1 attempt or more, not {self.burst!r}"


@dataclass(frozen=True, slots=True)
class Breaker:
    """When an upstream is left alone: a circuit breaker over the attempts of the last `window` seconds.

    It opens when there were at least `minimum_calls` attempts, and `failure_rate` of them failed or `slow_rate` of them
    took longer than `slow_after` seconds (None: 80 % of the upstream's timeout). It stays open for `open_time`, twice
    as long each time in a row, at most `longest_open_time`, 20 % more or less by chance. Then it is half open: at most
    `probes` attempts at once; `successes` in a row close it, one failure opens it again.
    """

    window: float = 10.0
    minimum_calls: int = 20
    failure_rate: float = 0.5
    slow_rate: float = 0.8
    slow_after: float | None = None
    open_time: float = 5.0
    longest_open_time: float = 60.0
    probes: int = 2
    successes: int = 3

    def faults(self) -> Iterator[str]:
        """Say what is wrong with these values, a sentence each."""
        for name in ("minimum_calls", "probes", "successes"):
            value = getattr(self, name)
            if not (is_count(value) and value >= 1):
                yield f"breaker.{name} must be 1 or more, not {value!r}"
        for name in ("failure_rate", "slow_rate"):
            value = getattr(self, name)
            if not (is_number(value) and 0 < value <= 1):
                yield f"breaker.{name} must be above 0 and at most 1, not {value!r}"
        if not (is_number(self.window) and self.window >= _SHORTEST_WINDOW):
            yield f"breaker.window must be {_SHORTEST_WINDOW:g} seconds or more, not {self.window!r}"
        if self.slow_after is not None and not (is_number(self.slow_after) and self.slow_after > 0):
            yield f"breaker.slow_after must be above 0 seconds, not {self.slow_after!r}"
        if not (is_number(self.longest_open_time) and self.longest_open_time > 0):
            yield f"breaker.longest_open_time must be above 0 seconds, not {self.longest_open_time!r}"
        elif not (is_number(self.open_time) and 0 < self.open_time <= self.longest_open_time):
            yield f"breaker.open_time must be above 0 and at most longest_open_time, not {self.open_time!r}"


@dataclass(frozen=True, slots=True)
class Hedge:
    """When a second attempt is sent beside a first that is slow; the first useful answer counts. Safe requests only.

    `after` is how long the first is waited for; None means as long as 95 % of the latest answers took, at least 50 ms,
    once there were 100 of them. A hedge is paid from the upstream's budget.
    """

    after: float | None = None

    def faults(self) -> Iterator[str]:
        """Say what is wrong with these values, a sentence each."""
        if self.after is not None and not (is_number(self.after) and self.after > 0):
            yield f"hedge.after must be above 0 seconds, or None for the observed p95, not {self.after!r}"


@dataclass(frozen=True, slots=True)
class Ejection:
    """When one of several hosts is left out: after `failures` attempts in a row that it failed.

    It is out for `first_time`, longer by as much each time in a row, at most `longest_time`, and then on trial: the
    next failure puts it out again. At most `share` of the hosts are out at once, and never all of them.
    """

    failures: int = 5
    first_time: float = 30.0
    longest_time: float = 300.0
    share: float = 0.5

    def faults(self) -> Iterator[str]:
        """Say what is wrong with these values, a sentence each."""
        if not (is_count(self.failures) and self.failures >= 1):
            yield f"ejection.failures must be 1 or more, not {self.failures!r}"
        if not (is_number(self.longest_time) and self.longest_time > 0):
            yield f"ejection.longest_time must be above 0 seconds, not {self.longest_time!r}"
        elif not (is_number(self.first_time) and 0 < self.first_time <= self.longest_time):
            yield f"ejection.first_time must be above 0 and at most longest_time, not {self.first_time!r}"
        if not (is_number(self.share) and 0 < self.share < 1):
            yield f"ejection.share must be above 0 and below 1, not {self.share!r}"


def status_faults(name: str, statuses: object) -> Iterator[str]:
    """Say what is wrong with a tuple of error statuses."""
    if not isinstance(statuses, (tuple, list)):
        yield f"{name} must be a tuple of statuses, not {statuses!r}"
        return
    for status in statuses:
        if not (is_count(status) and _MIN_STATUS <= status <= _MAX_STATUS):
            yield f"{name} holds {status!r}, which is no error status (400 to 599)"


def is_count(value: object) -> bool:
    """Tell whether something is a whole number, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Tell whether something is a finite number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all that a clock could count
        return False


def is_flag(value: object) -> bool:
    """Tell whether something is True or False."""
    return isinstance(value, bool)
