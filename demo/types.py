"""What the shop's pages read of each service's answers, take from a client, and answer themselves.

Fields that are not named here are skipped, never built. Money is Decimal, so that a price keeps its digits.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from msgspec import Meta, Struct


class User(Struct):
    """A customer."""

    id: int
    name: str
    city: str
    tier: str


class Line(Struct):
    """One product of an order."""

    sku: str
    quantity: int
    amount: Decimal


class Order(Struct):
    """What a customer bought."""

    id: int
    placed: str
    status: str
    total: Decimal
    lines: list[Line]


class Product(Struct):
    """A stone of the catalogue."""

    sku: str
    title: str
    price: Decimal
    stock: int


class Review(Struct):
    """What somebody thinks of a stone."""

    product: str
    rating: int
    text: str


class Reviews(Struct):
    """The newest reviews, and what all of them come to."""

    items: list[Review]
    total: int
    average: float | None


class Recommendation(Struct):
    """A stone somebody may like."""

    sku: str
    title: str
    price: Decimal


class OrderLine(Struct):
    """One line of the orders page: what was bought, and what it is."""

    title: str | None
    sku: str
    quantity: int
    amount: Decimal


class OrderSummary(Struct):
    """One order of the orders page."""

    id: int
    placed: str
    status: str
    total: Decimal
    lines: list[OrderLine]


class OrdersBody(Struct):
    """The orders page."""

    name: str
    orders: list[OrderSummary]


class CartLine(Struct, forbid_unknown_fields=True):
    """One line of a cart."""

    sku: str
    quantity: Annotated[int, Meta(ge=1, le=9)]


class Cart(Struct, forbid_unknown_fields=True):
    """What a customer wants to buy. What does not fit is a 400 that names the field: nothing else has to check it."""

    customer: int
    lines: Annotated[list[CartLine], Meta(min_length=1, max_length=10)]


class Paging(Struct):
    """How much of a list is wanted."""

    limit: Annotated[int, Meta(ge=1, le=50)] = 10


class Reservation(Struct):
    """A stone held back for a customer."""

    id: int
    sku: str
    quantity: int


class Receipt(Struct):
    """What a customer gets to see of a purchase."""

    order: int
    total: Decimal
    reserved: list[Reservation]


class Comparison(Struct):
    """One column of the compare view."""

    product: Product
    rating: float | None
