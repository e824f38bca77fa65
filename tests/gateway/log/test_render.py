"""Every event is one line of JSON, with what every line has, whatever is in it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import structlog
from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import path

from gateway import AggregateView, call, fan_out, part
from gateway.log import events
from gateway.log.render import identify
from gateway.running.fan import Fan
from tests.conftest import StartStub
from tests.gateway.log.recording import heard
from tests.logs import CANARY, Log
from tests.serving import SHORT, SLOW, PatientPage
from tests.stub import Answered, Gate, Turns
from tests.ways import WAYS, asking
from upstreams import GET, JSON, POST, Request

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
IDENTITY = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "request_id": "the-request"}
SENT = {
    "traceparent": f"00-{IDENTITY['trace_id']}-00f067aa0ba902b7-01",
    "X-Request-ID": IDENTITY["request_id"],
    "Authorization": CANARY,
}


def test_every_line_begins_with_when_how_grave_and_what(log: Log) -> None:
    before = datetime.now(UTC)
    events.client_disconnected()
    after = datetime.now(UTC)

    (line,) = log.lines()
    event = msgspec.json.decode(line)
    assert list(event) == ["timestamp", "level", "event", "schema", "service.instance.id", "seq"]
    assert TIMESTAMP.fullmatch(event["timestamp"])
    assert before <= datetime.fromisoformat(event["timestamp"]) <= after
    assert (event["level"], event["event"], event["schema"]) == ("info", "client.disconnected", 1)


def test_a_timestamp_has_microseconds_even_where_there_are_none(log: Log) -> None:
    for _ in range(3000):  # of which one in a thousand has milliseconds only
        events.client_disconnected()

    timestamps = [event["timestamp"] for event in log.events()]
    assert all(map(TIMESTAMP.fullmatch, timestamps))
    assert timestamps == sorted(timestamps)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


def _circle() -> dict[str, Any]:
    circle: dict[str, Any] = {}
    circle["circle"] = circle
    return circle


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


VALUES: dict[str, Any] = {
    "half a character": "\ud800",
    "line breaks of every kind": "a\nb\rc\vd\fe\x1cf\x1dg\x1eh\x85i\u2028j\u2029k",
    "what moves a cursor": "\x1b[2J\x9b2J\x07\x00\x7f",
    "what turns text around": "\u202egnp.exe\u2066\u200f",
    "a number too large": 10**30,
    "a number too long": 10**5000,
    "no number": float("nan"),
    "no end": float("inf"),
    "bytes": b"\xff\n",
    "keys that are no names": {b"\xff": 1, None: 2, (1, 2): 3, "\ud800": 4},
    "what cannot be printed": Unprintable(),
    "a circle": _circle(),
    "a hundred thousand lists in each other": _deep(),
    "an exception": ValueError("a\nb"),
    "a set": {1},
    "any object": object(),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_whatever_is_logged_is_one_line_of_json(value: Any, log: Log) -> None:
    events.request_finished(level="info", fields={"url.path": "/", "input": value}, duration=0.0)
    structlog.get_logger().info("mine", value=value)
    heard().warning("%s", value)

    lines = log.lines()
    assert [msgspec.json.decode(line)["event"] for line in lines] == ["request.finished", "mine", "log.recorded"]
    for line in lines:
        assert line.decode().splitlines() == [line.decode()]
        assert not re.search("[\x00-\x1f\x80-\x9f\u200f\u202e\u2066]", line.decode())


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\x85\u2028", "\u202e", "caf\xe9 \u4e2d\u6587 \U0001f600", '"\\'])
def test_a_text_is_read_as_it_was_logged(text: str, log: Log) -> None:
    events.request_finished(level="info", fields={"url.path": text}, duration=0.0)

    assert log.events()[0]["url.path"] == text


def test_no_field_takes_the_place_of_what_the_log_says_itself(log: Log) -> None:
    said = ("timestamp", "level", "schema", "trace_id", "request_id", "http.route", "service.instance.id", "seq")
    forged = dict.fromkeys(said, "forged")
    events.request_finished(level="info", fields={**forged, "event": "forged", "url.path": "/"}, duration=0.0)
    structlog.get_logger().info("mine", **forged)

    assert [event["event"] for event in log.events()] == ["request.finished", "mine"]
    assert not [line for line in log.lines() if b"forged" in line]


def test_an_event_without_a_name_is_logged_all_the_same(log: Log) -> None:
    structlog.get_logger().info(None, user=7)

    (event,) = log.events()
    assert (event["event"], event["user"]) == ("None", 7)


def test_an_event_of_a_projects_own_is_redacted_and_says_whose_request_it_was(log: Log) -> None:
    def request() -> None:
        identify(IDENTITY)
        structlog.contextvars.bind_contextvars(tenant="shop", api_key=CANARY)
        error, items = KeyError(f"token={CANARY}"), [1, {"password": CANARY}]
        structlog.get_logger().error("cart.failed", items=items, url=f"http://h/?q={CANARY}", exc_info=error)

    contextvars.copy_context().run(request)

    (event,) = log.events("cart.failed")
    assert event.items() >= {**IDENTITY, "level": "error", "tenant": "shop", "api_key": "[redacted]"}.items()
    assert (event["items"], event["url"]) == ([1, {"password": "[redacted]"}], "http://h/?[redacted]")
    assert event["exception.type"] == "KeyError"
    assert "exc_info" not in event


# Whose request a line belongs to, in every way a request can be served.


class Steps(PatientPage):
    log_fields = ("user_id",)

    @call("items", optional=True)
    def item(self, user_id: int) -> Request[JSON]:
        logging.getLogger("shop").warning("in a call")
        return GET("/item", user=user_id)

    @part(optional=True)
    async def feed(self, fan: Fan) -> JSON:
        structlog.get_logger().info("shop.part")
        return await fan.call("items", GET("/item"), JSON)


class Writing(AggregateView):
    deadline = SHORT

    @call("items")
    def order(self) -> Request[JSON]:
        return POST("/order", json={"secret": CANARY})


async def function_view(request: HttpRequest, user_id: int) -> HttpResponse:
    async with fan_out(request, deadline=SLOW) as fan:
        return fan.answer(await fan.call("items", GET("/item"), JSON))


def sync_view(request: HttpRequest, user_id: int) -> HttpResponse:
    logging.getLogger("shop").warning("in a view")
    return HttpResponse("plain")


def sync_middleware(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        logging.getLogger("shop").warning("in a middleware")
        response = get_response(request)
        logging.getLogger("shop").warning("in a middleware")
        return response

    return middleware


def async_middleware(get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]]) -> Any:
    async def middleware(request: HttpRequest) -> HttpResponseBase:
        logging.getLogger("shop").warning("in a middleware")
        return await get_response(request)

    markcoroutinefunction(middleware)
    return middleware


async_middleware.async_capable = True  # type: ignore[attr-defined]
async_middleware.sync_capable = False  # type: ignore[attr-defined]

ROUTES = [
    path("steps/<int:user_id>", Steps.as_view()),
    path("function/<int:user_id>", function_view),
    path("sync/<int:user_id>", sync_view),
]
ACCEPTS = {"whole": "application/json", "lines": "application/jsonl", "events": "text/event-stream"}


def of_the_request(log: Log) -> list[dict[str, Any]]:
    """Return the request's lines, having seen that all of them say whose they are."""
    found = [
        event
        for event in log.events()
        if not event["event"].startswith("gateway.")
        and event.get("logger", "").partition(".")[0] not in {"uvicorn", "django", "asyncio"}
    ]
    for event in found:
        assert event.items() >= IDENTITY.items()
    return found


