"""A target is met, or missed by so much, or was not measured; nobody has to read it off."""

from __future__ import annotations

from bench.comparing.rows import Row
from bench.comparing.targets import OVER_P50, TARGETS
from tests.bench.comparing.measured import of

WORK = "one client, three upstreams of 20 ms"


def test_a_figure_at_its_target_is_met() -> None:
    assert OVER_P50.verdict(of(Row(server="Tributary", work=WORK, over_p50_ms=1.5))) == "met"


def test_a_figure_beyond_its_target_is_missed_by_the_difference() -> None:
    missed = of(Row(server="Tributary", work=WORK, over_p50_ms=2.1))

    assert OVER_P50.verdict(missed) == "missed by 0.60 ms (40.0%)"
    assert OVER_P50.came(missed) == "2.10 ms"


def test_what_was_not_measured_is_neither() -> None:
    assert {target.verdict(of()) for target in TARGETS} == {"not measured"}


def test_what_the_leaders_of_a_shared_page_cost_is_no_follower_s() -> None:
    (follower,) = (target for target in TARGETS if "follower" in target.name)
    shared = Row(
        server="Tributary, coalesced", work="64 clients, one page", ratios={"Tributary": 0.52}, upstream_requests=0.6
    )  # a fifth of its answers are fan-outs of three

    assert follower.came(of(shared)) == "0.40 x"


def test_two_workers_of_which_one_does_most_of_the_work_miss_their_target() -> None:
    (busier,) = (target for target in TARGETS if "busier" in target.name)
    uneven, even = (Row(server="Tributary, 2 workers", work="workers", workers=2, busiest=part) for part in (0.6, 0.52))

    assert busier.verdict(of(uneven)) == "missed by 0.05 x (9.1%)"
    assert busier.verdict(of(even)) == "met"
