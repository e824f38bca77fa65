"""The demo's pages: what each asks of the services, and what it makes of their answers."""

from __future__ import annotations

from decimal import Decimal
from http import HTTPStatus
from typing import Any

import pytest
from django.test import AsyncClient
from django.urls import path

from demo.pages import CheckoutPage, HomePage, OrdersPage, ProductPage, compare
from gateway import page_test
from gateway.testing import PageTest
from tests.conftest import StartStub
from tests.serving import project
from tests.stub import Answered, Barrier, Received
from upstreams import GET, POST, Fault

ADA = {"id": 7, "name": "Ada", "city": "London", "tier": "gold", "email": "ada@example.com"}
REVIEWS = {"items": [{"product": "D-1", "rating": 5, "text": "Fine."}], "total": 1, "average": 5.0, "next": None}
LIKED = [{"sku": "D-2", "title": "0.50 ct Ideal", "price": Decimal("99.90"), "score": 0.9}]
STONE = b'{"sku": "D-1", "title": "1.00 ct Ideal", "price": 310.10, "stock": 3, "carat": 1.00}'
HOME = {"user": ADA, "reviews": REVIEWS, "recommendations": LIKED}
ORDERS = [
    {
        "id": number,
        "placed": f"2025-01-0{number}T12:00:00Z",
        "status": "paid",
        "total": 634.9,
        "lines": [{"sku": sku, "quantity": 1, "amount": 310.1} for sku in skus],
    }
    for number, skus in ((2, ["D-1", "D-2"]), (1, ["D-1"]))
]
PRODUCTS = [
    {"sku": "D-2", "title": "0.50 ct Ideal", "price": 99.9, "stock": 1},
    {"sku": "D-1", "title": "1.00 ct Ideal", "price": 310.1, "stock": 3},
]
BOUGHT = {"user": ADA, "orders": ORDERS, "products": PRODUCTS}
SHOWN = {"product": STONE, "reviews": REVIEWS, "similar": LIKED}


class TestHome:
    def test_merges_three_services(self) -> None:
        page = page_test(HomePage, user_id=7, answers=HOME)

        assert page.requests == {
            "user": [GET("/users/{id}", id=7)],
            "reviews": [GET("/reviews", author=7, limit=3)],
            "recommendations": [GET("/for/{id}", id=7, limit=4)],
        }
        assert (page.status, page.complete, page.errors) == (200, True, {})
        assert page.data == {
            "user": {"id": 7, "name": "Ada", "city": "London", "tier": "gold"},
            "reviews": {"items": REVIEWS["items"], "total": 1, "average": 5.0},
            "recommendations": [{"sku": "D-2", "title": "0.50 ct Ideal", "price": 99.9}],
        }

    @pytest.mark.parametrize(("lost", "instead"), [("reviews", None), ("recommendations", [])])
    def test_does_without_what_is_not_required_and_says_so(self, lost: str, instead: object) -> None:
        page = page_test(HomePage, user_id=7, answers={**HOME, lost: Fault.HTTP_RESPONSE_TIMEOUT})

        assert (page.status, page.complete) == (200, False)
        assert page.data[lost] == instead
        assert page.errors[lost]["error"] == "http_response_timeout"

    @pytest.mark.parametrize(
        ("fault", "status"),
        [
            (HTTPStatus.NOT_FOUND, 404),
            (HTTPStatus.INTERNAL_SERVER_ERROR, 502),
            (HTTPStatus.SERVICE_UNAVAILABLE, 503),
            (Fault.HTTP_RESPONSE_TIMEOUT, 504),
            ({"id": "seven"}, 502),
        ],
    )
    def test_is_a_problem_without_its_customer(self, fault: Any, status: int) -> None:
        page = page_test(HomePage, user_id=7, answers={**HOME, "user": fault})

        assert (page.status, page.headers["Content-Type"]) == (status, "application/problem+json")
        assert page.errors["user"]["upstream"] == "users"


