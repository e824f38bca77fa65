"""Figures are short enough for a column, and tell what matters of them."""

from __future__ import annotations

import pytest

from inspection.showing.columns import clipped, columns, table
from inspection.showing.figures import milliseconds, number, rate, share, size


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (None, "-"),
        (0, "0%"),
        (0.0004, "<0.1%"),
        (0.021, "2.1%"),
        (0.0996, "10.0%"),
        (0.1, "10%"),
        (0.995, "100%"),
        (1, "100%"),
    ],
)
def test_a_share_is_told_in_per_cent(part: float | None, told: str) -> None:
    assert share(part) == told


@pytest.mark.parametrize(
    ("time", "told"), [(None, "-"), (0.04, "0.0"), (12.34, "12.3"), (99.96, "100.0"), (1234.5, "1,234")]
)
def test_milliseconds_have_a_decimal_where_it_matters(time: float | None, told: str) -> None:
    assert milliseconds(time) == told


def test_rates_counts_and_sizes_are_told_in_the_unit_that_fits() -> None:
    assert [rate(each) for each in (0.004, 9.994, 12.34, 1234.56)] == ["0.00", "9.99", "12.3", "1,234.6"]
    assert number(1234567) == "1,234,567"
    assert [size(each) for each in (5, 2048, 5 << 20, 3 << 30, 3 << 40)] == [
        "5 B", "2.0 KiB", "5.0 MiB", "3.0 GiB", "3072.0 GiB",
    ]  # fmt: skip


def test_columns_line_up_and_those_that_say_nothing_are_left_out() -> None:
    assert list(columns([("a", "1"), ("bb", "22")], {1})) == ["a    1", "bb  22"]
    assert table(["name", "count", "none"], [["a", "1", "-"], ["b", "20", ""]], {"name"}) == [
        "name  count", "a         1", "b        20",
    ]  # fmt: skip


def test_what_is_too_long_keeps_its_beginning_and_its_end() -> None:
    assert clipped("short", 5) == "short"
    assert clipped("a-rather-long-name", 9) == "a-ra\u2026name"
    assert len(clipped("x" * 50, 10)) == 10
