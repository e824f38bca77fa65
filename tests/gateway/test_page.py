"""One page over real servers, end to end."""

from __future__ import annotations

import asyncio
import re
import uuid
from decimal import Decimal
from typing import Any

import aiohttp
import msgspec
import pytest
from django.urls import path

from gateway import DeclarationError, by_method, call
from tests.conftest import StartStub
from tests.logs import CANARY, Log
from tests.serving import PatientPage, gateway
from tests.stub import Answered, Barrier, Gate
from upstreams import GET, JSON, POST, Request


class User(msgspec.Struct):
    id: int
    name: str


class ThreeCalls(PatientPage):
    @call("users")
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("reviews", optional=True)
    def reviews(self, user_id: int) -> Request[JSON]:
        return GET("/reviews", author=user_id)

    @call("likes", fallback=[])
    def likes(self, user_id: int) -> Request[list[str]]:
        return GET("/likes/{id}", id=user_id)


async def test_calls_that_need_nothing_of_each_other_are_in_flight_together(
    stub: StartStub, client: aiohttp.ClientSession
) -> None:
    server = await stub("all")
    together = Barrier(3, None)

    async def user(asked: object) -> object:
        await together(asked)  # type: ignore[arg-type]
        return {"id": 7, "name": "Ada"}

    server.on("/users/7", user).on("/reviews", together).on("/likes/7", together)
    async with (
        gateway(
            [path("<int:user_id>", ThreeCalls.as_view())], dict.fromkeys(("users", "reviews", "likes"), server)
        ) as base,
        client.get(f"{base}/7") as answer,
    ):
        body = await answer.json()

    assert answer.status == 200
    assert body["data"]["user"] == {"id": 7, "name": "Ada"}


async def test_a_required_failure_cancels_the_reads_in_flight(
    stub: StartStub, client: aiohttp.ClientSession, log: Log
) -> None:
    server = await stub("all")
    slow = Gate([])

    async def user(_: object) -> object:
        await slow.arrived.wait()
        return Answered({"secret": CANARY}, 404)

    server.on("/users/7", user).on("/reviews", slow).on("/likes/7", [])
    async with (
        gateway(
            [path("<int:user_id>", ThreeCalls.as_view())], dict.fromkeys(("users", "reviews", "likes"), server)
        ) as base,
        client.get(f"{base}/7", headers={"Authorization": CANARY}) as answer,
    ):
        body = await answer.text()

    assert answer.status == 502
    assert CANARY not in body
    assert [event["outcome"] for event in log.events("attempt.finished", call="reviews")] == ["cancelled"]


async def test_a_departed_client_cancels_the_reads_in_flight(
    stub: StartStub, client: aiohttp.ClientSession, log: Log
) -> None:
    server = await stub("all")
    slow = Gate([])
    server.on("/users/7", {"id": 7, "name": "Ada"}).on("/reviews", slow).on("/likes/7", [])
    async with gateway(
        [path("<int:user_id>", ThreeCalls.as_view())], dict.fromkeys(("users", "reviews", "likes"), server)
    ) as base:
        asking = asyncio.create_task(client.get(f"{base}/7"))
        await slow.arrived.wait()
        asking.cancel()
    assert log.events("request.finished")[0]["outcome"] == "disconnected"
    assert [event["outcome"] for event in log.events("attempt.finished", call="reviews")] == ["cancelled"]


class Cart(PatientPage):
    @call("all")
    def cart(self) -> Request[JSON]:
        return GET("/cart")


class Line(msgspec.Struct):
    sku: str


class AddToCart(PatientPage):
    @call("all")
    def line(self, body: Line) -> Request[JSON]:
        return POST("/cart", json=body)


class Replace(AddToCart):
    methods = ("put", "PATCH")


class GetOnly(Cart):
    methods = ("GET",)


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND")


