"""Admission: a few pages begin in each turn of the loop, the others wait for theirs, and not for long."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import aiohttp
import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import path

from gateway import Fan, call, part
from gateway.asgi import Application
from gateway.serving.admission import Admission
from tests.logs import Log
from tests.serving import SHORT, SLOW, PatientPage, gateway, project
from tests.tap import Wire, answer, tapping, until
from tests.ways import spoken
from upstreams import GET, JSON, Request, Upstream

PER_TURN: Final = 8
MANY: Final = 100


class Busy(PatientPage):
    """A page that keeps the loop to itself for a moment, as long answers do."""

    @part
    async def busy(self, fan: Fan) -> bool:
        until = time.perf_counter() + 0.01
        while time.perf_counter() < until:
            pass
        return True


class Slow(PatientPage):
    @call("slow")
    def slow(self) -> Request[JSON]:
        return GET("/")


class Quick(PatientPage):
    @call("quick")
    def quick(self) -> Request[JSON]:
        return GET("/quick")


async def ordinary(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ordinary")


ROUTES: Final = [path("slow", Slow.as_view()), path("quick", Quick.as_view())]


async def begin(admission: Admission, order: list[int], number: int) -> None:
    """Do as a page does, and tell when it began."""
    if admission.at_once() or await admission.wait() is not None:
        order.append(number)


async def test_a_few_begin_in_a_turn_of_the_loop_and_the_others_in_the_next_ones_first_come_first_served() -> None:
    admission, order, turns = Admission(SLOW), list[int](), list[int]()
    tasks = [asyncio.create_task(begin(admission, order, number)) for number in range(30)]
    while len(order) < 30:
        await asyncio.sleep(0)
        turns.append(len(order))
    await asyncio.gather(*tasks)

    assert order == list(range(30))
    assert max(after - before for before, after in zip([0, *turns], turns, strict=False)) == PER_TURN


async def test_who_comes_while_others_wait_is_not_before_them() -> None:
    admission, order = Admission(SLOW), list[int]()
    tasks = [asyncio.create_task(begin(admission, order, number)) for number in range(20)]
    await asyncio.sleep(0)
    late = asyncio.create_task(begin(admission, order, 20))
    await asyncio.gather(*tasks, late)

    assert order == list(range(21))


async def test_a_loop_with_time_to_spare_lets_everybody_in_at_once() -> None:
    admission = Admission(SLOW)
    for _ in range(MANY):
        assert admission.at_once()
        await asyncio.sleep(0)


async def test_who_is_let_go_of_while_it_waits_takes_nobodys_turn() -> None:
    admission, order = Admission(SLOW), list[int]()
    tasks = [asyncio.create_task(begin(admission, order, number)) for number in range(3 * PER_TURN)]
    await asyncio.sleep(0)
    assert repr(admission) == f"<Admission waiting={2 * PER_TURN}>"
    for task in tasks[PER_TURN : 2 * PER_TURN]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert order == [*range(PER_TURN), *range(2 * PER_TURN, 3 * PER_TURN)]


async def test_after_the_loop_was_held_up_those_in_front_begin_and_only_those_behind_are_refused() -> None:
    admission, order = Admission(1e-9), list[int]()
    tasks = [asyncio.create_task(begin(admission, order, number)) for number in range(3 * PER_TURN)]
    await asyncio.gather(*tasks)

    assert order == list(range(2 * PER_TURN))


async def test_the_wait_is_part_of_the_deadline(log: Log) -> None:
    async with tapping() as tap:
        tap.on("/quick", answer({}))
        with project(ROUTES, {"quick": Upstream(tap.url), "slow": Upstream(tap.url)}):
            in_time = await spoken("GET", "/quick", b"", **{"tributary.waited": SLOW / 2})
            too_late = await spoken("GET", "/quick", b"", **{"tributary.waited": SLOW})

    assert (in_time.status, too_late.status) == (200, 504)
    assert tap.begun == 1


async def asked(client: aiohttp.ClientSession, where: str, **more: Any) -> tuple[int, Any, Any]:
    async with client.get(where, **more) as got:
        return got.status, got.headers, await got.read()


async def test_pages_that_waited_too_long_are_refused_and_all_others_answered(log: Log) -> None:
    routes = [path("busy", Busy.as_view()), path("ordinary", ordinary)]
    async with (
        gateway(routes, {}, GATEWAY_ADMISSION_WAIT=0.1) as base,
        aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(limit=0)) as client,
    ):
        pages = [asyncio.create_task(asked(client, "/busy")) for _ in range(MANY)]
        await asyncio.wait(pages, return_when=asyncio.FIRST_COMPLETED)
        ordinarily = await asked(client, "/ordinary")
        probed = await asked(client, "/healthz")
        answers = await asyncio.gather(*pages)
        afterwards = await asked(client, "/busy")

    statuses = Counter(status for status, _, _ in answers)
    assert statuses.keys() == {200, 503}
    assert statuses[200] >= PER_TURN
    refused = next((headers, body) for status, headers, body in answers if status == 503)
    assert refused[0]["Content-Type"] == "application/problem+json"
    assert (refused[0]["Retry-After"], refused[0]["Cache-Control"]) == ("1", "no-store")
    assert b'"urn:tributary:problem:overloaded"' in refused[1]
    assert [status for status, _, _ in (ordinarily, probed, afterwards)] == [200, 200, 200]
    shed = log.events("requests.shed")
    assert sum(event["count"] for event in shed) == statuses[503]
    assert {(event["level"], event["http.route"]) for event in shed} == {("error", "busy")}
    finished = log.events("request.finished")
    assert len(finished) == statuses[200] + 2
    waited = {event["request_id"]: event for event in finished if "queued_ms" in event}
    assert len(waited) >= statuses[200] - PER_TURN
    assert all(event["duration_ms"] >= event["queued_ms"] > 0 for event in waited.values())
    for event in log.events("request.started"):
        assert event.get("queued_ms") == waited.get(event["request_id"], {}).get("queued_ms")


async def test_pages_that_wait_for_a_slow_upstream_hold_up_no_other() -> None:
    async with tapping() as tap:
        held: list[Wire] = []
        tap.on("/", held.append).on("/quick", answer({}))
        table = {"slow": Upstream(tap.url), "quick": Upstream(tap.url)}
        async with (
            gateway(ROUTES, table, GATEWAY_ADMISSION_WAIT=SHORT) as base,
            aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(limit=0)) as client,
        ):
            slow = [asyncio.create_task(asked(client, "/slow")) for _ in range(PER_TURN * 6)]
            await until(lambda: len(held) == len(slow))
            quick = await asked(client, "/quick")
            for wire in held:
                answer({})(wire)
            answers = await asyncio.gather(*slow)

    assert quick[0] == 200
    assert {status for status, _, _ in answers} == {200}


async def test_for_a_client_that_leaves_while_it_waits_nothing_begins(log: Log) -> None:
    admission = Admission(SLOW)
    for _ in range(PER_TURN):
        assert admission.at_once()
    sent: list[Any] = []
    scope = {"type": "http", "method": "GET", "path": "/quick", "query_string": b"", "headers": []}
    with project(ROUTES, {}):
        await Application()({**scope, "state": {"admission": admission}}, gone, appending(sent))

    assert not sent
    assert not log.events()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_whatever_is_asked_of_a_page_may_be_refused(log: Log, method: str) -> None:
    admission, order = Admission(1e-9), list[int]()
    before = [asyncio.create_task(begin(admission, order, number)) for number in range(2 * PER_TURN)]
    sent: list[Any] = []
    scope = {"type": "http", "method": method, "path": "/nowhere/", "query_string": b"", "headers": []}
    with project(ROUTES, {}):
        refused = Application()({**scope, "state": {"admission": admission}}, gone, appending(sent))
        await asyncio.gather(*before, asyncio.create_task(refused))

    assert len(order) == len(before)
    assert sent[0]["status"] == 503
    assert bool(sent[1]["body"]) == (method != "HEAD")
    (shed,) = log.events()
    assert (shed["event"], shed["http.route"], shed["count"]) == ("requests.shed", None, 1)
    admission.close()


async def gone() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def appending(sent: list[Any]) -> Callable[[Mapping[str, Any]], Awaitable[None]]:
    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    return send


async def test_refusals_are_logged_at_once_and_then_together(log: Log) -> None:
    admission = Admission(SLOW)
    for route in ("a", "a", "b", None):
        admission.refused(route)
    first = [(event["http.route"], event["count"]) for event in log.events("requests.shed")]
    admission.close()
    admission.close()

    assert first == [("a", 1)]
    assert [(event["http.route"], event["count"]) for event in log.events("requests.shed")] == [
        ("a", 1),
        ("a", 1),
        ("b", 1),
        (None, 1),
    ]
