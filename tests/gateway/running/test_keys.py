"""A join's keys: each once, in their order, whoever has chosen them and to whatever end."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from django.urls import path

from gateway import AggregateView, call, each
from gateway.running.keys import distinct
from tests.conftest import StartStub
from tests.serving import PatientPage, asking
from upstreams import GET, POST, InvalidParameter, Request

MODULUS = 2**61 - 1  # of the hash of a number, on 64 bits
COLLIDING: dict[str, list[Any]] = {
    "int": [MODULUS * nth for nth in range(1, 1500)],
    "UUID": [uuid.UUID(int=MODULUS * nth) for nth in range(1, 1500)],
    "Decimal": [Decimal(MODULUS * nth) for nth in range(1, 1500)],
    "pair": [(MODULUS * nth, 1) for nth in range(1, 1500)],
    "many hashes": [MODULUS * nth + rest for nth in range(1, 300) for rest in range(300)],
}


@pytest.mark.parametrize("kind", COLLIDING)
def test_keys_that_were_made_to_collide_are_refused(kind: str) -> None:
    assert len({hash(key) for key in COLLIDING[kind]}) <= 300
    with pytest.raises(InvalidParameter, match="too many of them have one hash"):
        distinct(COLLIDING[kind])


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        pytest.param([3, 1, 3, 2, 1], [3, 1, 2], id="few"),
        pytest.param((nth % 7 for nth in range(5000)), [0, 1, 2, 3, 4, 5, 6], id="many that are equal"),
        pytest.param(range(5000), list(range(5000)), id="many"),
        pytest.param([1, 1.0, True] * 2000, [1], id="equal, and written differently"),
        pytest.param(COLLIDING["int"][:1000], COLLIDING["int"][:1000], id="no more than cost nothing"),
        pytest.param([*range(5000), *COLLIDING["int"][:90]], [*range(5000), *COLLIDING["int"][:90]], id="a few alike"),
    ],
)
def test_every_key_comes_once_in_its_order(keys: Iterable[Any], found: list[Any]) -> None:
    assert distinct(keys) == found


def test_keys_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="one of them is an array or an object"):
        distinct([1, [2]])


class Size(int, enum.Enum):
    SMALL = 1
    LARGE = 2


def test_numbers_may_have_names() -> None:
    assert distinct([Size.SMALL, Size.LARGE] * 1000) == [Size.SMALL, Size.LARGE]


class Wanted(msgspec.Struct):
    ids: list[int]


class ByClient(PatientPage):
    @each("shop", optional=True)
    def products(self, id_: int, body: Wanted) -> Request[int]:
        return GET("/products/{id}", id=id_)

    @products.keys
    def ids(self, body: Wanted) -> list[int]:
        return body.ids


class ByUpstream(PatientPage):
    @call("shop", internal=True)
    def wanted(self) -> Request[list[Any]]:
        return POST("/wanted")

    @each("shop", optional=True)
    def products(self, id_: int) -> Request[int]:
        return GET("/products/{id}", id=id_)

    @products.keys
    def ids(self, wanted: list[Any]) -> Iterable[Any]:
        return wanted


async def test_such_keys_of_the_client_are_its_mistake(stub: StartStub) -> None:
    server = await stub("shop")
    with asking([path("page", ByClient.as_view())], {"shop": server}) as client:
        answer = await client.post("/page", {"ids": COLLIDING["int"]}, content_type="application/json")

    assert (answer.status_code, answer.json()["invalid"]) == (400, {"body.ids": "too many of them have one hash"})
    assert server.received == []


@pytest.mark.parametrize("keys", [COLLIDING["int"], [1, [2]]], ids=["colliding", "no keys"])
async def test_such_keys_of_an_upstream_cost_their_join(stub: StartStub, keys: list[Any]) -> None:
    server = (await stub("shop")).on("/wanted", keys)
    page: type[AggregateView] = ByUpstream
    with asking([path("page", page.as_view())], {"shop": server}) as client:
        answer = await client.get("/page")

    assert answer.status_code == 200
    assert answer.json()["errors"]["products"]["error"] == "http_request_denied"
    assert len(server.received) == 1
