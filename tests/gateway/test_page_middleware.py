"""PAGE_MIDDLEWARE: the pages' own chain under ASGI, native async through and through."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from asgiref.sync import markcoroutinefunction
from django.core import checks
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed, PermissionDenied
from django.core.handlers.asgi import ASGIHandler
from django.http import FileResponse, Http404, HttpRequest, HttpResponseBase
from django.urls import path
from django.utils.decorators import async_only_middleware

from gateway import Problem
from gateway.middleware import Edge
from gateway.serving.handler import Handler
from gateway.serving.lifespan import refuse_faults
from tests.conftest import StartStub
from tests.gateway.shop import FILE_CONTENT, ROUTES, SEVEN, Item, shop, synchronous
from tests.logs import Log
from tests.serving import project
from tests.ways import asking
from upstreams import Upstream

EDGE = ["gateway.middleware.Edge"]


@pytest.mark.parametrize("where", ["/items/7", "/nowhere"])
async def test_page_middleware_is_around_pages_in_the_order_of_the_setting(stub: StartStub, where: str) -> None:
    passed.clear()
    chain = [f"{__name__}.{name}" for name in ("outer", "unused", "inner")]
    async with asking("asgi", ROUTES, await shop(stub), PAGE_MIDDLEWARE=[*chain, *EDGE]) as ask:
        await ask("GET", where)
        await ask("GET", "/views/plain")

    assert passed == ["into outer", "into inner", "out of inner", "out of outer"]


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
async def test_page_middleware_may_answer_itself(stub: StartStub) -> None:
    async with asking("asgi", ROUTES, await shop(stub), PAGE_MIDDLEWARE=[*EDGE, f"{__name__}.answering"]) as ask:
        got = await ask("GET", "/items/7", {"X-Request-ID": "asked-1"})

    assert (got.status, got.body, got.header("X-Request-ID")) == (200, FILE_CONTENT, "asked-1")
    assert block_sizes == [ASGIHandler.chunk_size]


@pytest.mark.parametrize(
    ("mistake", "status"), [("RuntimeError", 500), ("Problem", 429), ("Http404", 404), ("PermissionDenied", 403)]
)
@pytest.mark.parametrize("where", ["outside the edge", "inside the edge"])
async def test_what_page_middleware_raises_is_a_problem_to_the_links_outside_it(
    stub: StartStub, log: Log, mistake: str, status: int, where: str
) -> None:
    noting, raising = [f"{__name__}.outer"], [f"{__name__}.raising"]
    chain = [*noting, *raising, *EDGE] if where == "outside the edge" else [*noting, *EDGE, *raising]
    passed.clear()
    async with asking("asgi", ROUTES, await shop(stub), PAGE_MIDDLEWARE=chain) as ask:
        got = await ask("GET", "/items/7", {"X-Request-ID": "asked-1", "X-Mistake": mistake})

    assert (got.status, got.header("Content-Type"), got.header("X-Request-ID")) == (
        status,
        "application/problem+json",
        "asked-1",
    )
    assert passed == ["into outer", "out of outer"]
    assert len(log.events("log.recorded", level="error")) == (1 if status == 500 else 0)


UNFIT = {
    "django.middleware.common.CommonMiddleware": "is not native async middleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware": "is not native async middleware",
    f"{__name__}.Synchronous": "is not native async middleware",
    f"{__name__}.Viewing": "has a process_view",
    f"{__name__}.ViewingEdge": "has a process_view",
    f"{__name__}.Missing": "cannot be imported",
    "nowhere.Missing": "cannot be imported",
}


@pytest.mark.parametrize(("unfit", "why"), UNFIT.items())
def test_middleware_that_does_not_belong_around_pages_is_refused_at_start(unfit: str, why: str) -> None:
    with project(ROUTES, {"shop": Upstream("http://127.0.0.1:1")}, PAGE_MIDDLEWARE=[*EDGE, unfit]):
        with pytest.raises(ImproperlyConfigured) as refused:
            refuse_faults()
        with pytest.raises(ImproperlyConfigured, match=why):
            Handler()

    assert f"gateway.E006: PAGE_MIDDLEWARE: {unfit} {why}" in str(refused.value)


def test_middleware_that_turns_out_synchronous_is_refused_at_start() -> None:
    refused = pytest.raises(ImproperlyConfigured, match="pretending is not a coroutine function when given one")
    with project(ROUTES, {}, PAGE_MIDDLEWARE=[f"{__name__}.pretending"]), refused:
        Handler()


@pytest.mark.parametrize("setting", ["MIDDLEWARE", "PAGE_MIDDLEWARE"])
def test_a_chain_without_the_edge_is_warned_of(setting: str) -> None:
    with project(ROUTES, {"shop": Upstream("http://127.0.0.1:1")}, **{setting: []}):
        found = checks.run_checks(tags=["gateway"])
        refuse_faults()  # but starts: a project may have its own

    assert [(warning.id, warning.msg.split()[0]) for warning in found] == [("gateway.W003", setting)]


async def test_page_middleware_may_choose_another_urlconf(stub: StartStub) -> None:
    async with asking("asgi", ROUTES, await shop(stub), PAGE_MIDDLEWARE=[*EDGE, f"{__name__}.elsewhere"]) as ask:
        page, view, nothing = [await ask("GET", where) for where in ("/other/7", "/other/view", "/items/7")]

    assert (page.status, page.json) == (200, SEVEN)
    assert (view.status, view.body) == (200, b"synchronous")
    assert (nothing.status, nothing.header("Content-Type")) == (404, "application/problem+json")


passed: list[str] = []
block_sizes: list[int] = []
urlpatterns = [path("other/<int:item_id>", Item.as_view()), path("other/view", synchronous)]


def noting(name: str) -> Any:
    @async_only_middleware
    def factory(answer: Any) -> Any:
        async def note(request: HttpRequest) -> HttpResponseBase:
            passed.append(f"into {name}")
            response: HttpResponseBase = await answer(request)
            passed.append(f"out of {name}")
            return response

        return note

    return factory


outer, inner = noting("outer"), noting("inner")


@async_only_middleware
def unused(_: Any) -> Any:
    raise MiddlewareNotUsed


@async_only_middleware
def answering(_: Any) -> Any:
    class Watched(FileResponse):
        def close(self) -> None:
            block_sizes.append(self.block_size)
            super().close()

    async def answered(_: HttpRequest) -> HttpResponseBase:
        return Watched(BytesIO(FILE_CONTENT))

    return answered


@async_only_middleware
def raising(answer: Any) -> Any:
    mistakes: dict[str, Exception] = {
        "RuntimeError": RuntimeError("a middleware's own mistake"),
        "Problem": Problem(429),
        "Http404": Http404(),
        "PermissionDenied": PermissionDenied(),
    }

    async def raised(request: HttpRequest) -> HttpResponseBase:
        raise mistakes[request.headers["X-Mistake"]]

    return raised


class Synchronous:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __call__(self, request: HttpRequest) -> Any:
        return self.answer(request)


class Viewing:
    """Native async, but half of its work is in a hook that pages do not call."""

    async_capable = True

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> Any:
        return await self.answer(request)

    def process_view(self, *_: Any) -> None: ...


class ViewingEdge(Edge):
    """The edge's own hook does nothing that pages miss; another in its place may."""

    def process_view(self, *_: Any) -> None: ...


@async_only_middleware
def pretending(answer: Any) -> Any:
    def passing_on(request: HttpRequest) -> Any:
        return answer(request)

    return passing_on


@async_only_middleware
def elsewhere(answer: Any) -> Any:
    async def switched(request: HttpRequest) -> HttpResponseBase:
        request.urlconf = __name__
        response: HttpResponseBase = await answer(request)
        return response

    return switched