class TestOrders:
    def test_joins_every_line_with_its_product_by_asking_once_for_each(self) -> None:
        page = page_test(OrdersPage, user_id=7, answers=BOUGHT)

        assert page.requests["products"] == [GET("/products", id=["D-1", "D-2"])]
        assert (page.data["name"], page.complete) == ("Ada", True)
        assert [[line["title"] for line in order["lines"]] for order in page.data["orders"]] == [
            ["1.00 ct Ideal", "0.50 ct Ideal"],
            ["1.00 ct Ideal"],
        ]
        assert page.data["orders"][1] == {
            **ORDERS[1],
            "lines": [{"title": "1.00 ct Ideal", "sku": "D-1", "quantity": 1, "amount": 310.1}],
        }

    def test_shows_a_stone_that_is_no_longer_sold_without_its_title(self) -> None:
        page = page_test(OrdersPage, user_id=7, answers={**BOUGHT, "products": PRODUCTS[1:]})

        assert [line["title"] for line in page.data["orders"][0]["lines"]] == ["1.00 ct Ideal", None]
        assert page.complete

    def test_shows_no_titles_without_the_catalog_and_says_which_are_missing(self) -> None:
        page = page_test(OrdersPage, user_id=7, answers={**BOUGHT, "products": Fault.CONNECTION_REFUSED})

        assert [line["title"] for line in page.data["orders"][0]["lines"]] == [None, None]
        assert (page.complete, page.errors["products"]["keys"]) == (False, ["D-1", "D-2"])

    def test_of_a_customer_without_orders_asks_for_no_products(self) -> None:
        page = page_test(OrdersPage, user_id=7, answers={**BOUGHT, "orders": []})

        assert (page.status, page.data) == (200, {"name": "Ada", "orders": []})
        assert "products" not in page.requests

    def test_asks_for_as_many_as_the_client_wants(self) -> None:
        page = page_test(OrdersPage, user_id=7, query={"limit": 2}, answers=BOUGHT)

        assert page.requests["orders"] == [GET("/orders", customer=7, limit=2)]

    @pytest.mark.parametrize("limit", ["0", "-1", "51", "many", ""])
    def test_a_limit_that_makes_no_sense_is_a_400_and_asks_nobody(self, limit: str) -> None:
        page = page_test(OrdersPage, user_id=7, query={"limit": limit}, answers={})

        assert (page.status, list(page.body["invalid"]), page.requests) == (400, ["query.limit"], {})

    def test_of_a_customer_who_does_not_exist_is_a_404_and_asks_for_no_orders(self) -> None:
        page = page_test(OrdersPage, user_id=999, answers={"user": HTTPStatus.NOT_FOUND})

        assert (page.status, list(page.requests)) == (404, ["user"])


class TestProduct:
    def test_shows_the_stone_with_reviews_and_stones_like_it(self) -> None:
        page = page_test(ProductPage, sku="D-1", answers=SHOWN)

        assert page.requests == {
            "product": [GET("/products/{sku}", sku="D-1")],
            "reviews": [GET("/reviews", product="D-1", limit=5)],
            "similar": [GET("/like/{sku}", sku="D-1", limit=4)],
        }
        assert page.data["product"] == {"sku": "D-1", "title": "1.00 ct Ideal", "price": 310.1, "stock": 3, "carat": 1}

    def test_of_an_unknown_sku_is_the_catalog_s_own_404(self) -> None:
        page = page_test(ProductPage, sku="D-0", answers={**SHOWN, "product": HTTPStatus.NOT_FOUND})

        assert (page.status, page.headers["Content-Type"]) == (404, "application/problem+json")
        assert page.errors["product"] == {
            "upstream": "catalog",
            "error": "http_response_status",
            "status": 404,
            "attempts": 1,
            "retryable": False,
        }

    def test_a_404_of_a_service_it_can_do_without_is_no_404_of_the_page(self) -> None:
        page = page_test(ProductPage, sku="D-1", answers={**SHOWN, "similar": HTTPStatus.NOT_FOUND})

        assert (page.status, page.complete, page.data["similar"]) == (200, False, [])

    def test_a_sku_that_is_no_path_segment_is_a_400(self) -> None:
        page = page_test(ProductPage, sku="..", answers=SHOWN)

        assert (page.status, list(page.body["invalid"]), "product" in page.requests) == (400, ["sku"], False)


