"""Upstreams: a card for each, and a switch that every worker of the machine obeys."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest
from django.test import AsyncClient

from gateway.serving.holds import Hold, hold, holds
from tests.gateway.console.ops import markup, operator, said
from tests.inspection.shop import Line, attempt, call, line, write
from tests.logs import Log
from upstreams import Upstream

TABLE = {
    "catalog": Upstream(["http://127.0.0.1:9", "http://127.0.0.1:10"]),
    "users": Upstream("http://127.0.0.1:11", breaker=None, retry=None),
}
FIRST, SECOND = {"server.address": "127.0.0.1:9"}, {"server.address": "127.0.0.1:10"}
PROCESS = {"service__instance__id": "web-7"}


async def logged(folder: Path, *lines: Line) -> None:
    await asyncio.to_thread(write, folder / "gateway-7.ndjson", *lines)


def card(page: str, name: str) -> str:
    """Return the part of a page that is an upstream's card, without markup."""
    found = re.search(rf'<article [^>]*id="{name}".*?</article>', page, re.DOTALL)
    assert found is not None
    return " ".join(re.sub(r"<[^>]*>", " ", found[0]).split())


async def posted(client: AsyncClient, name: str, state: str, length: str = "5m") -> str:
    """Hold a breaker as the form does; returns the page that follows."""
    response = await client.post(f"/ops/upstreams/{name}/hold?since=all", {"state": state, "length": length})
    assert response.status_code == 302
    return markup(await client.get(response["Location"]))


# Cards


async def test_a_card_shows_how_attempts_went_in_all_and_at_each_host(tmp_path: Path) -> None:
    good = [attempt(number, duration_ms=12.0, **FIRST) for number in range(9)]
    bad = attempt(9, outcome="failed", duration_ms=90.0, **SECOND)
    await logged(tmp_path, *good, bad, *(call(number) for number in range(10)))
    async with operator(tmp_path, TABLE) as client:
        page = markup(await client.get("/ops/upstreams?since=all"))
    shown = card(page, "catalog")
    assert "10% failed" not in shown  # the figure stands before its name in the markup's reading order
    assert "failed 10%" in shown
    assert "attempts/call 1.00" in shown
    assert re.search(r"127\.0\.0\.1:9 9 0% 12\.\d", shown)
    assert re.search(r"127\.0\.0\.1:10 1 100% 90\.\d", shown)
    assert page.count('<rect class="neutral"') == 10
    assert page.count('<rect class="bad"') == 1


async def test_an_upstream_that_was_not_asked_has_a_card_that_says_so(tmp_path: Path) -> None:
    await logged(tmp_path, attempt(0, **FIRST))
    async with operator(tmp_path, TABLE) as client:
        page = markup(await client.get("/ops/upstreams?since=all"))
    assert "Nothing was asked of it in this time." in card(page, "users")
    assert "no breaker" in card(page, "users")


async def test_a_breaker_is_shown_as_it_is_in_each_process_that_runs(tmp_path: Path) -> None:
    await logged(
        tmp_path,
        attempt(0, **FIRST),
        line("breaker.changed", 1, upstream="catalog", to="open", reason="failures", open_ms=5000, **PROCESS),
        line("breaker.changed", 2, upstream="users", to="open", reason="failures", service__instance__id="web-8"),
        line("gateway.stopped", 3, service__instance__id="web-8"),
    )
    async with operator(tmp_path, TABLE) as client:
        page = markup(await client.get("/ops/upstreams?since=all"))
    assert "web-7 open 09:00:01 failures; probed at 09:00:06" in card(page, "catalog")
    assert "web-8" not in card(page, "users")


async def test_a_part_of_the_page_brings_every_card_up_to_date_and_no_form(tmp_path: Path) -> None:
    await logged(tmp_path, attempt(0, **FIRST))
    async with operator(tmp_path, TABLE) as client:
        part = markup(await client.get("/ops/upstreams?since=all&part=cards"))
    assert part.count('hx-swap-oob="innerHTML"') == len(TABLE) + 1
    assert "<form" not in part
    assert "<html" not in part


async def test_what_other_people_wrote_into_the_log_is_no_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    told = {"reason": evil, "service__instance__id": evil}
    await logged(
        tmp_path,
        attempt(0, **{"server.address": evil}),
        line("breaker.changed", 1, upstream="catalog", to="open", **told),
        line("host.ejected", 2, upstream="catalog", out_ms=1e12, server__address=evil, **told),
    )
    async with operator(tmp_path, TABLE) as client:
        page = markup(await client.get("/ops/upstreams?since=all"))
    assert page.count("&lt;script&gt;alert(1)") >= 4
    assert evil not in page