def routes(found: list[dict[str, Any]], since: str) -> set[Any]:
    """Return the routes named from the first line of a kind on."""
    first = next(nth for nth, event in enumerate(found) if event["event"] == since)
    return {event.get("http.route") for event in found[first:]}


@pytest.mark.parametrize("accept", ACCEPTS.values(), ids=ACCEPTS)
@pytest.mark.parametrize("way", WAYS)
async def test_every_line_of_a_page_says_whose_request_it_is(way: str, accept: str, stub: StartStub, log: Log) -> None:
    server = (await stub("items")).on("/item", Turns([Answered(status=503), {"id": 1}]))
    async with asking(way, ROUTES, {"items": server}) as ask:
        assert (await ask("GET", "/steps/7", headers={**SENT, "Accept": accept})).status == 200

    found = of_the_request(log)
    assert {event["event"] for event in found} >= {
        *("request.started", "request.finished", "attempt.finished", "retry.scheduled", "call.finished"),
        *("log.recorded", "shop.part"),
    }
    assert routes(found, "call.finished") == {"steps/<int:user_id>"}
    assert log.events("request.finished")[0]["user_id"] == 7


@pytest.mark.parametrize("way", WAYS)
async def test_every_line_says_whose_request_it_is_below_a_middleware_too(way: str, stub: StartStub, log: Log) -> None:
    server = (await stub("items")).on("/item", {"id": 1})
    chains = {
        "MIDDLEWARE": ["gateway.middleware.Edge", f"{__name__}.sync_middleware"],
        "PAGE_MIDDLEWARE": ["gateway.middleware.Edge", f"{__name__}.async_middleware"],
    }
    async with asking(way, ROUTES, {"items": server}, **chains) as ask:
        assert (await ask("GET", "/steps/7", headers=SENT)).status == 200

    found = of_the_request(log)
    assert "in a middleware" in {event.get("message") for event in found}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["function", "sync", "nowhere"])
