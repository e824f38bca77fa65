"""The pages that are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from django.urls import path

from gateway import AggregateView, batch, call
from upstreams import GET, JSON, Request


class Row(msgspec.Struct):
    """What the stub answers one row of."""

    id: int


class Three(AggregateView):
    """Three calls that need nothing of each other."""

    @call("users")
    def user(self, ms: int) -> Request[JSON]:
        """Ask."""
        return GET("/item/{id}", id=1, ms=ms)

    @call("orders")
    def orders(self, ms: int) -> Request[JSON]:
        """Ask."""
        return GET("/item/{id}", id=2, ms=ms)

    @call("catalog")
    def products(self, ms: int) -> Request[JSON]:
        """Ask."""
        return GET("/item/{id}", id=3, ms=ms)


class Chain(AggregateView):
    """Three calls, each of which needs the one before."""

    @call("users")
    def user(self, ms: int) -> Request[Row]:
        """Ask."""
        return GET("/item/{id}", id=1, ms=ms)

    @call("orders")
    def orders(self, user: Row, ms: int) -> Request[Row]:
        """Ask, knowing the user."""
        return GET("/item/{id}", id=user.id, ms=ms)

    @call("catalog")
    def products(self, orders: Row, ms: int) -> Request[Row]:
        """Ask, knowing the orders."""
        return GET("/item/{id}", id=orders.id, ms=ms)


class Join(AggregateView):
    """A list of 200 rows over 60 distinct keys, and a bulk endpoint asked for 20 of them at a time."""

    @call("orders")
    def orders(self, ms: int) -> Request[list[Row]]:
        """Ask for the list."""
        return GET("/list/{count}", count=200, distinct=60, ms=ms)

    @batch("catalog", key="id", size=20)
    def products(self, ids: list[int], ms: int) -> Request[list[Row]]:
        """Ask for the rows."""
        return GET("/bulk", id=ids, ms=ms)

    @products.keys
    def ids(self, orders: list[Row]) -> Iterable[int]:
        """Name the keys."""
        return (order.id for order in orders)

    def merge(self, products: Mapping[int, Row]) -> int:
        """Count."""
        return len(products)


class Item(msgspec.Struct):
    """A row of the bodies that are compared, with all it has."""

    id: int
    name: str
    price: float
    tags: list[str]
    stock: bool
    text: str


class Label(msgspec.Struct):
    """The same row, of which a page needs two fields."""

    id: int
    name: str


class Merged(AggregateView):
    """Three bodies of a size, spliced."""

    @call("users")
    def user(self, size: str) -> Request[JSON]:
        """Ask."""
        return GET("/{size}/user.json", size=size)

    @call("orders")
    def orders(self, size: str) -> Request[JSON]:
        """Ask."""
        return GET("/{size}/orders.json", size=size)

    @call("catalog")
    def products(self, size: str) -> Request[JSON]:
        """Ask."""
        return GET("/{size}/products.json", size=size)


class Decoded(Merged):
    """The same, taken apart by the merge."""

    def merge(self, user: JSON, orders: JSON, products: JSON) -> dict[str, Any]:
        """Decode all three."""
        return {"user": user.decode(), "orders": orders.decode(), "products": products.decode()}


class Typed(AggregateView):
    """The same, decoded into structs that have every field."""

    @call("users")
    def user(self, size: str) -> Request[list[Item]]:
        """Ask."""
        return GET("/{size}/user.json", size=size)

    @call("orders")
    def orders(self, size: str) -> Request[list[Item]]:
        """Ask."""
        return GET("/{size}/orders.json", size=size)

    @call("catalog")
    def products(self, size: str) -> Request[list[Item]]:
        """Ask."""
        return GET("/{size}/products.json", size=size)


class Projected(AggregateView):
    """The same, of which the structs have two fields: a smaller answer."""

    @call("users")
    def user(self, size: str) -> Request[list[Label]]:
        """Ask."""
        return GET("/{size}/user.json", size=size)

    @call("orders")
    def orders(self, size: str) -> Request[list[Label]]:
        """Ask."""
        return GET("/{size}/orders.json", size=size)

    @call("catalog")
    def products(self, size: str) -> Request[list[Label]]:
        """Ask."""
        return GET("/{size}/products.json", size=size)


class Coalesced(AggregateView):
    """Three bodies of a size, which clients that ask at once share."""

    @call("users", coalesce=True)
    def user(self, size: str) -> Request[JSON]:
        """Ask."""
        return GET("/{size}/user.json", size=size)

    @call("orders", coalesce=True)
    def orders(self, size: str) -> Request[JSON]:
        """Ask."""
        return GET("/{size}/orders.json", size=size)

    @call("catalog", coalesce=True)
    def products(self, size: str) -> Request[JSON]:
        """Ask."""
        return GET("/{size}/products.json", size=size)


def wide(width: int) -> type[AggregateView]:
    """Return a page of so many calls, which take turns at the upstreams."""

    def asking(part: int) -> Callable[[AggregateView, str], Request[JSON]]:
        def ask(_: AggregateView, size: str) -> Request[JSON]:
            return GET("/{size}/user.json", size=size, part=part)

        return ask

    upstreams = ("users", "orders", "catalog")
    calls = {f"part{part}": call(upstreams[part % 3])(asking(part)) for part in range(width)}
    return type(f"Wide{width}", (AggregateView,), calls)


# Django tries them one after the other, and each costs: two pages whose costs are compared stand next to each other.
urlpatterns = [
    path("merged/<str:size>", Merged.as_view()),
    path("coalesced/<str:size>", Coalesced.as_view()),
    path("typed/<str:size>", Typed.as_view()),
    path("projected/<str:size>", Projected.as_view()),
    path("decoded/<str:size>", Decoded.as_view()),
    *(path(f"wide/{width}/<str:size>", wide(width).as_view()) for width in (1, 3, 10, 32)),
    path("three/<int:ms>", Three.as_view()),
    path("chain/<int:ms>", Chain.as_view()),
    path("join/<int:ms>", Join.as_view()),
]
