"""Writes: they wait until nothing required can fail before them, and once sent nobody but their timeout ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
import pytest
from django.urls import path

from gateway import AggregateView, Fan, call, each, part
from tests.conftest import StartStub
from tests.logs import CANARY, Log
from tests.serving import SHORT, SLOW, PatientPage, asking, gateway
from tests.stub import Answered, Barrier, Gate, Received, Stub
from upstreams import DELETE, GET, JSON, PATCH, POST, PUT, Request, Upstream


class Item(msgspec.Struct):
    n: int


class Order(msgspec.Struct):
    sku: str
    note: str = ""


async def soon(*events: asyncio.Event) -> None:
    """Wait for events that are on their way, and fail rather than hang when they are not."""
    async with asyncio.timeout(20):
        for event in events:
            await event.wait()


def writes(server: Stub) -> list[str]:
    return [f"{asked.method} {asked.path}" for asked in server.received if asked.method != "GET"]


# When a write starts


class Checkout(AggregateView):
    deadline = 60.0

    @call("shop")
    def stock(self, body: Order) -> Request[Item]:
        return GET("/stock")

    @call("shop")
    def price(self, stock: Item) -> Request[Item]:
        return GET("/price")

    @call("shop", optional=True)
    def advert(self) -> Request[Item]:
        return GET("/advert")

    @call("shop")
    def order(self, body: Order) -> Request[Item]:
        return POST("/order", json=body)

    @call("shop")
    def receipt(self, order: Item) -> Request[Item]:
        return GET("/receipt")


async def test_a_write_starts_when_every_required_read_has_succeeded_and_waits_for_no_other(stub: StartStub) -> None:
    server = await stub("shop")
    gates = {name: Gate({"n": 1}) for name in ("stock", "price", "advert", "order")}
    for name, gate in gates.items():
        server.on(f"/{name}", gate)
    server.on("/receipt", {"n": 2})
    with asking([path("page", Checkout.as_view())], {"shop": Upstream(server.url, timeout=SLOW)}) as client:
        page = asyncio.create_task(client.post("/page", {"sku": "a"}, content_type="application/json"))
        await soon(gates["stock"].arrived, gates["advert"].arrived)
        before_stock = writes(server)
        gates["stock"].open.set()
        await soon(gates["price"].arrived)
        before_price = writes(server)
        gates["price"].open.set()
        await soon(gates["order"].arrived)
        for gate in gates.values():
            gate.open.set()
        answer = await page

    assert (before_stock, before_price, writes(server)) == ([], [], ["POST /order"])
    assert server.received[-1].path == "/receipt"
    assert answer.status_code == 200


@pytest.mark.parametrize("failing", ["/stock", "/price"])
async def test_a_failing_required_read_keeps_every_write_off_the_wire(stub: StartStub, failing: str) -> None:
    server = await stub("shop")
    server.on("*", {"n": 1}).on(failing, Answered({"secret": CANARY}, 500))
    with asking([path("page", Checkout.as_view())], {"shop": Upstream(server.url, retry=None)}) as client:
        answer = await client.post("/page", {"sku": "a"}, content_type="application/json")

    assert answer.status_code == 502
    assert writes(server) == []
    assert server.asked("/receipt") == []


class RequiredPart(AggregateView):
    deadline = 60.0

    @part
    async def checked(self, fan: Fan, body: Order) -> int:
        await fan.call("shop", GET("/first"))
        await fan.call("shop", GET("/second"))
        return 1

    @each("shop")
    def stock(self, n: int) -> Request[Item]:
        return GET("/stock/{n}", n=n)

    @stock.keys
    def numbers(self) -> list[int]:
        return [1, 2]

    @call("shop", fallback={"n": 0})
    def order(self) -> Request[Item]:
        return DELETE("/order")


@pytest.mark.parametrize("failing", ["/second", "/stock/2"])
async def test_required_parts_and_joins_are_waited_for_too_whatever_the_writes_policy(
    stub: StartStub, failing: str
) -> None:
    server = await stub("shop")
    server.on("*", {"n": 1}).on(failing, Answered(None, 500))
    with asking([path("page", RequiredPart.as_view())], {"shop": Upstream(server.url, retry=None)}) as client:
        answer = await client.post("/page", {"sku": "a"}, content_type="application/json")

    assert answer.status_code == 502
    assert writes(server) == []


class TwoWrites(AggregateView):
    """Two writes that know nothing of each other, a read that needs one of them, and a write that comes after both."""

    methods = ("PUT",)
    deadline = 60.0

    @call("shop")
    def first(self) -> Request[Item]:
        return PUT("/first", json=1)

    @call("shop")
    def second(self) -> Request[Item]:
        return PATCH("/second", json=2)

    @call("shop")
    def state(self, first: Item) -> Request[Item]:
        return GET("/state")

    @call("shop", after=("first", "second"))
    def last(self) -> Request[Item]:
        return POST("/last", json=3)


async def test_writes_that_do_not_wait_for_each_other_are_in_flight_together(stub: StartStub) -> None:
    server = await stub("shop")
    together = Barrier(2, {"n": 1})
    server.on("/first", together).on("/second", together).on("*", {"n": 2})
    with asking([path("page", TwoWrites.as_view())], {"shop": Upstream(server.url, timeout=SLOW)}) as client:
        answer = await client.put("/page")

    assert answer.status_code == 200
    assert writes(server)[-1] == "POST /last"


async def test_a_write_does_not_wait_for_a_read_that_waits_for_a_write(stub: StartStub) -> None:
    server = await stub("shop")
    state, last = Gate({"n": 1}), Gate({"n": 1})
    server.on("/state", state).on("/last", last).on("*", {"n": 2})
    with asking([path("page", TwoWrites.as_view())], {"shop": Upstream(server.url, timeout=SLOW)}) as client:
        page = asyncio.create_task(client.put("/page"))
        await soon(state.arrived, last.arrived)
        state.open.set()
        last.open.set()
        answer = await page

    assert answer.status_code == 200


@pytest.mark.parametrize("failing", ["/first", "/second"])
async def test_a_write_that_comes_after_one_that_fails_is_not_made(stub: StartStub, failing: str) -> None:
    server = await stub("shop")
    server.on("*", {"n": 1}).on(failing, Answered(None, 500))
    with asking([path("page", TwoWrites.as_view())], {"shop": server}) as client:
        answer = await client.put("/page")

    assert answer.status_code == 502
    assert server.asked("/last") == []


class OptionalChain(AggregateView):
    """The second write needs an optional read, which nothing else waits for."""

    methods = ("POST",)
    deadline = 60.0

    @call("shop", optional=True)
    def hint(self) -> Request[Item]:
        return GET("/hint")

    @call("shop")
    def first(self) -> Request[Item]:
        return POST("/first", json=1)

    @call("shop", optional=True)
    def second(self, hint: Item) -> Request[Item]:
        return POST("/second", json=hint.n)


async def test_an_optional_read_holds_up_only_the_write_that_needs_it(stub: StartStub) -> None:
    server = await stub("shop")
    hint, first = Gate({"n": 5}), Gate({"n": 1})
    server.on("/hint", hint).on("/first", first).on("/second", {"n": 2})
    with asking([path("page", OptionalChain.as_view())], {"shop": Upstream(server.url, timeout=SLOW)}) as client:
        page = asyncio.create_task(client.post("/page"))
        await soon(hint.arrived, first.arrived)
        before_hint = writes(server)
        first.open.set()
        hint.open.set()
        answer = await page

    assert before_hint == ["POST /first"]
    assert writes(server) == ["POST /first", "POST /second"]
    assert answer.json()["data"]["second"] == {"n": 2}


class SafePost(AggregateView):
    deadline = 60.0

    @call("shop")
    def found(self) -> Request[Item]:
        return POST("/search", json={"q": "a"}, safe=True)

    @call("shop")
    def slow(self) -> Request[Item]:
        return GET("/slow")


async def test_a_safe_post_is_a_read_it_starts_at_once_is_retried_and_is_cancelled(stub: StartStub, log: Log) -> None:
    server = await stub("shop")
    again = Gate({"n": 1})
    turns = iter([Answered(None, 503), again])

    async def search(received: Received) -> Any:
        answer = next(turns)
        return await answer(received) if isinstance(answer, Gate) else answer

    async def slow(_: Received) -> Answered:
        await soon(again.arrived)
        return Answered(None, 500)

    server.on("/search", search).on("/slow", slow)
    with asking([path("page", SafePost.as_view())], {"shop": Upstream(server.url, timeout=SLOW)}) as client:
        answer = await client.get("/page")

    assert answer.status_code == 502
    assert [asked.json for asked in server.asked("/search")] == [{"q": "a"}] * 2
    assert [event["outcome"] for event in log.events("attempt.finished", call="found")] == ["failed", "cancelled"]


class PartWrites(AggregateView):
    methods = ("POST",)
    deadline = 60.0

    @call("shop")
    def checked(self) -> Request[Item]:
        return GET("/checked")

    @part
    async def written(self, fan: Fan) -> list[JSON]:
        await fan.call("shop", GET("/before"))
        return [await fan.call("shop", POST("/one", json=1)), await fan.call("shop", POST("/two", json=2))]

    @part
    async def also_written(self, fan: Fan) -> JSON:
        return await fan.call("shop", POST("/three", json=3))


async def test_the_writes_of_parts_wait_for_the_pages_required_reads_and_not_for_each_other(stub: StartStub) -> None:
    server = await stub("shop")
    checked, before, one = Gate({"n": 1}), Gate({"n": 1}), Gate({"n": 1})
    server.on("/checked", checked).on("/before", before).on("/one", one).on("*", {"n": 1})
    with asking([path("page", PartWrites.as_view())], {"shop": Upstream(server.url, timeout=SLOW)}) as client:
        page = asyncio.create_task(client.post("/page"))
        await soon(checked.arrived, before.arrived)
        before.open.set()
        held_back = writes(server)
        checked.open.set()
        await soon(one.arrived)
        one.open.set()
        answer = await page

    assert held_back == []
    assert sorted(writes(server)) == ["POST /one", "POST /three", "POST /two"]
    assert answer.status_code == 200


async def test_a_failing_required_read_keeps_the_writes_of_parts_off_the_wire(stub: StartStub) -> None:
    server = await stub("shop")
    server.on("*", {"n": 1}).on("/checked", Answered(None, 500))
    with asking([path("page", PartWrites.as_view())], {"shop": Upstream(server.url, retry=None)}) as client:
        answer = await client.post("/page")

    assert answer.status_code == 502
    assert writes(server) == []


# What ends a write


class WriteAndSibling(AggregateView):
    methods = ("POST",)
    deadline = 60.0

    @call("shop")
    def order(self) -> Request[Item]:
        return POST("/order", json=1)

    @call("shop")
    def failing(self) -> Request[Item]:
        return POST("/failing", json=2)


class Deed:
    """A write as its upstream sees it: it says when it has arrived, and whether it was done."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        self.done = asyncio.Event()

    async def __call__(self, _: Received) -> dict[str, int]:
        self.arrived.set()
        await self.open.wait()
        self.done.set()
        return {"n": 1}


