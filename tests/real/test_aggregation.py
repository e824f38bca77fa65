"""Pages over servers nobody here wrote, through a real gateway: merged, joined, read page by page, written to."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import msgspec
import pytest
from aiohttp import ClientSession
from django.urls import path

from demo.services.records import Order as ShopOrder
from gateway import AggregateView, Fan, batch, by_method, call, each, part
from tests.logs import CANARY, Log
from tests.serving import PatientPage, gateway
from upstreams import DELETE, FOLLOW, GET, JSON, PATCH, POST, PUT, Reply, Request

from .asking import ask, patient
from .run_nginx import WireLog
from .shop import JSON as SHOP_JSON
from .shop import orders, products, reviews

SKU = "D-00030"  # one of those with a file at nginx, and with reviews among json-server's


class Product(msgspec.Struct):
    sku: str
    title: str
    price: float


class Line(msgspec.Struct):
    sku: str
    quantity: int


class Order(msgspec.Struct):
    id: int
    lines: list[Line]


class Review(msgspec.Struct):
    id: int
    rating: int


class Rating(msgspec.Struct):
    reviews: int
    average: float | None


class Echo(msgspec.Struct):
    """What httpbin says it was sent."""

    method: str
    url: str
    headers: dict[str, str]
    args: dict[str, str | list[str]] = {}
    form: dict[str, str | list[str]] = {}
    data: str = ""


class Stone(AggregateView):
    """A stone: its record from a file, reviews from json-server, their sum from SQL, and what httpbin was told."""

    deadline = 60.0

    @call("nginx")
    def stone(self, sku: str) -> Request[JSON]:
        return GET("/products/{sku}.json", sku=sku)

    @call("json_server")
    def reviews(self, sku: str) -> Request[list[Review]]:
        return GET("/reviews", productId=sku)

    @call("datasette")
    def rating(self, sku: str) -> Request[list[Rating]]:
        return GET("/shop/rating.json", query={"_shape": "array"}, sku=sku)

    @call("httpbin")
    def told(self, sku: str, reviews: list[Review]) -> Request[Echo]:
        return POST("/anything/{sku}", sku=sku, json=[review.id for review in reviews], safe=True)


class TestMerging:
    async def test_one_answer_is_made_of_four_servers_byte_for_byte_where_it_is_opaque(
        self,
        client: ClientSession,
        log: Log,
        datasette: str,
        json_server: str,
        nginx: str,
        httpbin: str,
    ) -> None:
        every = [review.rating for review in reviews() if review.product == SKU]
        ids = [review.id for review in reviews()[:300] if review.product == SKU]
        upstreams = {"nginx": nginx, "json_server": json_server, "datasette": datasette, "httpbin": httpbin}
        async with gateway(
            [path("<str:sku>", Stone.as_view())], {name: patient(url) for name, url in upstreams.items()}
        ) as base:
            got = await ask(client, f"{base}/{SKU}")

        assert (got.status, got.json["complete"], got.errors) == (200, True, {})
        assert list(got.data) == ["stone", "reviews", "rating", "told"]
        assert b'"stone":' + SHOP_JSON.encode(products()[29]) in got.body
        assert [review["id"] for review in got.data["reviews"]] == ids
        assert got.data["rating"] == [{"reviews": len(every), "average": round(sum(every) / len(every), 2)}]
        assert (got.data["told"]["method"], json.loads(got.data["told"]["data"])) == ("POST", ids)
        assert log.sent() == 4

    async def test_a_server_that_is_gone_takes_only_its_own_part_with_it(
        self, client: ClientSession, datasette: str, nginx: str
    ) -> None:
        class WithoutReviews(Stone):
            @call("json_server", optional=True)
            def reviews(self, sku: str) -> Request[list[Review]]:
                return GET("/reviews", productId=sku)

            @call("httpbin", optional=True)
            def told(self, sku: str, reviews: list[Review] | None) -> Request[Echo]:
                return POST("/anything/{sku}", sku=sku, json=reviews, safe=True)

        nobody = "http://127.0.0.1:1"
        upstreams = {"nginx": nginx, "json_server": nobody, "datasette": datasette, "httpbin": nobody}
        async with gateway(
            [path("<str:sku>", WithoutReviews.as_view())], {name: patient(url) for name, url in upstreams.items()}
        ) as base:
            got = await ask(client, f"{base}/{SKU}")

        assert (got.status, got.json["complete"], got.data["stone"]["sku"]) == (200, False, SKU)
        assert {name: failure["error"] for name, failure in got.errors.items()} == {
            "reviews": "connection_refused",
            "told": "connection_refused",
        }


class Bought(AggregateView):
    """The first 200 orders, and the products on their lines, asked for in bulk."""

    deadline = 60.0

    @call("json_server")
    def orders(self) -> Request[list[Order]]:
        return GET("/orders", query={"_limit": 200})

    @batch("json_server", key="sku", size=50)
    def products(self, skus: list[str]) -> Request[list[Product]]:
        return GET("/products", id=skus)

    @products.keys
    def skus(self, orders: list[Order]) -> Iterable[str]:
        return (line.sku for order in orders for line in order.lines)

    def merge(self, orders: list[Order], products: Mapping[str, Product]) -> dict[int, list[str]]:
        return {order.id: [products[line.sku].title for line in order.lines] for order in orders}


class BoughtBySql(Bought):
    """The same, the products from Datasette, which takes its keys in one comma list and gives its rows in an object."""

    @batch("datasette", key="sku", rows="rows", size=40)
    def products(self, skus: list[str]) -> Request[list[Product]]:
        return GET("/shop/products.json", sku__in=",".join(skus), query={"_shape": "objects", "_size": "max"})

    @products.keys
    def skus(self, orders: list[Order]) -> Iterable[str]:
        return (line.sku for order in orders for line in order.lines)


class BoughtByFile(AggregateView):
    """The same of the first ten, a request for each product; nginx has files of the first hundred only."""

    deadline = 60.0

    @call("json_server")
    def orders(self) -> Request[list[Order]]:
        return GET("/orders", query={"_limit": 10})

    @each("nginx", absent=(404,))
    def products(self, sku: str, token: str) -> Request[Product]:
        return GET("/products/{sku}.json", sku=sku, token=token)

    @products.keys
    def skus(self, orders: list[Order]) -> Iterable[str]:
        return [line.sku for order in orders for line in order.lines] + ["D-00001", "D-00002", "D-00001"]

    def merge(self, products: Mapping[str, Product]) -> list[str]:
        return sorted(products)


def lines(bought: Iterable[ShopOrder]) -> list[str]:
    return [line.sku for order in bought for line in order.lines]


class TestJoining:
    @pytest.mark.parametrize(("page", "size"), [(Bought, 50), (BoughtBySql, 40)])
    async def test_200_orders_are_joined_with_their_products_in_as_few_calls_as_the_size_allows(
        self, client: ClientSession, log: Log, datasette: str, json_server: str, page: type[Bought], size: int
    ) -> None:
        upstreams = {"json_server": patient(json_server), "datasette": patient(datasette)}
        titles = {product.sku: product.title for product in products()}
        async with gateway([path("", page.as_view())], upstreams) as base:
            got = await ask(client, base)

        assert (got.status, got.json["complete"]) == (200, True)
        assert got.data == {str(order.id): [titles[line.sku] for line in order.lines] for order in orders()[:200]}
        distinct = len(set(lines(orders()[:200])))
        assert len(log.events("attempt.finished", call="products", sent=True)) == math.ceil(distinct / size)

    async def test_each_distinct_key_is_asked_for_once_and_what_is_not_there_is_left_out(
        self, client: ClientSession, log: Log, json_server: str, nginx: str, wire_log: WireLog
    ) -> None:
        token = uuid4().hex
        wanted = {*lines(orders()[:10]), "D-00001", "D-00002"}
        upstreams = {"json_server": patient(json_server), "nginx": patient(nginx)}
        async with gateway([path("<str:token>", BoughtByFile.as_view())], upstreams) as base:
            got = await ask(client, f"{base}/{token}")
            seen = await wire_log.seen(token, len(wanted))

        assert (got.status, got.json["complete"]) == (200, True)
        assert got.data == sorted(sku for sku in wanted if sku <= "D-00100")
        assert sorted(exchange.uri.partition("?")[0] for exchange in seen) == sorted(
            f"/products/{sku}.json" for sku in wanted
        )
        assert log.sent() == len(seen) + 1


class Rows(msgspec.Struct):
    """A page of Datasette's."""

    rows: list[Review]
    next_url: str | None


