"""The handler's contract: one table, the same under ASGI, WSGI and both of Django's test clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, NamedTuple

import msgspec
import pytest
from asgiref.sync import sync_to_async
from blockbuster import BlockBuster
from django.apps import apps
from django.core import signals
from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpRequest, HttpResponseBase
from django.urls import path
from django.utils.decorators import async_only_middleware

from gateway import AggregateView, Fan, part
from tests.conftest import StartStub
from tests.gateway.shop import FILE_CONTENT, ROUTES, SEVEN, Links, shop
from tests.logs import CANARY, Log
from tests.serving import PatientPage, project
from tests.ways import WAYS, asking, listening, spoken, until
from upstreams import Upstream

STREAMING = "ignore:StreamingHttpResponse must consume:Warning"  # Django says so of files under ASGI


@pytest.fixture(autouse=True)
def reading_the_body_may_block_under_wsgi(no_blocking_on_the_loop: BlockBuster) -> None:
    """There the loop is one request's own, and the body comes from a blocking socket."""
    read = no_blocking_on_the_loop.functions["io.BufferedReader.read"]
    read.can_block_in("django/core/handlers/wsgi.py", {"_read", "read"})


LARGE = {"text": "x" * 200_000}
ECHOED = {"data": {"order": LARGE}, "complete": True, "errors": {}}


class Row(NamedTuple):
    """One line of the contract: what is asked, and what must be answered. A `body` of None is not looked at."""

    method: str
    path: str
    status: int
    body: Any
    headers: Mapping[str, str | None] = {}
    sent: Mapping[str, str] = {}
    content: bytes = b""


def problem(status: int, title: str, **more: Any) -> dict[str, Any]:
    return {"type": "about:blank", "title": title, "status": status, "request_id": "asked-1", **more}


SEEN = "seen=me; Path=/"
JSON_BODY = {"Content-Type": "application/json"}
PROBLEM = {"Content-Type": "application/problem+json"}
CONTRACT = {
    "a page": Row("GET", "/items/7", 200, SEVEN, {"Content-Type": "application/json", "X-Complete": "true"}),
    "a page asked for its headers": Row("HEAD", "/items/7", 200, b"", {"Content-Length": "54", "X-Complete": "true"}),
    "a page asked for its methods": Row("OPTIONS", "/items/7", 204, b"", {"Allow": "GET, HEAD, OPTIONS"}),
    "a method that a page does not have": Row(
        "PUT", "/items/7", 405, problem(405, "Method Not Allowed"), {**PROBLEM, "Allow": "GET, HEAD, OPTIONS"}
    ),
    "a method that nothing has": Row("PROPFIND", "/items/7", 405, None, PROBLEM),
    "a kwarg that the route gives": Row("GET", "/seven", 200, SEVEN),
    "a path without its slash": Row("GET", "/slashed/7", 301, b"", {"Location": "/slashed/7/"}),
    "a path with its slash": Row("GET", "/slashed/7/", 200, SEVEN),
    "a path that leads nowhere": Row("GET", "/nowhere", 404, problem(404, "Not Found"), PROBLEM),
    "the methods of nowhere": Row("OPTIONS", "/nowhere", 404, problem(404, "Not Found"), PROBLEM),
    "the headers of nowhere": Row("HEAD", "/nowhere", 404, b"", PROBLEM),
    "a path that is not UTF-8": Row("GET", "/caf%E9", 404, problem(404, "Not Found"), PROBLEM),
    "a query that is not UTF-8": Row("GET", "/items/7?as=%FF", 200, SEVEN),
    "a path that its converter stumbles over": Row("GET", "/fragile/1", 500, None, PROBLEM),
    "a failed page": Row("GET", "/broken", 502, None, {**PROBLEM, "X-Complete": "false"}),
    "a large body": Row("POST", "/orders", 200, ECHOED, {}, JSON_BODY, msgspec.json.encode(LARGE)),
    "too large a body": Row("POST", "/orders", 413, None, PROBLEM, JSON_BODY, b"[" * 500_001),
    "a body that is not JSON": Row("POST", "/orders", 400, None, PROBLEM, JSON_BODY, b'{"text": '),
    "a body of another kind": Row("POST", "/orders", 415, None, PROBLEM, {"Content-Type": "text/csv"}, b"a,b"),
    "an answer with cookies": Row("GET", "/decorated", 201, None, {"X-Own": "mine"}),
    "lines as they come": Row("GET", "/items/7", 200, None, {"Content-Type": "application/jsonl"},
                              {"Accept": "application/jsonl"}),
    "a form that a page does not have": Row("GET", "/items/7", 406, None, PROBLEM, {"Accept": "image/png"}),
    "a plain view": Row("GET", "/views/plain", 200, b"plain", {"Content-Length": "5"}),
    "a synchronous view": Row("GET", "/views/synchronous?as=me", 200, b"synchronous", {"Set-Cookie": SEEN}),
    "a file": Row("GET", "/views/file", 200, FILE_CONTENT, {"Content-Type": "text/x-python"}),
    "a view's own error page": Row("GET", "/views/own-404", 404, b"<h1>nothing here</h1>"),
    "a view that raises Http404": Row("GET", "/views/404", 404, problem(404, "Not Found"), PROBLEM),
    "a view that forbids": Row("GET", "/views/403", 403, problem(403, "Forbidden"), PROBLEM),
    "a view that crashes": Row("GET", "/views/500", 500, None, PROBLEM),
}  # fmt: skip