async def test_a_write_that_was_sent_is_not_cancelled_by_a_siblings_failure(stub: StartStub, log: Log) -> None:
    server = await stub("shop")
    deed = Deed()

    async def failing(_: Received) -> Answered:
        await soon(deed.arrived)
        return Answered(None, 500)

    server.on("/order", deed).on("/failing", failing)
    pages = [path("page", WriteAndSibling.as_view())]
    async with gateway(pages, {"shop": Upstream(server.url, timeout=SLOW)}) as base, aiohttp.ClientSession() as client:
        async with client.post(f"{base}/page") as answer:
            status = answer.status
        assert not deed.done.is_set()
        deed.open.set()
        await soon(deed.done)

    assert status == 502
    assert server.cancelled == 0
    assert [event["outcome"] for event in log.events("attempt.finished", call="order")] == ["ok"]


class WriteAndHeld(AggregateView):
    methods = ("POST",)
    deadline = 60.0

    @call("shop")
    def order(self) -> Request[Item]:
        return POST("/order", json=1)

    @call("shop", optional=True)
    def held(self) -> Request[Item]:
        return GET("/held")


async def test_a_client_that_leaves_cancels_the_reads_and_no_write(stub: StartStub, log: Log) -> None:
    server = await stub("shop")
    deed, held = Deed(), Gate(None)
    server.on("/order", deed).on("/held", held)
    pages = [path("page", WriteAndHeld.as_view())]
    async with gateway(pages, {"shop": Upstream(server.url, timeout=SLOW)}) as base, aiohttp.ClientSession() as client:
        leaving = asyncio.create_task(client.post(f"{base}/page"))
        await soon(deed.arrived, held.arrived)
        leaving.cancel()
        await _until_logged(log, "request.finished")
        assert not deed.done.is_set()
        deed.open.set()
        await soon(deed.done)

    assert log.events("request.finished")[0]["outcome"] == "disconnected"
    outcomes = {event["call"]: event["outcome"] for event in log.events("attempt.finished")}
    assert outcomes == {"order": "ok", "held": "cancelled"}


