"""What page authors write, as a type checker sees it. Never run: `assert_type` is the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, assert_type

import msgspec
from django.http import HttpRequest, HttpResponse
from django.urls import path

from gateway import (
    AggregateView,
    Answer,
    Fan,
    Problem,
    batch,
    by_method,
    call,
    each,
    fan_out,
    page_test,
    part,
)
from upstreams import FOLLOW, GET, JSON, POST, Reply, Request


class User(msgspec.Struct):
    id: int


class Order(msgspec.Struct):
    id: int
    product_id: int


class Product(msgspec.Struct):
    id: int


class Paging(msgspec.Struct):
    limit: int = 20


class Basket(msgspec.Struct):
    lines: list[int]


class OrderPageBody(msgspec.Struct):
    user: User
    orders: list[Order]
    products: Mapping[int, Product]


class OrderPage(AggregateView):
    """Everything the order page needs."""

    deadline = 1.5
    partial_status = 206
    log_fields = ("user_id",)

    @call("users")
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("orders")
    def orders(self, user: User, query: Paging) -> Request[list[Order]]:
        return GET("/orders", customer=user.id, limit=query.limit)

    @batch("catalog", key="id", size=50, concurrency=4)
    def products(self, ids: list[int]) -> Request[list[Product]]:
        return GET("/products", id=ids)

    @products.keys
    def product_ids(self, orders: list[Order]) -> Iterable[int]:
        return (order.product_id for order in orders)

    @each("stock", optional=True)
    def stock(self, product: int, user: User) -> Request[int] | None:
        return GET("/stock/{id}", id=product) if user.id else None

    @stock.keys
    def stocked(self, products: Mapping[int, Product]) -> list[int] | None:
        return list(products) or None

    @call("recommendations", fallback=[])
    def recommended(self, user_id: int) -> Request[Reply[list[Product]]] | None:
        return GET("/for/{id}", id=user_id) if user_id else None

    @call("sitemap", decode=bytes.decode, internal=True)
    def sitemap(self) -> Request[str]:
        return GET("/sitemap.xml")

    @part(optional=True)
    async def feed(self, fan: Fan, user: User) -> list[User]:
        first = await fan.call("feed", GET("/feed", user=user.id), Reply[list[User]])
        rest = await fan.call("feed", FOLLOW(first.headers["link"]), list[User])
        return [*first.value, *rest]

    def merge(
        self,
        user: User,
        orders: list[Order],
        products: Mapping[int, Product],
        recommended: Reply[list[Product]] | None,
        feed: list[User] | None,
    ) -> Answer[OrderPageBody]:
        if recommended is None and feed is None:
            raise Problem(404, detail="nothing to see")
        return Answer(OrderPageBody(user, orders, products), status=203, headers={"X-Shop": "1"})


class Checkout(AggregateView):
    methods = ("POST",)
    envelope = False

    @call("orders", passthrough=(409,), after=())
    def order(self, body: Basket, request: HttpRequest) -> Request[JSON]:
        return POST("/orders", json=body.lines, headers={"X-Method": request.method or ""})


def one_call_is_its_request() -> None:
    page = OrderPage()
    assert_type(page.user(7), Request[User])
    assert_type(page.orders(user=User(7), query=Paging()), Request[list[Order]])
    assert_type(page.products([1, 2]), Request[list[Product]])
    assert_type(page.product_ids([]), Iterable[int])
    assert_type(page.stock(1, user=User(7)), Request[int] | None)
    assert_type(page.stocked({}), Iterable[int] | None)
    assert_type(page.recommended(7), Request[Reply[list[Product]]] | None)
    assert page.user(7) == GET("/users/{id}", id=7)


async def one_part_is_its_coroutine(fan: Fan) -> None:
    assert_type(await OrderPage().feed(fan, User(7)), list[User])


async def compare(request: HttpRequest) -> HttpResponse:
    async with fan_out(request, deadline=1.5) as fan:
        user = fan.call("users", GET("/me"), User)
        perhaps = fan.call("users", GET("/friend"), User, optional=True)
        feed = fan.call("feed", GET("/feed"))
        ads = fan.call("ads", GET("/ads"), optional=True)
        assert_type(await user, User)
        assert_type(await perhaps, User | None)
        assert_type(await feed, JSON)
        assert_type(await ads, JSON | None)
        both = await asyncio.gather(user, ads)
        assert_type(both, tuple[User, JSON | None])
        return fan.answer({"user": await user, "feed": await feed}, status=200)


urlpatterns = [
    path("orders/<int:user_id>", OrderPage.as_view()),
    path("checkout", by_method(POST=Checkout)),
    path("compare", compare),
]


def a_page_is_tested_without_a_network() -> None:
    done = page_test(
        OrderPage,
        user_id=7,
        query={"limit": 3},
        headers={"Accept-Language": "en"},
        answers={"user": User(7), "orders": lambda _: [], "recommended": Reply([], 200, {})},
    )
    assert_type(done.requests, dict[str, list[Request[Any]]])
    assert_type(done.status, int)
    assert_type(done.complete, bool)
    assert_type(done.cookies, Mapping[str, str])


def a_page_is_a_view_of_django() -> Callable[..., Any]:
    return OrderPage.as_view(deadline=2.0)
