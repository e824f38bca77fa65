"""Pages: what each calls, what waits for what, and what was observed of it."""

from __future__ import annotations

import re
from pathlib import Path

from django.urls import path

from gateway import call
from tests.conftest import StartStub
from tests.gateway.console.ops import PAGES, markup, operator, said, traffic
from tests.logs import Log
from tests.serving import PatientPage
from upstreams import GET, JSON, POST, Request, Upstream

UPSTREAMS = {"users": Upstream("http://127.0.0.1:9"), "reviews": Upstream("http://127.0.0.1:9")}


class Chain(PatientPage):
    @call("users")
    def alone(self) -> Request[JSON]:
        return GET("/alone")

    @call("users")
    def first(self) -> Request[JSON]:
        return GET("/first")

    @call("users", fallback=None)
    def second(self, first: JSON) -> Request[JSON | None]:
        return GET("/second")

    @call("reviews", after=("alone",))
    def third(self, second: JSON | None) -> Request[JSON]:
        return POST("/third", json=second)


def boxes(content: str) -> dict[str, tuple[int, int, str]]:
    """Return where each call is drawn, and the classes of its box."""
    found = re.findall(
        r'<g transform="translate\((\d+) (\d+)\)">\s*<rect class="box([^"]*)".*?<text class="strong"[^>]*>([^<]*)<',
        content,
        flags=re.DOTALL,
    )
    return {name: (int(x), int(y), classes) for x, y, classes, name in found}


async def test_every_routed_page_is_drawn_also_without_a_log() -> None:
    async with operator(None, UPSTREAMS, [*PAGES, path("chain", Chain.as_view())]) as client:
        text = said(await client.get("/ops/pages"))
    assert "HomePage GET, HEAD /home/<int:user_id>" in text
    assert "Chain GET, HEAD /chain" in text
    assert "There are no log files: set LOG_DIR." in text


async def test_a_call_stands_right_of_all_that_it_waits_for() -> None:
    async with operator(None, UPSTREAMS, [path("chain", Chain.as_view())]) as client:
        response = await client.get("/ops/pages")
    drawn = boxes(markup(response))
    assert drawn["alone"][0] == drawn["first"][0] < drawn["second"][0] < drawn["third"][0]
    assert drawn["alone"][1] != drawn["first"][1]
    assert "Longest chain: first \u2192 second \u2192 third." in said(response)


async def test_the_longest_chain_is_marked_and_so_is_what_carries_no_value() -> None:
    async with operator(None, UPSTREAMS, [path("chain", Chain.as_view())]) as client:
        content = markup(await client.get("/ops/pages"))
    drawn = boxes(content)
    assert [name for name, (_, _, classes) in drawn.items() if "chain" in classes] == ["first", "second", "third"]
    assert [name for name, (_, _, classes) in drawn.items() if "may-fail" in classes] == ["second"]
    assert sorted(re.findall(r'<path class="([^"]+)"', content)) == ["edge chain", "edge chain", "edge order"]


async def test_calls_bear_what_was_observed_of_them(tmp_path: Path, stub: StartStub, log: Log) -> None:
    await traffic(tmp_path, await stub("users"), await stub("reviews"), log)
    async with operator(tmp_path, UPSTREAMS, PAGES) as client:
        response = await client.get("/ops/pages")
        narrow = await client.get("/ops/pages?since=1ms")
    assert re.search(r"user call users p50 [0-9.]+ p95 [0-9.]+ ms 20%", said(response))
    cells = re.findall(r'data-is="calls">(\d*)<.*?data-is="failed">([^<]*)<', markup(response), flags=re.DOTALL)
    assert len(cells) == 3
    assert cells[0] == ("5", "20%")
    assert "p50 " not in said(narrow).split("As a table")[0]


async def test_a_window_that_is_none_is_said_and_the_pages_are_drawn_all_the_same(tmp_path: Path) -> None:
    async with operator(tmp_path, UPSTREAMS, PAGES) as client:
        text = said(await client.get("/ops/pages?since=whenever"))
    assert "'whenever' is no time" in text
    assert "HomePage" in text


async def test_a_project_without_pages_is_told_so() -> None:
    async with operator() as client:
        assert "No page is routed." in said(await client.get("/ops/pages"))
