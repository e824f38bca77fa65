"""LOG_STEPS=problems keeps the wide line of a healthy request, and everything of one that had a problem."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import structlog
from django.urls import path

from gateway import AggregateView, call
from gateway.log import events
from gateway.log.setup import holding
from tests.gateway.log.recording import configured
from tests.logs import Log
from tests.serving import SHORT, PatientPage
from tests.stub import Answered, Gate, Stub, Turns, serving_stub
from tests.ways import WAYS, asking
from upstreams import GET, JSON, POST, Request


class Page(PatientPage):
    @call("items")
    def first(self, number: int) -> Request[JSON]:
        return GET("/first/{n}", n=number)

    @call("items", optional=True)
    def second(self, first: JSON, number: int) -> Request[JSON]:
        return GET("/second/{n}", n=number)

    @call("items", absent=(404,))
    def third(self, number: int) -> Request[JSON | None]:
        return GET("/third/{n}", n=number)


class Writing(AggregateView):
    methods = ("POST",)
    deadline = SHORT

    @call("items", fallback={})
    def order(self) -> Request[dict[str, Any]]:
        return POST("/order")


ROUTES = [path("<int:number>", Page.as_view()), path("order", Writing.as_view())]


@pytest.fixture
def problems(log: Log) -> Iterator[None]:
    """Hold back the steps of healthy requests."""
    with configured(log, steps="problems"):
        yield


@pytest.fixture
async def server() -> AsyncIterator[Stub]:
    """A stub whose account is not compared with the log's: most steps are not written here."""
    async with serving_stub("items") as stub:
        yield stub


def told(log: Log) -> list[str]:
    """Return the names of what was logged of requests by us; Django's own WSGI server has a line for each too."""
    return [
        event["event"] for event in log.events() if "request_id" in event and event.get("logger") != "django.server"
    ]


