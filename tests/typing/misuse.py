"""What a type checker refuses page authors. Never run: an ignored error that is not there is an error of mypy's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from django.http import HttpRequest

from gateway import AggregateView, Answer, Fan, batch, call, each, fan_out, page_test, part
from upstreams import GET, POST, Request


class User(msgspec.Struct):
    id: int


class Product(msgspec.Struct):
    id: int


class Wrong(AggregateView):
    deadline = "1.5"  # type: ignore[assignment]
    log_fields = "user_id"  # type: ignore[assignment]

    @call("users", optional="yes")  # type: ignore[arg-type]
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("users", absent=404)  # type: ignore[arg-type]
    def absent(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("users", after="user")  # type: ignore[arg-type]
    def after(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("users", decode=str.upper)  # type: ignore[arg-type]
    def decoded_of_no_bytes(self, user_id: int) -> Request[str]:
        return GET("/users/{id}", id=user_id)

    @call("users")  # type: ignore[type-var]
    def value_for_a_request(self, user_id: int) -> User:
        return User(user_id)

    @call("users")  # type: ignore[type-var]
    async def coroutine(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("users")
    def request_of_a_value(self, user_id: int) -> Request[User]:
        return User(user_id)  # type: ignore[return-value]

    @batch("catalog")  # type: ignore[call-arg]
    def without_key(self, ids: list[int]) -> Request[list[Product]]:
        return GET("/products", id=ids)

    @batch("catalog", key="id")  # type: ignore[arg-type]
    def of_one_key(self, id_: int) -> Request[list[Product]]:
        return GET("/products", id=id_)

    @batch("catalog", key="id")  # type: ignore[type-var]
    def of_one_row(self, ids: list[int]) -> Request[Product]:
        return GET("/products", id=ids)

    @batch("catalog", key="id")
    def products(self, ids: list[int]) -> Request[list[Product]]:
        return GET("/products", id=ids)

    @products.keys  # type: ignore[arg-type]
    def keys_of_another_type(self, user: User) -> Iterable[str]:
        return [str(user.id)]

    @products.keys  # type: ignore[arg-type]
    def one_key(self, user: User) -> int:
        return user.id

    @each("stock")
    def stock(self, product: int) -> Request[int]:
        return GET("/stock/{id}", id=product)

    @stock.keys  # type: ignore[arg-type]
    def keys_of_another_type_too(self, user: User) -> list[str]:
        return [str(user.id)]

    @user.keys  # type: ignore[attr-defined, untyped-decorator]
    def keys_of_a_call(self, user: User) -> list[int]:
        return [user.id]

    @part  # type: ignore[arg-type]
    def no_coroutine(self, fan: Fan) -> list[int]:
        return []

    @part  # type: ignore[arg-type]
    async def without_fan(self, user: User) -> list[int]:
        return [user.id]

    def merge(self, user: User) -> Answer[str]:
        return Answer(user.id)  # type: ignore[arg-type]


def one_call_with_another_type(page: Wrong) -> None:
    page.user("7")  # type: ignore[arg-type]
    page.user()  # type: ignore[call-arg]
    page.products(ids=["7"])  # type: ignore[call-arg]
    page.products(["7"])  # type: ignore[list-item]


def requests() -> None:
    GET("/users", query=[("a", "b")])  # type: ignore[arg-type]
    GET(path="/users")  # type: ignore[call-arg]
    POST("/users", content=b"")  # type: ignore[arg-type]


async def calls(request: HttpRequest) -> list[Any]:
    async with fan_out(request, deadline="1") as fan:  # type: ignore[arg-type]
        sure: User = await fan.call("users", GET("/me"), User, optional=True)  # type: ignore[assignment]
        other: Product = await fan.call("users", GET("/me"), User)  # type: ignore[arg-type]
        return [sure, other]


def testing() -> Mapping[str, Any]:
    page_test(Wrong, user_id=7)  # type: ignore[call-arg]
    page_test(Wrong(), answers={})  # type: ignore[arg-type]
    return page_test(Wrong, answers={}).requests["user"]  # type: ignore[return-value]
