"""Every error as problem+json: what is raised where, and what the client sees of it."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest
from django.core.exceptions import (
    BadRequest,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
)
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.test import Client
from django.urls import path

from gateway import CallFailed, Problem, call, fan_out
from gateway.answering.answer import Failure
from tests.conftest import StartStub
from tests.logs import CANARY, Log
from tests.serving import SLOW, PatientPage, gateway, project
from upstreams import GET, JSON, Fault, Request

FAILED = Failure(upstream="all", error=Fault.BODY_MALFORMED, status=200, attempts=1, retryable=False)
RAISED = [
    (Problem(422, detail="the cart is empty", lines=[1]), 422, {"detail": "the cart is empty", "lines": [1]}),
    (Problem(418, "Short and stout", kind="teapot"), 418, {"title": "Short and stout", "type": "teapot"}),
    (Problem(599), 599, {"title": "Error"}),
    (Problem(400, type="https://example.com/out-of-stock"), 400, {"type": "https://example.com/out-of-stock"}),
    (Problem(400, errors={"name": ["too short"]}), 400, {"errors": {"name": ["too short"]}}),
    (Http404(CANARY), 404, {"title": "Not Found"}),
    (PermissionDenied(CANARY), 403, {"title": "Forbidden"}),
    (BadRequest(CANARY), 400, {"title": "Bad Request"}),
    (SuspiciousOperation(CANARY), 400, {"title": "Bad Request"}),
    (TooManyFieldsSent(CANARY), 400, {"title": "Bad Request"}),
    (MultiPartParserError(CANARY), 400, {"title": "Bad Request"}),
    (UnreadablePostError(CANARY), 400, {"title": "Bad Request"}),
    (RequestDataTooBig(CANARY), 413, {}),
    (CallFailed("user", FAILED), 502, {"type": "body_malformed", "complete": False}),
]


class Raises(PatientPage):
    """Raises what the test puts into `error`, in a call method or in `merge`."""

    error: Any = None
    where = ""

    @call("all")
    def thing(self) -> Request[JSON]:
        if self.where == "call":
            raise self.error
        return GET("/thing")

    def merge(self, thing: JSON) -> JSON:
        raise self.error


def name(error: object) -> str:
    return f"{type(error).__name__} {getattr(error, 'status', '')} {getattr(error, 'extensions', '') or ''}"


class TestRaised:
    @pytest.mark.parametrize(("error", "status", "members"), RAISED, ids=[name(row[0]) for row in RAISED])
    async def test_becomes_the_problem_it_stands_for_in_a_call_in_merge_and_in_a_view(
        self,
        stub: StartStub,
        client: aiohttp.ClientSession,
        log: Log,
        error: Exception,
        status: int,
        members: dict[str, object],
    ) -> None:
        async def view(request: HttpRequest) -> HttpResponse:
            raise error

        server = (await stub("all")).on("/thing", {})
        routes = [
            path("call", Raises.as_view(error=error, where="call")),
            path("merge", Raises.as_view(error=error, where="merge")),
            path("view", view),
        ]
        async with gateway(routes, {"all": server}) as base:
            for place in ("call", "merge", "view"):
                async with client.get(f"{base}/{place}", headers={"Authorization": CANARY}) as answer:
                    text = await answer.text()

                body = msgspec.json.decode(text)
                expected = dict(members)
                if not (kind := str(expected.pop("type", "about:blank"))).startswith(("about", "https")):
                    kind = f"urn:tributary:problem:{kind}"
                assert (answer.status, body["status"], body["type"]) == (status, status, kind)
                assert expected.items() <= body.items()
                assert body["request_id"] == answer.headers["X-Request-ID"]
                assert (answer.content_type, answer.headers["Cache-Control"]) == (
                    "application/problem+json",
                    "no-store",
                )
                assert CANARY not in str(answer.headers) + text
        assert not log.events("log.recorded", level="error")

    @pytest.mark.parametrize("place", ["call", "merge", "view"])
    async def test_when_nobody_expected_it_it_is_a_500_and_logged(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log, place: str
    ) -> None:
        async def view(request: HttpRequest) -> HttpResponse:
            raise ZeroDivisionError("said to the log")

        error = ZeroDivisionError("said to the log")
        server = (await stub("all")).on("/thing", {})
        routes = [path("view", view)] if place == "view" else [path(place, Raises.as_view(error=error, where=place))]
        async with gateway(routes, {"all": server}) as base, client.get(f"{base}/{place}") as answer:
            text = await answer.text()

        assert (answer.status, answer.content_type) == (500, "application/problem+json")
        assert msgspec.json.decode(text) == {
            "type": "urn:tributary:problem:proxy_internal_error",
            "title": "Internal Server Error",
            "status": 500,
            "request_id": answer.headers["X-Request-ID"],
        }
        (recorded,) = log.events("log.recorded", level="error")
        assert "ZeroDivisionError" in str(recorded)
        assert (recorded["request_id"], recorded["http.route"]) == (answer.headers["X-Request-ID"], place)
        (finished,) = log.events("request.finished")
        assert (finished["outcome"], finished["error.type"]) == ("failed", "proxy_internal_error")

    async def test_by_a_view_for_a_value_of_the_clients_is_its_400_and_for_an_upstreams_a_502(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log
    ) -> None:
        async def clients(request: HttpRequest) -> HttpResponse:
            async with fan_out(request, deadline=SLOW) as fan:
                return fan.answer(await fan.call("all", GET("/thing/{sku}", sku=request.GET["sku"])))

        async def upstreams(request: HttpRequest) -> HttpResponse:
            async with fan_out(request, deadline=SLOW) as fan:
                link = await fan.call("all", GET("/link"), str)
                return fan.answer(await fan.call("all", GET("/thing/{link}", link=link)))

        server = (await stub("all")).on("/link", f"..\r\n{CANARY}")
        routes = [path("upstreams", upstreams), path("clients", clients)]
        async with gateway(routes, {"all": server}) as base:
            async with client.get(f"{base}/clients?sku=..") as answer:
                asked = await answer.json(content_type="application/problem+json")
            async with client.get(f"{base}/upstreams") as answer:
                text = await answer.text()

        assert (asked["status"], list(asked["invalid"])) == (400, ["sku"])
        assert (answer.status, msgspec.json.decode(text)["type"]) == (502, "urn:tributary:problem:http_request_denied")
        assert CANARY not in text
        assert log.events("request.finished", **{"error.type": "http_request_denied"})


class TestWithoutAView:
    async def test_no_route_is_a_404_problem_under_every_server(self, client: aiohttp.ClientSession) -> None:
        def asked() -> tuple[int, str, Any]:
            answer = Client().get("/nothing/here", headers={"X-Request-ID": "abc"})
            return answer.status_code, answer["Content-Type"], answer.json()

        expected = {"type": "about:blank", "title": "Not Found", "status": 404, "request_id": "abc"}
        async with gateway([], {}) as base, client.get(f"{base}/nothing", headers={"X-Request-ID": "abc"}) as answer:
            assert (answer.status, answer.content_type) == (404, "application/problem+json")
            assert await answer.json(content_type=None) == expected
        with project([], {}):
            assert await asyncio.to_thread(asked) == (404, "application/problem+json", expected)

    async def test_a_host_that_is_not_ours_is_a_400_problem(self, client: aiohttp.ClientSession) -> None:
        async def view(request: HttpRequest) -> HttpResponse:
            return HttpResponse(request.get_host())

        async with gateway([path("", view)], {}, ALLOWED_HOSTS=["shop.example"]) as base, client.get(base) as answer:
            body = await answer.json(content_type="application/problem+json")

        assert (answer.status, body["title"]) == (400, "Bad Request")


class TestAProblem:
    def test_keeps_the_callers_members_and_its_own(self) -> None:
        problem = Problem(409, "Taken", "by another", kind="taken", instance="/seats/7", failures={"user": FAILED})

        assert msgspec.json.decode(problem.document("abc")) == {
            "type": "urn:tributary:problem:taken",
            "title": "Taken",
            "status": 409,
            "detail": "by another",
            "request_id": "abc",
            "instance": "/seats/7",
            "complete": False,
            "errors": {
                "user": {
                    "upstream": "all",
                    "error": "body_malformed",
                    "status": 200,
                    "attempts": 1,
                    "retryable": False,
                }
            },
        }

    @pytest.mark.parametrize("status", [-1, 0, 200, 302, 399, 600, 999])
    def test_has_an_error_status(self, status: int) -> None:
        with pytest.raises(ValueError, match=f"from 400 to 599, not {status}"):
            Problem(status)
