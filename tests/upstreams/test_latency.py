"""The percentile is of the latest answers, told once there are enough, and made anew now and then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstreams.latency import Latencies


def after(durations: list[float]) -> Latencies:
    latencies = Latencies()
    for duration in durations:
        latencies.add(duration)
    return latencies


@pytest.mark.parametrize(("count", "p95"), [(0, None), (50, None), (99, None), (100, 95.0), (149, 95.0), (150, 142.0)])
def test_it_is_told_from_the_hundredth_answer_on_and_renewed_every_fifty(count: int, p95: float | None) -> None:
    assert after([float(n) for n in range(count)]).p95 == p95


def test_it_does_not_depend_on_the_order_of_the_answers() -> None:
    assert after([float(n) for n in reversed(range(100))]).p95 == 95.0


def test_one_slow_answer_in_fifty_does_not_move_it_and_one_in_ten_does() -> None:
    assert after([1.0 if n % 50 == 0 else 0.1 for n in range(500)]).p95 == 0.1
    assert after([1.0 if n % 10 == 0 else 0.1 for n in range(500)]).p95 == 1.0


def test_only_the_latest_five_hundred_count() -> None:
    assert after([9.0] * 500 + [0.1] * 450).p95 == 9.0
    assert after([9.0] * 500 + [0.1] * 500).p95 == 0.1


@given(st.lists(st.floats(0, 60), min_size=100, max_size=100), st.integers(1, 8))
def test_of_the_answers_it_was_made_of_at_least_95_percent_took_no_longer_and_at_most_95_took_less(
    durations: list[float], times: int
) -> None:
    latencies = after(durations * times)
    latest = (durations * times)[-500:]

    assert latencies.p95 is not None
    assert sum(duration <= latencies.p95 for duration in latest) >= 0.95 * len(latest)
    assert sum(duration < latencies.p95 for duration in latest) <= 0.95 * len(latest)


def test_it_prints_how_many_answers_it_has_seen_and_the_percentile() -> None:
    assert repr(after([0.5] * 99)) == "<Latencies of 99 p95=None>"
    assert repr(after([0.5] * 100)) == "<Latencies of 100 p95=0.5>"
