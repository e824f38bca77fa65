"""Identical reads under way at once are sent once, everybody gets the answer, and nobody's leaving hurts another."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.conftest import StartStub
from tests.serving import SHORT
from tests.stub import Answered, Gate, Received, Turns
from tests.upstreams.asking import Asking, asking, inbound, until
from upstreams import (
    FOLLOW,
    GET,
    JSON,
    POST,
    Call,
    Deadline,
    Decoder,
    Fault,
    Inbound,
    Request,
    Retry,
    Upstream,
)


class User(msgspec.Struct):
    id: int


async def together(one: Asking, count: int, request: Request[Any], **options: Any) -> list[asyncio.Task[Any]]:
    """Begin several calls, each before the one that leads is answered."""
    asked = [asyncio.create_task(one.ask(request, **options)) for _ in range(count)]
    for _ in range(10):
        await asyncio.sleep(0)
    return asked


async def test_calls_of_one_page_share(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({"id": 7})
    server.on("/users/7", gate)
    async with asking(Upstream(server.url)) as one:
        page = inbound()
        asked = await together(one, 5, GET("/users/{id}", id=7), of=page)
        gate.open.set()
        outcomes = await asyncio.gather(*asked)

    assert len(server.received) == 1
    assert {bytes(outcome.value) for outcome in outcomes} == {b'{"id":7}'}
    assert one.notes.joined == [("service", "it", "it", page.trace_id)] * 4


async def test_each_reads_the_answer_as_its_own_type_into_a_value_of_its_own(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({"id": 7})
    server.on("/", gate)
    async with asking(Upstream(server.url)) as one:
        page = inbound()
        types: list[Any] = [dict[str, int], User, JSON, list[int], dict[str, int]]
        asked = [asyncio.create_task(one.ask(GET("/"), type_, of=page)) for type_ in types]
        await gate.arrived.wait()
        gate.open.set()
        first, user, opaque, wrong, last = await asyncio.gather(*asked)

    assert (first.value, user.value, opaque.value.decode(), last.value) == ({"id": 7}, User(7), {"id": 7}, {"id": 7})
    assert first.value is not last.value
    assert wrong.fault is Fault.BODY_MISMATCH
    assert len(server.received) == 1


async def test_opaque_json_which_nobody_can_change_is_read_once_for_all(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({"id": 7})
    server.on("/", gate)
    async with asking(Upstream(server.url)) as one:
        asked = await together(one, 3, GET("/"), of=inbound())
        gate.open.set()
        first, *others = await asyncio.gather(*asked)

    assert bytes(first.value) == b'{"id":7}'
    assert [other.value is first.value for other in others] == [True, True]


async def test_but_not_where_the_status_means_something_else_to_another(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({"id": 7})
    server.on("/", gate)
    async with asking(Upstream(server.url)) as one:
        page = inbound()
        first = asyncio.create_task(one.ask(GET("/"), of=page))
        await gate.arrived.wait()
        other = asyncio.create_task(one.ask(GET("/"), of=page, absent=(200,)))
        await until(lambda: len(one.notes.joined) == 1)
        gate.open.set()

        assert (await first).absent is False
        assert (await other).absent is True


class Choosy(msgspec.Struct):
    id: int

    def __post_init__(self) -> None:
        raise LookupError(self.id)


async def test_a_type_that_raises_is_a_fault_for_leader_and_followers_alike(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({"id": 7})
    server.on("/", gate)
    async with asking(Upstream(server.url)) as one:
        page = inbound()
        asked = [asyncio.create_task(one.ask(GET("/"), Choosy, of=page)) for _ in range(2)]
        await gate.arrived.wait()
        gate.open.set()
        outcomes = await asyncio.gather(*asked)

    assert {(outcome.fault, outcome.detail) for outcome in outcomes} == {
        (Fault.BODY_MISMATCH, "its type raised LookupError")
    }


async def test_an_answer_that_the_leader_cannot_use_may_be_of_use_to_others(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate(Answered({}, 404))
    server.on("/", gate)
    async with asking(Upstream(server.url)) as one:
        page = inbound()
        leading = asyncio.create_task(one.ask(GET("/"), User, of=page))
        await gate.arrived.wait()
        following = asyncio.create_task(one.ask(GET("/"), User, of=page, absent=(404,)))
        await until(lambda: one.notes.joined)
        gate.open.set()
        led, followed = await leading, await following

    assert (led.fault, led.status) == (Fault.HTTP_RESPONSE_STATUS, 404)
    assert (followed.fault, followed.absent) == (None, True)


async def test_different_clients_do_not_share_unless_the_upstream_says_so(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({})
    server.on("/", gate)
    async with asking(Upstream(server.url)) as one:
        asked = await together(one, 3, GET("/"))
        await until(lambda: len(server.received) == 3)
        gate.open.set()
        await asyncio.gather(*asked)

    assert one.notes.joined == []


@pytest.mark.parametrize("said_by", ["upstream", "call"])
async def test_they_do_where_it_does_or_the_call(stub: StartStub, said_by: str) -> None:
    server, gate = await stub("service"), Gate({})
    server.on("/", gate)
    async with asking(Upstream(server.url, coalesce=said_by == "upstream")) as one:
        asked = await together(one, 50, GET("/"), coalesce=True if said_by == "call" else None)
        gate.open.set()
        outcomes = await asyncio.gather(*asked)

    assert all(outcome.ok for outcome in outcomes)
    assert (len(server.received), len(one.notes.joined)) == (1, 49)


async def test_a_call_may_keep_to_itself(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({})
    server.on("/", gate)
    async with asking(Upstream(server.url, coalesce=True)) as one:
        asked = await together(one, 2, GET("/"), coalesce=False)
        await until(lambda: len(server.received) == 2)
        gate.open.set()
        await asyncio.gather(*asked)


def of(**headers: str) -> Inbound:
    return inbound(headers)


DIFFERENT: dict[str, tuple[tuple[Request[Any], Inbound], tuple[Request[Any], Inbound]]] = {
    "path": ((GET("/a"), of()), (GET("/b"), of())),
    "link": ((FOLLOW("/a"), of()), (GET("/a"), of())),
    "query": ((GET("/a", page=1), of()), (GET("/a", page=2), of())),
    "header": ((GET("/a", headers={"accept-language": "de"}), of()), (GET("/a"), of())),
    "body": ((POST("/a", json=1, safe=True), of()), (POST("/a", json=2, safe=True), of())),
    "method": ((POST("/a", safe=True), of()), (GET("/a"), of())),
    "forwarded header": ((GET("/a"), of(authorization="alice")), (GET("/a"), of(authorization="bob"))),
    "lack of a forwarded header": ((GET("/a"), of(authorization="alice")), (GET("/a"), of())),
}


@pytest.mark.parametrize("differing", DIFFERENT)
async def test_whatever_is_sent_differently_is_another_request(stub: StartStub, differing: str) -> None:
    server, gate = await stub("service"), Gate({})
    server.on("*", gate)
    async with asking(Upstream(f"{server.url}/base", coalesce=True, forward_headers=("authorization",))) as one:
        asked = [asyncio.create_task(one.ask(request, of=client)) for request, client in DIFFERENT[differing]]
        await until(lambda: len(server.received) == 2)
        gate.open.set()
        await asyncio.gather(*asked)

    assert one.notes.joined == []


async def test_a_header_that_is_not_forwarded_makes_no_difference(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({})
    server.on("/", gate)
    async with asking(Upstream(server.url, coalesce=True)) as one:
        clients = [of(authorization="alice"), of(authorization="bob")]
        asked = [asyncio.create_task(one.ask(GET("/"), of=client)) for client in clients]
        await until(lambda: one.notes.joined)
        gate.open.set()
        await asyncio.gather(*asked)

    assert len(server.received) == 1


async def test_writes_are_never_shared(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({})
    server.on("/", gate)
    async with asking(Upstream(server.url, coalesce=True)) as one:
        asked = await together(one, 2, POST("/"), of=inbound())
        await until(lambda: len(server.received) == 2)
        gate.open.set()
        await asyncio.gather(*asked)


async def test_a_leader_who_leaves_takes_nobody_along(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({"id": 7})
    server.on("/", gate)
    async with asking(Upstream(server.url, coalesce=True)) as one:
        leader, *others = await together(one, 5, GET("/"))
        await gate.arrived.wait()
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        await until(lambda: len(server.received) == 2)
        gate.open.set()
        outcomes = await asyncio.gather(*others)

    assert all(outcome.ok for outcome in outcomes)
    assert len(server.received) == 2  # one of them asked again, and the others waited for that


async def test_a_follower_who_leaves_is_missed_by_nobody(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({"id": 7})
    server.on("/", gate)
    async with asking(Upstream(server.url, coalesce=True)) as one:
        leader, follower, other = await together(one, 3, GET("/"))
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower
        gate.open.set()
        assert (await leader).ok
        assert (await other).ok

    assert len(server.received) == 1


async def test_a_follower_waits_no_longer_than_its_own_deadline(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({})
    server.on("/", gate)
    async with asking(Upstream(server.url, coalesce=True, timeout=30.0)) as one:
        leader = asyncio.create_task(one.ask(GET("/"), within=60.0))
        await gate.arrived.wait()
        hasty = await one.ask(GET("/"), within=0.05)
        gate.open.set()
        assert (await leader).ok

    assert (hasty.fault, hasty.attempts) == (Fault.DEADLINE_EXCEEDED, 0)


async def test_calls_that_have_one_deadline_end_at_it_together(stub: StartStub) -> None:
    server = await stub("service")
    server.on("/", Gate({"id": 7}))
    async with asking(Upstream(server.url)) as one:
        page, deadline = inbound(), Deadline.within(SHORT)
        calls = [Call("it", GET("/"), Decoder(JSON), page, deadline) for _ in range(3)]
        outcomes = await asyncio.gather(*(one.fleet.send("service", call) for call in calls))

    assert [outcome.fault for outcome in outcomes] == [Fault.DEADLINE_EXCEEDED] * 3
    assert len(server.received) == 1


async def test_a_leader_s_shorter_deadline_is_not_the_followers(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({})
    server.on("/", gate)
    async with asking(Upstream(server.url, coalesce=True, timeout=30.0)) as one:
        hasty = asyncio.create_task(one.ask(GET("/"), within=SHORT))
        await gate.arrived.wait()
        patient = asyncio.create_task(one.ask(GET("/"), within=60.0))
        assert (await hasty).fault is Fault.DEADLINE_EXCEEDED
        await until(lambda: len(server.received) == 2)
        gate.open.set()
        assert (await patient).ok


async def test_a_leader_who_has_no_time_to_retry_leaves_that_to_the_followers(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate(Answered({}, 503, {"Retry-After": "60"}))
    server.on("/", Turns([gate, {}]))
    async with asking(Upstream(server.url, coalesce=True, timeout=30.0)) as one:
        hasty = asyncio.create_task(one.ask(GET("/"), within=30.0))
        await gate.arrived.wait()
        patient = asyncio.create_task(one.ask(GET("/"), within=60.0))
        await until(lambda: one.notes.joined)
        gate.open.set()
        assert (await hasty).status == 503
        assert (await patient).ok


async def test_a_leader_who_could_not_wait_for_a_permit_leaves_that_to_the_followers(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({})
    server.on("*", gate)
    async with asking(Upstream(server.url, coalesce=True, timeout=30.0, max_concurrency=1, max_wait=30.0)) as one:
        other = asyncio.create_task(one.ask(GET("/other"), within=60.0))
        await gate.arrived.wait()
        hasty = asyncio.create_task(one.ask(GET("/"), within=SHORT))
        await until(lambda: one.client.guards.bulkhead.waiting)
        patient = asyncio.create_task(one.ask(GET("/"), within=60.0))
        assert (await hasty).fault is Fault.CONNECTION_LIMIT_REACHED
        gate.open.set()
        assert (await patient).ok
        assert (await other).ok


async def test_a_read_after_a_write_does_not_share_one_from_before_it(stub: StartStub) -> None:
    server, gate, cart = await stub("service"), Gate(None), {"items": 0}

    async def read(asked: Received) -> dict[str, int]:
        seen = dict(cart)
        if len(server.asked("/cart")) == 1:
            await gate(asked)
        return seen

    async def add(_: Received) -> dict[str, int]:
        cart["items"] += 1
        return {}

    server.on("/cart", read).on("/add", add)
    async with asking(Upstream(server.url, timeout=30.0)) as one:
        page = inbound()
        before = asyncio.create_task(one.ask(GET("/cart"), dict[str, int], of=page, within=60.0))
        await gate.arrived.wait()
        assert (await one.ask(POST("/add"), of=page)).ok
        after = await one.ask(GET("/cart"), dict[str, int], of=page)
        gate.open.set()
        assert ((await before).value, after.value) == ({"items": 0}, {"items": 1})


async def test_nor_after_a_write_that_outlived_its_page(stub: StartStub) -> None:
    server, written, gate, cart = await stub("service"), Gate({}), Gate(None), {"items": 0}

    async def read(asked: Received) -> dict[str, int]:
        seen = dict(cart)
        if len(server.asked("/cart")) == 1:
            await gate(asked)
        return seen

    async def add(asked: Received) -> Any:
        answer = await written(asked)
        cart["items"] += 1
        return answer

    server.on("/cart", read).on("/add", add)
    async with asking(Upstream(server.url, timeout=30.0, coalesce=True)) as one:
        assert (await one.ask(POST("/add"), within=0.5)).fault is Fault.DEADLINE_EXCEEDED
        before = asyncio.create_task(one.ask(GET("/cart"), dict[str, int], within=60.0))
        await gate.arrived.wait()
        written.open.set()
        await until(lambda: not one.client._outliving)
        after = await one.ask(GET("/cart"), dict[str, int])
        gate.open.set()
        assert ((await before).value, after.value) == ({"items": 0}, {"items": 1})


async def test_errors_are_shared_while_they_are_made_and_not_kept(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate(Answered({}, 500))
    server.on("/", gate)
    async with asking(Upstream(server.url, coalesce=True, retry=None)) as one:
        asked = await together(one, 3, GET("/"))
        gate.open.set()
        outcomes = await asyncio.gather(*asked)
        server.on("/", {})
        assert (await one.ask(GET("/"))).ok

    assert {(outcome.fault, outcome.status, outcome.attempts) for outcome in outcomes} == {
        (Fault.HTTP_RESPONSE_STATUS, 500, 1)
    }
    assert len(server.received) == 2


async def test_followers_are_served_by_the_leader_s_retries(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate(Answered({}, 503))
    server.on("/", gate)
    retry = Retry(attempts=2, first_wait=0.0, longest_wait=0.0)
    async with asking(Upstream(server.url, coalesce=True, retry=retry)) as one:
        asked = await together(one, 3, GET("/"))
        await gate.arrived.wait()
        server.on("/", {})
        gate.open.set()
        outcomes = await asyncio.gather(*asked)

    assert all(outcome.ok for outcome in outcomes)
    assert len(server.received) == 2