EVERYTHING = [
    *("request.started", "attempt.finished", "attempt.finished", "attempt.finished"),
    *("call.finished", "call.finished", "call.finished", "request.finished"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("accept", ["application/json", "application/jsonl"])
async def test_a_healthy_request_leaves_its_wide_line_alone(way: str, accept: str, server: Stub, log: Log) -> None:
    server.on("/first/1", 1).on("/second/1", 2).on("/third/1", Answered(status=404))
    async with asking(way, ROUTES, {"items": server}) as ask:
        with configured(log, steps="problems"):
            await ask("GET", "/1", headers={"Accept": accept})
            assert told(log) == ["request.finished"]
        await ask("GET", "/1", headers={"Accept": accept})
        assert sorted(told(log)[1:]) == sorted(EVERYTHING)


async def test_a_client_that_asks_for_nothing_there_is_healthy(server: Stub, log: Log, problems: None) -> None:
    async with asking("asgi", ROUTES, {"items": server}) as ask:
        await ask("GET", "/nowhere")
        await ask("GET", "/order")

    assert told(log) == ["request.finished", "request.finished"]


PROBLEMS: dict[str, tuple[Any, str]] = {
    "a retry that helped": (Turns([Answered(status=503), 2]), "ok"),
    "an optional part that failed": (Answered(status=500), "partial"),
}


@pytest.mark.parametrize(("second", "outcome"), PROBLEMS.values(), ids=PROBLEMS)
async def test_a_request_with_a_problem_keeps_every_line_in_order(
    second: Any, outcome: str, server: Stub, log: Log, problems: None
) -> None:
    server.on("/first/1", 1).on("/second/1", second).on("/third/1", 3)
    async with asking("asgi", ROUTES, {"items": server}) as ask:
        await ask("GET", "/1")

    assert sorted({*told(log)} - {"retry.scheduled"}) == sorted({*EVERYTHING})
    assert told(log)[:: len(told(log)) - 1] == ["request.started", "request.finished"]
    times = [event["timestamp"] for event in log.events() if "request_id" in event]
    assert times == sorted(times)
    assert log.events("request.finished")[0]["outcome"] == outcome


async def test_requests_that_are_served_together_are_judged_each_by_itself(
    server: Stub, log: Log, problems: None
) -> None:
    for number in range(20):
        server.on(f"/first/{number}", 1).on(f"/third/{number}", 3)
        server.on(f"/second/{number}", Answered(status=500) if number % 2 else 2)
    async with asking("asgi", ROUTES, {"items": server}) as ask:
        await asyncio.gather(
            *(ask("GET", f"/{number}", headers={"X-Request-ID": f"r{number}"}) for number in range(20))
        )

    for number in range(20):
        found = [event["event"] for event in log.events(request_id=f"r{number}")]
        assert sorted(found) == (sorted(EVERYTHING) if number % 2 else ["request.finished"])


async def test_a_write_that_outlives_a_request_is_told_of_with_it(server: Stub, log: Log, problems: None) -> None:
    slow = Gate({})
    server.on("/order", slow)
    async with asking("asgi", ROUTES, {"items": server}) as ask:
        await ask("POST", "/order")
        slow.open.set()

    assert told(log) == ["request.started", "call.finished", "request.finished", "attempt.finished"]


def in_a_request(work: Callable[[], None], *, healthy: bool = True) -> None:
    """Do something as a request of its own, begun and ended as requests are."""

    def request() -> None:
        holding.begin()
        work()
        holding.end(healthy=healthy)
        events.merge_finished(duration=0.0)

    contextvars.copy_context().run(request)


def test_what_is_not_a_requests_own_is_not_held_back_with_it(log: Log, problems: None) -> None:
    """A breaker that closes does so in the healthy request of a probe, and would stay open for who reads the log."""
    in_a_request(lambda: events.breaker_changed("shop", "half_open", "closed", "a probe succeeded", None))
    in_a_request(lambda: events.console_acted(level="info", action="entered", address="127.0.0.1"))

    assert [event["event"] for event in log.events()][:3] == ["breaker.changed", "merge.finished", "console.acted"]


WARNINGS: dict[str, Callable[[], None]] = {
    "a record": lambda: logging.getLogger("mine").warning("careful"),
    "a record of an error": lambda: logging.getLogger("mine").error("broken"),
    "an event of the project's": lambda: structlog.get_logger().warning("careful"),
    "one of the gravest": lambda: structlog.get_logger().critical("broken"),
    "one of the catalogue": lambda: events.call_skipped(call="a", upstream="b", because="c"),
}


@pytest.mark.parametrize("warn", WARNINGS.values(), ids=WARNINGS)
def test_whatever_is_logged_as_a_warning_or_worse_brings_everything_to_light(
    warn: Callable[[], None], log: Log, problems: None
) -> None:
    def work() -> None:
        events.client_disconnected()
        logging.getLogger("mine").info("before")
        assert log.lines() == []
        warn()
        assert len(log.lines()) == 3
        events.client_disconnected()
        assert len(log.lines()) == 4

    in_a_request(work)
    assert len(log.lines()) == 5


def test_steps_without_a_warning_are_kept_if_the_request_ended_badly(log: Log, problems: None) -> None:
    in_a_request(events.client_disconnected)
    assert [event["event"] for event in log.events()] == ["merge.finished"]

    in_a_request(events.client_disconnected, healthy=False)
    assert [event["event"] for event in log.events()][1:] == ["client.disconnected", "merge.finished"]


def test_no_request_holds_more_than_two_hundred_lines(log: Log, problems: None) -> None:
    def work() -> None:
        for _ in range(200):
            events.client_disconnected()
        assert log.lines() == []
        events.client_disconnected()
        assert len(log.lines()) == 201

    in_a_request(work)


def test_a_task_that_goes_on_after_a_healthy_request_holds_nothing_for_long(log: Log, problems: None) -> None:
    contexts: list[contextvars.Context] = []

    def work() -> None:
        events.client_disconnected()
        contexts.append(contextvars.copy_context())

    in_a_request(work)
    (after,) = contexts

    after.run(events.client_disconnected)
    assert [event["event"] for event in log.events()] == ["merge.finished"]
    after.run(events.call_skipped, call="a", upstream="b", because="c")
    assert len(log.events()) == 3


def test_what_a_request_held_is_gone_with_it(log: Log, problems: None) -> None:
    held: list[Any] = []

    def work() -> None:
        events.client_disconnected()
        held.extend(weakref.ref(value) for value in contextvars.copy_context().values() if "Held" in repr(type(value)))

    in_a_request(work)
    gc.collect()
    assert [kept() for kept in held] == [None]


def test_lines_outside_requests_are_never_held(log: Log, problems: None) -> None:
    events.gateway_stopped(pid=1)

    assert len(log.lines()) == 1
