"""What a customer may like: the stones nearest to those they know."""

import functools
import heapq
import math
from collections import Counter
from collections.abc import Iterable
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from demo.services.answers import answer, found, question
from demo.services.records import CUTS, Order, Product, Recommendation, read, read_orders

MOST = 50
TASTE = 3  # how many of a customer's latest stones say what they like


class Asked(Struct, forbid_unknown_fields=True):
    """The query of both routes."""

    limit: Annotated[int, Meta(ge=1, le=MOST)] = 10


class Recommendations:
    """Every stone's place among the others, and what each customer bought when the service started."""

    latency = 18.0

    def __init__(self) -> None:
        self.products = {product.sku: product for product in read("products", Product)}
        self.places = {sku: place(product) for sku, product in self.products.items()}
        orders = read_orders()
        self.bought = stones_bought(orders)
        self.bestsellers = Counter(line.sku for order in orders for line in order.lines).most_common(MOST)
        self.neighbours = functools.cache(self._neighbours)  # 2 ms for the first to ask
        self.routes = [
            web.get(r"/for/{user:\d{1,9}}", self.for_user),
            web.get("/like/{sku}", self.like),
        ]

    async def like(self, request: web.Request) -> web.Response:
        """`GET /like/D-00001?limit=10`: the stones nearest to it, nearest first."""
        sku = found(self.products, request.match_info["sku"]).sku
        return answer(self.neighbours(sku)[: question(request, Asked).limit])

    async def for_user(self, request: web.Request) -> web.Response:
        """`GET /for/7?limit=10`: what resembles their latest stones, or the bestsellers for who has bought nothing."""
        bought = self.bought.get(int(request.match_info["user"]), [])
        chosen = self.resembling(bought) if bought else self.popular()
        return answer(chosen[: question(request, Asked).limit])

    def resembling(self, bought: list[str]) -> list[Recommendation]:
        """The nearest to the latest stones, best first; none that the customer has, none twice."""
        near = [like for sku in bought[:TASTE] for like in self.neighbours(sku) if like.sku not in bought]
        near.sort(key=lambda like: like.score)
        return sorted({like.sku: like for like in near}.values(), key=lambda like: -like.score)

    def popular(self) -> list[Recommendation]:
        """The bestsellers, best first."""
        most = self.bestsellers[0][1]
        return [self.recommended(sku, None, times / most) for sku, times in self.bestsellers]

    def _neighbours(self, sku: str) -> list[Recommendation]:
        here = self.places[sku]
        distances = ((math.dist(here, there), other) for other, there in self.places.items() if other != sku)
        return [self.recommended(other, sku, 1 / (1 + far)) for far, other in heapq.nsmallest(MOST, distances)]

    def recommended(self, sku: str, because: str | None, score: float) -> Recommendation:
        """The stone of that sku as a recommendation."""
        product = self.products[sku]
        return Recommendation(sku, product.title, product.price, because, round(score, 3))


def place(product: Product) -> tuple[float, float, float]:
    """Where a stone stands: a step on each axis is a tenth more carat, a tenth more price, a grade of cut."""
    step = math.log(1.1)
    return math.log(product.carat) / step, math.log(product.price) / step, float(CUTS.index(product.cut))


def stones_bought(orders: Iterable[Order]) -> dict[int, list[str]]:
    """Each customer's distinct skus, the latest bought first; `orders` come oldest first."""
    bought: dict[int, dict[str, None]] = {}
    for order in reversed(list(orders)):
        bought.setdefault(order.customer, {}).update(dict.fromkeys(line.sku for line in order.lines))
    return {customer: list(skus) for customer, skus in bought.items()}