async def _until_logged(log: Log, event: str) -> None:
    async with asyncio.timeout(20):
        while not log.events(event):  # noqa: ASYNC110 - lines are written, and set off nothing
            await asyncio.sleep(0)


class WriteInTime(AggregateView):
    methods = ("POST",)
    deadline = SHORT

    @call("shop")
    def order(self) -> Request[Item]:
        return POST("/order", json=1)


class OptionalWriteInTime(WriteInTime):
    @call("shop", optional=True)
    def order(self) -> Request[Item]:
        return POST("/order", json=1)


@pytest.mark.parametrize(("page", "status"), [(WriteInTime, 504), (OptionalWriteInTime, 200)])
async def test_the_deadline_ends_the_page_and_not_the_write(
    stub: StartStub, log: Log, page: type[AggregateView], status: int
) -> None:
    server = await stub("shop")
    deed = Deed()
    server.on("/order", deed)
    pages = [path("page", page.as_view())]
    async with gateway(pages, {"shop": Upstream(server.url, timeout=SLOW)}) as base, aiohttp.ClientSession() as client:
        async with client.post(f"{base}/page") as answer:
            body = await answer.json()
        assert not deed.done.is_set()
        deed.open.set()
        await soon(deed.done)

    assert answer.status == status
    assert body["errors"]["order"]["error"] == "deadline_exceeded"
    assert server.cancelled == 0
    assert [event["outcome"] for event in log.events("attempt.finished", call="order")] == ["ok"]


