"""Attempts are counted alike wherever they are told: on the wire, in the log, in `errors`, and on the wide line."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import path

from gateway import AggregateView, Fan, batch, call, fan_out, part
from tests.logs import CANARY, Log
from tests.serving import SHORT, SLOW, PatientPage, asking, gateway
from tests.tap import Held, Script, Tap, Wire, answer, tapping, written
from upstreams import FOLLOW, GET, JSON, POST, Request, Retry, Upstream


class Fails(NamedTuple):
    """A way to fail: what the upstream does, the word for it, and how many attempts a call that may repeat makes."""

    script: Script
    word: str
    attempts: int


def cut_short(wire: Wire) -> None:
    wire.write(written({"cut": CANARY})[:-3])
    wire.close()


FAILURES = {
    "an error that may pass": Fails(answer({"secret": CANARY}, 503), "http_response_status", 3),
    "an error that will not": Fails(answer({"secret": CANARY}, 500), "http_response_status", 1),
    "a reset": Fails(Wire.reset, "connection_terminated", 3),
    "a close": Fails(Wire.close, "connection_terminated", 3),
    "silence": Fails(lambda wire: None, "http_response_timeout", 3),
    "a body that stops": Fails(lambda wire: wire.write(written({"id": 7})[:-3]), "http_response_timeout", 3),
    "a body cut short": Fails(cut_short, "http_response_incomplete", 3),
    "no HTTP": Fails(lambda wire: wire.write(b"hello\r\n\r\n"), "http_protocol_error", 1),
    "no JSON": Fails(answer(b"<html>"), "body_malformed", 1),
    "another type": Fails(answer([]), "body_mismatch", 1),
    "nobody listening": Fails(Wire.reset, "connection_refused", 3),
}
REQUESTS: dict[str, Request[dict[str, Any]]] = {
    "a read": GET("/it", q=CANARY),
    "a read with a body": POST("/it", json={"q": CANARY}, safe=True),
    "a write": POST("/it", json={"q": CANARY}),
    "a write with a key": POST("/it", json={"q": CANARY}),
}


def page_of(request: Request[dict[str, Any]]) -> type[AggregateView]:
    class One(PatientPage):
        @call("service", optional=True)
        def it(self) -> Request[dict[str, Any]]:
            return request

    return One


def upstream_of(tap: Tap, failure: str, request: str, retry: Retry | None) -> Upstream:
    url = tap.url
    if failure == "nobody listening":
        with socket.create_server(("127.0.0.1", 0)) as gone:
            url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    slow = failure in {"silence", "a body that stops"}
    header = "Idempotency-Key" if request == "a write with a key" else None
    return Upstream(url, timeout=0.9 if slow else 20.0, retry=retry, idempotency_header=header)


@pytest.mark.parametrize("retry", [Retry(first_wait=0.0), None], ids=["tried three times", "tried once"])
@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("failure", FAILURES)
async def test_attempts_are_counted_alike_everywhere(
    log: Log, failure: str, request_: str, retry: Retry | None
) -> None:
    fails = FAILURES[failure]
    attempts = fails.attempts if retry is not None and request_ != "a write" else 1
    async with tapping() as tap:
        tap.on("/it", fails.script)
        table = {"service": upstream_of(tap, failure, request_, retry)}
        with asking([path("it", page_of(REQUESTS[request_]).as_view())], table) as client:
            response = await client.get("/it", headers={"authorization": CANARY})
        await tap.drained()
        on_the_wire = tap.begun
    told = response.json()["errors"]["it"]
    logged = log.events("attempt.finished")
    assert (told["error"], told["attempts"]) == (fails.word, attempts)
    assert [event["attempt"] for event in logged] == list(range(1, attempts + 1))
    assert {event["error.type"] for event in logged} == {fails.word}
    assert log.sent() == on_the_wire == (attempts if failure != "nobody listening" else 0)
    assert [event["attempt"] for event in log.events("retry.scheduled")] == list(range(1, attempts))
    assert [event["attempts"] for event in log.events("call.finished")] == [attempts]
    assert [event["attempts"] for event in log.events("request.finished")] == [attempts]
    assert CANARY not in response.content.decode()


class Turns:
    """Scripts to follow one after another, the last one again and again."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)

    def __call__(self, wire: Wire) -> None:
        (self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0])(wire)


