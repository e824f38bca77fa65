"""Clients are opened together and closed together, and a write that was sent is waited for."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos import Raw, answer
from tests.conftest import StartStub
from tests.stub import Gate
from tests.upstreams.asking import Notes, asking, inbound, until
from upstreams import GET, JSON, POST, Call, Deadline, Decoder, Request, Upstream, open_fleet


def call(request: Request[JSON]) -> Call:
    return Call("it", request, Decoder(JSON), inbound(), Deadline.within(10.0))


async def test_each_upstream_is_asked_by_its_name(stub: StartStub) -> None:
    users, orders = (await stub("users")).on("/", "users"), (await stub("orders")).on("/", "orders")
    async with open_fleet({"users": Upstream(users.url), "orders": Upstream(orders.url)}, Notes()) as fleet:
        outcomes = await asyncio.gather(fleet.send("users", call(GET("/"))), fleet.send("orders", call(GET("/"))))

    assert [(outcome.upstream, outcome.value.decode()) for outcome in outcomes] == [
        ("users", "users"),
        ("orders", "orders"),
    ]


async def test_a_name_that_is_not_in_the_table_is_a_mistake_of_the_programmer() -> None:
    async with open_fleet({}, Notes()) as fleet:
        with pytest.raises(KeyError, match="users"):
            await fleet.send("users", call(GET("/")))


async def test_an_upstream_without_a_free_permit_holds_up_no_other(stub: StartStub) -> None:
    slow, quick, gate = await stub("slow"), (await stub("quick")).on("/", {}), Gate({})
    slow.on("/", gate)
    table = {"slow": Upstream(slow.url, max_concurrency=1, timeout=30.0), "quick": Upstream(quick.url)}
    async with open_fleet(table, Notes()) as fleet:
        waiting = asyncio.create_task(fleet.send("slow", call(GET("/"))))
        await gate.arrived.wait()
        assert (await fleet.send("quick", call(GET("/")))).ok
        gate.open.set()
        assert (await waiting).ok


async def test_closing_ends_the_connections(raw: Raw) -> None:
    raw.on("/", answer())
    async with asking(Upstream(raw.url)) as one:
        assert (await one.ask(GET("/"))).ok
        (peer,) = raw.peers

    await peer.left.wait()


async def test_closing_waits_for_a_write_that_was_sent(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({})
    server.on("/", gate)
    notes = Notes()
    closing = asyncio.Event()

    async def worker() -> None:
        async with open_fleet({"service": Upstream(server.url, timeout=30.0)}, notes) as fleet:
            write = asyncio.create_task(fleet.send("service", call(POST("/"))))
            await gate.arrived.wait()
            write.cancel()
            await asyncio.wait([write])
            closing.set()

    running = asyncio.create_task(worker())
    await closing.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert (running.done(), notes.attempts) == (False, [])
    gate.open.set()
    await running

    assert [(attempt.status, attempt.cancelled) for attempt in notes.attempts] == [(200, False)]


async def test_a_fleet_closes_when_its_worker_fails(raw: Raw) -> None:
    raw.on("/", answer())

    async def worker() -> None:
        async with open_fleet({"service": Upstream(raw.url)}, Notes()) as fleet:
            await fleet.send("service", call(GET("/")))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await worker()
    await until(lambda: not raw.peers)


async def test_it_prints_what_its_clients_are_busy_with() -> None:
    table = {"users": Upstream("http://a"), "orders": Upstream("http://b", max_concurrency=1)}
    async with open_fleet(table, Notes()) as fleet:
        assert repr(fleet) == "<Fleet " + " ".join(map(repr, fleet._clients.values())) + ">"
        assert "<Bulkhead in_flight=0 of 1 waiting=0>" in repr(fleet._clients["orders"])
