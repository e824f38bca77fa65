"""The line through what an answer costs is the straight one, and a step stands out from it."""

from __future__ import annotations

import pytest

from bench.comparing.growth import GROWTHS, fitted
from bench.comparing.rows import Row
from tests.bench.comparing.measured import SECOND, of, run, widths

WIDTH, _, _, LOG = GROWTHS


def test_points_on_a_straight_line_give_that_line() -> None:
    line = fitted([(1.0, 150.0), (3.0, 350.0), (10.0, 1050.0), (32.0, 3250.0)])

    assert (line.start, line.slope, line.r2) == pytest.approx((50.0, 100.0, 1.0))
    assert line.furthest[1] == pytest.approx(0.0, abs=1e-9)


def test_a_step_is_the_point_that_is_furthest_from_the_line() -> None:
    line = fitted([(1.0, 100.0), (2.0, 110.0), (3.0, 120.0), (4.0, 260.0), (5.0, 140.0), (6.0, 150.0)])

    assert line.furthest[0] == 4.0
    assert line.furthest[1] > 0.3
    assert line.r2 < 0.9


def test_a_small_point_counts_as_much_as_a_large_one() -> None:
    line = fitted([(1.0, 100.0), (10.0, 1000.0), (1000.0, 120_000.0)])

    assert line.at(1.0) == pytest.approx(100.0, rel=0.2)


def test_a_flat_line_has_no_slope_and_fits() -> None:
    line = fitted([(1.0, 100.0), (2.0, 100.0), (3.0, 100.0)])

    assert (line.start, line.slope, line.r2) == pytest.approx((100.0, 0.0, 1.0))


def test_points_of_different_runs_are_not_on_one_line() -> None:
    both = of(*widths()).with_run(run(SECOND), widths(slope=70.0)[:3])
    (series,) = WIDTH.series(both)

    assert [x for x, _ in series.points] == [1, 3, 10]
    assert series.line.slope == pytest.approx(70.0)


def test_two_points_are_too_few_for_a_line() -> None:
    assert WIDTH.series(of(*widths()[:2])) == []


def test_cost_against_the_log_s_volume_is_one_line_through_all_its_levels() -> None:
    levels = {"Tributary, log off": 0.0, "Tributary, log of problems": 600.0, "Tributary": 3000.0}
    rows = [Row(server=name, work="log", cpu_us=300 + size / 20, log_bytes=size) for name, size in levels.items()]
    (series,) = LOG.series(of(Row(server="bare ASGI + aiohttp", work="log", cpu_us=250.0), *rows))

    assert series.server == "Tributary"
    assert (series.line.start, series.line.slope) == pytest.approx((300.0, 50.0))