@pytest.mark.filterwarnings(STREAMING)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", CONTRACT.values(), ids=CONTRACT.keys())
async def test_the_contract_holds_in_every_way_of_asking(stub: StartStub, way: str, row: Row) -> None:
    async with asking(way, ROUTES, await shop(stub), DEBUG=False) as ask:
        got = await ask(row.method, row.path, {"X-Request-ID": "asked-1", **row.sent}, row.content)

    assert got.status == row.status
    assert got.all("X-Request-ID") == ["asked-1"]
    assert {name: got.header(name) for name in row.headers} == row.headers
    assert row.body is None or row.body == (got.body if isinstance(row.body, bytes) else got.json)
    assert CANARY.encode() not in got.body


@pytest.mark.parametrize("way", WAYS)
async def test_cookies_arrive_one_header_each(stub: StartStub, way: str) -> None:
    async with asking(way, ROUTES, await shop(stub)) as ask:
        got = await ask("GET", "/decorated")

    assert got.json["data"] == {"id": 7}
    assert got.all("Set-Cookie") == ["plain=1; Path=/", "guarded=2; HttpOnly; Path=/"]


@pytest.mark.filterwarnings(STREAMING)
@pytest.mark.parametrize("way", WAYS)
async def test_a_stream_arrives_whole(stub: StartStub, way: str) -> None:
    async with asking(way, ROUTES, await shop(stub)) as ask:
        got = await ask("GET", "/items/7", {"Accept": "application/jsonl"})

    frames = [msgspec.json.decode(line) for line in got.body.splitlines()]
    assert frames == [
        {"pending": ["item"]},
        {"call": "item", "data": {"id": 7}},
        {"result": {"item": {"id": 7}}, "complete": True, "errors": {}},
    ]


@pytest.mark.parametrize("way", WAYS)
async def test_an_error_is_never_html_where_debug_is_on_neither(stub: StartStub, way: str) -> None:
    async with asking(way, ROUTES, await shop(stub), DEBUG=True) as ask:
        for method, where, status in (
            ("GET", "/nowhere", 404),
            ("PUT", "/items/7", 405),
            ("GET", "/broken", 502),
            ("GET", "/items/99999", 502),
            ("GET", "/views/500", 500),
        ):
            got = await ask(method, where)
            assert (got.status, got.header("Content-Type")) == (status, "application/problem+json")
        own = await ask("GET", "/views/own-404")

    assert own.body == b"<h1>nothing here</h1>"


@pytest.mark.parametrize("way", WAYS)
async def test_settings_middleware_is_around_everything_but_pages_under_asgi(stub: StartStub, way: str) -> None:
    async with asking(way, ROUTES, await shop(stub)) as ask:
        page, view = await ask("GET", "/items/7"), await ask("GET", "/views/plain")

    assert view.header("X-Frame-Options") == "DENY"
    assert page.header("X-Frame-Options") == (None if way == "asgi" else "DENY")