async def test_a_writes_own_timeout_ends_it(stub: StartStub, log: Log) -> None:
    server = await stub("shop")
    server.on("/order", Gate(None)).on("/held", {"n": 1})
    with asking([path("page", WriteAndHeld.as_view())], {"shop": Upstream(server.url, timeout=SHORT)}) as client:
        answer = await client.post("/page")

    assert answer.status_code == 504
    assert answer.json()["errors"]["order"]["error"] == "http_response_timeout"
    assert [event["outcome"] for event in log.events("attempt.finished", call="order")] == ["failed"]


# Repeating a write


class Idempotent(AggregateView):
    methods = ("POST",)
    deadline = 60.0

    @call("shop")
    def order(self) -> Request[Item]:
        return POST("/order", json=1)

    @call("shop")
    def invoice(self) -> Request[Item]:
        return POST("/invoice", json=1)

    @each("shop")
    def reserved(self, sku: str) -> Request[Item]:
        return POST("/reserved", json=sku)

    @reserved.keys
    def skus(self) -> list[str]:
        return ["a", "b", "c"]

    @call("shop")
    def read(self) -> Request[Item]:
        return GET("/read")


def keys_by_request(received: list[Received]) -> Mapping[tuple[str, bytes], set[str | None]]:
    keys: dict[tuple[str, bytes], set[str | None]] = {}
    for asked in received:
        keys.setdefault((asked.path, asked.body), set()).add(asked.headers.get("idempotency-key"))
    return keys


