"""The shop's pages: each is one REST call to its front end, and several to the services behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from demo.types import (
    Cart,
    Comparison,
    Line,
    Order,
    OrderLine,
    OrdersBody,
    OrderSummary,
    Paging,
    Product,
    Receipt,
    Recommendation,
    Reservation,
    Reviews,
    User,
)
from gateway import AggregateView, Answer, Problem, batch, call, each, fan_out
from upstreams import GET, JSON, POST, Request


class HomePage(AggregateView):
    """Everything the home page needs: the customer, and two parts it can do without."""

    deadline = 1.5
    log_fields = ("user_id",)

    @call("users", passthrough=(404,))
    def user(self, user_id: int) -> Request[User]:
        """Ask who it is."""
        return GET("/users/{id}", id=user_id)

    @call("reviews", optional=True)
    def reviews(self, user_id: int) -> Request[Reviews]:
        """Ask for the customer's latest reviews."""
        return GET("/reviews", author=user_id, limit=3)

    @call("recommendations", fallback=[])
    def recommendations(self, user_id: int) -> Request[list[Recommendation]]:
        """Ask what the customer may like."""
        return GET("/for/{id}", id=user_id, limit=4)


class OrdersPage(AggregateView):
    """A customer's orders with what was bought: a chain, and a join of every line with its product."""

    deadline = 2.0
    log_fields = ("user_id", "query.limit")

    @call("users", passthrough=(404,))
    def user(self, user_id: int) -> Request[User]:
        """Ask who it is."""
        return GET("/users/{id}", id=user_id)

    @call("orders")
    def orders(self, user: User, query: Paging) -> Request[list[Order]]:
        """Ask for the orders, the moment the customer is known."""
        return GET("/orders", customer=user.id, limit=query.limit)

    @batch("catalog", key="sku", size=50, optional=True)
    def products(self, skus: list[str]) -> Request[list[Product]]:
        """Ask for all products of all lines at once."""
        return GET("/products", id=skus)

    @products.keys
    def skus(self, orders: list[Order]) -> Iterable[str]:
        """Name every product that was bought."""
        return (line.sku for order in orders for line in order.lines)

    def merge(self, user: User, orders: list[Order], products: Mapping[str, Product]) -> OrdersBody:
        """Put each line's product beside it."""
        return OrdersBody(
            name=user.name,
            orders=[
                OrderSummary(
                    id=order.id,
                    placed=order.placed,
                    status=order.status,
                    total=order.total,
                    lines=[titled(line, products.get(line.sku)) for line in order.lines],
                )
                for order in orders
            ],
        )


def titled(line: Line, product: Product | None) -> OrderLine:
    """Name what was bought; a line whose product is not known is shown without."""
    return OrderLine(title=product.title if product else None, sku=line.sku, quantity=line.quantity, amount=line.amount)


class ProductPage(AggregateView):
    """One stone: the catalogue's own 404 is the page's, reviews and similar stones may be missing."""

    deadline = 1.5
    log_fields = ("sku",)

    @call("catalog", passthrough=(404,))
    def product(self, sku: str) -> Request[JSON]:
        """Ask for the stone; its JSON goes into the answer as it is."""
        return GET("/products/{sku}", sku=sku)

    @call("reviews", optional=True)
    def reviews(self, sku: str) -> Request[Reviews]:
        """Ask what others think of it."""
        return GET("/reviews", product=sku, limit=5)

    @call("recommendations", fallback=[])
    def similar(self, sku: str) -> Request[list[Recommendation]]:
        """Ask for stones like it."""
        return GET("/like/{sku}", sku=sku, limit=4)


class CheckoutPage(AggregateView):
    """Buying: nothing is written before the customer is known, and no order is placed before all is reserved."""

    deadline = 3.0

    @call("users", passthrough=(404,))
    def customer(self, body: Cart) -> Request[User]:
        """Ask who is buying."""
        return GET("/users/{id}", id=body.customer)

    @each("catalog", passthrough=(404, 409, 422))
    def reservations(self, sku: str, body: Cart) -> Request[Reservation]:
        """Reserve one stone, in the quantity that all lines of the cart come to."""
        wanted = sum(line.quantity for line in body.lines if line.sku == sku)
        return POST("/reservations", json={"sku": sku, "quantity": wanted})

    @reservations.keys
    def skus(self, body: Cart) -> Iterable[str]:
        """Name every stone in the cart."""
        return (line.sku for line in body.lines)

    @call("orders", after=("reservations",), passthrough=(422,))
    def order(self, customer: User, body: Cart) -> Request[Order]:
        """Place the order."""
        return POST("/orders", json={"customer": customer.id, "lines": body.lines})

    def merge(self, order: Order, reservations: Mapping[str, Reservation]) -> Answer[Receipt]:
        """Say what was bought."""
        return Answer(Receipt(order.id, order.total, list(reservations.values())), status=201)


@require_safe
async def compare(request: HttpRequest) -> HttpResponse:
    """Compare stones side by side: `?sku=D-00001&sku=D-00002`. A function view with the same runtime as the pages."""
    skus = request.GET.getlist("sku")
    if not 2 <= len(skus) <= 4:
        raise Problem(400, detail="name two to four stones: ?sku=...&sku=...")
    async with fan_out(request, deadline=1.5) as fan:
        products = [fan.call("catalog", GET("/products/{sku}", sku=sku), Product, passthrough=(404,)) for sku in skus]
        reviews = [fan.call("reviews", GET("/reviews", product=sku, limit=1), Reviews, optional=True) for sku in skus]
        stones = await asyncio.gather(*products)
        opinions = await asyncio.gather(*reviews)
        return fan.answer(
            [
                Comparison(stone, opinion.average if opinion else None)
                for stone, opinion in zip(stones, opinions, strict=True)
            ]
        )
