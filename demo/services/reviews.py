"""What customers say about what they bought."""

from collections import defaultdict
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from demo.services.answers import answer, question
from demo.services.records import Review, read


class ReviewsAsked(Struct, forbid_unknown_fields=True):
    """The query of a page of reviews: of a product or by an author."""

    product: str | None = None
    author: int | None = None
    limit: Annotated[int, Meta(ge=1, le=50)] = 10
    page: Annotated[int, Meta(ge=1, le=10_000)] = 1


class ReviewPage(Struct, frozen=True):
    """One page, newest first. `total` counts all pages' reviews, `average` their rating; `next` is None on the last."""

    items: list[Review]
    total: int
    average: float | None
    next: str | None


class Reviews:
    """The reviews of each product and by each author, newest first."""

    latency = 14.0

    def __init__(self) -> None:
        self.of_product: dict[str, list[Review]] = defaultdict(list)
        self.by_author: dict[int, list[Review]] = defaultdict(list)
        for review in reversed(read("reviews", Review)):
            self.of_product[review.product].append(review)
            self.by_author[review.author].append(review)
        self.routes = [web.get("/reviews", self.page)]

    async def page(self, request: web.Request) -> web.Response:
        """`GET /reviews?product=D-00001&limit=10&page=1`, or of an `author`."""
        asked = question(request, ReviewsAsked)
        reviews = self.matching(asked)
        until = asked.page * asked.limit
        average = round(sum(review.rating for review in reviews) / len(reviews), 2) if reviews else None
        following = str(request.rel_url.update_query(page=asked.page + 1)) if until < len(reviews) else None
        return answer(ReviewPage(reviews[until - asked.limit : until], len(reviews), average, following))

    def matching(self, asked: ReviewsAsked) -> list[Review]:
        """All the reviews asked for; 400 unless by product alone or by author alone."""
        match asked:
            case ReviewsAsked(product=str(product), author=None):
                return self.of_product.get(product, [])
            case ReviewsAsked(product=None, author=int(author)):
                return self.by_author.get(author, [])
        raise web.HTTPBadRequest(text="ask for the reviews of a product or by an author")
