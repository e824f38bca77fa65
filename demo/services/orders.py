"""What the customers bought, and buying."""

from collections import defaultdict
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from demo.services.answers import answer, found, question
from demo.services.idempotency import Once
from demo.services.records import Line, Order, Product, read, read_orders


class OrdersAsked(Struct, forbid_unknown_fields=True):
    """The query of a list of orders."""

    customer: int
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    offset: Annotated[int, Meta(ge=0)] = 0


class NewLine(Struct, forbid_unknown_fields=True):
    """A position to order."""

    sku: str
    quantity: Annotated[int, Meta(ge=1, le=99)]


class NewOrder(Struct, forbid_unknown_fields=True):
    """The body of an order to place."""

    customer: Annotated[int, Meta(ge=1)]
    lines: Annotated[list[NewLine], Meta(min_length=1, max_length=50)]


class Orders:
    """The orders, and each customer's; new ones last until the service stops."""

    latency = 12.0

    def __init__(self) -> None:
        self.prices = {product.sku: product.price for product in read("products", Product)}
        self.orders = {order.id: order for order in read_orders()}
        self.of_customer: dict[int, list[Order]] = defaultdict(list)  # oldest first
        for order in self.orders.values():
            self.of_customer[order.customer].append(order)
        self.placed_once = Once(self.place)
        self.routes = [
            web.get("/orders", self.several),
            web.post("/orders", self.new),
            web.get(r"/orders/{id:\d{1,9}}", self.one),
        ]

    async def several(self, request: web.Request) -> web.Response:
        """`GET /orders?customer=7&limit=20&offset=0`: newest first."""
        asked = question(request, OrdersAsked)
        newest_first = self.of_customer.get(asked.customer, [])[::-1]
        return answer(newest_first[asked.offset : asked.offset + asked.limit])

    async def one(self, request: web.Request) -> web.Response:
        """`GET /orders/1`."""
        return answer(found(self.orders, int(request.match_info["id"])))

    async def new(self, request: web.Request) -> web.Response:
        """`POST /orders`: the order placed, once for an `Idempotency-Key`."""
        return self.placed_once.answer(request, msgspec.json.decode(await request.read(), type=NewOrder))

    def place(self, new: NewOrder) -> Order:
        """A new order at today's prices; 400 for a sku that is not sold."""
        unknown = sorted({line.sku for line in new.lines} - self.prices.keys())
        if unknown:
            raise web.HTTPBadRequest(text=f"not sold here: {', '.join(unknown)}")
        lines = [Line(line.sku, line.quantity, self.prices[line.sku]) for line in new.lines]
        now = datetime.now(UTC).replace(microsecond=0)
        order = Order(len(self.orders) + 1, new.customer, "placed", now, lines)
        self.orders[order.id] = order
        self.of_customer[order.customer].append(order)
        return order
