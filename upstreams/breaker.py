"""The circuit breaker: leaves an upstream alone that failed too often a moment ago, and finds out when it is back.

Written here, because the libraries for asyncio that there are let any number of probes through, take a client's
departure for a failure, or let a late answer decide on a state that it knows nothing of.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from typing import Final, Literal, Protocol

import msgspec

from upstreams.policy import Breaker

_SLICES: Final = 10
_JITTER: Final = 0.2
_UNCOUNTED: Final = -1  # no generation's number: what comes of an attempt under force is not counted

Clock = Callable[[], float]


class State(enum.Enum):
    """`closed` lets every attempt through, `open` none, `half_open` a few probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


Forced = Literal[State.OPEN, State.CLOSED]
#: Told of a change: from, to, why, and for how many seconds it stays open.
Changed = Callable[[State, State, str, float | None], None]


class Breaking(Protocol):
    """What a client needs of a breaker. Permits are numbers, and each is given back once, by `record`."""

    @property
    def state(self) -> State:
        """The state it is in, or is forced into."""

    def permit(self) -> int | None:
        """Return a permit for one attempt, or None if there is to be none now."""

    def record(self, permit: int, *, failed: bool | None, duration: float) -> None:
        """Tell what came of the attempt and how long it took; None for neither, as when it was cancelled."""

    def refuses(self) -> bool:
        """Tell whether it is open, or held so: a permit is not worth waiting for."""

    def wait(self) -> float:
        """Return how many seconds it will be open yet; 0 when it is not."""

    def force(self, state: Forced | None, reason: str = "", time: float | None = None) -> None:
        """Hold it open or closed whatever happens, or (None) let it decide again.

        `reason` is told after the word `forced`, and `time` for how many seconds it is meant to last: whoever forces it
        sees to that.
        """


class CircuitBreaker:
    """A breaker over a rolling window of time. Live: prints its state.

    Every change of state begins a new generation, and a permit is its generation's number: what comes of an attempt
    that began before the change no longer counts. `slow_after` is in seconds; `clock` is monotonic.
    """

    def __init__(
        self, policy: Breaker, slow_after: float, clock: Clock, changed: Changed, chance: random.Random | None = None
    ) -> None:
        self._policy = policy
        self._slow_after = slow_after
        self._clock = clock
        self._changed = changed
        self._chance = chance or random.Random()  # noqa: S311 - keeps workers from probing at one moment
        self._state = State.CLOSED
        self._forced: Forced | None = None
        self._window = _Window(policy.window / _SLICES)
        self._generation = 0
        self._until = 0.0
        self._closed_at = -policy.longest_open_time
        self._openings = 0
        self._probing = 0
        self._successes = 0

    def __repr__(self) -> str:
        """Show the state, and what it rests on."""
        held = " forced" if self._forced else ""
        return f"<CircuitBreaker {self.state.value}{held} {self._window} probing={self._probing}>"

    @property
    def state(self) -> State:
        """The state it is in, or is forced into."""
        return self._forced or self._state

    def permit(self) -> int | None:
        """Return a permit for one attempt, or None; the first to ask after the open time makes it half open."""
        if self._forced is not None:
            return _UNCOUNTED if self._forced is State.CLOSED else None
        if self._state is State.OPEN:
            if self._clock() < self._until:
                return None
            self._turn(State.HALF_OPEN, "the open time is over")
        if self._state is State.HALF_OPEN:
            if self._probing >= self._policy.probes:
                return None
            self._probing += 1
        return self._generation

    def record(self, permit: int, *, failed: bool | None, duration: float) -> None:
        """Count what came of an attempt, and change the state if that decides it."""
        if permit != self._generation:
            return
        slow = duration > self._slow_after
        if self._state is State.HALF_OPEN:
            self._probing -= 1
            if failed is not None:
                self._judge_probe(failed=failed or slow)
        elif failed is not None:
            window = self._window
            window.add(self._clock(), failed=failed, slow=slow)
            if window.failed or window.slow:
                self._judge()

    def refuses(self) -> bool:
        """Tell whether it is held open, or has been open for less than its time."""
        return self._forced is State.OPEN or self.wait() > 0

    def wait(self) -> float:
        """Return how many seconds it will be open yet; 0 when it is not."""
        return max(0.0, self._until - self._clock()) if self._state is State.OPEN else 0.0

    def force(self, state: Forced | None, reason: str = "", time: float | None = None) -> None:
        """Hold it open or closed; None begins anew, closed."""
        former, held = self.state, self._forced
        self._forced = state
        self._openings = 0
        self._begin(State.CLOSED)
        if former is not self.state or state is not held:
            self._changed(former, self.state, _forcing(state, reason), time)

    def _judge(self) -> None:
        """Open when enough attempts were made, and too many of them failed or were slow."""
        window, policy = self._window, self._policy
        if window.total < policy.minimum_calls:
            return
        if window.failed / window.total >= policy.failure_rate:  # a product would be a little too much: 0.28 of 25
            self._open(f"{window.failed} of {window.total} attempts failed")
        elif window.slow / window.total >= policy.slow_rate:
            self._open(f"{window.slow} of {window.total} attempts were slow")

    def _judge_probe(self, *, failed: bool) -> None:
        if failed:
            self._open("a probe failed")
            return
        self._successes += 1
        if self._successes >= self._policy.successes:
            self._closed_at = self._clock()
            self._turn(State.CLOSED, f"{self._successes} probes succeeded")

    def _open(self, reason: str) -> None:
        """Open for longer than last time, unless it has been closed for long."""
        now, policy = self._clock(), self._policy
        if self._state is State.CLOSED and now - self._closed_at >= policy.longest_open_time:
            self._openings = 0
        time = min(policy.open_time * 2.0**self._openings, policy.longest_open_time)
        if time < policy.longest_open_time:
            self._openings += 1
        time *= self._chance.uniform(1 - _JITTER, 1 + _JITTER)
        self._until = now + time
        self._turn(State.OPEN, reason, time)

    def _turn(self, state: State, reason: str, time: float | None = None) -> None:
        former = self._state
        self._begin(state)
        self._changed(former, state, reason, time)

    def _begin(self, state: State) -> None:
        self._state = state
        self._generation += 1
        self._probing = 0
        self._successes = 0
        self._window.clear()