async def test_a_call_that_succeeds_in_the_end_counts_what_it_took(log: Log) -> None:
    async with tapping() as tap:
        tap.on("/it", Turns(answer({}, 503), Wire.reset, answer({"id": 7})))
        upstream = Upstream(tap.url, timeout=20.0, retry=Retry(first_wait=0.0))
        with asking([path("it", page_of(REQUESTS["a read"]).as_view())], {"service": upstream}) as client:
            response = await client.get("/it")
        await tap.drained()
        assert tap.begun == log.sent() == 3
    assert response.json() == {"data": {"it": {"id": 7}}, "complete": True, "errors": {}}
    assert [event["outcome"] for event in log.events("attempt.finished")] == ["failed", "failed", "ok"]
    kinds = [(event["attempt"], event["kind"]) for event in log.events("attempt.finished")]
    assert kinds == [(1, "first"), (2, "retry"), (2, "transparent")]  # reset was a connection kept from the first
    assert [event["attempts"] for event in log.events("request.finished")] == [2]


async def test_what_was_not_begun_is_no_attempt(log: Log) -> None:
    class Barred(AggregateView):
        deadline = SHORT

        @call("service", optional=True)
        def first(self) -> Request[JSON]:
            return POST("/first")

        @call("service", optional=True)
        def second(self) -> Request[JSON]:
            return GET("/second")

        @call("service", optional=True)
        def third(self) -> Request[JSON]:
            return FOLLOW("https://elsewhere.example/")

    async with tapping() as tap:
        tap.on("/first", held := Held(answer({})))
        async with gateway([path("it", Barred.as_view())], {"service": Upstream(tap.url, max_concurrency=1)}) as base:
            async with aiohttp.ClientSession() as client, client.get(f"{base}/it") as response:
                errors = (await response.json())["errors"]
            held.release(await held.arrive())
        await tap.drained()
        assert tap.begun == log.sent() == len(log.events("attempt.finished")) == 1
    assert {name: (failure["error"], failure["attempts"]) for name, failure in errors.items()} == {
        "first": ("deadline_exceeded", 1),
        "second": ("connection_limit_reached", 0),
        "third": ("http_request_denied", 0),
    }
    assert [event["attempts"] for event in log.events("request.finished")] == [1]


async def test_no_attempt_is_begun_past_the_deadline(log: Log) -> None:
    class Late(AggregateView):
        deadline = SHORT

        @call("service", optional=True)
        def it(self) -> Request[JSON]:
            return GET("/it")

    async with tapping() as tap:
        tap.on("/it", lambda wire: None)
        upstream = Upstream(tap.url, timeout=0.75 * SHORT, retry=Retry(attempts=9, first_wait=0.0))
        with asking([path("it", Late.as_view())], {"service": upstream}) as client:
            response = await client.get("/it")
        await tap.drained()
        begun = tap.begun
    told = response.json()["errors"]["it"]
    assert told["error"] in {"deadline_exceeded", "http_response_timeout"}
    assert told["attempts"] == begun == log.sent() == len(log.events("attempt.finished")) <= 2
    assert [event["attempts"] for event in log.events("request.finished")] == [begun]


async def test_a_write_that_outlasts_its_page_is_counted_by_both(log: Log) -> None:
    class Ledger(AggregateView):
        deadline = SHORT

        @call("service", optional=True)
        def it(self) -> Request[JSON]:
            return POST("/it")

    async with tapping() as tap:
        tap.on("/it", held := Held(answer({})))
        async with gateway([path("it", Ledger.as_view())], {"service": Upstream(tap.url)}) as base:
            async with aiohttp.ClientSession() as client, client.get(f"{base}/it") as response:
                errors = (await response.json())["errors"]
            assert (errors["it"]["error"], errors["it"]["attempts"]) == ("deadline_exceeded", 1)
            assert not log.events("attempt.finished")
            held.release(await held.arrive())
        await tap.drained()
        assert tap.begun == log.sent() == 1
    assert [event["outcome"] for event in log.events("attempt.finished")] == ["ok"]
    assert [event["attempts"] for event in log.events("request.finished")] == [1]


