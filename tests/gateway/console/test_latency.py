"""Latency: percentiles over time, of everything, of a route or of an upstream, as a chart and as tables."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import AsyncClient

from tests.gateway.console.ops import markup, operator, said
from tests.inspection.shop import START, attempt, request, write


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """Return a folder with a log of three minutes; in the second, nothing happened."""
    lines = (
        request(1, duration_ms=10.0),
        request(2, duration_ms=30.0, outcome="failed"),
        attempt(3, upstream="users", duration_ms=5.0),
        request(121, duration_ms=50.0, http__route="product/<str:sku>"),
    )
    await asyncio.to_thread(write, tmp_path / "gateway-1.ndjson", *lines)
    return tmp_path


async def points(client: AsyncClient, query: str) -> dict[str, Any]:
    """Return what the chart draws."""
    response = await client.get(f"/ops/latency/points?{query}")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


async def test_the_chart_has_a_point_an_hour_where_a_window_may_be_days_long(folder: Path) -> None:
    async with operator(folder) as client:
        found = await points(client, "since=all")
    assert (found["unit"], found["step"], found["fault"]) == ("request", 3600, "")
    assert (found["at"], found["count"]) == ([int(START.timestamp())], [3])
    assert found["p50_ms"][0] == pytest.approx(30.0, rel=0.02)


async def test_the_chart_has_a_point_a_minute_in_a_short_window_and_a_gap_where_nothing_was(tmp_path: Path) -> None:
    then = (datetime.now(UTC) - timedelta(minutes=10)).replace(second=0, microsecond=0)
    ago = (then - START).total_seconds()
    lines = (request(ago, duration_ms=10.0), request(ago + 121, duration_ms=50.0))
    await asyncio.to_thread(write, tmp_path / "gateway-1.ndjson", *lines)
    async with operator(tmp_path) as client:
        found = await points(client, "since=1h")
    begin = int(then.timestamp())
    assert (found["step"], found["at"]) == (60, [begin, begin + 60, begin + 120])
    assert found["count"] == [1, 0, 1]
    assert found["p99_ms"][1] is None


@pytest.mark.parametrize(
    ("query", "unit", "count"),
    [
        ("route=home", "request", 2),
        ("route=product/%3Cstr:sku%3E", "request", 1),
        ("upstream=users", "attempt", 1),
    ],
)
async def test_the_chart_is_of_the_route_or_the_upstream_that_was_chosen(
    folder: Path, query: str, unit: str, count: int
) -> None:
    async with operator(folder) as client:
        found = await points(client, f"since=all&{query}")
        page = said(await client.get(f"/ops/latency?since=all&{query}"))
    assert (found["unit"], sum(found["count"])) == (unit, count)
    assert f"of the {unit}s" in page


async def test_every_route_and_upstream_is_in_a_table_and_can_be_chosen(folder: Path) -> None:
    async with operator(folder) as client:
        page = markup(await client.get("/ops/latency?since=all"))
    assert 'href="?route=product%2F%3Cstr%3Asku%3E&amp;since=all"' in page
    assert 'href="?since=all&amp;upstream=users"' in page
    assert 'data-points="/ops/latency/points?since=all"' in page


async def test_what_the_chart_shows_is_there_as_a_table_too(folder: Path) -> None:
    async with operator(folder) as client:
        page = said(await client.get("/ops/latency?since=all"))
    assert "The chart as a table" in page
    assert "2026-05-04 09:00:00 3 33%" in page


async def test_where_nothing_was_logged_there_is_a_sentence_and_no_chart(folder: Path) -> None:
    async with operator(folder) as client:
        page = markup(await client.get("/ops/latency?since=all&route=nowhere"))
    assert "No request has been logged in this time." in page
    assert "data-points" not in page


async def test_a_window_that_is_none_is_told_of_in_the_page_and_in_the_chart(folder: Path) -> None:
    async with operator(folder) as client:
        assert "is no time" in said(await client.get("/ops/latency?since=yesterday"))
        found = await points(client, "since=yesterday")
    assert "is no time" in found["fault"]
    assert found["at"] == []


async def test_a_name_with_markup_is_shown_as_it_is(folder: Path) -> None:
    async with operator(folder) as client:
        page = markup(await client.get("/ops/latency?since=all&upstream=%3Cscript%3Ealert(1)%3C/script%3E"))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
