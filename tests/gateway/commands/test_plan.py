"""`manage.py plan`: a page's graph, to be read and to be drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from django.urls import path

from gateway import AggregateView, batch, by_method, call, part
from gateway.running.fan import Fan
from tests.gateway import shop
from tests.program import ran
from tests.serving import project
from upstreams import GET, JSON, POST, Request


class Order(msgspec.Struct):
    product: int


class Orders(AggregateView):
    deadline = 1.5

    @call("users", passthrough=(404, 410))
    def user(self, user_id: int) -> Request[JSON]:
        return GET("/users/{id}", id=user_id)

    @call("orders", absent=(404,), internal=True)
    def orders(self, user: JSON) -> Request[list[Order]]:
        return GET("/orders")

    @batch("catalog", key="product", optional=True)
    def products(self, keys: list[int]) -> Request[list[Order]]:
        return GET("/products", id=keys)

    @products.keys
    def product_ids(self, orders: list[Order] | None) -> Iterable[int]:
        return [order.product for order in orders or ()]

    @part(fallback=0)
    async def count(self, fan: Fan, user: JSON) -> int:
        return 1


class Checkout(AggregateView):
    @call("stock")
    def reserve(self, body: Order) -> Request[JSON]:
        return POST("/reserve", json=body)

    @call("orders", after=("reserve",))
    def order(self, body: Order) -> Request[JSON]:
        return POST("/orders", json=body)

    def merge(self, order: JSON) -> Mapping[str, JSON]:
        return {"order": order}


class Item(AggregateView):
    """Another page of a name that there is already, with calls that Mermaid would stumble over."""

    @call("shop", name="end")
    def last(self) -> Request[JSON]:
        return GET("/")

    @call("shop", name="a--b", optional=True)
    def between(self) -> Request[JSON]:
        return GET("/")


ROUTES = [
    path("orders/<int:user_id>", by_method(GET=Orders, POST=Checkout)),
    path("again/<int:user_id>", Orders.as_view()),
    path("odd", Item.as_view()),
    path("items/<int:item_id>", shop.Item.as_view()),
]

ORDERS = """\
Orders  GET, HEAD /orders/<int:user_id>  deadline 1.5 s
  user      call users     -> JSON                 at once       required, passes 404 410 through
  orders    call orders    -> list[Order]          after user    required, absent on 404, internal
  products  batch catalog  -> Mapping[int, Order]  after orders  optional
  count     part           -> int                  after user    fallback
  longest chain: user -> orders -> products (3 of 4 calls)

flowchart LR
  user["user<br/>users"]
  orders["orders<br/>orders"]
  products("products<br/>catalog")
  count("count<br/>part")
  user --> orders
  orders --> products
  user --> count
"""

CHECKOUT = """\
flowchart LR
  reserve["reserve<br/>stock"]
  order["order<br/>orders"]
  reserve -.-> order
"""

ODD = """\
flowchart LR
  end_0["end<br/>shop"]
  a__b_1("a--b<br/>shop")
"""


def test_a_page_is_described_and_drawn() -> None:
    with project(ROUTES, {}):
        ended = ran("plan", "Orders")

    assert (ended.code, ended.out) == (0, ORDERS)


def test_mermaid_alone_can_be_asked_for() -> None:
    with project(ROUTES, {}):
        ended = ran("plan", "Checkout", "--mermaid")

    assert (ended.code, ended.out) == (0, CHECKOUT)


def test_no_call_bears_a_name_that_mermaid_reads_as_something_else() -> None:
    with project(ROUTES, {}):
        ended = ran("plan", f"{__name__}.Item", "--mermaid")

    assert ended.out == ODD


def test_every_page_is_shown_once_by_default() -> None:
    with project(ROUTES, {}):
        ended = ran("plan")

    titles = [line.split()[0] for line in ended.out.splitlines() if "  deadline " in line]
    assert titles == ["Orders", "Checkout", "Item", "Item"]
    assert "  merge(order) -> Mapping[str, JSON]" in ended.out.splitlines()


def test_an_unknown_page_is_an_error_that_names_those_there_are() -> None:
    with project(ROUTES, {}):
        ended = ran("plan", "Order")

    assert ended.code == 1
    assert ended.err == "CommandError: no page is called 'Order'; routed pages: Checkout, Item, Item, Orders"


def test_a_project_without_pages_is_told_so() -> None:
    with project([], {}):
        assert ran("plan").err == "CommandError: no page is routed"
