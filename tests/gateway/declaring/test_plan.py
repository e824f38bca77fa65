"""What a page's declarations come to: who waits for whom, who stands in the answer, and what may be streamed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
import pytest

from gateway import AggregateView, Answer, DeclarationError, Fan, batch, call, each, page_test, part
from gateway.declaring.plan import Plan
from upstreams import GET, JSON, POST, Request


class User(msgspec.Struct):
    id: int


class Order(msgspec.Struct):
    id: int
    product: int


class Product(msgspec.Struct):
    id: int


class Paging(msgspec.Struct):
    limit: int = 20


class Basket(msgspec.Struct):
    lines: list[int] = []


class Shop(AggregateView):
    """A chain with a join at its end, a loop beside it, and a write after it all."""

    @call("users", optional=True)
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("orders", optional=True)
    def orders(self, user: User, query: Paging) -> Request[list[Order]]:
        return GET("/orders", customer=user.id, limit=query.limit)

    @batch("catalog", key="id", size=3, concurrency=2, optional=True)
    def products(self, ids: list[int], user: User | None) -> Request[list[Product]]:
        return GET("/products", id=ids, currency=user and "EUR")

    @products.keys
    def product_ids(self, orders: list[Order]) -> Iterable[int]:
        return [order.product for order in orders]

    @each("stock")
    def stock(self, product: int) -> Request[int]:
        return GET("/stock/{id}", id=product)

    @stock.keys
    def stocked(self, products: Mapping[int, Product]) -> Iterable[int]:
        return products

    @part
    async def feed(self, fan: Fan, user: User | None) -> list[int]:
        return []

    @call("baskets", after=("stock", "feed"))
    def basket(self, body: Basket) -> Request[JSON]:
        return POST("/baskets", json=body)


def test_a_call_needs_the_calls_among_its_parameters_and_those_it_comes_after() -> None:
    assert {name: node.needs for name, node in Shop.plan.nodes.items()} == {
        "user": (),
        "orders": ("user",),
        "products": ("user", "orders"),
        "stock": ("products",),
        "feed": ("user",),
        "basket": ("stock", "feed"),
    }


def test_a_call_is_given_what_it_names_but_not_its_keys_or_its_fan() -> None:
    assert {name: node.params for name, node in Shop.plan.nodes.items()} == {
        "user": ("user_id",),
        "orders": ("user", "query"),
        "products": ("user",),
        "stock": (),
        "feed": ("user",),
        "basket": ("body",),
    }
    join = Shop.plan.nodes["products"].join
    assert join is not None
    assert (join.keys, join.key_params, join.size, join.concurrency) == ("product_ids", ("orders",), 3, 2)


def test_a_call_is_skipped_without_a_value_that_its_parameter_does_not_do_without() -> None:
    assert {name: node.strict for name, node in Shop.plan.nodes.items() if node.strict} == {
        "orders": ("user",),
        "products": ("orders",),
    }


def test_a_call_that_takes_a_value_twice_is_skipped_if_it_once_cannot_do_without() -> None:
    class Page(AggregateView):
        @call("users", optional=True)
        def user(self) -> Request[User]:
            return GET("/user")

        @each("likes", optional=True)
        def likes(self, of: int, user: User | None) -> Request[int]:
            return GET("/likes", of=of)

        @likes.keys
        def of(self, user: User) -> list[int]:
            return [user.id]

    assert Page.plan.nodes["likes"].needs == ("user",)
    assert Page.plan.nodes["likes"].strict == ("user",)


def test_a_declaration_may_stand_at_several_places() -> None:
    class First(AggregateView):
        @call("users")
        def user(self) -> Request[User]:
            return GET("/user")

    class Renamed(First):
        user = None  # type: ignore[assignment]
        customer = First.user

    class Named(AggregateView):
        @call("users", name="the-user")
        def user(self) -> Request[User]:
            return GET("/user")

        again = None

    class Heir(First): ...

    class NamedHeir(Named):
        user = None  # type: ignore[assignment]
        customer = Named.user

    assert [list(page.plan.nodes) for page in (First, Renamed, Heir, NamedHeir)] == [
        ["user"], ["customer"], ["user"], ["the-user"],
    ]  # fmt: skip
    done = page_test(Heir, answers={"user": {"id": 1}})
    assert done.data == {"user": {"id": 1}}
    done = page_test(Renamed, answers={"customer": {"id": 1}})
    assert done.data == {"customer": {"id": 1}}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"passthrough": (302,)}, "passthrough holds 302, which is no error status (400 to 599)"),
        ({"absent": (404, "410")}, "absent holds '410', which is no status of an answer (200 to 599)"),
    ],
    ids=str,
)
def test_a_status_that_there_cannot_be_is_told_when_the_class_is_made(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DeclarationError) as raised:

        class Page(AggregateView):
            @call("users", **options)
            def user(self) -> Request[User]:
                return GET("/user")

    assert [fault.partition(": ")[2] for fault in raised.value.faults] == [sentence]


def test_dependents_are_all_that_wait_for_a_call_however_far_away() -> None:
    assert Shop.plan.dependents == {
        "user": {"orders", "products", "stock", "feed", "basket"},
        "orders": {"products", "stock", "basket"},
        "products": {"stock", "basket"},
        "stock": {"basket"},
        "feed": {"basket"},
        "basket": set(),
    }


def test_the_longest_chain_is_what_the_page_cannot_be_faster_than() -> None:
    assert Shop.plan.longest_chain() == ("user", "orders", "products", "stock", "basket")


def test_the_longest_chain_does_not_go_by_the_order_of_declaration() -> None:
    class Page(AggregateView):
        @call("c")
        def last(self, middle: int) -> Request[int]:
            return GET("/last")

        @call("b")
        def middle(self, first: int) -> Request[int]:
            return GET("/middle")

        @call("a")
        def first(self) -> Request[int]:
            return GET("/first")

    assert Page.plan.longest_chain() == ("first", "middle", "last")
    assert Page.plan.public == ("last", "middle", "first")


def test_a_page_without_calls_has_no_chain() -> None:
    class Page(AggregateView):
        """Nothing to ask."""

    assert Page.plan.longest_chain() == ()
    assert page_test(Page, answers={}).data == {}


def test_inputs_are_told_apart_from_calls() -> None:
    assert Shop.plan.kwargs == {"user_id": int}
    assert Shop.plan.query is Paging
    assert Shop.plan.body is Basket
    assert Shop.plan.required == {"stock", "feed", "basket"}


def test_a_declaration_is_required_unless_it_says_otherwise() -> None:
    class Page(AggregateView):
        @call("users")
        def user(self) -> Request[User]:
            return GET("/user")

        @batch("catalog", key="id")
        def products(self, ids: list[int]) -> Request[list[Product]]:
            return GET("/products", id=ids)

        @products.keys
        def ids(self) -> list[int]:
            return [1]

        @part(after=("user",))
        async def feed(self, fan: Fan) -> list[int]:
            return []

        @part(fallback=[])
        async def ads(self, fan: Fan) -> list[int]:
            return []

        @call("likes", optional=True)
        def likes(self) -> Request[int]:
            return GET("/likes")

    assert Page.plan.required == {"user", "products", "feed"}


def test_a_value_has_the_type_that_others_see() -> None:
    assert {name: node.type for name, node in Shop.plan.nodes.items()} == {
        "user": User,
        "orders": list[Order],
        "products": Mapping[int, Product],
        "stock": Mapping[int, int],
        "feed": list[int],
        "basket": JSON,
    }


class Internal(AggregateView):
    @call("a")
    def unsaid(self) -> Request[int]:
        return GET("/a")

    @call("b", internal=True)
    def hidden(self) -> Request[int]:
        return GET("/b")

    @call("c", internal=False)
    def shown(self) -> Request[int]:
        return GET("/c")


class InternalMerged(Internal):
    def merge(self, unsaid: int, hidden: int, shown: int) -> list[int]:
        return [unsaid, hidden, shown]


def test_calls_stand_in_the_answer_unless_they_are_internal() -> None:
    assert Internal.plan.public == ("unsaid", "shown")
    assert page_test(Internal, answers={"unsaid": 1, "hidden": 2, "shown": 3}).data == {"unsaid": 1, "shown": 3}


def test_on_a_page_with_merge_calls_are_internal_unless_they_say_otherwise() -> None:
    assert InternalMerged.plan.public == ("shown",)
    assert InternalMerged.plan.merge == ("unsaid", "hidden", "shown")
    assert page_test(InternalMerged, answers={"unsaid": 1, "hidden": 2, "shown": 3}).data == [1, 2, 3]


def merged(returns: Any) -> Plan:
    def merge(self: AggregateView, number: int) -> Any:
        return number

    merge.__annotations__["return"] = returns
    page = type("Page", (AggregateView,), {"merge": merge})
    plan: Plan = page.plan  # type: ignore[attr-defined]
    return plan


@pytest.mark.parametrize("returns", [int, Any, dict[str, Any], None, int | None, list[Answer[int]]], ids=repr)
def test_a_page_can_be_streamed_when_its_status_is_known_before_its_body(returns: Any) -> None:
    assert merged(returns).streamable


class Made(Answer[int]): ...  # type: ignore[misc]


@pytest.mark.parametrize(
    "returns", [Answer[int], Answer, Answer[int] | int, int | Answer | None, Annotated[Answer[int], []], Made], ids=repr
)
def test_a_page_whose_merge_may_decide_on_the_status_cannot_be_streamed(returns: Any) -> None:
    assert not merged(returns).streamable


def test_a_page_without_merge_can_be_streamed() -> None:
    assert Internal.plan.streamable


def test_rows_are_found_under_the_name_of_their_member_and_matched_by_key() -> None:
    class Page(AggregateView):
        @batch("catalog", key="id", rows="items", size=2)
        def products(self, ids: list[int]) -> Request[list[dict[str, Any]]]:
            return GET("/products", id=ids)

        @products.keys
        def ids(self) -> Iterable[int]:
            return (3, 1, 3, 2)

    def answer(request: Request[Any]) -> Any:
        asked = [int(pair.partition("=")[2]) for pair in request.target.partition("?")[2].split("&")]
        return {"items": [{"id": id_, "page": request.target} for id_ in reversed(asked)], "total": 3}

    done = page_test(Page, answers={"products": answer})
    assert done.requests["products"] == [GET("/products", id=[3, 1]), GET("/products", id=[2])]
    assert list(done.data["products"]) == ["3", "1", "2"]
    assert [row["id"] for row in done.data["products"].values()] == [3, 1, 2]
