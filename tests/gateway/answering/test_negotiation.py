"""Which form an answer takes, by what the client says it accepts."""

from __future__ import annotations

import aiohttp
import msgspec
import pytest
from django.test import RequestFactory
from django.urls import path

from gateway import AggregateView, Answer, Problem, call
from gateway.answering.negotiation import negotiate
from tests.conftest import StartStub
from tests.serving import PatientPage, gateway
from tests.stub import Answered
from tests.ways import WAYS, asking
from upstreams import GET, JSON, Request

JSON_TYPE, JSONL, SSE = "application/json", "application/jsonl", "text/event-stream"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
LONG = ", ".join(f"text/x-{number};q=0.{number}" for number in range(5000))

#: What a client accepts, what it gets of a page that can stream, and of one that cannot; None is a 406.
TABLE: list[tuple[str | None, str | None, str | None]] = [
    (None, JSON_TYPE, JSON_TYPE),
    ("", JSON_TYPE, JSON_TYPE),
    (" , ,", JSON_TYPE, JSON_TYPE),
    ("*/*", JSON_TYPE, JSON_TYPE),
    ("application/*", JSON_TYPE, JSON_TYPE),
    ("application/json", JSON_TYPE, JSON_TYPE),
    ("Application/JSON", JSON_TYPE, JSON_TYPE),
    ("application/json; charset=utf-8", JSON_TYPE, JSON_TYPE),
    ("application/json, text/plain, */*", JSON_TYPE, JSON_TYPE),
    ("application/json, application/problem+json", JSON_TYPE, JSON_TYPE),
    (BROWSER, JSON_TYPE, JSON_TYPE),
    ("application/jsonl", JSONL, None),
    ("APPLICATION/JSONL ; q=0.3", JSONL, None),
    ("text/event-stream", SSE, None),
    ("text/*", SSE, None),
    ("text/event-stream, */*", SSE, JSON_TYPE),
    ("*/*, text/event-stream", SSE, JSON_TYPE),
    ("text/event-stream;q=0.5, */*", JSON_TYPE, JSON_TYPE),
    ("application/json;q=0.5, application/jsonl", JSONL, JSON_TYPE),
    ("application/json;q=0.5, application/jsonl;q=0.4", JSON_TYPE, JSON_TYPE),
    ("application/jsonl, application/json", JSONL, JSON_TYPE),
    ("application/json, application/jsonl", JSON_TYPE, JSON_TYPE),
    ("application/jsonl;q=.2, text/event-stream;q=0.", JSONL, None),
    ("application/json;q=0, */*", JSONL, None),
    ("application/json;q=0.0, application/jsonl;q=0, */*;q=0.1", SSE, None),
    ("*/*;q=0", None, None),
    ("application/json;q=0", None, None),
    ("application/json;q=0, application/jsonl;q=0, text/event-stream;q=0, */*", None, None),
    ("application/problem+json", None, None),
    ("text/html", None, None),
    ("image/*", None, None),
    ("application/jsonlines", None, None),
    ("garbage", None, None),
    ("/", None, None),
    (";q=1", None, None),
    ("application/json;q=high", JSON_TYPE, JSON_TYPE),
    ("application/json;q=-1", JSON_TYPE, JSON_TYPE),
    ("application/json;q=7", JSON_TYPE, JSON_TYPE),
    ("application/json;a*=nothing'en'x", JSON_TYPE, JSON_TYPE),
    (LONG, None, None),
    (f"application/jsonl, {LONG}", JSONL, None),
    (f"*/x, {LONG}, application/json", None, None),
    ("a" * 5000, None, None),
    (f"{'a,' * 2041}application/json-patch+json", None, None),
    (f"application/json;a={'b' * 20_000}", JSON_TYPE, JSON_TYPE),
]


@pytest.mark.parametrize(("accept", "streamable", "plain"), TABLE, ids=[str(row[0])[:60] or "empty" for row in TABLE])
def test_the_client_gets_what_it_likes_best_of_what_there_is(
    accept: str | None, streamable: str | None, plain: str | None
) -> None:
    request = RequestFactory().get("/", headers={} if accept is None else {"Accept": accept})
    for can_stream, expected in ((True, streamable), (False, plain)):
        if expected is not None:
            assert negotiate(request, streamable=can_stream) == expected
        else:
            with pytest.raises(Problem) as raised:
                negotiate(request, streamable=can_stream)
            assert raised.value.status == 406


class Page(PatientPage):
    @call("all")
    def thing(self) -> Request[JSON]:
        return GET("/thing")


class DecidesOnMore(Page):
    def merge(self, thing: JSON) -> Answer[JSON]:
        return Answer(thing)


class MayDecideOnMore(Page):
    def merge(self, thing: JSON) -> Answer[JSON] | JSON:
        return thing


@pytest.mark.parametrize(
    ("page", "accept", "offered"),
    [
        (Page, "text/html", "application/json, application/jsonl, text/event-stream"),
        (DecidesOnMore, "text/html", "application/json"),
        (DecidesOnMore, "application/jsonl", "application/json"),
        (DecidesOnMore, "text/event-stream", "application/json"),
        (MayDecideOnMore, "text/event-stream", "application/json"),
    ],
)
async def test_what_there_is_not_is_a_406_that_says_what_there_is_and_asks_nobody(
    stub: StartStub, client: aiohttp.ClientSession, page: type[AggregateView], accept: str, offered: str
) -> None:
    server = await stub("all")
    async with (
        gateway([path("", page.as_view())], {"all": server}) as base,
        client.get(base, headers={"Accept": accept}) as answer,
    ):
        body = msgspec.json.decode(await answer.read())

    assert (answer.status, answer.content_type) == (406, "application/problem+json")
    assert (body["detail"], answer.headers["Vary"]) == (f"this page can be had as {offered}", "Accept")
    assert not server.received


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
@pytest.mark.parametrize("accept", ["*/*", JSON_TYPE, JSONL, SSE])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("way", WAYS)
async def test_what_depends_on_accept_says_so_to_caches_and_nothing_else_does(
    stub: StartStub, way: str, method: str, accept: str
) -> None:
    server = (await stub("all")).on("/thing", {})
    async with asking(
        way, [path("page", Page.as_view()), path("one", DecidesOnMore.as_view())], {"all": server}
    ) as ask:
        got, one = await ask(method, "/page", {"Accept": accept}), await ask(method, "/one")

    assert (got.status, got.all("Vary")) == (200, ["Accept"])
    assert (one.status, one.all("Vary")) == (200, [])


async def test_a_failed_page_says_so_too(stub: StartStub) -> None:
    server = (await stub("all")).on("/thing", Answered({}, 404))
    async with asking("asgi", [path("page", Page.as_view())], {"all": server}) as ask:
        got = await ask("GET", "/page")

    assert (got.status, got.all("Vary")) == (502, ["Accept"])