class TestMethods:
    @pytest.mark.parametrize(
        ("view", "answered", "allow"),
        [
            (Cart.as_view(), {"GET", "HEAD"}, "GET, HEAD, OPTIONS"),
            (AddToCart.as_view(), {"POST"}, "POST, OPTIONS"),
            (Replace.as_view(), {"PUT", "PATCH"}, "PUT, PATCH, OPTIONS"),
            (GetOnly.as_view(), {"GET"}, "GET, OPTIONS"),
            (by_method(GET=Cart, POST=AddToCart), {"GET", "HEAD", "POST"}, "GET, POST, HEAD, OPTIONS"),
            (by_method(POST=AddToCart, PUT=Replace), {"POST", "PUT"}, "POST, PUT, OPTIONS"),
            (by_method(GET=GetOnly), {"GET"}, "GET, OPTIONS"),
            (by_method(HEAD=Cart), {"HEAD"}, "HEAD, OPTIONS"),
        ],
        ids=["page", "with a body", "methods", "GET alone", "GET and POST", "POST and PUT", "by GET alone", "by HEAD"],
    )
    async def test_a_page_answers_its_own_and_says_which_those_are(
        self,
        stub: StartStub,
        client: aiohttp.ClientSession,
        log: Log,
        view: Any,
        answered: set[str],
        allow: str,
    ) -> None:
        server = (await stub("all")).on("/cart", {"lines": []})
        async with gateway([path("cart", view)], {"all": server}) as base:
            for method in METHODS:
                async with client.request(method, f"{base}/cart", json={"sku": "a"}) as answer:
                    body = await answer.read()
                if method in answered:
                    assert answer.status == 200, method
                    continue
                assert (answer.status, answer.headers["Allow"]) == (405, allow), method
                problem = {"type": "about:blank", "title": "Method Not Allowed", "status": 405}
                assert method == "HEAD" or problem.items() <= msgspec.json.decode(body).items()
            async with client.options(f"{base}/cart") as answer:
                assert (answer.status, answer.headers["Allow"], await answer.read()) == (204, allow, b"")

        assert len(server.received) == len(answered)
        assert {line["http.route"] for line in log.events("request.finished")} == {"cart"}

    async def test_head_is_get_without_its_body(self, stub: StartStub, client: aiohttp.ClientSession) -> None:
        server = (await stub("all")).on("/cart", {"lines": [1, 2]})
        async with (
            gateway([path("", Cart.as_view())], {"all": server}) as base,
            client.get(base) as whole,
            client.head(base) as answer,
        ):
            assert (answer.status, await answer.read()) == (200, b"")
            for name in ("Content-Type", "Content-Length", "X-Complete"):
                assert answer.headers[name] == whole.headers[name]

        assert [asked.method for asked in server.received] == ["GET", "GET"]

    @pytest.mark.parametrize(
        "views",
        [
            {"GET": AddToCart},
            {"POST": Cart},
            {"get": Cart},
            {"POST": Replace},
            {"OPTIONS": Cart},
            {"GET": Cart.as_view()},
            {"GET": Cart()},
            {"GET": object},
            {"GET": None},
        ],
        ids=[
            "a POST page",
            "a GET page",
            "lower case",
            "a PUT page",
            "OPTIONS",
            "a view",
            "an object",
            "a class",
            "None",
        ],
    )
    def test_a_page_cannot_be_given_a_method_it_does_not_answer(self, views: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match=rf"by_method\({next(iter(views))}=...\) takes a page that answers"):
            by_method(**views)


class Wanting(msgspec.Struct):
    limit: int = 1


class Texts(msgspec.Struct):
    names: set[str]
    by_name: dict[str, list[int]]
    loose: dict[Any, Any] = {}


