"""The catalogue is closed: nothing else logs by structlog, every event is named noun.verb, and its fields are known."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import path

from gateway import call, fan_out, part
from gateway.log import events
from gateway.running.fan import Fan
from tests.conftest import StartStub
from tests.gateway.log.processes import ROOT
from tests.logs import CANARY, Log
from tests.serving import SLOW, PatientPage, gateway
from tests.stub import Answered, Turns
from upstreams import GET, JSON, Attempt, Fault, Request
from upstreams.wire import Answer

CALL = {"call": "reviews", "upstream": "reviews"}
FAILED = Attempt(
    number=1, span_id="00f067aa0ba902b7", start=0.0012345, duration=0.4, host="127.0.0.1:80",
    fault=Fault.HTTP_RESPONSE_TIMEOUT,
)  # fmt: skip
DONE = Attempt(
    number=2, span_id="00f067aa0ba902b7", method="POST", start=0.5, duration=0.0205, sent=True, conn="new",
    status=200, answer=Answer(200, {}, "application/json", None, b"[1,2]"),
)  # fmt: skip

#: Every event there is, with everything it can have.
EVENTS: dict[str, Callable[[], object]] = {
    "gateway.started": lambda: events.gateway_started(version="0.1.0", upstreams=["a"], pid=7),
    "gateway.stopped": lambda: events.gateway_stopped(pid=7),
    "request.started": lambda: events.request_started(method="GET", path="/a", queued_ms=1.5),
    "request.finished": lambda: events.request_finished(level="info", fields={"url.path": "/a"}, duration=0.0),
    "call.finished": lambda: events.call_finished(
        **CALL, outcome="failed", fault=Fault.DNS_ERROR, attempts=1, start=0.0, duration=0.1
    ),
    "call.skipped": lambda: events.call_skipped(**CALL, because="user"),
    "attempt.finished": lambda: events.attempt_finished("reviews", "reviews", FAILED),
    "retry.scheduled": lambda: events.retry_scheduled("reviews", "reviews", FAILED, 0.0205),
    "breaker.changed": lambda: events.breaker_changed("reviews", "closed", "open", "20 of 20 attempts failed", 5.0),
    "host.ejected": lambda: events.host_ejected("reviews", "127.0.0.1:80", "5 attempts in a row failed", 30.0),
    "flight.joined": lambda: events.flight_joined("reviews", "reviews", "others", "0af7651916cd43dd8448eb211c80319c"),
    "merge.finished": lambda: events.merge_finished(duration=0.001),
    "client.disconnected": events.client_disconnected,
    "console.acted": lambda: events.console_acted(
        level="warning", action="held", address="10.0.0.7", upstream="reviews", to="open"
    ),
    "requests.shed": lambda: events.requests_shed(route="page", count=7, waiting=40),
    "spans.dropped": lambda: events.spans_dropped(count=512, waiting=0, reason="the queue is full"),
    "log.recorded": lambda: events.log_recorded(level="info", fields={"logger": "a", "message": "b"}),
    "log.dropped": lambda: events.log_dropped(3, "stdout"),
}


def logged(name: str, log: Log) -> dict[str, Any]:
    """Log one event of the list; one that goes past the queue is returned as a line."""
    line = EVENTS[name]()
    if isinstance(line, bytes):
        event: dict[str, Any] = msgspec.json.decode(line)
        return event
    return log.events()[-1]


def documented() -> dict[str, set[str]]:
    """Read the events of docs/log.md, and the fields of each."""
    chapter = DOCUMENT.partition("\n## Events\n")[2].partition("\n## ")[0]
    sections = re.split(r"^### (\S+)$", chapter, flags=re.MULTILINE)[1:]
    return {
        name: set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
        for name, section in zip(sections[::2], sections[1::2], strict=True)
    }


DOCUMENT = (ROOT / "docs" / "log.md").read_text()
EVERY_LINE_HAS = set(
    re.findall(r"^\| `([^`]+)` \|", DOCUMENT.partition("\n## On every line\n")[2].partition("\n## ")[0], re.MULTILINE)
)


def test_every_event_stands_in_the_documentation_and_no_other() -> None:
    functions = [
        name
        for name, value in vars(events).items()
        if callable(value) and getattr(value, "__module__", "") == events.__name__ and not name.startswith("_")
    ]

    assert {name.replace("_", ".", 1) for name in functions} == set(EVENTS)
    assert set(documented()) == set(EVENTS)


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_named_for_what_it_is_about_and_what_has_happened(name: str, log: Log) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z]+ed", name)
    assert logged(name, log)["event"] == name


@pytest.mark.parametrize("name", EVENTS.keys() - {"request.finished", "log.recorded"})
def test_every_field_of_an_event_stands_in_the_documentation_and_no_other(name: str, log: Log) -> None:
    assert logged(name, log).keys() - EVERY_LINE_HAS == documented()[name]


def test_what_every_line_has_stands_in_the_documentation(log: Log) -> None:
    events.client_disconnected()

    (event,) = log.events()
    assert {*event, "trace_id", "request_id", "http.route"} == EVERY_LINE_HAS


def test_a_recorded_exceptions_fields_stand_in_the_documentation(log: Log) -> None:
    logging.getLogger("shop").error("failed", exc_info=ValueError("why"))

    (event,) = log.events()
    assert event.keys() - EVERY_LINE_HAS == documented()["log.recorded"]


def _sources() -> Iterator[tuple[Path, ast.Module]]:
    for package in ("gateway", "upstreams"):
        for file in (ROOT / package).rglob("*.py"):
            yield file.relative_to(ROOT), ast.parse(file.read_text())


def test_nothing_but_the_catalogue_and_the_set_up_of_it_logs_by_structlog() -> None:
    found = {
        (str(file), ast.unparse(node))
        for file, tree in _sources()
        if file.parent != Path("gateway/log")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("structlog.")
    }

    assert {use for _, use in found} <= {
        "structlog.contextvars",
        "structlog.contextvars.bind_contextvars",
        "structlog.contextvars.clear_contextvars",
    }
    assert "structlog" not in {
        (node.module or "").partition(".")[0]
        for file, tree in _sources()
        if file.parent != Path("gateway/log")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    }


def test_the_catalogues_own_names_are_all_that_are_given_to_it() -> None:
    tree = ast.parse((ROOT / "gateway/log/events.py").read_text())
    given = [
        ast.literal_eval(node.args[1])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "step"
    ]

    assert sorted([*given, "log.dropped"]) == sorted(EVENTS)


def test_times_are_milliseconds_to_the_microsecond(log: Log) -> None:
    events.attempt_finished("reviews", "reviews", FAILED)
    events.attempt_finished("reviews", "reviews", DONE)
    events.retry_scheduled("reviews", "reviews", FAILED, 0.0204996)

    assert [
        (event.get("start_offset_ms"), event.get("duration_ms"), event.get("wait_ms")) for event in log.events()
    ] == [
        (1.235, 400.0, None),
        (500.0, 20.5, None),
        (None, None, 20.5),
    ]


@pytest.mark.parametrize(
    ("attempt", "level", "outcome"),
    [
        (DONE, "info", "ok"),
        (FAILED, "warning", "failed"),
        (Attempt(number=1, span_id="", start=0.0, duration=0.1, cancelled=True), "info", "cancelled"),
    ],
    ids=["ok", "failed", "cancelled"],
)
def test_an_attempt_is_told_of_once_by_how_it_ended(attempt: Attempt, level: str, outcome: str, log: Log) -> None:
    events.attempt_finished("reviews", "reviews", attempt)

    (event,) = log.events("attempt.finished")
    assert (event["level"], event["outcome"], event["sent"]) == (level, outcome, attempt.sent)
    assert event.get("error.type") == (attempt.fault.word if attempt.fault else None)
    assert event["http.request.method"] == attempt.method


def test_a_path_is_cut_however_long_it_is(log: Log) -> None:
    events.request_started(method="GET", path="/" * 100_000)
    events.request_finished(level="info", fields={"url.path": "/" * 100_000}, duration=0.0)

    assert [len(event["url.path"]) for event in log.events()] == [2048, 2048]


# The wide line is put together along the way: what it can have is seen by having it.


class Whole(PatientPage):
    log_fields = ("user_id", "token")

    @call("items")
    def item(self, user_id: int, token: str) -> Request[JSON]:
        return GET("/item")

    @call("items", optional=True)
    def more(self, item: JSON) -> Request[JSON]:
        return GET("/more")

    @part(optional=True)
    async def feed(self, fan: Fan, more: JSON) -> JSON:
        return await fan.call("items", GET("/more"), JSON)

    def merge(self, item: JSON, more: JSON | None, feed: JSON | None) -> dict[str, Any]:
        return {"item": item}


async def view(request: HttpRequest) -> HttpResponse:
    async with fan_out(request, deadline=SLOW) as fan:
        return fan.answer(await fan.call("items", GET("/item"), JSON))


async def test_every_field_of_every_line_a_gateway_writes_stands_in_the_documentation(
    stub: StartStub, client: aiohttp.ClientSession, log: Log
) -> None:
    routes = [path("<int:user_id>/<str:token>", Whole.as_view()), path("view", view)]
    server = (await stub("items")).on("/item", Turns([{}, Answered(status=503), {}, {}, Answered(status=404)]))
    server.on("/more", Turns([{}, {}, Answered({"secret": CANARY}, status=500)]))
    async with gateway(routes, {"items": server}) as base:
        headers = {"Authorization": CANARY, "X-Request-ID": "r1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        for target in ("7/x", "7/x", "view", "7/x", "nowhere"):
            async with client.get(f"{base}/{target}", headers=headers, params={"q": CANARY}) as answer:
                await answer.read()
        headers["Accept"] = "application/jsonl"
        async with client.get(f"{base}/7/x", headers=headers) as answer:
            await answer.read()

    known = documented()
    known["request.finished"] |= set(Whole.log_fields)
    found: dict[str, set[str]] = {}
    for event in log.events():
        found.setdefault(event["event"], set()).update(event)
    assert {field for name, fields in found.items() for field in fields - known[name]} <= EVERY_LINE_HAS
    assert found["request.finished"] >= known["request.finished"] - {"queued_ms"}  # nobody had to wait
    assert {event["token"] for event in log.events("request.finished") if "token" in event} == {"[redacted]"}
