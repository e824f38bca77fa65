"""A small project that the tests of serving ask: pages over one upstream, and ordinary views beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.urls import path, register_converter, reverse

from gateway import Answer, call
from tests.conftest import StartStub
from tests.logs import CANARY
from tests.serving import PatientPage
from tests.stub import Answered, Received, Stub
from upstreams import GET, JSON, POST, Request

FILE = Path(__file__)
FILE_CONTENT = FILE.read_bytes()


class Item(PatientPage):
    @call("shop")
    def item(self, item_id: int) -> Request[JSON]:
        return GET("/items/{id}", id=item_id)


class Broken(PatientPage):
    @call("shop")
    def broken(self) -> Request[JSON]:
        return GET("/broken")


class Order(msgspec.Struct):
    text: str


class PlaceOrder(PatientPage):
    max_body = 500_000

    @call("shop")
    def order(self, body: Order) -> Request[JSON]:
        return POST("/orders", json=body)


class Decorated(PatientPage):
    @call("shop")
    def item(self) -> Request[JSON]:
        return GET("/items/7")

    def merge(self, item: JSON) -> Answer[JSON]:
        return Answer(
            item,
            status=201,
            headers={"X-Own": "mine"},
            cookies={"plain": "1", "guarded": {"value": "2", "httponly": True}},
        )


class Links(Item):
    def merge(self, item: JSON) -> dict[str, Any]:
        return {"self": reverse("links", args=[7]), "item": item}


async def plain(_: HttpRequest) -> HttpResponse:
    return HttpResponse("plain", content_type="text/plain")


def synchronous(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("synchronous", content_type="text/plain")
    response.set_cookie("seen", request.GET.get("as", "nobody"))
    return response


def file(_: HttpRequest) -> FileResponse:
    return FileResponse(FILE.open("rb"), content_type="text/x-python")


async def own_page_for_404(_: HttpRequest) -> HttpResponse:
    return HttpResponse("<h1>nothing here</h1>", status=404)


async def raising_404(_: HttpRequest) -> HttpResponse:
    raise Http404(CANARY)


def forbidding(_: HttpRequest) -> HttpResponse:
    raise PermissionDenied(CANARY)


async def crashing(_: HttpRequest) -> HttpResponse:
    raise RuntimeError("a view's own mistake")


class Fragile:
    """A path converter with a mistake in it."""

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        raise LookupError(value)

    def to_url(self, value: str) -> str:
        return value


register_converter(Fragile, "fragile")

ROUTES = [
    path("items/<int:item_id>", Item.as_view()),
    path("seven", Item.as_view(), {"item_id": 7}),
    path("slashed/<int:item_id>/", Item.as_view()),
    path("broken", Broken.as_view()),
    path("orders", PlaceOrder.as_view()),
    path("decorated", Decorated.as_view()),
    path("fragile/<fragile:thing>", Broken.as_view()),
    path("views/plain", plain),
    path("views/synchronous", synchronous),
    path("views/file", file),
    path("views/own-404", own_page_for_404),
    path("views/404", raising_404),
    path("views/403", forbidding),
    path("views/500", crashing),
]


async def shop(stub: StartStub) -> dict[str, Stub]:
    server = await stub("shop")

    async def ordered(asked: Received) -> Any:
        return asked.json

    server.on("/items/7", {"id": 7}).on("/broken", Answered({"error": CANARY}, 500)).on("/orders", ordered)
    return {"shop": server}


SEVEN = {"data": {"item": {"id": 7}}, "complete": True, "errors": {}}
