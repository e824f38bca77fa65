"""What is for sale, and setting some of it aside."""

import itertools
import zlib
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from demo.services.answers import answer, asked_ids, found, question
from demo.services.idempotency import Once
from demo.services.records import Product, read


class FeaturedAsked(Struct, forbid_unknown_fields=True):
    """The query of the featured stones."""

    limit: Annotated[int, Meta(ge=1, le=50)] = 12


class NewReservation(Struct, forbid_unknown_fields=True):
    """The body of a reservation to make."""

    sku: str
    quantity: Annotated[int, Meta(ge=1, le=99)]


class Reservation(Struct, frozen=True):
    """Stock set aside until it is given back."""

    id: int
    sku: str
    quantity: int


class Catalog:
    """The stones and their stock; reservations last until they are released or the service stops."""

    latency = 9.0

    def __init__(self) -> None:
        self.products = {product.sku: product for product in read("products", Product)}
        self.reservations: dict[int, Reservation] = {}
        self.numbers = itertools.count(1)
        self.reserved_once = Once(self.reserve)
        self.routes = [
            web.get("/products", self.several),
            web.get("/products/featured", self.featured),
            web.get("/products/{sku}", self.one),
            web.post("/reservations", self.new),
            web.delete(r"/reservations/{id:\d{1,9}}", self.release),
        ]

    async def several(self, request: web.Request) -> web.Response:
        """`GET /products?id=D-00001&id=D-00002`: those that exist, in the order of a hash as a partitioned store gives.

        Callers must match rows by sku, never by place.
        """
        skus = sorted(asked_ids(request, str), key=lambda sku: zlib.crc32(sku.encode()))
        return answer([self.products[sku] for sku in skus if sku in self.products])

    async def featured(self, request: web.Request) -> web.Response:
        """`GET /products/featured?limit=12`: the stones in stock that save the customer most."""
        in_stock = [product for product in self.products.values() if product.stock]
        in_stock.sort(key=lambda product: product.price - product.list_price)
        return answer(in_stock[: question(request, FeaturedAsked).limit])

    async def one(self, request: web.Request) -> web.Response:
        """`GET /products/D-00001`."""
        return answer(found(self.products, request.match_info["sku"]))

    async def new(self, request: web.Request) -> web.Response:
        """`POST /reservations`: the reservation made, once for an `Idempotency-Key`."""
        return self.reserved_once.answer(request, msgspec.json.decode(await request.read(), type=NewReservation))

    def reserve(self, new: NewReservation) -> Reservation:
        """Takes it out of stock; 404 for an unknown sku, 409 when there is not enough."""
        product = found(self.products, new.sku)
        if product.stock < new.quantity:
            raise web.HTTPConflict(text=f"{product.stock} of {new.sku} left, not {new.quantity}")
        product.stock -= new.quantity
        reservation = Reservation(next(self.numbers), new.sku, new.quantity)
        self.reservations[reservation.id] = reservation
        return reservation

    async def release(self, request: web.Request) -> web.Response:
        """`DELETE /reservations/1`: puts it back into stock."""
        reservation = found(self.reservations, int(request.match_info["id"]))
        del self.reservations[reservation.id]
        self.products[reservation.sku].stock += reservation.quantity
        return web.Response(status=204)
