"""The breaker opens when enough of enough attempts failed, probes with few, and lets nothing stale decide."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.upstreams.clock import Clock
from upstreams import Breaker
from upstreams.breaker import AlwaysClosed, Breaking, CircuitBreaker, Forced, State

SLOW_AFTER = 0.8
QUICK, SLOW = 0.1, 1.0
CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN

Told = tuple[State, State, str, float | None]


class Watched:
    """A circuit breaker on a clock of its own, and what it told."""

    def __init__(self, policy: Breaker | None = None, seed: int = 0) -> None:
        self.policy = policy or Breaker()
        self.clock = Clock()
        self.told: list[Told] = []
        self.breaker = CircuitBreaker(
            self.policy, SLOW_AFTER, self.clock, lambda *change: self.told.append(change), random.Random(seed)
        )

    @property
    def state(self) -> State:
        return self.breaker.state

    @property
    def turns(self) -> list[tuple[State, State]]:
        """From what to what it changed."""
        return [(former, state) for former, state, _, _ in self.told]

    def begin(self) -> int:
        permit = self.breaker.permit()
        assert permit is not None
        return permit

    def end(self, permit: int, *, failed: bool | None = False, duration: float = QUICK) -> None:
        self.breaker.record(permit, failed=failed, duration=duration)

    def make(self, count: int, *, failed: bool | None = False, duration: float = QUICK) -> None:
        """Make attempts one after another."""
        for _ in range(count):
            self.end(self.begin(), failed=failed, duration=duration)

    def open(self) -> float:
        """Let it open by failures; return for how long."""
        self.make(self.policy.minimum_calls, failed=True)
        assert self.state is OPEN
        return self.breaker.wait()

    def half_open(self) -> None:
        """Let it open, and let the open time pass: the next to ask is a probe."""
        self.clock.advance(self.open())

    def reopen(self) -> float:
        """Let the open time pass, and a probe fail; return for how long it is open now."""
        self.clock.advance(self.breaker.wait())
        self.make(1, failed=True)
        assert self.state is OPEN
        return self.breaker.wait()

    def close(self) -> None:
        """Let the open time pass, to a whole second, and enough probes succeed."""
        self.clock.now = math.ceil(self.clock.now + self.breaker.wait())
        self.make(self.policy.successes)
        assert self.state is CLOSED

    def refuses(self) -> bool:
        return self.breaker.permit() is None


@pytest.fixture
def watched() -> Watched:
    return Watched()


class TestClosed:
    @pytest.mark.parametrize(
        ("fine", "failed", "slow", "state"),
        [
            (10, 10, 0, OPEN),
            (11, 9, 0, CLOSED),
            (0, 19, 0, CLOSED),
            (0, 20, 0, OPEN),
            (20, 20, 0, OPEN),
            (21, 20, 0, CLOSED),
            (4, 0, 16, OPEN),
            (5, 0, 15, CLOSED),
            (0, 0, 19, CLOSED),
            (6, 0, 24, OPEN),
        ],
    )
    def test_it_opens_when_half_of_twenty_failed_or_four_fifths_were_slow(
        self, watched: Watched, fine: int, failed: int, slow: int, state: State
    ) -> None:
        watched.make(fine)
        watched.make(failed, failed=True)
        watched.make(slow, duration=SLOW)

        assert watched.state is state

    def test_it_opens_with_the_attempt_that_decides(self, watched: Watched) -> None:
        watched.make(10)
        watched.make(9, failed=True)
        assert watched.told == []
        watched.make(1, failed=True)

        former, state, reason, seconds = watched.told[0]
        assert (former, state, reason, len(watched.told)) == (CLOSED, OPEN, "10 of 20 attempts failed", 1)
        assert seconds == pytest.approx(watched.breaker.wait())

    def test_slowness_is_told_as_the_reason(self, watched: Watched) -> None:
        watched.make(4)
        watched.make(16, duration=SLOW)

        assert watched.told[0][2] == "16 of 20 attempts were slow"

    def test_what_takes_exactly_as_long_as_the_bound_is_not_slow(self, watched: Watched) -> None:
        watched.make(40, duration=SLOW_AFTER)

        assert watched.state is CLOSED

    @pytest.mark.parametrize(("percent", "calls"), [(28, 25), (14, 50), (7, 100), (55, 100), (30, 10), (100, 3)])
    @pytest.mark.parametrize("what", ["failure_rate", "slow_rate"])
    def test_exactly_the_rate_is_enough(self, what: str, percent: int, calls: int) -> None:
        rates = {"failure_rate": 1.0, "slow_rate": 1.0} | {what: percent / 100}
        watched = Watched(Breaker(minimum_calls=calls, **rates))  # type: ignore[arg-type]
        bad = calls * percent // 100
        watched.make(calls - bad)
        assert watched.state is CLOSED
        watched.make(bad, failed=what == "failure_rate", duration=SLOW if what == "slow_rate" else QUICK)

        assert watched.state is OPEN

    @pytest.mark.parametrize("windows", [1.0, 1.1, 1.5, 1.9, 2.0, 2.9, 3.0, 10.9, 1000.0])
    @pytest.mark.parametrize(("failed", "duration"), [(True, QUICK), (False, SLOW)])
    def test_attempts_older_than_the_window_are_forgotten(
        self,
        watched: Watched,
        windows: float,
        failed: bool,  # noqa: FBT001 - a table's column
        duration: float,
    ) -> None:
        watched.make(19, failed=failed, duration=duration)
        watched.clock.advance(windows * watched.policy.window)
        watched.make(20)
        assert watched.state is CLOSED
        watched.clock.advance(windows * watched.policy.window)
        watched.make(19, failed=failed, duration=duration)
        assert watched.state is CLOSED
        watched.make(1, failed=failed, duration=duration)

        assert watched.told[0][2].startswith("20 of 20 ")

    def test_attempts_of_nine_tenths_of_the_window_are_remembered(self, watched: Watched) -> None:
        watched.make(19, failed=True)
        watched.clock.advance(0.9 * watched.policy.window)
        watched.make(1, failed=True)

        assert watched.state is OPEN

    def test_an_attempt_that_was_cancelled_counts_for_nothing(self, watched: Watched) -> None:
        watched.make(100, failed=None, duration=SLOW)
        watched.make(19, failed=True)
        assert watched.state is CLOSED
        watched.make(1, failed=True)

        assert watched.told[0][2] == "20 of 20 attempts failed"


class TestOpen:
    def test_nothing_passes_before_the_open_time_is_over(self, watched: Watched) -> None:
        watched.open()
        watched.clock.now = math.nextafter(watched.clock.now + watched.breaker.wait(), 0)

        assert watched.refuses()
        assert watched.state is OPEN
        assert 0 <= watched.breaker.wait() < 1e-6

    def test_the_first_to_ask_after_it_is_a_probe(self, watched: Watched) -> None:
        watched.half_open()
        assert watched.state is OPEN
        watched.begin()

        assert watched.state is HALF_OPEN
        assert watched.told[-1] == (OPEN, HALF_OPEN, "the open time is over", None)
        assert watched.breaker.wait() == 0

    def test_the_wait_counts_down(self, watched: Watched) -> None:
        wait = watched.open()
        watched.clock.advance(1.0)
        assert watched.breaker.wait() == pytest.approx(wait - 1.0)
        watched.clock.advance(100.0)

        assert watched.breaker.wait() == 0

    def test_it_is_open_twice_as_long_each_time_up_to_the_longest_and_a_fifth_more_or_less(
        self, watched: Watched
    ) -> None:
        times = [watched.open(), *(watched.reopen() for _ in range(7))]

        for time, due in zip(times, [5, 10, 20, 40, 60, 60, 60, 60], strict=True):
            assert 0.8 * due <= time <= 1.2 * due
        assert [seconds for _, state, _, seconds in watched.told if state is OPEN] == pytest.approx(times)

    def test_the_open_times_of_many_are_spread(self) -> None:
        times = [Watched(seed=seed).open() for seed in range(200)]

        assert 4.0 <= min(times) < 4.4
        assert 5.6 < max(times) <= 6.0

    @pytest.mark.parametrize(("closed_for", "due"), [(0.0, 20), (59.0, 20), (60.0, 5), (600.0, 5)])
    def test_only_after_being_closed_for_long_it_is_open_as_short_as_the_first_time(
        self, watched: Watched, closed_for: float, due: int
    ) -> None:
        watched.open()
        watched.reopen()
        watched.close()
        watched.clock.advance(closed_for)

        assert 0.8 * due <= watched.open() <= 1.2 * due


class TestHalfOpen:
    def test_so_many_probes_pass_at_once_and_no_more(self, watched: Watched) -> None:
        watched.half_open()
        first = watched.begin()
        watched.begin()
        assert watched.refuses()
        watched.end(first)
        watched.begin()

        assert watched.refuses()

    def test_three_that_succeed_close_it(self, watched: Watched) -> None:
        watched.half_open()
        watched.make(2)
        assert watched.state is HALF_OPEN
        watched.make(1)

        assert watched.told[-1] == (HALF_OPEN, CLOSED, "3 probes succeeded", None)

    @pytest.mark.parametrize(("failed", "duration"), [(True, QUICK), (False, SLOW), (True, SLOW)])
    def test_one_that_fails_or_is_slow_opens_it_again(
        self,
        watched: Watched,
        failed: bool,  # noqa: FBT001 - a table's column
        duration: float,
    ) -> None:
        watched.half_open()
        watched.make(2)
        watched.make(1, failed=failed, duration=duration)

        former, state, reason, seconds = watched.told[-1]
        assert (former, state, reason) == (HALF_OPEN, OPEN, "a probe failed")
        assert seconds == pytest.approx(watched.breaker.wait())

    def test_successes_of_an_earlier_time_do_not_count(self, watched: Watched) -> None:
        watched.half_open()
        watched.make(2)
        watched.make(1, failed=True)
        watched.clock.advance(watched.breaker.wait())
        watched.make(2)
        assert watched.state is HALF_OPEN
        watched.make(1)

        assert watched.state is CLOSED

    def test_a_cancelled_probe_gives_its_place_back_and_decides_nothing(self, watched: Watched) -> None:
        watched.half_open()
        for _ in range(10):
            first, second = watched.begin(), watched.begin()
            assert watched.refuses()
            watched.end(first, failed=None, duration=SLOW)
            watched.end(second, failed=None)

        assert watched.state is HALF_OPEN

    def test_once_closed_it_begins_with_an_empty_window(self, watched: Watched) -> None:
        watched.open()
        watched.close()
        watched.make(19, failed=True)

        assert watched.state is CLOSED

    @pytest.mark.parametrize("failed", [True, False])
    def test_what_began_before_it_opened_is_no_probe(
        self,
        watched: Watched,
        failed: bool,  # noqa: FBT001 - a table's column
    ) -> None:
        early = [watched.begin() for _ in range(5)]
        watched.half_open()
        watched.begin()
        for permit in early:
            watched.end(permit, failed=failed)

        assert watched.state is HALF_OPEN
        watched.begin()
        assert watched.refuses()

    def test_the_probe_of_an_earlier_time_frees_no_place_of_a_later(self, watched: Watched) -> None:
        watched.half_open()
        late = watched.begin()
        watched.reopen()
        watched.clock.advance(watched.breaker.wait())
        watched.begin()
        watched.begin()
        watched.end(late)

        assert watched.refuses()


class TestForced:
    def test_open_lets_nothing_through(self, watched: Watched) -> None:
        watched.breaker.force(State.OPEN)
        watched.clock.advance(10_000)

        assert (watched.refuses(), watched.state) == (True, OPEN)
        assert watched.told == [(CLOSED, OPEN, "forced", None)]

    def test_closed_lets_everything_through(self, watched: Watched) -> None:
        watched.open()
        watched.breaker.force(State.CLOSED)
        watched.make(100, failed=True)

        assert watched.state is CLOSED
        assert watched.turns == [(CLOSED, OPEN), (OPEN, CLOSED)]

    @pytest.mark.parametrize("held", [OPEN, CLOSED])
    def test_held_no_longer_it_begins_anew(self, watched: Watched, held: Forced) -> None:
        watched.make(19, failed=True)
        early = watched.begin()
        watched.breaker.force(held)
        watched.breaker.force(None)
        assert watched.told[-1] == (held, CLOSED, "no longer forced", None)
        watched.end(early, failed=True)
        watched.make(19, failed=True)
        assert watched.state is CLOSED
        watched.make(1, failed=True)

        assert watched.state is OPEN

    def test_held_no_longer_it_opens_as_short_as_the_first_time(self, watched: Watched) -> None:
        for _ in range(4):
            watched.open()
            watched.close()
        watched.breaker.force(State.CLOSED)
        watched.breaker.force(None)

        assert 4.0 <= watched.open() <= 6.0

    def test_what_began_under_force_counts_for_nothing(self, watched: Watched) -> None:
        watched.breaker.force(State.CLOSED)
        permits = [watched.begin() for _ in range(50)]
        watched.breaker.force(None)
        for permit in permits:
            watched.end(permit, failed=True)

        assert watched.state is CLOSED

    def test_letting_go_of_what_is_not_held_is_told_only_if_it_changes_the_state(self, watched: Watched) -> None:
        watched.breaker.force(None)
        assert watched.told == []
        watched.open()
        watched.breaker.force(None)

        assert watched.told[1:] == [(OPEN, CLOSED, "no longer forced", None)]


class TestWithoutPolicy:
    def test_it_is_closed_whatever_happens_until_it_is_forced_open(self) -> None:
        told: list[Told] = []
        breaker = AlwaysClosed(lambda *change: told.append(change))
        for _ in range(100):
            permit = breaker.permit()
            assert permit is not None
            breaker.record(permit, failed=True, duration=SLOW)
        assert (breaker.state, breaker.wait(), told) == (CLOSED, 0.0, [])
        breaker.force(State.OPEN)
        assert (breaker.state, breaker.permit(), breaker.wait()) == (OPEN, None, 0.0)
        breaker.force(None)

        assert breaker.permit() is not None
        assert told == [(CLOSED, OPEN, "forced", None), (OPEN, CLOSED, "no longer forced", None)]


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (AlwaysClosed, "<AlwaysClosed open>"),
        (
            lambda changed: CircuitBreaker(Breaker(), SLOW_AFTER, Clock(), changed),
            "<CircuitBreaker open forced total=0 failed=0 slow=0 probing=0>",
        ),
    ],
)
def test_a_breaker_prints_its_state(make: Callable[[Callable[..., None]], Breaking], shown: str) -> None:
    breaker = make(lambda *_: None)
    breaker.force(State.OPEN)

    assert repr(breaker) == shown


@given(st.lists(st.sampled_from([True, False, None])), st.integers(1, 5), st.integers(1, 5))
def test_probes_begun_and_ended_in_any_order_never_exceed_what_is_allowed(
    endings: list[bool | None], probes: int, most: int
) -> None:
    watched = Watched(Breaker(minimum_calls=1, probes=probes, successes=most))
    watched.half_open()
    probing: list[int] = []
    for failed in endings:
        while (permit := watched.breaker.permit()) is not None and watched.state is HALF_OPEN:
            probing.append(permit)
            assert len(probing) <= probes
        if watched.state is not HALF_OPEN:
            break
        assert len(probing) == probes
        watched.end(probing.pop(0), failed=failed)


class Naive:
    """A breaker that keeps every attempt and counts them all each time: slow, and easy to believe."""

    def __init__(self, policy: Breaker, clock: Clock) -> None:
        self.policy = policy
        self.clock = clock
        self.forced: State | None = None
        self.until = 0.0
        self.closed_at = -math.inf
        self.opened: list[float] = []  # the times of openings in a row, without chance
        self.begin(CLOSED)

    def begin(self, state: State) -> None:
        self.own = state
        self.era = object()
        self.probing = 0
        self.successes = 0
        self.ended: list[tuple[float, bool, bool]] = []

    @property
    def state(self) -> State:
        return self.forced or self.own

    def permit(self) -> object | None:
        """Return the era that the attempt belongs to, None if there is to be none."""
        if self.forced:
            return object() if self.forced is CLOSED else None
        if self.own is OPEN and self.clock.now >= self.until:
            self.begin(HALF_OPEN)
        if self.own is OPEN or (self.own is HALF_OPEN and self.probing == self.policy.probes):
            return None
        self.probing += self.own is HALF_OPEN
        return self.era

    def record(self, era: object, *, failed: bool | None, slow: bool) -> None:
        if era is not self.era or self.forced:
            return
        self.probing -= self.own is HALF_OPEN
        if failed is not None:
            (self.judge_probe if self.own is HALF_OPEN else self.judge)(failed=failed, slow=slow)

    def judge_probe(self, *, failed: bool, slow: bool) -> None:
        if failed or slow:
            self.open()
        else:
            self.successes += 1
            if self.successes == self.policy.successes:
                self.closed_at = self.clock.now
                self.begin(CLOSED)

    def judge(self, *, failed: bool, slow: bool) -> None:
        self.ended.append((self.clock.now, failed, slow))
        slice_ = self.policy.window / 10
        kept = [one for one in self.ended if self.clock.now // slice_ - one[0] // slice_ < 10]
        failures, slows = sum(one[1] for one in kept), sum(one[2] for one in kept)
        if len(kept) >= self.policy.minimum_calls and (
            failures / len(kept) >= self.policy.failure_rate or slows / len(kept) >= self.policy.slow_rate
        ):
            if self.clock.now - self.closed_at >= self.policy.longest_open_time:
                self.opened = []
            self.open()

    def open(self) -> None:
        self.opened.append(min(self.policy.open_time * 2 ** len(self.opened), self.policy.longest_open_time))
        self.begin(OPEN)

    def force(self, state: Forced | None) -> None:
        self.forced = state
        self.opened = []
        self.begin(CLOSED)


class Comparison(RuleBasedStateMachine):
    """A breaker and a naive one, to which the same happens."""

    permits = Bundle[tuple[int, object]]("permits")

    @initialize(
        policy=st.builds(
            Breaker,
            window=st.sampled_from([2.5, 10.0]),
            minimum_calls=st.integers(1, 4),
            failure_rate=st.sampled_from([0.25, 0.5, 1.0]),
            slow_rate=st.sampled_from([0.5, 1.0]),
            open_time=st.sampled_from([2.0, 5.0]),
            longest_open_time=st.sampled_from([5.0, 20.0]),
            probes=st.integers(1, 3),
            successes=st.integers(1, 3),
        ),
        seed=st.integers(0, 1000),
    )
    def begin(self, policy: Breaker, seed: int) -> None:
        self.watched = Watched(policy, seed)
        self.naive = Naive(policy, self.watched.clock)
        self.seen: list[tuple[State, State]] = []

    @rule(target=permits)
    def ask(self) -> tuple[int, object]:
        one = self.begun()
        return one or multiple()  # type: ignore[return-value] # nothing, if there is no permit

    @rule(one=consumes(permits), failed=st.sampled_from([True, False, None]), slow=st.booleans())
    def end(self, one: tuple[int, object], failed: bool | None, slow: bool) -> None:  # noqa: FBT001 - a rule's values
        self.ended(one, failed=failed, slow=slow)

    @rule(count=st.integers(2, 5), failed=st.booleans(), slow=st.booleans())
    def make(self, count: int, failed: bool, slow: bool) -> None:  # noqa: FBT001 - a rule's values
        for _ in range(count):
            if one := self.begun():
                self.ended(one, failed=failed, slow=slow)

    def begun(self) -> tuple[int, object] | None:
        former = self.naive.state
        permit, era = self.watched.breaker.permit(), self.naive.permit()
        self.look(former)
        assert (permit is None) == (era is None)
        return None if permit is None else (permit, era)

    def ended(self, one: tuple[int, object], *, failed: bool | None, slow: bool) -> None:
        permit, era = one
        former = self.naive.state
        self.watched.end(permit, failed=failed, duration=SLOW if slow else QUICK)
        self.naive.record(era, failed=failed, slow=slow)
        if failed is None:
            assert self.naive.state is former
        self.look(former)

    @rule(quarters=st.integers(0, 60))
    def advance(self, quarters: int) -> None:
        self.watched.clock.advance(quarters / 4)

    @rule()
    def wait(self) -> None:
        """Wait until it lets a probe through, to a whole second, so that slices of time begin where they are seen."""
        self.watched.clock.advance(float(math.ceil(self.watched.breaker.wait())))

    @rule(state=st.sampled_from([OPEN, CLOSED, None]))
    def force(self, state: Forced | None) -> None:
        former, held = self.naive.state, self.naive.forced
        self.watched.breaker.force(state)
        self.naive.force(state)
        assert self.watched.state is (state or CLOSED)
        self.look(former, told=former is not self.naive.state or state is not held)

    def look(self, former: State, *, told: bool | None = None) -> None:
        """See that a change, and nothing else, was told; and for how long it is open, which chance decides."""
        state = self.naive.state
        if told if told is not None else former is not state:
            self.seen.append((former, state))
        assert self.watched.turns == self.seen
        if state is OPEN and former is not OPEN and self.naive.forced is None:
            time = self.watched.told[-1][3]
            assert time is not None
            assert 0.8 * self.naive.opened[-1] <= time <= 1.2 * self.naive.opened[-1]
            assert time <= 1.2 * self.naive.policy.longest_open_time
            self.naive.until = self.watched.clock.now + time

    @invariant()
    def they_do_not_differ(self) -> None:
        assert self.watched.state is self.naive.state
        left = self.naive.until - self.watched.clock.now if self.naive.own is OPEN else 0.0
        assert self.watched.breaker.wait() == max(0.0, left)


def test_whatever_happens_it_behaves_as_a_naive_one() -> None:
    run_state_machine_as_test(Comparison, settings=settings(max_examples=70, stateful_step_count=50))