class EveryReview(AggregateView):
    """All reviews, a thousand at a time: Datasette says in the body where to go on."""

    deadline = 60.0

    @part
    async def reviews(self, fan: Fan) -> list[int]:
        request = GET("/shop/reviews.json", query={"_shape": "objects", "_size": 1000})
        found: list[int] = []
        while True:
            page = await fan.call("datasette", request, Rows)
            found.extend(review.id for review in page.rows)
            if page.next_url is None:
                return found
            request = FOLLOW(page.next_url)


class EveryOrder(AggregateView):
    """All orders, a hundred at a time: json-server says in a header where to go on."""

    deadline = 60.0

    @part
    async def orders(self, fan: Fan) -> list[int]:
        request = GET("/orders", query={"_page": 1, "_limit": 100})
        found: list[int] = []
        while True:
            page = await fan.call("json_server", request, Reply[list[Order]])
            found.extend(order.id for order in page.value)
            following = re.search('<([^>]*)>; rel="next"', page.headers["link"])
            if following is None:
                return found
            request = FOLLOW(following[1])


class Astray(PatientPage):
    """Follows Datasette's links at another server."""

    @call("datasette")
    def page(self) -> Request[Rows]:
        return GET("/shop/reviews.json", query={"_shape": "objects", "_size": 1})

    @call("json_server", optional=True)
    def following(self, page: Rows) -> Request[JSON]:
        return FOLLOW(page.next_url or "")


