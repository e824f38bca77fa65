"""The edge: an id, a wide line and problem+json around whatever is inside."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import RequestFactory
from django.urls import ResolverMatch, path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

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


def noting(_: HttpRequest) -> HttpResponse:
    logging.getLogger("till").warning("the till is empty")
    return HttpResponse()


async def noting_later(request: HttpRequest) -> HttpResponse:
    return noting(request)


@pytest.mark.parametrize("view", [noting, noting_later])
@pytest.mark.parametrize("way", WAYS)
async def test_what_an_ordinary_view_logs_itself_bears_its_route(
    log: Log, way: str, view: Callable[..., HttpResponse]
) -> None:
    async with asking(way, [path("tills", view)], {}) as ask:
        await ask("GET", "/tills")

    (recorded,) = log.events("log.recorded", logger="till")
    (finished,) = log.events("request.finished")
    assert recorded["http.route"] == finished["http.route"] == "tills"


@pytest.mark.parametrize("view", [noting, noting_later])
def test_to_learn_the_route_takes_no_thread_where_the_chain_is_on_the_loop_and_no_loop_where_it_is_not(
    view: Callable[..., HttpResponse],
) -> None:
    assert iscoroutinefunction(Edge(view).process_view) is iscoroutinefunction(view)


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


@require_safe
def reading(_: HttpRequest) -> HttpResponse:
    return HttpResponse("read")


def refusing(_: HttpRequest) -> HttpResponse:
    response = HttpResponse(status=401, headers={"WWW-Authenticate": "Basic", "Cache-Control": "private", "ETag": "a"})
    response.set_cookie("seen", "1")
    return response


@pytest.mark.parametrize("way", WAYS)
async def test_an_error_of_a_view_that_has_no_body_gets_one_and_keeps_what_else_it_says(log: Log, way: str) -> None:
    routes = [path("reading", csrf_exempt(reading)), path("refusing", refusing)]
    async with asking(way, routes, {}) as ask:
        method, own = await ask("POST", "/reading", {"X-Request-ID": "asked-1"}), await ask("GET", "/refusing")

    assert (method.status, method.header("Content-Type")) == (405, "application/problem+json")
    assert (method.header("Allow"), method.header("Cache-Control")) == ("GET, HEAD", "no-store")
    assert method.json == {
        "type": "about:blank",
        "title": "Method Not Allowed",
        "status": 405,
        "request_id": "asked-1",
    }
    assert (own.status, own.json["title"], own.header("WWW-Authenticate")) == (401, "Unauthorized", "Basic")
    assert (own.header("Cache-Control"), own.header("ETag"), own.all("Set-Cookie")) == (
        "private",
        None,
        ["seen=1; Path=/"],
    )
    assert {line["bytes_out"] for line in log.events("request.finished")} == {len(method.body), len(own.body)}


@pytest.mark.parametrize("way", ["asgi", "wsgi"])
async def test_a_request_that_may_be_forged_is_refused_with_a_problem(log: Log, way: str) -> None:
    async with asking(way, [path("tills", noting)], {}, DEBUG=True) as ask:
        got = await ask("POST", "/tills", {"X-Request-ID": "asked-1", "Origin": "http://elsewhere.example"})

    assert (got.status, got.header("Content-Type")) == (403, "application/problem+json")
    assert got.json == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": "the request's CSRF token or origin is missing or wrong",
        "request_id": "asked-1",
    }
    assert not log.events("log.recorded", logger="till")


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
