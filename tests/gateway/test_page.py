"""One page over real servers, end to end."""

from __future__ import annotations

import asyncio

import aiohttp
import msgspec
from django.urls import path

from gateway import AggregateView, call
from tests.conftest import StartStub
from tests.logs import CANARY, Log
from tests.serving import gateway
from tests.stub import Answered, Barrier, Gate
from upstreams import GET, JSON, Request


class User(msgspec.Struct):
    id: int
    name: str


class ThreeCalls(AggregateView):
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
    async with gateway(
        [path("<int:user_id>", ThreeCalls.as_view())], dict.fromkeys(("users", "reviews", "likes"), server)
    ) as base:
        async with client.get(f"{base}/7") as answer:
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
    async with gateway(
        [path("<int:user_id>", ThreeCalls.as_view())], dict.fromkeys(("users", "reviews", "likes"), server)
    ) as base:
        async with client.get(f"{base}/7", headers={"Authorization": CANARY}) as answer:
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