@pytest.mark.filterwarnings(STREAMING)
@pytest.mark.parametrize("kind", ["synchronous", "asynchronous", "both"])
@pytest.mark.parametrize("way", WAYS)
async def test_the_signals_around_a_request_are_sent_once_each(stub: StartStub, way: str, kind: str) -> None:
    asked = ["/items/7", "/nowhere", "/broken", "/slashed/7", "/views/plain", "/views/synchronous"]
    served = way in {"asgi", "wsgi"}
    streamed = ["/items/7"] if served else []  # Django's clients cannot close an async stream with such receivers
    async with asking(way, ROUTES, await shop(stub)) as ask:
        with listening(kind) as heard:
            for where in asked:
                await ask("GET", where)
            for where in streamed:
                await ask("GET", where, {"Accept": "application/jsonl"})
            times = (2 if kind == "both" else 1) * len(asked + streamed)
            await until(lambda: not served or len(heard["finished"]) == times)  # a server closes after the last byte

    assert len(heard["started"]) == len(heard["finished"]) == times
    assert heard["started"] == heard["finished"] or not served


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What leaves the event loop's thread: threads that are started, and work handed to a pool of them."""
    seen: list[str] = []
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    def started(thread: threading.Thread) -> None:
        seen.append(f"{thread} started")
        start(thread)

    def submitted(pool: ThreadPoolExecutor, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
        seen.append(f"{function} handed over")
        return submit(pool, function, *arguments, **keywords)

    monkeypatch.setattr(threading.Thread, "start", started)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", submitted)
    return seen


WARM = [
    ("GET", "/items/7", 200),
    ("HEAD", "/items/7", 200),
    ("OPTIONS", "/items/7", 204),
    ("PUT", "/items/7", 405),
    ("GET", "/nowhere", 404),
    ("GET", "/fragile/1", 500),
    ("GET", "/broken", 502),
    ("POST", "/orders", 200),
    ("POST", "/orders?empty", 415),
]


async def test_no_thread_is_started_or_used_for_a_page_or_for_nothing(stub: StartStub, hops: list[str]) -> None:
    apps.get_app_config("gateway").ready()  # Django's test clients, used by other tests, connect receivers anew
    async with asking("asgi", ROUTES, await shop(stub)) as ask:
        for method, where, status in WARM * 2:
            hops.clear()
            sent = JSON_BODY if where == "/orders" else {}
            got = await ask(method, where, sent, b'{"text": "x"}' if method == "POST" else b"")
            assert (got.status, hops) == (status, [])
        await ask("GET", "/items/7", {"Accept": "text/event-stream"})
        assert hops == []
        await ask("GET", "/views/synchronous")

    assert any("started" in hop for hop in hops)


@pytest.mark.parametrize("where", ["/items/7", "/nowhere", "/views/plain"])
async def test_a_query_that_cannot_be_read_is_a_problem_with_an_id(log: Log, where: str) -> None:
    with project(ROUTES, {"shop": Upstream("http://127.0.0.1:1")}), listening("synchronous") as heard:
        got = await spoken("GET", where, b"as=\xff")

    assert (got.status, got.header("X-Request-ID")) == (400, "asked-1")
    assert got.json == problem(400, "Bad Request")
    assert [event["outcome"] for event in log.events("request.finished")] == ["rejected"]
    assert len(heard["started"]) == len(heard["finished"]) == 1


@pytest.mark.parametrize("where", ["/items/7", "/nowhere", "/views/plain"])
@pytest.mark.parametrize("times", [1, 100])
async def test_a_content_type_that_would_take_seconds_to_read_is_not_read(where: str, times: int) -> None:
    field = (b"content-type", b'a;"' + b";" * (60_000 // times))
    with project(ROUTES, {"shop": Upstream("http://127.0.0.1:1")}):
        got = await spoken("GET", where, headers=[(b"x-request-id", b"asked-1"), *[field] * times])

    assert (got.status, got.header("X-Request-ID")) == (400, "asked-1")
    assert got.json == problem(400, "Bad Request")


@pytest.mark.parametrize("prefix", ["/api", "/api/"])
@pytest.mark.parametrize("given_by", ["server", "settings"])
async def test_pages_are_below_the_script_prefix(stub: StartStub, prefix: str, given_by: str) -> None:
    forced: dict[str, Any] = {"FORCE_SCRIPT_NAME": prefix} if given_by == "settings" else {}
    scope: dict[str, Any] = {"root_path": prefix} if given_by == "server" else {}
    with project([path("links/<int:item_id>", Links.as_view(), name="links")], await shop(stub), **forced):
        below = await spoken("GET", "/api/links/7", **scope)
        beside = await spoken("GET", "/apix/links/7", **scope)

    assert below.json["data"] == {"self": "/api/links/7", "item": {"id": 7}}
    assert beside.status == 404


async def test_what_a_request_opened_is_closed_with_its_answer(stub: StartStub) -> None:
    upload = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.txt"\r\n\r\nhello\r\n--x--\r\n'
    opened.clear()
    async with asking("asgi", ROUTES, await shop(stub), PAGE_MIDDLEWARE=[*EDGE, f"{__name__}.opening"]) as ask:
        got = await ask("POST", "/orders", {"Content-Type": "multipart/form-data; boundary=x"}, upload)

    assert got.status == 415
    assert len(opened) == 3
    assert all(thing.closed for thing in opened)


EDGE = ["gateway.middleware.Edge"]
opened: list[Any] = []


@async_only_middleware
def opening(answer: Any) -> Any:
    """Opens files, and leaves it to Django to close them."""

    async def answered(request: HttpRequest) -> HttpResponseBase:
        opened.extend((request.FILES["a"], request._stream))
        response: HttpResponseBase = await answer(request)
        opened.append(BytesIO(b"something the answer holds"))
        response._resource_closers.append(opened[-1].close)  # type: ignore[attr-defined]
        return response

    return answered


class Asking(AggregateView):
    """A page that asks a thread, as one that uses the ORM does."""

    deadline = 60

    @part
    async def thread(self, fan: Fan, request: HttpRequest) -> int:
        if "wait" in request.GET:
            await sync_to_async(hold)()
        return await sync_to_async(threading.get_ident)()


held, let_go = threading.Event(), threading.Event()


def hold() -> None:
    held.set()
    let_go.wait()


async def test_receivers_and_a_pages_own_thread_are_one_as_databases_need() -> None:
    idents: list[int] = []

    def hear(**_: Any) -> None:
        idents.append(threading.get_ident())

    signals.request_started.connect(hear)
    signals.request_finished.connect(hear)
    with project([path("", Asking.as_view())], {}):
        got = await spoken("GET", "/")
    signals.request_started.disconnect(hear)
    signals.request_finished.disconnect(hear)

    assert idents == [got.json["data"]["thread"]] * 2
    assert idents[0] != threading.get_ident()


async def test_a_receiver_that_the_signal_keeps_itself_is_called_with_the_signal_and_not_before() -> None:
    heard: list[dict[str, Any]] = []

    def hear(**given: Any) -> None:
        heard.append(given)

    signals.request_finished.connect(hear, weak=False)
    try:
        with project([path("", Asking.as_view())], {}):
            await spoken("GET", "/")
    finally:
        signals.request_finished.disconnect(hear)

    assert [given["signal"] for given in heard] == [signals.request_finished]


class Broken(PatientPage):
    @part
    async def wrong(self, fan: Fan) -> int:
        raise KeyError("mine")


async def raising(**_: Any) -> None:
    raise AssertionError("is not called")


def refusing(**_: Any) -> None:
    raise SynchronousOnlyOperation


@pytest.mark.parametrize("receiver", [raising, refusing])
async def test_a_receiver_that_cannot_hear_of_a_mistake_spoils_no_answer(
    receiver: Callable[..., Any], log: Log
) -> None:
    heard: list[HttpRequest] = []

    def hear(request: HttpRequest, **_: Any) -> None:
        heard.append(request)

    signals.got_request_exception.connect(receiver)
    signals.got_request_exception.connect(hear)
    try:
        with project([path("", Broken.as_view())], {}):
            got = await spoken("GET", "/")
    finally:
        signals.got_request_exception.disconnect(receiver)
        signals.got_request_exception.disconnect(hear)

    assert (got.status, got.json["type"]) == (500, "urn:tributary:problem:proxy_internal_error")
    assert [request.path for request in heard] == ["/"]
    assert [event["outcome"] for event in log.events("request.finished")] == ["failed"]
    assert len(log.events("log.recorded", level="error")) == 2


async def test_a_page_that_waits_for_its_thread_holds_up_no_other() -> None:
    with project([path("", Asking.as_view())], {}):
        waiting = asyncio.create_task(spoken("GET", "/", b"wait"))
        try:
            await until(held.is_set)
            async with asyncio.timeout(20):
                other = await spoken("GET", "/")
        finally:
            let_go.set()
            await waiting

    assert other.status == 200