class Row(msgspec.Struct):
    id: int


class Several(PatientPage):
    """Calls of every kind, each with failures of its own."""

    @call("service", optional=True)
    def it(self) -> Request[JSON]:
        return GET("/it")

    @batch("service", key="id", size=2, optional=True)
    def rows(self, ids: list[int]) -> Request[list[Row]]:
        return GET("/rows", id=ids)

    @rows.keys
    def row_ids(self) -> Iterable[int]:
        return range(6)

    @part
    async def feed(self, fan: Fan) -> list[Any]:
        posts, likes = fan.call("service", GET("/posts")), fan.call("service", GET("/likes"), optional=True)
        return [await posts, await likes]

    @call("service", optional=True)
    def entry(self) -> Request[JSON]:
        return POST("/entries")


async def several(request: HttpRequest) -> HttpResponse:
    async with fan_out(request, deadline=SLOW) as fan:
        requests = {"it": GET("/it"), "posts": GET("/posts"), "likes": GET("/likes")}
        calls = {name: fan.call("service", asked, optional=True, name=name) for name, asked in requests.items()}
        return fan.answer({name: await pending for name, pending in calls.items()})


@pytest.mark.parametrize("accept", ["*/*", "application/jsonl"])
async def test_calls_of_every_kind_add_up(log: Log, accept: str) -> None:
    async with tapping() as tap:
        tap.on("/it", answer({}, 503)).on("/likes", Turns(answer({}, 503), answer({"id": 7}))).on("/posts", answer([]))
        tap.on("/rows", Turns(answer({}, 500), answer([{"id": 1}]))).on("/entries", Wire.reset)
        upstream = Upstream(tap.url, retry=Retry(first_wait=0.0))
        with asking([path("it", Several.as_view())], {"service": upstream}) as client:
            response: Any = await client.get("/it", headers={"accept": accept})
            text = b"".join([frame async for frame in response]) if response.streaming else response.content
        await tap.drained()
        assert tap.begun == log.sent() == len(log.events("attempt.finished")) == 3 + 3 + 1 + 2 + 1
        paths = {"/it": 3, "/rows": 3, "/posts": 1, "/likes": 2, "/entries": 1}
        assert tap.paths == paths
    errors = msgspec.json.decode(text.splitlines()[-1])["errors"]
    assert {name: failure["attempts"] for name, failure in errors.items()} == {"it": 3, "rows": 1, "entry": 1}
    finished = {event["call"]: event["attempts"] for event in log.events("call.finished")}
    assert finished == {"it": 3, "rows": 3, "feed": 3, "feed.service": 1, "feed.service-2": 2, "entry": 1}
    assert [event["attempts"] for event in log.events("request.finished")] == [10]


async def test_a_function_views_calls_add_up(log: Log) -> None:
    async with tapping() as tap:
        tap.on("/it", answer({}, 503)).on("/likes", Turns(answer({}, 503), answer({"id": 7}))).on("/posts", answer([]))
        with asking(
            [path("it", several)], {"service": Upstream(tap.url, timeout=20.0, retry=Retry(first_wait=0.0))}
        ) as client:
            response = await client.get("/it")
        await tap.drained()
        assert tap.begun == log.sent() == len(log.events("attempt.finished")) == 6
    assert response.json()["errors"]["it"]["attempts"] == 3
    assert [event["attempts"] for event in log.events("request.finished")] == [6]


@pytest.mark.parametrize("asked", ["Mon, 01 Jan 2024 00:00:00 +9999999999999", "9" * 5000, "soon", "-1", ""])
async def test_an_upstreams_odd_wish_to_be_asked_later_costs_no_line_of_the_log(log: Log, asked: str) -> None:
    text = written({}, 503).replace(b"\r\n\r\n", b"\r\nRetry-After: %b\r\n\r\n" % asked.encode())
    async with tapping() as tap:
        tap.on("/it", lambda wire: wire.write(text))
        page = page_of(REQUESTS["a read"])
        with asking([path("it", page.as_view())], {"service": Upstream(tap.url, retry=None)}) as client:
            response = await client.get("/it")
        await tap.drained()
        assert tap.begun == log.sent() == 1
    assert response.json()["errors"]["it"]["error"] == "http_response_status"