class TestCheckout:
    @staticmethod
    def checkout(*lines: dict[str, Any], **answers: Any) -> PageTest:
        return page_test(
            CheckoutPage,
            body={"customer": 7, "lines": lines},
            answers={
                "customer": ADA,
                "reservations": lambda request: {"id": 1, "sku": "D-1", "quantity": 2},
                "order": {"id": 1501, "placed": "2025-01-01", "status": "placed", "total": 620.2, "lines": []},
                **answers,
            },
        )

    def test_reserves_every_stone_then_places_the_order(self) -> None:
        lines = [{"sku": "D-1", "quantity": 2}]

        page = self.checkout(*lines)

        assert list(page.requests) == ["customer", "reservations", "order"]
        assert page.requests["reservations"] == [POST("/reservations", json={"sku": "D-1", "quantity": 2})]
        assert page.requests["order"] == [POST("/orders", json={"customer": 7, "lines": lines})]
        assert (page.status, page.data) == (
            201,
            {"order": 1501, "total": 620.2, "reserved": [{"id": 1, "sku": "D-1", "quantity": 2}]},
        )

    def test_reserves_a_stone_of_several_lines_once(self) -> None:
        page = self.checkout(
            {"sku": "D-1", "quantity": 2}, {"sku": "D-2", "quantity": 1}, {"sku": "D-1", "quantity": 3}
        )

        assert page.requests["reservations"] == [
            POST("/reservations", json={"sku": "D-1", "quantity": 5}),
            POST("/reservations", json={"sku": "D-2", "quantity": 1}),
        ]

    @pytest.mark.parametrize(
        ("call", "status", "answered"),
        [
            ("customer", HTTPStatus.NOT_FOUND, 404),  # nobody of that number
            ("reservations", HTTPStatus.NOT_FOUND, 404),  # no such stone
            ("reservations", HTTPStatus.CONFLICT, 409),  # out of stock
            ("reservations", HTTPStatus.UNPROCESSABLE_ENTITY, 422),  # an idempotency key of another cart
            ("order", HTTPStatus.UNPROCESSABLE_ENTITY, 422),
            ("reservations", HTTPStatus.INTERNAL_SERVER_ERROR, 502),
        ],
    )
    def test_what_a_service_refuses_is_the_page_s_status_and_nothing_is_done_after_it(
        self, call: str, status: HTTPStatus, answered: int
    ) -> None:
        page = self.checkout({"sku": "D-1", "quantity": 1}, **{call: status})

        assert (page.status, list(page.errors), list(page.requests)[-1]) == (answered, [call], call)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"customer": 7, "lines": []}, "body.lines"),
            ({"customer": 7, "lines": [{"sku": "D-1", "quantity": 0}]}, "body.lines[0].quantity"),
            ({"customer": 7, "lines": [{"sku": "D-1", "quantity": -1}]}, "body.lines[0].quantity"),
            ({"customer": 7, "lines": [{"sku": "D-1", "quantity": 10}]}, "body.lines[0].quantity"),
            ({"customer": 7, "lines": [{"sku": "D-1", "quantity": 1.5}]}, "body.lines[0].quantity"),
            ({"customer": 7, "lines": [{"sku": "D-1"}]}, "body.lines[0].quantity"),
            ({"customer": 7, "lines": [{"sku": "D-1", "quantity": 1, "price": 0}]}, "body.lines[0].price"),
            ({"customer": "7", "lines": [{"sku": "D-1", "quantity": 1}]}, "body.customer"),
            ({"lines": [{"sku": "D-1", "quantity": 1}]}, "body.customer"),
        ],
    )
    def test_a_cart_that_makes_no_sense_is_a_400_that_names_the_field_and_asks_nobody(
        self, body: object, field: str
    ) -> None:
        page = page_test(CheckoutPage, body=body, answers={})

        assert (page.status, list(page.body["invalid"]), page.requests) == (400, [field], {})


class TestCompare:
    async def test_shows_two_stones_side_by_side_all_four_calls_in_flight_together(self, stub: StartStub) -> None:
        together = Barrier(4, None)

        async def product(asked: Received) -> object:
            await together(asked)
            return Answered(STONE.replace(b"D-1", asked.path.rpartition("/")[2].encode()))

        async def reviews(asked: Received) -> object:
            await together(asked)
            return REVIEWS if ("product", "D-1") in asked.query else Answered(status=404)

        server = (await stub("shop")).on("*", product).on("/reviews", reviews)

        with project([path("compare", compare)], {"catalog": server, "reviews": server}):
            answer = await AsyncClient().get("/compare?sku=D-1&sku=D-2")

        assert (answer.status_code, answer["X-Complete"]) == (200, "false")
        assert [(stone["product"]["sku"], stone["rating"]) for stone in answer.json()["data"]] == [
            ("D-1", 5.0),
            ("D-2", None),
        ]
        assert b'"price":310.10' in answer.content

    async def test_of_an_unknown_stone_is_the_catalog_s_own_404(self, stub: StartStub) -> None:
        together = Barrier(4, Answered(status=404))
        server = (await stub("shop")).on("*", together)

        with project([path("compare", compare)], {"catalog": server, "reviews": server}):
            answer = await AsyncClient().get("/compare?sku=D-1&sku=D-0")

        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")

    @pytest.mark.parametrize("query", ["", "?sku=D-1", "?sku=1&sku=2&sku=3&sku=4&sku=5", "?sku=D-1&sku=.."])
    async def test_a_wrong_choice_is_a_400_and_asks_nobody(self, stub: StartStub, query: str) -> None:
        shop = await stub("shop")

        with project([path("compare", compare)], {"catalog": shop, "reviews": shop}):
            answer = await AsyncClient().get(f"/compare{query}")

        assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
        assert shop.received == []

    async def test_is_only_for_reading(self, stub: StartStub) -> None:
        shop = await stub("shop")

        with project([path("compare", compare)], {"catalog": shop, "reviews": shop}):
            answer = await AsyncClient().post("/compare?sku=D-1&sku=D-2")

        assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")
