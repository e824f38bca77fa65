"""The budget pays for some retries, never for a storm of them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.upstreams.clock import Clock
from upstreams import Budget
from upstreams.budget import RetryBudget


def spent(budget: RetryBudget, most: int = 1000) -> int:
    """Spend all that there is; return how much it was."""
    for count in range(most):
        if not budget.spend():
            return count
    return most


@pytest.mark.parametrize(
    "policy", [Budget(), Budget(burst=1), Budget(share=0.0, floor=0.0), Budget(floor=100.0), Budget(burst=50)]
)
def test_it_begins_full(policy: Budget) -> None:
    assert spent(RetryBudget(policy, Clock())) == policy.burst


@pytest.mark.parametrize(("calls", "tokens"), [(4, 0), (5, 1), (24, 4), (26, 5), (51, 10), (5000, 10)])
def test_five_good_calls_earn_one_up_to_the_burst(calls: int, tokens: int) -> None:
    budget = RetryBudget(Budget(), Clock())
    spent(budget)
    for _ in range(calls):
        budget.earn()

    assert spent(budget) == tokens


@pytest.mark.parametrize(("seconds", "tokens"), [(0.0, 0), (0.75, 0), (1.0, 1), (7.5, 7), (10.0, 10), (86400.0, 10)])
def test_every_second_earns_one_up_to_the_burst(seconds: float, tokens: int) -> None:
    clock = Clock()
    budget = RetryBudget(Budget(), clock)
    spent(budget)
    clock.advance(seconds)

    assert spent(budget) == tokens


def test_a_refusal_costs_nothing() -> None:
    clock = Clock()
    budget = RetryBudget(Budget(share=0.0), clock)
    spent(budget)
    granted = []
    for _ in range(16):
        clock.advance(0.125)
        granted.append(budget.spend())

    assert granted == ([False] * 7 + [True]) * 2


def test_it_prints_what_is_left_which_is_never_more_than_the_burst() -> None:
    assert repr(RetryBudget(Budget(burst=50), Clock())) == "<RetryBudget 50.0 of 50>"
    budget = RetryBudget(Budget(), Clock())
    for _ in range(500):
        budget.earn()
    assert repr(budget) == "<RetryBudget 10.0 of 10>"
    budget.spend()
    assert repr(budget) == "<RetryBudget 9.0 of 10>"


@given(
    st.builds(Budget, share=st.floats(0, 1), floor=st.floats(0, 100), burst=st.integers(1, 20)),
    st.lists(st.sampled_from(["good call", "retry"]) | st.floats(0, 10), max_size=60),
)
def test_between_any_two_moments_there_are_no_more_retries_than_share_floor_and_burst_allow(
    policy: Budget, history: list[str | float]
) -> None:
    clock = Clock()
    budget = RetryBudget(policy, clock)
    moments = [(0, clock.now, 0)]  # good calls, seconds, retries
    for event in history:
        good, _, retries = moments[-1]
        if isinstance(event, float):
            clock.advance(event)
        elif event == "good call":
            budget.earn()
            good += 1
        else:
            retries += budget.spend()
        moments.append((good, clock.now, retries))

    for nth, (good, now, retries) in enumerate(moments):
        for good_then, then, retries_then in moments[:nth]:
            allowed = policy.share * (good - good_then) + policy.floor * (now - then) + policy.burst
            assert retries - retries_then <= allowed + 1e-6


class Comparison(RuleBasedStateMachine):
    """A budget and a bucket of exact fractions that is filled the moment something flows in."""

    @initialize(
        policy=st.builds(
            Budget,
            share=st.sampled_from([0.0, 0.125, 0.25, 1.0]),
            floor=st.sampled_from([0.0, 0.5, 2.0]),
            burst=st.integers(1, 10),
        )
    )
    def begin(self, policy: Budget) -> None:
        self.policy = policy
        self.clock = Clock()
        self.budget = RetryBudget(policy, self.clock)
        self.tokens = Fraction(0)
        self.fill(Fraction(policy.burst))

    def fill(self, more: Fraction) -> None:
        self.tokens = min(self.tokens + more, Fraction(self.policy.burst))

    @rule(count=st.integers(1, 20))
    def earn(self, count: int) -> None:
        for _ in range(count):
            self.budget.earn()
            self.fill(Fraction(self.policy.share))

    @rule(eighths=st.integers(0, 100))
    def advance(self, eighths: int) -> None:
        self.clock.advance(eighths / 8)
        self.fill(Fraction(self.policy.floor) * eighths / 8)

    @rule(count=st.integers(1, 12))
    def spend(self, count: int) -> None:
        for _ in range(count):
            assert self.budget.spend() is (self.tokens >= 1)
            self.tokens -= self.tokens >= 1


def test_whatever_happens_it_behaves_as_a_naive_one() -> None:
    run_state_machine_as_test(Comparison, settings=settings(max_examples=60, stateful_step_count=40))