class TestPaging:
    async def test_a_part_reads_every_page_by_the_links_in_the_bodies(
        self, client: ClientSession, log: Log, datasette: str
    ) -> None:
        async with gateway([path("", EveryReview.as_view())], {"datasette": patient(datasette)}) as base:
            got = await ask(client, base)

        assert got.data == {"reviews": [review.id for review in reviews()]}
        assert log.sent() == math.ceil(len(reviews()) / 1000)

    async def test_a_part_reads_every_page_by_the_links_in_the_headers(
        self, client: ClientSession, log: Log, json_server: str
    ) -> None:
        async with gateway([path("", EveryOrder.as_view())], {"json_server": patient(json_server)}) as base:
            got = await ask(client, base)

        assert got.data == {"orders": [order.id for order in orders()[:300]]}
        assert log.sent() == 3

    async def test_a_link_to_another_server_is_not_followed(
        self, client: ClientSession, log: Log, datasette: str, json_server: str
    ) -> None:
        upstreams = {"datasette": patient(datasette), "json_server": patient(json_server)}
        async with gateway([path("", Astray.as_view())], upstreams) as base:
            got = await ask(client, base)

        assert (got.status, got.data["following"]) == (200, None)
        assert got.errors["following"]["error"] == "http_request_denied"
        assert log.sent() == 1


class Cart(msgspec.Struct):
    sku: str
    quantity: int = 1
    id: int | None = None


class ReadCart(AggregateView):
    deadline = 60.0

    @call("json_server", passthrough=(404,))
    def cart(self, cart_id: int) -> Request[Cart]:
        return GET("/carts/{id}", id=cart_id)


class PutCart(AggregateView):
    deadline = 60.0
    methods = ("PUT",)

    @call("json_server", passthrough=(404,))
    def cart(self, cart_id: int, body: Cart) -> Request[Cart]:
        return PUT("/carts/{id}", id=cart_id, json={"sku": body.sku, "quantity": body.quantity})


class ChangeCart(AggregateView):
    deadline = 60.0
    methods = ("PATCH",)

    @call("json_server", passthrough=(404,))
    def cart(self, cart_id: int) -> Request[Cart]:
        return PATCH("/carts/{id}", id=cart_id, json={"quantity": 5})


class DropCart(AggregateView):
    deadline = 60.0
    methods = ("DELETE",)

    @call("json_server", passthrough=(404,))
    def dropped(self, cart_id: int) -> Request[JSON]:
        return DELETE("/carts/{id}", id=cart_id)


class MakeCart(AggregateView):
    """A cart is made once the product is known to be there."""

    deadline = 60.0

    @call("nginx", passthrough=(404,))
    def product(self, body: Cart) -> Request[Product]:
        return GET("/products/{sku}.json", sku=body.sku)

    @call("json_server")
    def cart(self, body: Cart) -> Request[Reply[Cart]]:
        return POST("/carts", json={"sku": body.sku, "quantity": body.quantity})

    def merge(self, product: Product, cart: Reply[Cart]) -> dict[str, Any]:
        return {"id": cart.value.id, "title": product.title, "status": cart.status, "at": cart.headers["location"]}


CARTS = [
    path("carts", MakeCart.as_view()),
    path("carts/<int:cart_id>", by_method(GET=ReadCart, PUT=PutCart, PATCH=ChangeCart, DELETE=DropCart)),
]


