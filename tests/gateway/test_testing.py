"""A page is tested without a network: what the test of a page can say and see."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import pytest
from django.http import Http404, HttpRequest

from gateway import Answer, Fan, Problem, batch, call, each, page_test, part
from tests.serving import PatientPage, project
from upstreams import GET, JSON, POST, Fault, Reply, Request, Upstream


class User(msgspec.Struct):
    id: int
    name: str


class Product(msgspec.Struct):
    id: int


class Paging(msgspec.Struct):
    limit: int = 20
    tag: list[str] = []


class Basket(msgspec.Struct):
    lines: list[int]


class Shop(PatientPage):
    @call("users", passthrough=(404,))
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("likes", fallback=[], absent=(410,))
    def likes(self, user_id: int) -> Request[list[int]]:
        return GET("/likes/{id}", id=user_id)

    @batch("catalog", key="id", size=2, optional=True)
    def products(self, ids: list[int]) -> Request[list[Product]]:
        return GET("/products", id=ids)

    @products.keys
    def product_ids(self, likes: list[int] | None) -> Iterable[int]:
        return likes or []

    @each("stock", optional=True)
    def stock(self, product: int) -> Request[int]:
        return GET("/stock/{id}", id=product)

    @stock.keys
    def stocked(self, products: Mapping[int, Product]) -> Iterable[int]:
        return products

    @part(optional=True)
    async def feed(self, fan: Fan, user: User) -> list[Any]:
        pages = [fan.call("feed", GET("/feed", page=page), list[int]) for page in (1, 2)]
        return [await page for page in pages]


def by_target(answers: Mapping[str, Any]) -> Any:
    return lambda request: answers[request.target]


GIVEN: Mapping[str, Any] = {
    "user": User(7, "Ada"),
    "likes": [3, 1, 2, 3],
    "products": by_target({"/products?id=3&id=1": [{"id": 1}], "/products?id=2": [{"id": 2}]}),
    "stock": by_target({"/stock/1": 10, "/stock/2": HTTPStatus.INTERNAL_SERVER_ERROR}),
    "feed.feed": [1],
    "feed.feed-2": [2],
}


def test_a_page_runs_over_the_answers_it_is_given() -> None:
    done = page_test(Shop, user_id=7, answers={**GIVEN, "stock": 5})

    assert done.status == 200
    assert done.complete
    assert done.errors == {}
    assert done.data == {
        "user": {"id": 7, "name": "Ada"},
        "likes": [3, 1, 2, 3],
        "products": {"1": {"id": 1}, "2": {"id": 2}},
        "stock": {"1": 5, "2": 5},
        "feed": [[1], [2]],
    }
    assert done.body == {"data": done.data, "complete": True, "errors": {}}
    assert done.headers["Content-Type"] == "application/json"
    assert done.headers["X-Complete"] == "true"


def test_the_requests_a_page_made_are_told_by_call_in_order() -> None:
    assert page_test(Shop, user_id=7, answers=GIVEN).requests == {
        "user": [GET("/users/{id}", id=7)],
        "likes": [GET("/likes/{id}", id=7)],
        "feed.feed": [GET("/feed", page=1)],
        "feed.feed-2": [GET("/feed", page=2)],
        "products": [GET("/products", id=[3, 1]), GET("/products", id=2)],
        "stock": [GET("/stock/{id}", id=1), GET("/stock/{id}", id=2)],
    }


def test_a_partial_answer_tells_what_is_missing() -> None:
    done = page_test(Shop, user_id=7, answers=GIVEN)

    assert (done.status, done.complete) == (200, False)
    assert done.data["stock"] == {"1": 10}
    assert done.errors["stock"]["keys"] == [2]
    assert done.errors["stock"]["upstream"] == "stock"


FAILING: dict[str, tuple[Any, dict[str, Any]]] = {
    "a status": (HTTPStatus.SERVICE_UNAVAILABLE, {"error": "http_response_status", "status": 503, "retryable": True}),
    "a status that means that nothing is wrong, but no body": (
        HTTPStatus.OK,
        {"error": "body_mismatch", "status": 200},
    ),
    "a redirect": (HTTPStatus.FOUND, {"error": "http_response_status", "status": 302, "retryable": False}),
    "a fault": (Fault.HTTP_RESPONSE_TIMEOUT, {"error": "http_response_timeout", "status": None}),
    "bytes that are no JSON": (b"<html>", {"error": "body_malformed", "status": 200}),
    "another type": ({"likes": 3}, {"error": "body_mismatch", "status": 200}),
    "a reply of another status": (Reply([1], 502, {}), {"error": "http_response_status", "status": 502}),
    "what a function says": (lambda _: Fault.CONNECTION_REFUSED, {"error": "connection_refused", "status": None}),
}


@pytest.mark.parametrize("case", FAILING)
def test_an_answer_may_be_a_failure(case: str) -> None:
    answer, told = FAILING[case]
    done = page_test(Shop, user_id=7, answers={**GIVEN, "likes": answer})

    assert done.data["likes"] == []
    assert not done.complete
    assert {**done.errors["likes"], **told, "upstream": "likes", "attempts": 1} == done.errors["likes"]


def test_an_absent_status_is_no_failure() -> None:
    done = page_test(Shop, user_id=7, answers={**GIVEN, "likes": HTTPStatus.GONE})
    assert done.data["likes"] is None
    assert done.complete


def test_a_failed_page_is_a_problem() -> None:
    done = page_test(Shop, user_id=7, answers={**GIVEN, "user": Fault.CONNECTION_TIMEOUT})

    assert done.status == 504
    assert not done.complete
    assert done.errors["user"]["error"] == "connection_timeout"
    assert done.headers["Content-Type"] == "application/problem+json"
    with pytest.raises(LookupError, match="there is no data in the answer: 504 "):
        assert done.data


def test_a_call_passes_a_status_through_as_it_says() -> None:
    assert page_test(Shop, user_id=7, answers={**GIVEN, "user": HTTPStatus.NOT_FOUND}).status == 404
    assert page_test(Shop, user_id=7, answers={**GIVEN, "user": HTTPStatus.CONFLICT}).status == 502


def test_an_upstream_passes_a_status_through_as_the_settings_say() -> None:
    with project([], {"users": Upstream("http://users.example", passthrough=(409,))}):
        assert page_test(Shop, user_id=7, answers={**GIVEN, "user": HTTPStatus.CONFLICT}).status == 409


class Feed(PatientPage):
    @call("feed")
    def feed(self) -> Request[Reply[JSON | None]]:
        return GET("/feed")

    @call("text", decode=bytes.decode)
    def text(self) -> Request[str]:
        return GET("/text")

    def merge(self, feed: Reply[JSON | None], text: str) -> list[Any]:
        return [feed.value, feed.status, dict(feed.headers), text]


def test_a_reply_gives_status_and_headers_too() -> None:
    answers = {"feed": Reply([1], 203, {"Link": "</2>"}), "text": b"plain"}
    assert page_test(Feed, answers=answers).data == [[1], 203, {"link": "</2>"}, "plain"]


def test_a_good_status_alone_is_an_answer_without_a_body() -> None:
    answers = {"feed": HTTPStatus.NO_CONTENT, "text": b""}
    assert page_test(Feed, answers=answers).data == [None, 204, {}, ""]


def test_bytes_are_the_body_as_it_is() -> None:
    class Page(PatientPage):
        @call("numbers")
        def numbers(self) -> Request[JSON]:
            return GET("/numbers")

        def merge(self, numbers: JSON) -> Answer[JSON]:
            return Answer(numbers, headers={"X-Size": str(len(bytes(numbers)))})

    exact = b'{"id": 12345678901234567890, "price": 1.10}'
    assert page_test(Page, answers={"numbers": exact}).headers["X-Size"] == str(len(exact))


def test_a_call_without_an_answer_is_an_error_that_names_it_and_what_it_asked() -> None:
    with pytest.raises(LookupError, match="answers has none for 'likes', which asked <GET /likes/7>"):
        page_test(Shop, user_id=7, answers={"user": User(7, "Ada")})


def test_a_call_of_a_part_without_an_answer_is_an_error_even_in_an_optional_part() -> None:
    given = {name: answer for name, answer in GIVEN.items() if name != "feed.feed"}
    with pytest.raises(LookupError, match=r"answers has none for 'feed\.feed', which asked"):
        page_test(Shop, user_id=7, answers=given)


def test_a_mistake_in_the_page_is_raised_where_it_was_made() -> None:
    class Page(PatientPage):
        @call("users")
        def user(self) -> Request[User]:
            return GET("/user")

        def merge(self, user: User) -> float:
            return 1 / (user.id - user.id)

    with pytest.raises(ZeroDivisionError) as raised:
        page_test(Page, answers={"user": User(7, "Ada")})
    assert raised.traceback[-1].name == "merge"


def test_a_mistake_in_the_test_is_raised_too() -> None:
    def answer(request: Request[Any]) -> Any:
        assert request.target == "/elsewhere"

    with pytest.raises(AssertionError, match="/elsewhere"):
        page_test(Shop, user_id=7, answers={**GIVEN, "user": answer})


def test_a_mistake_in_a_streamed_page_is_raised_too() -> None:
    class Page(PatientPage):
        def merge(self, number: int) -> int:
            return [][number]

    with pytest.raises(IndexError):
        page_test(Page, number=1, answers={}, headers={"Accept": "application/jsonl"})


@pytest.mark.parametrize(("error", "status"), [(Problem(422, detail="too many"), 422), (Http404(), 404)])
def test_what_a_page_raises_to_answer_is_its_answer(error: Exception, status: int) -> None:
    class Page(PatientPage):
        def merge(self) -> None:
            raise error

    assert page_test(Page, answers={}).status == status


def test_a_url_kwarg_that_is_not_given_is_named() -> None:
    with pytest.raises(TypeError, match=r"Shop takes 'user_id' from its URL: give page_test\(..., user_id=...\)"):
        page_test(Shop, answers=GIVEN)


def test_a_url_kwarg_that_may_be_none_need_not_be_given() -> None:
    class Page(PatientPage):
        @call("users")
        def users(self, number: str | None) -> Request[JSON]:
            return GET("/users", page=number or "first")

    assert page_test(Page, answers={"users": []}).requests["users"][0].target == "/users?page=first"


def test_a_url_kwarg_may_be_called_page() -> None:
    class Page(PatientPage):
        def merge(self, page: int) -> int:
            return page

    assert page_test(Page, page=2, answers={}).data == 2


async def test_page_test_in_an_async_test_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="call it from a plain test function, not from an async one"):
        page_test(Shop, user_id=7, answers=GIVEN)
    assert await asyncio.sleep(0, "the loop goes on")


class Search(PatientPage):
    def merge(self, query: Paging, request: HttpRequest) -> list[Any]:
        return [query.limit, query.tag, request.method, request.headers.get("X-Shop")]


def test_query_headers_and_method_are_the_clients() -> None:
    done = page_test(Search, query={"limit": 3, "tag": ["a", "b"]}, headers={"X-Shop": "1"}, answers={})
    assert done.data == [3, ["a", "b"], "GET", "1"]
    assert page_test(Search, method="HEAD", answers={}).data == [20, [], "HEAD", None]


def test_a_wrong_query_is_a_problem_that_names_the_field() -> None:
    done = page_test(Search, query={"limit": "many"}, answers={})
    assert (done.status, list(done.body["invalid"])) == (400, ["query.limit"])


def test_a_method_that_the_page_does_not_answer_is_a_problem() -> None:
    assert page_test(Search, method="DELETE", answers={}).status == 405


class Buy(PatientPage):
    @call("orders")
    def order(self, body: Basket) -> Request[int]:
        return POST("/orders", json=body.lines)

    def merge(self, order: int) -> Answer[int]:
        return Answer(order, status=201, headers={"Location": f"/orders/{order}"}, cookies={"last": {"value": "9"}})


@pytest.mark.parametrize("body", [Basket([1, 2]), {"lines": [1, 2]}, b'{"lines": [1, 2]}'], ids=repr)
def test_a_page_that_takes_a_body_is_posted_to(body: Any) -> None:
    done = page_test(Buy, body=body, answers={"order": 9})

    assert (done.status, done.data, done.complete) == (201, 9, True)
    assert (done.headers["Location"], done.cookies) == ("/orders/9", {"last": "9"})
    assert done.requests["order"] == [POST("/orders", json=[1, 2])]


@pytest.mark.parametrize(("body", "status"), [({"lines": 1}, 400), (b"{", 400), (None, 415)], ids=repr)
def test_a_wrong_body_is_a_problem_and_nothing_is_asked(body: Any, status: int) -> None:
    done = page_test(Buy, body=body, answers={"order": 9})
    assert (done.status, done.requests) == (status, {})


def test_a_page_without_an_envelope_answers_its_data_alone() -> None:
    class Bare(PatientPage):
        envelope = False

        @call("errors", optional=True)
        def errors(self) -> Request[int]:
            return GET("/errors")

    done = page_test(Bare, answers={"errors": 3})
    assert (done.body, done.data, done.complete, done.errors) == ({"errors": 3}, {"errors": 3}, True, {})
    partial = page_test(Bare, answers={"errors": Fault.DNS_ERROR})
    assert (partial.data, partial.complete, partial.errors) == ({"errors": None}, False, {})


@pytest.mark.parametrize("accept", ["application/jsonl", "text/event-stream"])
def test_a_streamed_answer_is_told_as_its_frames(accept: str) -> None:
    class Page(PatientPage):
        @call("users")
        def user(self) -> Request[User]:
            return GET("/user")

    done = page_test(Page, answers={"user": User(7, "Ada")}, headers={"Accept": accept})
    user = {"id": 7, "name": "Ada"}
    assert done.body == [
        {"pending": ["user"]},
        {"call": "user", "data": user},
        {"result": {"user": user}, "complete": True, "errors": {}},
    ]


def test_of_a_streamed_answer_the_last_frame_says_what_is_missing() -> None:
    done = page_test(Shop, user_id=7, answers=GIVEN, headers={"Accept": "application/jsonl"})

    assert not done.complete
    assert done.errors == done.data[-1]["errors"]
    assert done.errors["stock"]["keys"] == [2]


def test_an_answer_to_options_has_nothing_in_it() -> None:
    done = page_test(Shop, user_id=7, answers={}, method="OPTIONS")

    assert (done.status, done.data, done.errors) == (204, None, {})


def test_nor_has_one_to_head() -> None:
    done = page_test(Shop, user_id=7, answers=GIVEN, method="HEAD", headers={"Accept": "application/jsonl"})

    assert (done.status, done.errors) == (200, {})


def test_an_answer_without_a_body_is_none() -> None:
    class Gone(PatientPage):
        def merge(self) -> Answer[None]:
            return Answer(None, status=204)

    assert page_test(Gone, answers={}).body is None