async def test_each_write_has_a_key_of_its_own_the_same_when_the_client_repeats_itself(stub: StartStub) -> None:
    server = await stub("shop")
    server.on("*", {"n": 1})
    upstream = Upstream(server.url, idempotency_header="Idempotency-Key")
    with asking([path("page", Idempotent.as_view())], {"shop": upstream}) as client:
        for client_key in ("client-1", "client-1", "client-2"):
            await client.post("/page", headers={"Idempotency-Key": client_key})
    rounds = [server.received[start : start + 6] for start in (0, 6, 12)]
    first, repeated, other = (keys_by_request(asked) for asked in rounds)

    assert first == repeated
    assert first[("/read", b"")] == {None}
    written = [keys for request, keys in first.items() if request[0] != "/read"]
    assert all(len(keys) == 1 for keys in written)
    assert len(set[str | None]().union(*written)) == 5
    assert not set().union(*written) & set().union(*(keys for request, keys in other.items() if request[0] != "/read"))
    assert "client-1" not in str(first)


async def test_without_a_clients_key_every_request_has_keys_of_its_own(stub: StartStub) -> None:
    server = await stub("shop")
    server.on("*", {"n": 1})
    upstream = Upstream(server.url, idempotency_header="Idempotency-Key")
    with asking([path("page", Idempotent.as_view())], {"shop": upstream}) as client:
        await client.post("/page")
        await client.post("/page")

    keys = [asked.headers["idempotency-key"] for asked in server.received if asked.method == "POST"]
    assert len(set(keys)) == len(keys) == 10


@pytest.mark.parametrize(("header", "attempts"), [("Idempotency-Key", 3), (None, 1)])
async def test_a_write_is_repeated_with_its_key_and_only_where_there_is_one(
    stub: StartStub, header: str | None, attempts: int
) -> None:
    server = await stub("shop")
    server.on("*", {"n": 1}).on("/order", Answered(None, 503))
    upstream = Upstream(server.url, idempotency_header=header)
    with asking([path("page", Idempotent.as_view())], {"shop": upstream}) as client:
        answer = await client.post("/page", headers={"Idempotency-Key": "client-1"})

    assert answer.status_code == 503
    assert answer.json()["errors"]["order"]["attempts"] == attempts
    assert len(server.asked("/order")) == attempts
    assert len({asked.headers.get("idempotency-key") for asked in server.asked("/order")}) == 1


class PartKeys(PatientPage):
    methods = ("POST",)

    @part
    async def written(self, fan: Fan) -> int:
        await fan.call("shop", POST("/one", json=1))
        await fan.call("shop", POST("/two", json=1))
        return 1


async def test_the_writes_of_a_part_have_keys_of_their_own_the_same_when_repeated(stub: StartStub) -> None:
    server = await stub("shop")
    server.on("*", {"n": 1})
    upstream = Upstream(server.url, idempotency_header="Idempotency-Key")
    with asking([path("page", PartKeys.as_view())], {"shop": upstream}) as client:
        await client.post("/page", headers={"Idempotency-Key": "client-1"})
        await client.post("/page", headers={"Idempotency-Key": "client-1"})

    one, two, again_one, again_two = (asked.headers["idempotency-key"] for asked in server.received)
    assert (one, two) == (again_one, again_two)
    assert one != two


class Wanted(msgspec.Struct):
    skus: list[str]


class Shrinking(PatientPage):
    @each("shop")
    def reserved(self, sku: str) -> Request[Item]:
        return POST("/reserved", json=sku)

    @reserved.keys
    def skus(self, body: Wanted) -> list[str]:
        return body.skus


async def test_a_join_s_write_has_the_key_of_what_it_is_for_not_of_its_place(stub: StartStub) -> None:
    server = await stub("shop")
    server.on("*", {"n": 1})
    upstream = Upstream(server.url, idempotency_header="Idempotency-Key")
    with asking([path("page", Shrinking.as_view())], {"shop": upstream}) as client:
        for skus in (["a", "b", "c"], ["c", "b"]):
            headers = {"Idempotency-Key": "client-1"}
            await client.post("/page", {"skus": skus}, content_type="application/json", headers=headers)

    keys = keys_by_request(server.received)
    assert {len(used) for used in keys.values()} == {1}
    assert len(set().union(*keys.values())) == 3