class TestWriting:
    async def test_a_record_is_made_read_replaced_changed_and_deleted(
        self, client: ClientSession, http: ClientSession, log: Log, json_server: str, nginx: str
    ) -> None:
        upstreams = {"json_server": patient(json_server), "nginx": patient(nginx)}
        async with gateway(CARTS, upstreams) as base:
            made = await ask(client, f"{base}/carts", "POST", json={"sku": SKU})
            cart = f"{base}/carts/{made.data['id']}"
            read = await ask(client, cart)
            replaced = await ask(client, cart, "PUT", json={"sku": "D-00031", "quantity": 3})
            changed = await ask(client, cart, "PATCH")
            there = await ask(http, f"{json_server}/carts/{made.data['id']}")
            dropped = await ask(client, cart, "DELETE")
            gone = await ask(client, cart)

        number = made.data["id"]
        assert made.data == {
            "id": number,
            "title": products()[29].title,
            "status": 201,
            "at": f"{json_server}/carts/{number}",
        }
        assert read.data == {"cart": {"sku": SKU, "quantity": 1, "id": number}}
        assert replaced.data == {"cart": {"sku": "D-00031", "quantity": 3, "id": number}}
        assert changed.data == {"cart": there.json} == {"cart": {"sku": "D-00031", "quantity": 5, "id": number}}
        assert (dropped.status, dropped.data) == (200, {"dropped": {}})
        assert (gone.status, gone.headers["Content-Type"]) == (404, "application/problem+json")
        assert log.sent() == 7

    async def test_nothing_is_written_when_a_required_read_fails(
        self, client: ClientSession, http: ClientSession, log: Log, json_server: str, nginx: str
    ) -> None:
        upstreams = {"json_server": patient(json_server), "nginx": patient(nginx)}
        async with gateway(CARTS, upstreams) as base:
            before = await ask(http, f"{json_server}/carts?sku=D-99999")
            got = await ask(client, f"{base}/carts", "POST", json={"sku": "D-99999"})
            after = await ask(http, f"{json_server}/carts?sku=D-99999")

        assert (got.status, before.json, after.json) == (404, [], [])
        assert [event["call"] for event in log.events("attempt.finished")] == ["product"]

    async def test_a_url_shared_by_pages_names_all_their_methods(self, client: ClientSession, json_server: str) -> None:
        async with gateway(CARTS, {"json_server": patient(json_server), "nginx": patient(json_server)}) as base:
            got = await ask(client, f"{base}/carts/1", "POST", json={})

        assert (got.status, {*got.headers["Allow"].split(", ")}) == (
            405,
            {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"},
        )


class Words(msgspec.Struct):
    word: str


class ReadEcho(AggregateView):
    deadline = 60.0

    @call("httpbin")
    def echo(self, query: Words) -> Request[Echo]:
        return GET("/anything/{word}/x", word=query.word, q=query.word, flag=True, nothing=None, many=["a", "b&c=d"])


class ReadNothing(AggregateView):
    deadline = 60.0

    @call("nginx", absent=(404,))
    def nothing(self, token: str, query: Words) -> Request[JSON]:
        return GET("/nothing/{word}/x", word=query.word, q=query.word, token=token)


class ReadBusy(AggregateView):
    deadline = 60.0

    @call("nginx")
    def dead(self, token: str) -> Request[JSON]:
        return GET("/dead", token=token)


class WriteEcho(AggregateView):
    deadline = 60.0

    @call("httpbin")
    def json(self, body: Words) -> Request[Echo]:
        return PUT("/anything/json", json=body)

    @call("httpbin")
    def form(self, body: Words) -> Request[Echo]:
        return POST("/anything/form", form={"word": body.word, "many": ["1", "2"]})

    @call("httpbin")
    def content(self) -> Request[Echo]:
        return PATCH("/anything/content", content=(b"<cart/>", "application/xml"))


#: Values that are more than a path segment, or than a query's value, where they are not encoded.
WORDS = ["a/b?c=d&e=f#g", "%2e%2e/%00", "\u00fc \u4e16 +", "http://elsewhere.invalid/", ";a=b:@", "..a", "{word}"]

#: What a browser and the proxies before the gateway may send.
SENT = {
    "Authorization": f"Bearer {CANARY}",
    "Cookie": f"session={CANARY}",
    "X-Api-Key": CANARY,
    "X-Forwarded-For": "203.0.113.9",
    "Forwarded": "for=203.0.113.9",
    "Referer": f"https://example.com/?{CANARY}",
    "Origin": "https://example.com",
    "Range": "bytes=0-1",
    "If-None-Match": '"1"',
    "Accept-Language": "de",
    "X-Request-ID": "seen-from-outside",
    "TE": "trailers",
}


class TestWhatGoesOut:
    async def test_of_the_client_s_headers_only_those_allowed_reach_a_server(
        self, client: ClientSession, httpbin: str
    ) -> None:
        upstream = patient(httpbin, forward_headers=("accept-language",), headers={"X-Shop": "diamonds"})
        async with gateway([path("", ReadEcho.as_view())], {"httpbin": upstream}) as base:
            got = await ask(client, base, params={"word": "w"}, headers=SENT)

        headers = got.data["echo"]["headers"]
        assert headers.pop("Traceparent").startswith("00-")
        assert headers == {
            "Host": httpbin.removeprefix("http://"),
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "Accept-Language": "de",
            "User-Agent": "tributary",
            "X-Shop": "diamonds",
        }  # and those that httpbin never shows, which nginx does below

    async def test_a_write_bears_its_type_its_length_and_a_key_by_which_a_repeat_is_known(
        self, client: ClientSession, httpbin: str
    ) -> None:
        upstream = patient(httpbin, idempotency_header="Idempotency-Key")
        headers = {"Idempotency-Key": CANARY}
        async with gateway([path("", WriteEcho.as_view())], {"httpbin": upstream}) as base:
            first, second = [
                await ask(client, base, "POST", json={"word": "caf\u00e9"}, headers=headers) for _ in range(2)
            ]

        json_, form, content = (first.data[name] for name in ("json", "form", "content"))
        assert [echo["headers"]["Content-Type"] for echo in (json_, form, content)] == [
            "application/json",
            "application/x-www-form-urlencoded",
            "application/xml",
        ]
        assert (json.loads(json_["data"]), form["form"], content["data"]) == (
            {"word": "caf\u00e9"},
            {"word": "caf\u00e9", "many": ["1", "2"]},
            "<cart/>",
        )
        keys = [[got.data[name]["headers"]["Idempotency-Key"] for name in got.data] for got in (first, second)]
        assert keys[0] == keys[1]
        assert len(set(keys[0])) == 3
        assert CANARY not in first.body.decode()

    async def test_each_attempt_bears_the_request_s_id_and_trace_and_a_span_of_its_own(
        self, client: ClientSession, log: Log, nginx: str, wire_log: WireLog
    ) -> None:
        token, trace = uuid4().hex, uuid4().hex
        headers = {**SENT, "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        async with gateway([path("<str:token>", ReadBusy.as_view())], {"nginx": patient(nginx)}) as base:
            got = await ask(client, f"{base}/{token}", headers=headers)
            seen = await wire_log.seen(token, 2)

        spans = [event["span_id"] for event in log.events("attempt.finished")]
        assert (got.status, got.headers["X-Request-ID"]) == (502, "seen-from-outside")
        assert [exchange.traceparent for exchange in seen] == [f"00-{trace}-{span}-01" for span in spans]
        assert len(set(spans)) == 2
        assert {(exchange.request_id, exchange.via) for exchange in seen} == {("seen-from-outside", "1.1 tributary")}
        assert {(exchange.authorization, exchange.cookie) for exchange in seen} == {("", "")}

    @pytest.mark.parametrize("word", WORDS)
    async def test_a_value_arrives_as_it_was_given(self, client: ClientSession, httpbin: str, word: str) -> None:
        async with gateway([path("", ReadEcho.as_view())], {"httpbin": patient(httpbin)}) as base:
            got = await ask(client, base, params={"word": word})

        assert got.data["echo"]["args"] == {"q": word, "flag": "true", "many": ["a", "b&c=d"]}

    @pytest.mark.parametrize("word", WORDS)
    async def test_no_value_changes_the_shape_of_a_request(
        self, client: ClientSession, nginx: str, wire_log: WireLog, word: str
    ) -> None:
        token = uuid4().hex
        async with gateway([path("<str:token>", ReadNothing.as_view())], {"nginx": patient(nginx)}) as base:
            got = await ask(client, f"{base}/{token}", params={"word": word})
            (exchange,) = await wire_log.seen(token)

        quoted = quote(word, safe="")
        assert exchange.uri == f"/nothing/{quoted}/x?q={quoted}&token={token}"
        assert (got.data, got.json["complete"]) == ({"nothing": None}, True)

    @pytest.mark.parametrize("word", ["", ".", "..", "a\r\nX-Injected: 1", "\x00"])
    async def test_a_value_that_would_is_a_400_and_is_not_sent(
        self, client: ClientSession, log: Log, httpbin: str, word: str
    ) -> None:
        async with gateway([path("", ReadEcho.as_view())], {"httpbin": patient(httpbin)}) as base:
            got = await ask(client, base, params={"word": word})

        assert (got.status, list(got.json["invalid"]), log.sent()) == (400, ["query.word"], 0)