async def test_every_line_of_other_views_says_whose_request_it_is(
    kind: str, way: str, stub: StartStub, log: Log
) -> None:
    server = (await stub("items")).on("/item", {"id": 1})
    async with asking(way, ROUTES, {"items": server}) as ask:
        assert (await ask("GET", f"/{kind}/7", headers=SENT)).status == (404 if kind == "nowhere" else 200)

    found = of_the_request(log)
    assert [event["event"] for event in found][:: len(found) - 1] == ["request.started", "request.finished"]
    assert found[-1].get("http.route") == (None if kind == "nowhere" else f"{kind}/<int:user_id>")
    assert kind != "function" or routes(found, "attempt.finished") == {"function/<int:user_id>"}


async def test_a_write_that_outlives_its_request_still_says_whose_it_is(stub: StartStub, log: Log) -> None:
    slow = Gate({"id": 1})
    server = (await stub("items")).on("/order", slow)
    async with asking("asgi", [path("order", Writing.as_view())], {"items": server}) as ask:
        assert (await ask("POST", "/order", headers=SENT)).status == 405
        assert (await ask("GET", "/order", headers=SENT)).status == 504
        slow.open.set()

    found = of_the_request(log)
    names = [event["event"] for event in found]
    assert names.index("attempt.finished") > len(names) - 1 - names[::-1].index("request.finished")
    assert routes(found, "attempt.finished") == {"order"}


async def test_requests_that_are_served_together_keep_their_lines_apart(stub: StartStub, log: Log) -> None:
    server = (await stub("items")).on("/item", {"id": 1})
    async with asking("asgi", ROUTES, {"items": server}) as ask:

        async def asked(nth: int) -> None:
            headers = {"X-Request-ID": f"request-{nth}", "traceparent": f"00-{nth + 1:032x}-00f067aa0ba902b7-01"}
            await ask("GET", f"/steps/{nth}", headers=headers)

        await asyncio.gather(*map(asked, range(30)))

    for nth in range(30):
        found = log.events(request_id=f"request-{nth}")
        assert {event["trace_id"] for event in found} == {f"{nth + 1:032x}"}
        assert [event["url.path"] for event in found if "url.path" in event] == [f"/steps/{nth}"] * 2
        assert len(found) == 9


async def test_lines_after_a_request_are_not_the_requests(stub: StartStub, log: Log) -> None:
    server = (await stub("items")).on("/item", {"id": 1})
    async with asking("asgi", ROUTES, {"items": server}) as ask:
        await ask("GET", "/steps/7", headers=SENT)

    (stopped,) = log.events("gateway.stopped")
    assert not stopped.keys() & {"trace_id", "request_id", "http.route"}