class AlwaysClosed:
    """The breaker of an upstream that has none: it can be forced open, and is closed otherwise."""

    def __init__(self, changed: Changed) -> None:
        self._changed = changed
        self._state = State.CLOSED

    def __repr__(self) -> str:
        """Show the state."""
        return f"<AlwaysClosed {self._state.value}>"

    @property
    def state(self) -> State:
        """Closed, unless it is forced open."""
        return self._state

    def permit(self) -> int | None:
        """Return a permit unless it is forced open."""
        return _UNCOUNTED if self._state is State.CLOSED else None

    def record(self, permit: int, *, failed: bool | None, duration: float) -> None:
        """Count nothing."""

    def refuses(self) -> bool:
        """Tell whether it is held open."""
        return self._state is State.OPEN

    def wait(self) -> float:
        """Return 0: nobody knows how long it is held open."""
        return 0.0

    def force(self, state: Forced | None, reason: str = "", time: float | None = None) -> None:
        """Hold it open, or no longer."""
        former, self._state = self._state, state or State.CLOSED
        self._changed(former, self._state, _forcing(state, reason), time)


def _forcing(state: Forced | None, reason: str) -> str:
    return f"{'forced' if state else 'no longer forced'} {reason}".rstrip()


class _Slice(msgspec.Struct):
    """The attempts of a tenth of the window's time."""

    total: int = 0
    failed: int = 0
    slow: int = 0


class _Window:
    """Attempts of the latest seconds, counted in ten slices of which the oldest falls away."""

    def __init__(self, width: float) -> None:
        self._width = width
        self.clear()

    def __repr__(self) -> str:
        """Show the sums."""
        return f"total={self.total} failed={self.failed} slow={self.slow}"

    def clear(self) -> None:
        self.total = self.failed = self.slow = 0
        self._slices = [_Slice() for _ in range(_SLICES)]
        self._latest = 0
        self._slice = self._slices[0]

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count one attempt at a moment, after letting go of what is too old for it."""
        if (number := int(now / self._width)) > self._latest:
            self._advance(number)
        self.total += 1
        self._slice.total += 1
        if failed:
            self.failed += 1
            self._slice.failed += 1
        if slow:
            self.slow += 1
            self._slice.slow += 1

    def _advance(self, number: int) -> None:
        for passed in range(max(self._latest + 1, number - _SLICES + 1), number + 1):
            old = self._slices[passed % _SLICES]
            self.total -= old.total
            self.failed -= old.failed
            self.slow -= old.slow
            self._slice = self._slices[passed % _SLICES] = _Slice()
        self._latest = number
