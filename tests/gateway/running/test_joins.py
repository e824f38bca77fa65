"""Joins: every distinct key is asked for once, in chunks, a few at once, and rows are matched by key alone."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from django.urls import path

from gateway import AggregateView, Problem, batch, call, each
from tests.conftest import StartStub
from tests.logs import CANARY, Log
from tests.serving import PatientPage, asking
from tests.stub import Answered, Gate, Received
from upstreams import GET, POST, Reply, Request, Upstream


class Order(msgspec.Struct):
    number: int
    product: int


class Product(msgspec.Struct):
    id: int
    name: str = ""


class Orders(AggregateView):
    deadline = 60.0

    @call("shop", internal=True)
    def orders(self) -> Request[list[Order]]:
        return GET("/orders")

    def product_ids(self, orders: list[Order]) -> Iterable[int]:
        return (order.product for order in orders)


class OrderPage(Orders):
    @batch("shop", key="id", size=7, concurrency=3)
    def products(self, ids: list[int]) -> Request[list[Product]]:
        return GET("/products", id=ids)

    products.keys(Orders.product_ids)


class OptionalOrderPage(Orders):
    @batch("shop", key="id", size=2, concurrency=1, optional=True)
    def products(self, ids: list[int]) -> Request[list[Product]]:
        return GET("/products", id=ids)

    products.keys(Orders.product_ids)


class Shop:
    """Answers for products, in an order of its own, while it counts how many requests are in flight."""

    def __init__(self, missing: frozenset[int] = frozenset(), width: int = 1) -> None:
        self.asked: list[list[int]] = []
        self.most = 0
        self.missing = missing
        self._in_flight = 0
        self._width = width
        self._full = asyncio.Event()
        self._random = random.Random(7)

    async def __call__(self, received: Received) -> list[dict[str, Any]]:
        ids = [int(value) for name, value in received.query if name == "id"]
        self.asked.append(ids)
        self._in_flight += 1
        self.most = max(self.most, self._in_flight)
        if self._in_flight == self._width:
            self._full.set()
        await self._full.wait()
        await asyncio.sleep(0)
        self._in_flight -= 1
        rows = [{"id": key, "name": f"product {key}"} for key in ids if key not in self.missing]
        rows += [*rows[:2], {"id": -1, "name": "asked for by nobody"}]
        self._random.shuffle(rows)
        return rows


def orders_of(products: Sequence[int]) -> list[dict[str, int]]:
    return [{"number": number, "product": product} for number, product in enumerate(products)]


async def test_200_orders_over_60_products_ask_for_each_product_once_in_few_calls(stub: StartStub) -> None:
    products = [*range(100, 160)] * 3 + [*range(100, 120)]
    random.Random(1).shuffle(products)
    first_seen = list(dict.fromkeys(products))
    missing = frozenset({101, 130, 159})
    shop = Shop(missing, width=3)
    server = await stub("shop")
    server.on("/orders", orders_of(products)).on("/products", shop)
    with asking([path("page", OrderPage.as_view())], {"shop": Upstream(server.url, timeout=60.0)}) as client:
        answer = await client.get("/page")

    assert len(products) == 200
    assert len(shop.asked) == math.ceil(60 / 7)
    assert sorted(key for ids in shop.asked for key in ids) == sorted(first_seen)
    assert max(map(len, shop.asked)) == 7
    assert shop.most == 3
    body = answer.json()
    assert list(body["data"]["products"].items()) == [
        (str(key), {"id": key, "name": f"product {key}"}) for key in first_seen if key not in missing
    ]
    assert (body["complete"], body["errors"]) == (True, {})


@pytest.mark.parametrize("size", [1, 2, 59, 60, 61])
async def test_a_chunk_holds_as_many_keys_as_it_may(stub: StartStub, size: int) -> None:
    class Page(Orders):
        @batch("shop", key="id", size=size, concurrency=4)
        def products(self, ids: list[int]) -> Request[list[Product]]:
            return GET("/products", id=ids)

        products.keys(Orders.product_ids)

    shop = Shop()
    server = await stub("shop")
    server.on("/orders", orders_of(range(60))).on("/products", shop)
    with asking([path("page", Page.as_view())], {"shop": Upstream(server.url, timeout=60.0)}) as client:
        answer = await client.get("/page")

    assert sorted(map(len, shop.asked), reverse=True) == [size] * (60 // size) + [60 % size] * (60 % size > 0)
    assert shop.most <= 4
    assert len(answer.json()["data"]["products"]) == 60


class EachPage(Orders):
    @each("shop", concurrency=4)
    def products(self, key: int) -> Request[Product]:
        return GET("/products/{key}", key=key)

    products.keys(Orders.product_ids)


async def test_each_asks_once_for_every_distinct_key_so_many_at_a_time(stub: StartStub) -> None:
    in_flight, most = 0, 0
    full = asyncio.Event()

    async def product(received: Received) -> dict[str, int]:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        if in_flight == 4:
            full.set()
        await full.wait()
        await asyncio.sleep(0)
        in_flight -= 1
        return {"id": int(received.path.rpartition("/")[2])}

    server = await stub("shop")
    server.on("/orders", orders_of([*range(20), *range(20)])).on("*", product)
    with asking([path("page", EachPage.as_view())], {"shop": Upstream(server.url, timeout=60.0)}) as client:
        answer = await client.get("/page")

    assert len(server.received) == 1 + 20
    assert most == 4
    assert list(answer.json()["data"]["products"]) == [str(key) for key in range(20)]


@pytest.mark.parametrize("page", [OrderPage, EachPage])
@pytest.mark.parametrize("products", [[], [5], [5, 5, 5]])
async def test_the_value_is_a_mapping_with_no_row_with_one_and_with_more(
    stub: StartStub, page: type[AggregateView], products: list[int]
) -> None:
    server = await stub("shop")
    server.on("/orders", orders_of(products)).on("/products", Shop()).on("/products/5", {"id": 5, "name": "product 5"})
    with asking([path("page", page.as_view())], {"shop": server}) as client:
        answer = await client.get("/page")

    assert answer.json()["data"]["products"] == ({"5": {"id": 5, "name": "product 5"}} if products else {})
    assert len(server.received) == 1 + len(set(products))


# Chunks that fail


def failing_for(*keys: int) -> Callable[[Received], Any]:
    async def products(received: Received) -> Any:
        ids = [int(value) for _, value in received.query]
        if set(keys) & set(ids):
            return Answered({"secret": CANARY}, 500)
        return [{"id": key} for key in ids]

    return products


async def test_an_optional_join_loses_only_the_keys_of_its_failed_chunks(stub: StartStub) -> None:
    server = await stub("shop")
    server.on("/orders", orders_of([1, 2, 3, 4, 5, 6, 7])).on("/products", failing_for(3, 5))
    upstream = Upstream(server.url, retry=None)
    with asking([path("page", OptionalOrderPage.as_view())], {"shop": upstream}) as client:
        answer = await client.get("/page")

    body = answer.json()
    assert answer.status_code == 200
    assert list(body["data"]["products"]) == ["1", "2", "7"]
    assert body["complete"] is False
    assert body["errors"] == {
        "products": {
            "upstream": "shop",
            "error": "http_response_status",
            "status": 500,
            "attempts": 2,  # one for each of the two lost chunks
            "retryable": True,
            "keys": [3, 4, 5, 6],
        }
    }


class FallbackPage(Orders):
    @batch("shop", key="id", size=2, fallback={0: {"id": 0, "name": "any"}})
    def products(self, ids: list[int]) -> Request[list[Product]]:
        return GET("/products", id=ids)

    products.keys(Orders.product_ids)


@pytest.mark.parametrize(
    ("failing", "rows", "lost"),
    [((1,), ["3", "4"], [1, 2]), ((1, 3), ["0"], [1, 2, 3, 4])],
    ids=["one of two chunks fails", "both fail"],
)
async def test_a_fallback_stands_in_when_every_chunk_has_failed(
    stub: StartStub, failing: tuple[int, ...], rows: list[str], lost: list[int]
) -> None:
    server = await stub("shop")
    server.on("/orders", orders_of([1, 2, 3, 4])).on("/products", failing_for(*failing))
    with asking([path("page", FallbackPage.as_view())], {"shop": Upstream(server.url, retry=None)}) as client:
        answer = await client.get("/page")

    body = answer.json()
    assert list(body["data"]["products"]) == rows
    assert body["errors"]["products"]["keys"] == lost
    assert body["complete"] is False


async def test_a_required_joins_failed_chunk_fails_the_page_and_cancels_the_other_chunks(
    stub: StartStub, log: Log
) -> None:
    server = await stub("shop")
    held = [Gate([]), Gate([])]
    waiting = iter(held)

    async def products(received: Received) -> Any:
        if ("id", "1") in received.query:
            for gate in held:
                await gate.arrived.wait()
            return Answered(None, 500)
        return await next(waiting)(received)

    server.on("/orders", orders_of(range(28))).on("/products", products)
    upstream = Upstream(server.url, timeout=60.0, retry=None)
    with asking([path("page", OrderPage.as_view())], {"shop": upstream}) as client:
        answer = await client.get("/page")

    error = answer.json()["errors"]["products"]
    assert answer.status_code == 502
    assert (error["error"], error["keys"]) == ("http_response_status", [0, 1, 2, 3, 4, 5, 6])
    outcomes = [event["outcome"] for event in log.events("attempt.finished", call="products")]
    assert sorted(outcomes) == ["cancelled", "cancelled", "failed"]


# Keys and rows that are not there


class Absences(PatientPage):
    @each("shop", absent=(404,))
    def by_id(self, key: int) -> Request[Product]:
        return GET("/products/{key}", key=key)

    @by_id.keys
    def ids(self) -> list[int]:
        return [1, 2, 3]

    @each("shop")
    def declining(self, key: int) -> Request[Product] | None:
        return None if key == 2 else GET("/products/{key}", key=key)

    @declining.keys
    def declining_ids(self) -> list[int]:
        return [1, 2]

    @each("shop", fallback={9: {"id": 9}})
    def declined(self, key: int) -> Request[Product]:
        return GET("/products/{key}", key=key)

    @declined.keys
    def declined_ids(self) -> list[int] | None:
        return None

    @batch("shop", key="id", absent=(404,))
    def batched(self, ids: list[int]) -> Request[list[Product]]:
        return GET("/none", id=ids)

    @batched.keys
    def batched_ids(self) -> list[int]:
        return [1]

    @batch("shop", key="id", size=1)
    def batch_declining(self, ids: list[int]) -> Request[list[Product]] | None:
        return None if ids == [2] else GET("/products", id=ids)

    @batch_declining.keys
    def batch_declining_ids(self) -> list[int]:
        return [1, 2]


async def test_keys_that_are_absent_or_declined_are_left_out_of_a_complete_answer(stub: StartStub) -> None:
    server = await stub("shop")
    server.on("/products/1", {"id": 1}).on("/products/3", {"id": 3}).on("/products", [{"id": 1}])
    with asking([path("page", Absences.as_view())], {"shop": server}) as client:
        answer = await client.get("/page")

    one, three = {"id": 1, "name": ""}, {"id": 3, "name": ""}
    assert answer.json() == {
        "data": {
            "by_id": {"1": one, "3": three},
            "declining": {"1": one},
            "declined": {},
            "batched": {},
            "batch_declining": {"1": one},
        },
        "complete": True,
        "errors": {},
    }
    assert sorted(asked.path for asked in server.received) == [
        "/none", "/products", "/products/1", "/products/2", "/products/3",
    ]  # fmt: skip # two joins want product 1 at once, and share it


class SkippedJoin(PatientPage):
    @call("shop", absent=(404,))
    def orders(self) -> Request[list[Order]]:
        return GET("/orders")

    @batch("shop", key="id", optional=True)
    def products(self, ids: list[int]) -> Request[list[Product]]:
        return GET("/products", id=ids)

    @products.keys
    def product_ids(self, orders: list[Order]) -> list[int]:
        return [order.product for order in orders]

    @call("shop")
    def count(self, products: Mapping[int, Product]) -> Request[Product]:
        return GET("/count", n=len(products))


async def test_a_join_whose_keys_cannot_be_told_is_skipped_and_stays_a_mapping(stub: StartStub) -> None:
    server = await stub("shop")
    server.on("/count", {"id": 0})
    with asking([path("page", SkippedJoin.as_view())], {"shop": server}) as client:
        answer = await client.get("/page")

    body = answer.json()
    assert body["data"] == {"orders": None, "products": {}, "count": {"id": 0, "name": ""}}
    assert body["complete"] is True
    assert body["errors"] == {
        "products": {
            "upstream": "shop",
            "error": "skipped",
            "status": None,
            "attempts": 0,
            "retryable": False,
            "because": "orders",
        }
    }


# What keys and rows may be


class Stock(msgspec.Struct):
    shop: str
    sku: str
    count: int


class CompositeKeys(PatientPage):
    @batch("shop", key=lambda stock: (stock.shop, stock.sku), internal=True, rows="items")
    def stock(self, places: list[tuple[str, str]]) -> Request[list[Stock]]:
        return POST("/stock", json=[{"shop": shop, "sku": sku} for shop, sku in places], safe=True)

    @stock.keys
    def places(self) -> list[tuple[str, str]]:
        return [("north", "a"), ("south", "a"), ("north", "a"), ("north", "b")]

    def merge(self, stock: Mapping[tuple[str, str], Stock]) -> list[tuple[str, str, int]]:
        return [(shop, sku, found.count) for (shop, sku), found in stock.items()]


async def test_keys_may_be_tuples_matched_by_a_function_of_the_row(stub: StartStub) -> None:
    server = await stub("shop")
    rows = [
        {"shop": "south", "sku": "a", "count": 2},
        {"shop": "north", "sku": "a", "count": 1},
        {"shop": "south", "sku": "b", "count": 9},
    ]
    server.on("/stock", {"items": rows, "total": 3})
    with asking([path("page", CompositeKeys.as_view())], {"shop": server}) as client:
        answer = await client.get("/page")

    assert answer.json()["data"] == [["north", "a", 1], ["south", "a", 2]]
    assert server.received[0].json == [
        {"shop": "north", "sku": "a"},
        {"shop": "south", "sku": "a"},
        {"shop": "north", "sku": "b"},
    ]


class OptionalCompositeKeys(CompositeKeys):
    @batch("shop", key=lambda stock: (stock.shop, stock.sku), internal=True, rows="items", optional=True)
    def stock(self, places: list[tuple[str, str]]) -> Request[list[Stock]]:
        return POST("/stock", json=places, safe=True)

    stock.keys(CompositeKeys.places)


async def test_lost_keys_that_are_tuples_are_told_as_lists(stub: StartStub) -> None:
    server = await stub("shop")
    server.on("/stock", Answered(None, 500))
    upstream = Upstream(server.url, retry=None)
    with asking([path("page", OptionalCompositeKeys.as_view())], {"shop": upstream}) as client:
        answer = await client.get("/page")

    assert answer.json()["errors"]["stock"]["keys"] == [["north", "a"], ["south", "a"], ["north", "b"]]


class LooseRows(PatientPage):
    @batch("shop", key="id", optional=True)
    def products(self, ids: list[int]) -> Request[list[dict[str, Any]]]:
        return GET("/products", id=ids)

    @products.keys
    def ids(self) -> list[int]:
        return [1, 2]


class RequiredLooseRows(LooseRows):
    @batch("shop", key="id")
    def products(self, ids: list[int]) -> Request[list[dict[str, Any]]]:
        return GET("/products", id=ids)

    products.keys(LooseRows.ids)


@pytest.mark.parametrize(
    ("page", "rows", "status"),
    [
        (LooseRows, [{"id": 1}, {"name": CANARY}], 200),
        (LooseRows, [{"id": [1]}], 200),
        (LooseRows, [{"id": {}}], 200),
        (RequiredLooseRows, [{"name": CANARY}], 502),
    ],
)
async def test_a_row_without_its_key_is_the_upstreams_failure(
    stub: StartStub, log: Log, page: type[AggregateView], rows: list[Any], status: int
) -> None:
    server = await stub("shop")
    server.on("/products", rows)
    with asking([path("page", page.as_view())], {"shop": server}) as client:
        answer = await client.get("/page")

    error = answer.json()["errors"]["products"]
    assert answer.status_code == status
    assert (error["error"], error["keys"]) == ("body_mismatch", [1, 2])
    assert CANARY not in answer.content.decode()
    assert not log.events("log.recorded")


class Named(msgspec.Struct):
    name: str


def _refuse(row: Named) -> str:
    if row.name == "problem":
        raise Problem(409, "Not like this")
    raise KeyError(row.name)


class RaisingRowKey(PatientPage):
    @batch("shop", key=_refuse, optional=True)
    def rows(self, names: list[str]) -> Request[list[Named]]:
        return GET("/rows", name=names)

    @rows.keys
    def names(self) -> list[str]:
        return ["a"]


@pytest.mark.parametrize(("name", "status", "title"), [("problem", 409, "Not like this"), ("bug", 500, None)])
async def test_what_a_function_of_the_row_raises_is_the_authors_and_no_failure_of_the_upstream(
    stub: StartStub, name: str, status: int, title: str | None
) -> None:
    server = await stub("shop")
    server.on("/rows", [{"name": name}])
    with asking([path("page", RaisingRowKey.as_view())], {"shop": server}) as client:
        answer = await client.get("/page")

    assert answer.status_code == status
    assert title is None or answer.json()["title"] == title


class Tagged(PatientPage):
    @each("shop")
    def replies(self, key: str) -> Request[Reply[Product]]:
        return GET("/products/{key}", key=key)

    @replies.keys
    def keys(self) -> list[str]:
        return ["a b", "ä/ö"]

    def merge(self, replies: Mapping[str, Reply[Product]]) -> dict[str, tuple[int, str]]:
        return {key: (reply.value.id, reply.headers["x-tag"]) for key, reply in replies.items()}


async def test_each_gives_whatever_type_its_request_has(stub: StartStub) -> None:
    server = await stub("shop")
    server.on("*", Answered({"id": 4}, headers={"X-Tag": "t"}))
    with asking([path("page", Tagged.as_view())], {"shop": server}) as client:
        answer = await client.get("/page")

    assert answer.json()["data"] == {"a b": [4, "t"], "ä/ö": [4, "t"]}


async def test_a_chunk_is_retried_by_itself(stub: StartStub, log: Log) -> None:
    server = await stub("shop")
    tried: set[tuple[str, ...]] = set()

    async def products(received: Received) -> Any:
        ids = tuple(value for _, value in received.query)
        if "3" in ids and ids not in tried:
            tried.add(ids)
            return Answered(None, 503)
        return [{"id": int(key)} for key in ids]

    server.on("/orders", orders_of([1, 2, 3, 4])).on("/products", products)
    with asking([path("page", OptionalOrderPage.as_view())], {"shop": server}) as client:
        answer = await client.get("/page")

    assert list(answer.json()["data"]["products"]) == ["1", "2", "3", "4"]
    assert answer.json()["complete"] is True
    assert len(server.asked("/products")) == 3
    assert log.events("call.finished", call="products")[0]["attempts"] == 3
