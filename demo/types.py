"""What the shop's pages read of each service's answers, and what they answer themselves.

Fields that are not named here are skipped, never built. Prices are decimals, exact to the cent.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct


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


class CartLine(Struct):
    """One line of a cart."""

    sku: str
    quantity: int


class Cart(Struct):
    """What a customer wants to buy."""

    customer: int
    lines: list[CartLine]


class Paging(Struct):
    """How much of a list is wanted."""

    limit: int = 10


class Reservation(Struct):
    """A stone held back for a customer."""

    id: int
    sku: str
    quantity: int


class Receipt(Struct):
    """What a customer gets to see of a purchase."""

    order: int
    total: Decimal
    reserved: list[str]