class TestDeclaring:
    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            ({"methods": "PUT"}, "methods is a tuple of names, not 'PUT': write ('PUT',)"),
            ({"log_fields": "user_id"}, "log_fields is a tuple of names, not 'user_id': write ('user_id',)"),
            ({"deadline": 0}, "deadline must be above 0 seconds, not 0"),
            ({"deadline": -1.0}, "deadline must be above 0 seconds, not -1.0"),
            ({"deadline": float("inf")}, "deadline must have an end, not be inf"),
            ({"heartbeat": float("nan")}, "heartbeat must be above 0 seconds, not nan"),
            ({"partial_status": 500}, "partial_status must be from 200 to 299, not 500"),
            ({"log_fields": ("event",)}, "log_fields: 'event' is a field of the log's own; rename the URL's kwarg"),
            ({"log_fields": ("outcome",)}, "log_fields: 'outcome' is a field of the log's own; rename the URL's kwarg"),
            ({"log_fields": ("query.limits",)}, "log_fields: Wanting has no field for 'query.limits'"),
        ],
        ids=str,
    )
    def test_a_wrong_setting_is_told_when_the_class_is_made(self, settings: dict[str, Any], sentence: str) -> None:
        with pytest.raises(DeclarationError) as raised:
            type("Wrong", (Listing,), settings)

        assert raised.value.faults == (sentence,)

    @pytest.mark.parametrize(
        "field",
        [set[int], frozenset[uuid.UUID], dict[int, str], list[dict[Decimal, int]], set[tuple[str, float]] | None, set],
        ids=str,
    )
    def test_numbers_of_the_client_are_no_keys_of_a_large_body(self, field: Any) -> None:
        numbers = msgspec.defstruct("Numbers", [("ids", field)])

        def thing(self: PatientPage, body: Any) -> Request[JSON]:
            return POST("/thing", json=body)

        thing.__annotations__["body"] = numbers
        with pytest.raises(DeclarationError) as raised:
            type("Wrong", (PatientPage,), {"thing": call("all")(thing)})
        (fault,) = raised.value.faults
        assert fault.startswith(
            "Numbers has a set or keys of numbers, which a client can make collide: take a list, or "
        )
        right: Any = type("Right", (PatientPage,), {"thing": call("all")(thing), "max_body": 65536})
        assert right.plan.body is numbers

    def test_texts_may_be(self) -> None:
        class Right(PatientPage):
            @call("all")
            def thing(self, body: Texts) -> Request[JSON]:
                return POST("/thing", json=body)

        assert Right.plan.body is Texts

    def test_settings_may_be_given_where_it_is_routed_and_are_checked_there(self) -> None:
        view: Any = Listing.as_view(methods=("put",), max_body=7, deadline=3.0)

        (page,) = view.pages.values()
        assert (list(view.pages), view.max_body, page.deadline) == (["PUT"], 7, 3.0)
        assert (page.__qualname__, page.plan.page) == (Listing.__qualname__, Listing.plan.page)
        assert Listing.deadline == PatientPage.deadline
        with pytest.raises(DeclarationError, match="deadline must be above 0 seconds, not -1"):
            Listing.as_view(deadline=-1)
        with pytest.raises(TypeError, match="'dead_line'"):
            Listing.as_view(dead_line=1)

    def test_a_page_without_calls_of_its_own_may_name_what_its_heirs_take(self) -> None:
        class Base(PatientPage):
            log_fields = ("user_id", "query.limit", "body.sku")

        assert Base.log_fields


class Listing(PatientPage):
    @call("all")
    def thing(self, query: Wanting) -> Request[JSON]:
        return GET("/thing", limit=query.limit)


class TestServerTiming:
    @pytest.mark.parametrize("wanted", [True, False])
    async def test_names_every_call_made_if_the_setting_says_so(
        self,
        stub: StartStub,
        client: aiohttp.ClientSession,
        wanted: bool,  # noqa: FBT001 - the table's column
    ) -> None:
        server = (await stub("all")).on("*", []).on("/users/7", {"id": 7, "name": "Ada"})
        upstreams = dict.fromkeys(("users", "reviews", "likes"), server)
        routes = [path("<int:user_id>", ThreeCalls.as_view())]
        async with (
            gateway(routes, upstreams, GATEWAY_SERVER_TIMING=wanted) as base,
            client.get(f"{base}/7") as answer,
        ):
            timing = answer.headers.get("Server-Timing", "")

        metric = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+;dur=\d+\.\d"
        assert bool(re.fullmatch(rf"{metric}(?:, {metric})*", timing)) == wanted
        names = {entry.partition(";")[0] for entry in timing.split(", ") if entry}
        assert names == ({"user", "reviews", "likes"} if wanted else set())
