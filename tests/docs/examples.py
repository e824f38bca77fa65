"""The pages that docs/pages.md shows beside those of the demo."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from decimal import Decimal

from django.urls import path
from msgspec import Struct

from demo.types import Order, Product, Recommendation, Review, User
from gateway import AggregateView, Answer, Fan, Problem, batch, by_method, call, each, part
from upstreams import DELETE, FOLLOW, GET, JSON, POST, PUT, Reply, Request


class AccountPage(AggregateView):
    """A customer, what they bought last, and a stone like it."""

    @call("users", passthrough=(404,))
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("orders", absent=(404,))
    def latest(self, user: User) -> Request[Order]:
        return GET("/customers/{id}/latest-order", id=user.id)

    @call("recommendations", optional=True)
    def similar(self, latest: Order | None) -> Request[list[Recommendation]] | None:
        if latest is None:
            return None
        return GET("/like/{sku}", sku=latest.lines[0].sku, limit=1)


class Search(Struct):
    """The query of the search page: `?q=oval&color=D&color=E`."""

    q: str
    color: list[str] = []
    most: Decimal | None = None


class SearchPage(AggregateView):
    log_fields = ("query.q",)

    @call("catalog")
    def found(self, query: Search) -> Request[list[Product]]:
        return POST("/search", json={"text": query.q, "colors": query.color, "most": query.most}, safe=True)


class StockPage(AggregateView):
    @call("warehouse", decode=lambda body: list(csv.reader(body.decode().splitlines())))
    def shelves(self) -> Request[list[list[str]]]:
        return GET("/stock.csv")

    @call("catalog")
    def featured(self) -> Request[Reply[list[Product]]]:
        return GET("/products/featured")

    def merge(self, shelves: list[list[str]], featured: Reply[list[Product]]) -> dict[str, object]:
        return {"shelves": len(shelves), "featured": featured.value, "as_of": featured.headers["last-modified"]}


class ShippingPage(AggregateView):
    @call("orders", name="options")
    def shipping_options(self) -> Request[JSON]:
        return GET("/options")


class Wish(Struct):
    """One wish of a customer."""

    sku: str
    friend: int


class WishesPage(AggregateView):
    @call("users")
    def wishes(self, user_id: int) -> Request[list[Wish]]:
        return GET("/users/{id}/wishes", id=user_id)

    @batch("catalog", key="sku", rows="items", size=50, concurrency=4)
    def products(self, skus: list[str]) -> Request[list[Product]]:
        return POST("/products/lookup", json={"skus": skus}, safe=True)

    @products.keys
    def skus(self, wishes: list[Wish]) -> Iterable[str]:
        return (wish.sku for wish in wishes)

    @each("users", absent=(404,), concurrency=8)
    def friends(self, friend: int) -> Request[User]:
        return GET("/users/{id}", id=friend)

    @friends.keys
    def friend_ids(self, wishes: list[Wish]) -> Iterable[int]:
        return (wish.friend for wish in wishes)

    def merge(
        self, wishes: list[Wish], products: Mapping[str, Product], friends: Mapping[int, User]
    ) -> list[dict[str, object]]:
        return [
            {"product": products[wish.sku], "from": friends[wish.friend].name if wish.friend in friends else None}
            for wish in wishes
            if wish.sku in products
        ]


class ReviewsOfOnePage(Struct):
    """What the reviews service answers: a page, and where the next is."""

    items: list[Review]
    next: str | None


class AllReviewsPage(AggregateView):
    deadline = 5.0

    @part
    async def reviews(self, fan: Fan, sku: str) -> list[Review]:
        found: list[Review] = []
        request = GET("/reviews", product=sku, limit=50)
        while True:
            page = await fan.call("reviews", request, ReviewsOfOnePage)
            found += page.items
            if page.next is None:
                return found
            request = FOLLOW(page.next)


class Quantity(Struct):
    """The body of a change to a cart."""

    quantity: int


class CartPage(AggregateView):
    @call("orders")
    def cart(self, cart_id: str) -> Request[JSON]:
        return GET("/carts/{id}", id=cart_id)


class ChangeCart(AggregateView):
    methods = ("PUT",)

    @call("orders")
    def cart(self, cart_id: str, body: Quantity) -> Request[JSON]:
        return PUT("/carts/{id}", id=cart_id, json=body)


class DropCart(AggregateView):
    methods = ("DELETE",)

    @call("orders", passthrough=(404,))
    def dropped(self, cart_id: str) -> Request[JSON | None]:
        return DELETE("/carts/{id}", id=cart_id)


urlpatterns = [
    path("carts/<str:cart_id>", by_method(GET=CartPage, PUT=ChangeCart, DELETE=DropCart)),
]


class Login(Struct):
    """The body of a login."""

    name: str
    password: str


class Session(Struct):
    """What the users service gives for a name and a password."""

    token: str
    user: User


class LoginPage(AggregateView):
    envelope = False

    @call("users", absent=(401,))
    def session(self, body: Login) -> Request[Session]:
        return POST("/sessions", json=body)

    def merge(self, session: Session | None) -> Answer[User]:
        if session is None:
            raise Problem(401, detail="wrong name or password")
        cookie = {"value": session.token, "httponly": True, "secure": True, "samesite": "Strict"}
        return Answer(session.user, status=201, headers={"Cache-Control": "no-store"}, cookies={"session": cookie})
