"""Function views over the same runtime: they answer what a page would, and leave nothing running behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path

from gateway import AggregateView, CallFailed, Problem, call, fan_out
from tests import ways
from tests.conftest import StartStub
from tests.logs import CANARY, Log
from tests.serving import SHORT, SLOW, asking, gateway
from tests.stub import Answered, Gate, Received, Stub
from tests.ways import WAYS, until
from upstreams import GET, JSON, POST, Request, Upstream


class User(msgspec.Struct):
    name: str


async def soon(*events: asyncio.Event) -> None:
    """Wait for events that are on their way, and fail rather than hang when they are not."""
    async with asyncio.timeout(20):
        for event in events:
            await event.wait()


# As a page


class Page(AggregateView):
    deadline = SLOW

    @call("users", passthrough=(404,))
    def user(self) -> Request[User]:
        return GET("/me")

    @call("feed", optional=True)
    def feed(self) -> Request[JSON]:
        return GET("/feed")


async def view(request: HttpRequest) -> HttpResponse:
    async with fan_out(request, deadline=SLOW) as fan:
        user = fan.call("users", GET("/me"), User, passthrough=(404,), name="user")
        feed = fan.call("feed", GET("/feed"), optional=True)
        return fan.answer({"user": await user, "feed": await feed})


def all_is_well(server: Stub, log: Log) -> None:
    server.on("/me", {"name": "Ada", "secret": CANARY}).on("/feed", b'{"n": 1.10}')


def the_feed_fails(server: Stub, log: Log) -> None:
    server.on("/me", {"name": "Ada"}).on("/feed", Answered({"secret": CANARY}, 500))


def the_user_fails(server: Stub, log: Log) -> None:
    server.on("/me", {"nobody": CANARY}).on("/feed", Gate(None))


def both_fail(server: Stub, log: Log) -> None:
    before = len(log.events("call.finished", call="feed"))

    async def user(_: Received) -> Answered:
        await until(lambda: len(log.events("call.finished", call="feed")) > before)
        return Answered(None, 500)

    server.on("/me", user).on("/feed", Answered(None, 500))


def the_user_is_not_there(server: Stub, log: Log) -> None:
    server.on("/me", Answered({"secret": CANARY}, 404)).on("/feed", Gate(None))


def users_are_busy(server: Stub, log: Log) -> None:
    server.on("/me", Answered(None, 503, headers={"Retry-After": "9"})).on("/feed", Gate(None))


SITUATIONS = {
    all_is_well: 200,
    the_feed_fails: 200,
    the_user_fails: 502,
    both_fail: 502,
    the_user_is_not_there: 404,
    users_are_busy: 503,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("situation", "status"), SITUATIONS.items())
async def test_a_view_answers_as_a_page_would(
    stub: StartStub, log: Log, way: str, situation: Callable[[Stub, Log], None], status: int
) -> None:
    server = await stub("all")
    upstream = Upstream(server.url, timeout=SLOW, retry=None)
    upstreams = {"users": upstream, "feed": upstream}
    answers = []
    async with ways.asking(way, [path("page", Page.as_view()), path("view", view)], upstreams) as ask:
        for url in ("/page", "/view"):
            situation(server, log)
            answers.append(await ask("GET", url))
    of_page, of_view = answers

    assert of_view.status == of_page.status == status
    assert without_id(of_view.json) == without_id(of_page.json)
    for header in ("Content-Type", "X-Complete", "Proxy-Status", "Retry-After", "Cache-Control"):
        assert of_view.all(header) == of_page.all(header)
    assert of_view.header("X-Request-ID") is not None
    assert CANARY.encode() not in of_view.body


def without_id(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "request_id"}


async def test_values_are_spliced_as_they_came(stub: StartStub) -> None:
    server = await stub("all")
    server.on("/me", {"name": "Ada"}).on("/feed", b'{"id": 12345678901234567890, "price": 1.10, "n": 1e3}')
    with asking([path("view", view)], {"users": server, "feed": server}) as client:
        answer = await client.get("/view")

    assert b'"feed":{"id": 12345678901234567890, "price": 1.10, "n": 1e3}' in answer.content


async def test_the_calls_of_a_view_are_in_flight_together_from_when_they_are_made(stub: StartStub) -> None:
    server = await stub("all")
    user, feed = Gate({"name": "Ada"}), Gate({})
    server.on("/me", user).on("/feed", feed)
    upstream = Upstream(server.url, timeout=SLOW)
    with asking([path("view", view)], {"users": upstream, "feed": upstream}) as client:
        answering = asyncio.create_task(client.get("/view"))
        await soon(user.arrived, feed.arrived)
        user.open.set()
        feed.open.set()
        answer = await answering

    assert answer.json()["data"] == {"user": {"name": "Ada"}, "feed": {}}


async def test_at_its_deadline_a_view_has_what_a_page_would_have(stub: StartStub) -> None:
    async def requiring(request: HttpRequest) -> HttpResponse:
        async with fan_out(request, deadline=SHORT) as fan:
            return fan.answer({"slow": await fan.call("all", GET("/slow"))})

    async def doing_without(request: HttpRequest) -> HttpResponse:
        async with fan_out(request, deadline=SHORT) as fan:
            return fan.answer({"slow": await fan.call("all", GET("/slow"), optional=True)})

    server = await stub("all")
    server.on("/slow", Gate(None))
    views = [path("requiring", requiring), path("doing-without", doing_without)]
    with asking(views, {"all": Upstream(server.url, timeout=SLOW)}) as client:
        required, optional = await client.get("/requiring"), await client.get("/doing-without")

    assert (required.status_code, optional.status_code) == (504, 200)
    assert required.json()["errors"]["all"]["error"] == "deadline_exceeded"
    assert optional.json()["errors"]["all"]["error"] == "deadline_exceeded"


# What is not awaited, and what is caught


async def unawaited(request: HttpRequest) -> HttpResponse:
    async with fan_out(request, deadline=SLOW) as fan:
        _unawaited = fan.call("all", GET("/broken"), name="never awaited")
        await fan.call("all", GET("/after"))
        return fan.answer({})


async def catching(request: HttpRequest) -> HttpResponse:
    async with fan_out(request, deadline=SLOW) as fan:
        try:
            value = await fan.call("all", GET("/broken"), int)
        except CallFailed:
            value = 0
        return fan.answer({"value": value}, status=206, headers={"X-Own": "yes"})


async def catching_outside(request: HttpRequest) -> HttpResponse:
    try:
        async with fan_out(request, deadline=SLOW) as fan:
            return fan.answer({"value": await fan.call("all", GET("/broken"), int)})
    except CallFailed as failed:
        return HttpResponse(f"{failed.call} {failed.failure.status}", status=207)


async def after_the_block(request: HttpRequest) -> HttpResponse:
    async with fan_out(request, deadline=SLOW) as fan:
        held = fan.call("all", GET("/held"))
        await fan.call("all", GET("/after"))
    return HttpResponse(bytes(await held))


async def test_a_required_call_that_failed_unawaited_fails_the_view(stub: StartStub, log: Log) -> None:
    server = await stub("all")

    async def after(_: Received) -> dict[str, int]:
        await until(lambda: bool(log.events("call.finished", call="never awaited")))
        return {}

    server.on("/broken", Answered(None, 500)).on("/after", after)
    with asking([path("view", unawaited)], {"all": Upstream(server.url, timeout=SLOW, retry=None)}) as client:
        answer = await client.get("/view")

    assert answer.status_code == 502
    assert list(answer.json()["errors"]) == ["never awaited"]


async def test_a_failure_that_the_view_catches_is_no_longer_the_views(stub: StartStub, log: Log) -> None:
    server = await stub("all")
    server.on("/broken", Answered(None, 500))
    with asking([path("view", catching)], {"all": Upstream(server.url, retry=None)}) as client:
        answer = await client.get("/view")

    assert (answer.status_code, answer["X-Own"], answer["X-Complete"]) == (206, "yes", "false")
    assert answer.json()["data"] == {"value": 0}
    assert answer.json()["errors"]["all"]["error"] == "http_response_status"
    (wide,) = log.events("request.finished")
    assert (wide["outcome"], wide["calls"], wide["calls_failed"], wide["attempts"]) == ("partial", 1, ["all"], 1)


async def test_a_failure_may_be_caught_outside_the_block(stub: StartStub) -> None:
    server = await stub("all")
    server.on("/broken", Answered(None, 500))
    with asking([path("view", catching_outside)], {"all": Upstream(server.url, retry=None)}) as client:
        answer = await client.get("/view")

    assert (answer.status_code, answer.content) == (207, b"all 500")


async def test_a_call_awaited_after_the_block_is_a_mistake_and_no_departed_client(stub: StartStub, log: Log) -> None:
    server = await stub("all")
    held = Gate(None)

    async def after(_: Received) -> dict[str, int]:
        await soon(held.arrived)
        return {}

    server.on("/held", held).on("/after", after)
    with asking([path("view", after_the_block)], {"all": Upstream(server.url, timeout=SLOW)}) as client:
        answer = await client.get("/view")

    assert answer.status_code == 500
    assert b"await it inside" in b"".join(log.lines())
    assert log.events("request.finished")[0]["outcome"] == "failed"


# Nothing is left over


async def test_leaving_the_block_cancels_what_is_under_way(stub: StartStub, log: Log) -> None:
    async def leaving(request: HttpRequest) -> HttpResponse:
        async with fan_out(request, deadline=60.0) as fan:
            _left = fan.call("all", GET("/held"))
            return fan.answer({"after": await fan.call("all", GET("/after"), int)})

    server = await stub("all")
    held = Gate(None)

    async def after(_: Received) -> int:
        await soon(held.arrived)
        return 3

    server.on("/held", held).on("/after", after)
    with asking([path("view", leaving)], {"all": Upstream(server.url, timeout=SLOW)}) as client:
        answer = await client.get("/view")

    assert answer.json() == {"data": {"after": 3}, "complete": True, "errors": {}}
    assert [event["outcome"] for event in log.events("attempt.finished", call="all")] == ["cancelled"]


async def test_a_client_that_leaves_a_view_cancels_its_reads_and_no_write(stub: StartStub, log: Log) -> None:
    async def writing(request: HttpRequest) -> HttpResponse:
        async with fan_out(request, deadline=60.0) as fan:
            read, write = fan.call("all", GET("/read")), fan.call("all", POST("/write", json=1))
            return fan.answer({"read": await read, "write": await write})

    server = await stub("all")
    read, write = Gate(None), Gate({})
    done = asyncio.Event()

    async def written(asked: Received) -> Any:
        answer = await write(asked)
        done.set()
        return answer

    server.on("/read", read).on("/write", written)
    upstreams = {"all": Upstream(server.url, timeout=SLOW)}
    async with gateway([path("view", writing)], upstreams) as base, aiohttp.ClientSession() as client:
        leaving = asyncio.create_task(client.get(f"{base}/view"))
        await soon(read.arrived, write.arrived)
        leaving.cancel()
        await until(lambda: bool(log.events("request.finished")))
        assert not done.is_set()
        write.open.set()
        await soon(done)

    assert log.events("request.finished")[0]["outcome"] == "disconnected"
    outcomes = {event["call"]: event["outcome"] for event in log.events("attempt.finished")}
    assert outcomes == {"all": "cancelled", "all-2": "ok"}


# What views raise, and values that fit into no request


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("error", "status"),
    [(Http404, 404), (PermissionDenied, 403), (lambda: Problem(422), 422), (lambda: ValueError("nobody's"), 500)],
)
async def test_what_a_view_raises_is_a_problem_and_its_calls_are_reaped(
    stub: StartStub, log: Log, way: str, error: Callable[[], Exception], status: int
) -> None:
    async def raising(request: HttpRequest) -> HttpResponse:
        async with fan_out(request, deadline=60.0) as fan:
            _left = fan.call("all", GET("/held"))
            await fan.call("all", GET("/after"))
            raise error()

    server = await stub("all")
    held = Gate(None)

    async def after(_: Received) -> int:
        await soon(held.arrived)
        return 3

    server.on("/held", held).on("/after", after)
    async with ways.asking(way, [path("view", raising)], {"all": Upstream(server.url, timeout=SLOW)}) as ask:
        answer = await ask("GET", "/view")

    assert (answer.status, answer.json["status"]) == (status, status)
    assert answer.header("Content-Type") == "application/problem+json"
    assert b"nobody's" not in answer.body
    assert [event["outcome"] for event in log.events("attempt.finished", call="all")] == ["cancelled"]


async def test_a_value_that_fits_into_no_request_is_the_clients_or_the_upstreams(stub: StartStub) -> None:
    async def following(request: HttpRequest, name: str) -> HttpResponse:
        async with fan_out(request, deadline=SLOW) as fan:
            user = await fan.call("all", GET("/users/{name}", name=name), User)
            return fan.answer(await fan.call("all", GET("/friends/{name}", name=user.name)))

    server = await stub("all")
    server.on("/users/ada", {"name": ".."})
    with asking([path("view/<name>", following)], {"all": server}) as client:
        clients, upstreams = await client.get("/view/.."), await client.get("/view/ada")

    assert (clients.status_code, list(clients.json()["invalid"])) == (400, ["name"])
    assert upstreams.status_code == 502
    assert upstreams.json()["errors"]["name"]["error"] == "http_request_denied"
    assert [asked.path for asked in server.received] == ["/users/ada"]


# Names


async def test_calls_are_named_by_their_upstream_and_numbered_from_the_second_on(stub: StartStub, log: Log) -> None:
    async def naming(request: HttpRequest) -> HttpResponse:
        async with fan_out(request, deadline=SLOW) as fan:
            pending = [fan.call("all", GET("/n", page=page), optional=True) for page in range(3)]
            pending.append(fan.call("all", GET("/n"), optional=True, name="own"))
            return fan.answer([await one for one in pending])

    server = await stub("all")
    server.on("/n", Answered(None, 500))
    with asking([path("view", naming)], {"all": Upstream(server.url, retry=None)}) as client:
        answer = await client.get("/view")

    assert answer.json()["data"] == [None] * 4
    assert list(answer.json()["errors"]) == ["all", "all-2", "all-3", "own"]
    assert {event["call"] for event in log.events("attempt.finished")} == {"all", "all-2", "all-3", "own"}


async def test_errors_are_told_in_the_order_the_calls_were_made(stub: StartStub, log: Log) -> None:
    async def two(request: HttpRequest) -> HttpResponse:
        async with fan_out(request, deadline=60.0) as fan:
            first = fan.call("all", GET("/first"), optional=True, name="first")
            second = fan.call("all", GET("/second"), optional=True, name="second")
            return fan.answer([await first, await second])

    async def first(_: Received) -> Answered:
        await until(lambda: bool(log.events("call.finished", call="second")))
        return Answered(None, 500)

    server = await stub("all")
    server.on("/first", first).on("/second", Answered(None, 500))
    with asking([path("view", two)], {"all": Upstream(server.url, timeout=SLOW, retry=None)}) as client:
        answer = await client.get("/view")

    assert list(answer.json()["errors"]) == ["first", "second"]
    assert 'details="no value: first, second"' in answer["Proxy-Status"]


async def test_a_write_that_nobody_awaits_is_the_author_s_mistake_and_not_lost_in_silence(stub: StartStub) -> None:
    server = await stub("ledger")
    server.on("*", {})

    async def careless(request: HttpRequest) -> HttpResponse:
        async with fan_out(request, deadline=SLOW) as fan:
            _ = fan.call("ledger", POST("/entries", json={}))
            return fan.answer({})

    with asking([path("careless", careless)], {"ledger": server}) as client:
        client.raise_request_exception = False
        answer = await client.get("/careless")

    assert answer.status_code == 500
