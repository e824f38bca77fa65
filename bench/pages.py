"""The pages that are measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


urlpatterns = [
    path("three/<int:ms>", Three.as_view()),
    path("chain/<int:ms>", Chain.as_view()),
    path("join/<int:ms>", Join.as_view()),
]