async def test_a_window_that_is_none_is_told_of_in_the_page(tmp_path: Path) -> None:
    await logged(tmp_path, attempt(0))
    async with operator(tmp_path, TABLE) as client:
        page = said(await client.get("/ops/upstreams?since=yesterday"))
    assert "is no time" in page
    assert "Nothing was asked" not in page


# Holding


@pytest.mark.parametrize(("state", "length", "seconds"), [("open", "5m", 300), ("closed", "2h", 7200)])
async def test_a_breaker_is_held_for_as_long_as_was_said_and_the_page_says_so(
    tmp_path: Path, log: Log, state: str, length: str, seconds: float
) -> None:
    await logged(tmp_path, attempt(0, **FIRST))
    async with operator(tmp_path, TABLE) as client:
        page = await posted(client, "catalog", state, length)
    held = (await asyncio.to_thread(holds, tmp_path))["catalog"]
    assert (held.state, held.by) == (state, "console 127.0.0.1")
    assert held.left is not None
    assert seconds - 120 < held.left <= seconds
    assert f"held {state} until" in card(page, "catalog")
    assert "Every worker on this machine follows within a second." in page
    (acted,) = log.events("console.acted", action="held")
    assert (acted["upstream"], acted["to"], acted["client.address"]) == ("catalog", state, "127.0.0.1")


async def test_a_hold_without_an_end_lasts_until_it_is_let_go(tmp_path: Path) -> None:
    await logged(tmp_path, attempt(0, **FIRST))
    async with operator(tmp_path, TABLE) as client:
        assert "until it is let go" in card(await posted(client, "catalog", "open", "no end"), "catalog")
        assert (await asyncio.to_thread(holds, tmp_path))["catalog"].until is None
        page = await posted(client, "catalog", "auto")
    assert "its breaker decides by itself" in page
    assert await asyncio.to_thread(holds, tmp_path) == {}


async def test_a_hold_that_somebody_else_made_is_shown_with_who_it_was(tmp_path: Path) -> None:
    await logged(tmp_path, attempt(0, **FIRST))
    await asyncio.to_thread(hold, tmp_path, "users", Hold("closed", "<b>eve</b> at a terminal", time.time() + 60))
    async with operator(tmp_path, TABLE) as client:
        page = markup(await client.get("/ops/upstreams?since=all"))
    assert "by &lt;b&gt;eve&lt;/b&gt; at a terminal" in card(page, "users")


@pytest.mark.parametrize("form", [{}, {"state": "ajar", "length": "5m"}, {"state": "open", "length": "1y"}])
async def test_a_form_that_makes_no_sense_holds_nothing(tmp_path: Path, form: dict[str, str]) -> None:
    await logged(tmp_path, attempt(0, **FIRST))
    async with operator(tmp_path, TABLE) as client:
        response = await client.post("/ops/upstreams/catalog/hold", form)
    assert response.status_code == 400
    assert "That is no way to hold a breaker." in response.content.decode()
    assert await asyncio.to_thread(holds, tmp_path) == {}


async def test_only_an_upstream_in_the_settings_can_be_held_and_only_by_a_form(tmp_path: Path) -> None:
    async with operator(tmp_path, TABLE) as client:
        unknown = await client.post("/ops/upstreams/nobody/hold", {"state": "open", "length": "5m"})
        asked = await client.get("/ops/upstreams/catalog/hold")
    assert (unknown.status_code, asked.status_code, asked["Allow"]) == (404, 405, "POST")


async def test_without_a_place_for_holds_the_buttons_are_off_and_the_page_says_why() -> None:
    async with operator(None, TABLE) as client:
        page = markup(await client.get("/ops/upstreams"))
        refused = await client.post("/ops/upstreams/catalog/hold", {"state": "open", "length": "5m"})
    assert page.count('<button name="state"') == page.count('disabled aria-describedby="no-holds"') == 6
    assert "set LOG_DIR or GATEWAY_CONTROL_DIR" in page
    assert refused.status_code == 400


async def test_holds_that_cannot_be_read_or_written_are_told_of_in_the_page(tmp_path: Path) -> None:
    await logged(tmp_path, attempt(0, **FIRST))
    await asyncio.to_thread((tmp_path / "breakers.json").mkdir)
    async with operator(tmp_path, TABLE) as client:
        assert "What is held cannot be read" in said(await client.get("/ops/upstreams?since=all"))
        response = await client.post("/ops/upstreams/catalog/hold", {"state": "open", "length": "5m"})
    assert response.status_code == 503
    assert "The hold could not be written" in response.content.decode()
