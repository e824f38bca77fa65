"""The edge: an id, a wide line and problem+json around whatever is inside."""

from __future__ import annotations

import asyncio

import pytest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import RequestFactory
from django.urls import ResolverMatch, path

from gateway.middleware import Edge
from tests.conftest import StartStub
from tests.gateway.shop import ROUTES, shop
from tests.logs import CANARY, Log
from tests.ways import WAYS, asking

FIT = ["a", pytest.param("x" * 128, id="128"), "018f-4b.A_z"]
UNFIT = ["", "x" * 129, "a b", "a;b", "a\tb", "naïve", f"{CANARY}\x1b[31m"]


@pytest.mark.parametrize("given", FIT)
@pytest.mark.parametrize("way", WAYS)
async def test_an_id_that_is_fit_to_be_logged_is_taken(stub: StartStub, log: Log, way: str, given: str) -> None:
    async with asking(way, ROUTES, await shop(stub)) as ask:
        got = await ask("GET", "/nowhere", {"X-Request-ID": given})

    assert got.header("X-Request-ID") == got.json["request_id"] == given
    lines = [*log.events("request.started"), *log.events("request.finished")]
    assert [line["request_id"] for line in lines] == [given, given]


@pytest.mark.parametrize("given", UNFIT)
async def test_an_id_that_is_not_is_replaced(log: Log, given: str) -> None:
    request = RequestFactory().get("/", headers={"X-Request-ID": given})
    response = Edge(lambda _: HttpResponse())(request)
    assert isinstance(response, HttpResponse)

    taken = response["X-Request-ID"]
    assert taken != given
    assert len(taken) == 32
    assert [event["request_id"] for event in log.events("request.finished")] == [taken]


@pytest.mark.parametrize("way", WAYS)
async def test_there_is_one_wide_line_a_request_with_its_route(stub: StartStub, log: Log, way: str) -> None:
    asked = {
        "/items/7": ("items/<int:item_id>", 200, "ok"),
        "/broken": ("broken", 502, "failed"),
        "/nowhere": (None, 404, "rejected"),
        "/views/plain": ("views/plain", 200, "ok"),
        "/views/403": ("views/403", 403, "rejected"),
        "/views/500": ("views/500", 500, "failed"),
        "/slashed/7": (None, 301, "ok"),
    }
    async with asking(way, ROUTES, await shop(stub)) as ask:
        sizes = {where: len((await ask("GET", where)).body) for where in asked}

    lines = {line["url.path"]: line for line in log.events("request.finished")}
    assert len(log.events("request.finished")) == len(log.events("request.started")) == len(asked)
    assert asked == {
        where: (line.get("http.route"), line["http.response.status_code"], line["outcome"])
        for where, line in lines.items()
    }
    assert {where: line["bytes_out"] for where, line in lines.items()} == sizes


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_body_tells_no_length(status: int) -> None:
    response = Edge(lambda _: HttpResponse(status=status))(RequestFactory().get("/"))
    assert isinstance(response, HttpResponse)

    assert not response.has_header("Content-Length")


def test_a_length_that_a_view_tells_is_left_alone() -> None:
    response = Edge(lambda _: HttpResponse("", headers={"Content-Length": "7"}))(RequestFactory().head("/"))
    assert isinstance(response, HttpResponse)

    assert response["Content-Length"] == "7"


def test_a_streaming_view_has_its_line_when_it_starts(log: Log) -> None:
    response = Edge(lambda _: StreamingHttpResponse([b"a"]))(RequestFactory().get("/"))

    assert isinstance(response, StreamingHttpResponse)
    assert not response.has_header("Content-Length")
    assert [line["bytes_out"] for line in log.events("request.finished")] == [None]


@pytest.mark.parametrize("content_type", ["text/html", "text/html; charset=utf-8", "application/json"])
@pytest.mark.parametrize("found", ["nothing", "a view"])
def test_only_html_that_no_view_made_is_replaced(content_type: str, found: str) -> None:
    request = RequestFactory().get("/")
    if found == "a view":
        request.resolver_match = ResolverMatch(lambda: None, (), {}, route="")
    response = Edge(lambda _: HttpResponse("own", status=404, content_type=content_type))(request)
    assert isinstance(response, HttpResponse)

    replaced = found == "nothing" and content_type.startswith("text/html")
    assert response["Content-Type"] == ("application/problem+json" if replaced else content_type)
    assert (response.content == b"own") is not replaced


async def test_a_view_that_is_cancelled_is_told_as_a_client_that_left(log: Log) -> None:
    reached = asyncio.Event()

    async def waiting(_: HttpRequest) -> HttpResponse:
        reached.set()
        await asyncio.Event().wait()
        return HttpResponse()

    answering = Edge(waiting)(RequestFactory().get("/"))
    assert not isinstance(answering, HttpResponse)
    task = asyncio.ensure_future(answering)  # type: ignore[arg-type]
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [line["outcome"] for line in log.events("request.finished")] == ["disconnected"]
    assert len(log.events("client.disconnected")) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_an_exception_of_a_view_is_logged_with_its_traceback_and_told_to_nobody(
    stub: StartStub, log: Log, way: str
) -> None:
    async def crashing(_: HttpRequest) -> HttpResponse:
        raise RuntimeError("what only the log may know")

    async with asking(way, [*ROUTES, path("crashing", crashing)], await shop(stub), DEBUG=True) as ask:
        got = await ask("GET", "/crashing")

    assert (got.status, got.header("Content-Type")) == (500, "application/problem+json")
    assert b"only the log" not in got.body
    assert len([line for line in log.events("log.recorded") if "only the log may know" in str(line)]) == 1
