"""`manage.py call`: a page run from the shell, its answer on stdout, its calls' story on stderr."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from django.urls import path, re_path

from gateway import call
from gateway.log import configure
from tests.gateway import shop as shop_pages
from tests.program import URLS, Ended, program, ran, write_project
from tests.serving import PatientPage, Table, project
from tests.stub import Answered, Gate, Turns, serving_stub
from upstreams import GET, JSON, POST, Request, Retry, Upstream


class Search(msgspec.Struct):
    q: str
    tag: list[str] = []


class Item(PatientPage):
    @call("shop")
    def item(self, item_id: int, query: Search) -> Request[JSON]:
        return GET("/items/{id}", query={"q": query.q, "tag": query.tag}, id=item_id)

    @call("others", optional=True)
    def recommendations_for_this_item(self, item_id: int) -> Request[JSON]:
        return GET("/for/{id}", id=item_id)


class Order(PatientPage):
    @call("shop")
    def order(self, body: Search) -> Request[JSON]:
        return POST("/orders", json=body)


class Listed(PatientPage):
    @call("shop")
    def items(self, number: str | None) -> Request[JSON]:
        return GET("/items", page=number or "first")


ROUTES = [
    path("items/<int:item_id>/<slug:unused>", Item.as_view()),
    path("orders", Order.as_view()),
    path("more/<number>", Listed.as_view(deadline=50.0)),
    re_path(r"^listed(?:/(?P<number>\d+))?$", Listed.as_view()),
]
ASKED = ("Item", "item_id=7", "-q", "q=a b=c", "-q", "tag=x", "-q", "tag=y")


async def called(table: Table, *arguments: str) -> Ended:
    with project(ROUTES, table):
        return await asyncio.to_thread(ran, "call", *arguments)


async def test_the_answer_is_printed_and_what_its_calls_did() -> None:
    async with serving_stub("shop") as shop, serving_stub("others") as others:
        shop.on("/items/7", Turns([Answered({}, 503), {"id": 12345678901234567890}]))
        others.on("/for/7", ["tea"])
        twice = Upstream(shop.url, retry=Retry(attempts=2), forward_headers=("x-user",))
        table: Table = {"shop": twice, "others": others}
        ended = await called(table, *ASKED, "-H", "X-User: ada", "-H", "X-Request-ID: asked-1")

    assert ended.code == 0
    assert (
        ended.out
        == """\
{
  "data": {
    "item": {
      "id": 12345678901234567890
    },
    "recommendations_for_this_item": [
      "tea"
    ]
  },
  "complete": true,
  "errors": {}
}
"""
    )
    assert [asked.query for asked in shop.received] == [[("q", "a b=c"), ("tag", "x"), ("tag", "y")]] * 2
    assert [asked.headers["x-user"] for asked in shop.received] == ["ada"] * 2
    title, drawn, footer = ended.err.split("\n\n")
    head, *rows = drawn.splitlines()
    assert title.startswith("GET /Item  200 ok  ")
    assert "request asked-1" in title
    assert head.split()[:7] == ["call", "upstream", "try", "outcome", "wait", "start", "took"]
    assert sorted(row.split()[:4] for row in rows) == [
        ["item", "shop", "1", "503"],
        ["item", "shop", "2", "200"],
        ["recommendations_for_thi…", "others", "1", "200"],
    ]
    assert footer.startswith("  3 attempts for 2 calls")


async def test_a_failed_page_is_a_failure() -> None:
    async with serving_stub("shop") as shop, serving_stub("others") as others:
        shop.on("/items/7", Answered({}, 500))
        ended = await called({"shop": shop, "others": others}, *ASKED)

    assert ended.code == 1
    assert msgspec.json.decode(ended.out)["status"] == 502
    assert " 502 failed " in ended.err


async def test_a_body_is_sent_as_json() -> None:
    async with serving_stub("shop") as shop:
        shop.on("/orders", {"placed": True})
        ended = await called({"shop": shop}, "Order", "-d", '{"q": "tea"}')

    assert ended.code == 0
    assert [asked.json for asked in shop.received] == [{"q": "tea", "tag": []}]


async def test_a_stream_is_printed_as_it_comes_and_fails_as_it_ends() -> None:
    async with serving_stub("shop") as shop, serving_stub("others") as others:
        shop.on("/items/7", Answered({}, 500))
        others.on("/for/7", Gate([]))
        ended = await called({"shop": shop, "others": others}, *ASKED, "-H", "Accept: application/jsonl")

    frames = [msgspec.json.decode(line) for line in ended.out.splitlines()]
    assert ended.code == 1
    assert [next(iter(frame)) for frame in frames] == ["pending", "problem"]
    assert "502 failed" in ended.err


async def test_the_waterfall_is_drawn_whatever_the_settings_log() -> None:
    configure({"level": "error", "steps": "problems"})
    async with serving_stub("shop") as shop, serving_stub("others") as others:
        shop.on("/items/7", {})
        ended = await called({"shop": shop, "others": others}, *ASKED)

    assert "2 attempts for 2 calls" in ended.err


@pytest.mark.parametrize(("given", "page"), [((), "first"), (("number=3",), "3")])
async def test_what_a_url_may_leave_out_need_not_be_given(given: tuple[str, ...], page: str) -> None:
    async with serving_stub("shop") as shop:
        shop.on("/items", [])
        ended = await called({"shop": shop}, "Listed", *given)

    assert (ended.code, [asked.query for asked in shop.received]) == (0, [[("page", page)]])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Itme",), "no page is called 'Itme'; routed pages: "),
        (("Item",), "Item takes item_id=..."),
        (("Item", "item_id=7", "unused=x"), "Item takes item_id=..."),
        (("Item", "item_id=seven"), "item_id: Expected `int`, got `str`"),
        (("Item", "7"), "'7' must be written name=value"),
        (("Item", "item_id=7", "-H", "Accept"), "'Accept' must be written name:value"),
        (("Item", "item_id=7", "-q", "=1"), "'=1' must be written name=value"),
    ],
)
async def test_a_wrong_argument_is_said_in_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    with project(ROUTES, {"shop": Upstream("http://127.0.0.1:1")}):
        ended = await asyncio.to_thread(ran, "call", *arguments)

    assert ended.code == 1
    assert ended.err.startswith(f"CommandError: {said}")


async def test_a_name_that_two_pages_bear_is_asked_about() -> None:
    with project([*ROUTES, path("other", shop_pages.Item.as_view())], {}):
        ended = await asyncio.to_thread(ran, "call", "Item", "item_id=7")

    names = (f"{__name__}.Item", "tests.gateway.shop.Item")
    assert ended.err == f"CommandError: several pages are called Item: {', '.join(names)}"


async def test_in_a_shell_stdout_has_the_answer_alone(tmp_path: Path) -> None:
    async with serving_stub("shop") as shop:
        shop.on("/items/7", {"id": 7})
        arguments = ("manage.py", "call", "Item", "item_id=7")
        async with program(*arguments, environment=write_project(tmp_path, {"shop": shop.url}, URLS)) as calling:
            ended = await calling.ends()

    assert ended.code == 0
    assert msgspec.json.decode(ended.out)["data"] == {"item": {"id": 7}}
    assert {"GET", "at", "call", "item"} <= {line.split()[0] for line in ended.err.splitlines() if line}
