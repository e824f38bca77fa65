"""The demo's fault knob: `?fault=` on a page is a header at the services, in the demo and nowhere else."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from django.test import AsyncClient, Client
from django.urls import path

from demo.pages import HomePage
from tests.conftest import StartStub
from tests.serving import gateway, project
from tests.stub import Stub
from upstreams import Upstream

ROUTES = [path("home/<int:user_id>", HomePage.as_view())]
KNOB = ["demo.faults.FaultKnob", "gateway.middleware.Edge"]
SERVICES = ("users", "reviews", "recommendations")


@pytest.fixture
async def shop(stub: StartStub) -> Stub:
    shop = await stub("shop")
    shop.on("/users/7", {"id": 7, "name": "Ada", "city": "London", "tier": "gold"})
    return shop.on("/reviews", {"items": [], "total": 0, "average": None}).on("/for/7", [])


def upstreams(shop: Stub, *forwarded: str) -> dict[str, Upstream]:
    return dict.fromkeys(SERVICES, Upstream(shop.url, forward_headers=forwarded))


def faults(shop: Stub) -> set[str | None]:
    return {asked.headers.get("x-demo-fault") for asked in shop.received}


async def get(client: aiohttp.ClientSession, url: str, **query: str) -> int:
    async with client.get(url, params=query) as answer:
        return answer.status


async def test_a_fault_asked_for_reaches_every_service_that_may_be_sent_it(
    shop: Stub, client: aiohttp.ClientSession
) -> None:
    async with gateway(ROUTES, upstreams(shop, "x-demo-fault"), PAGE_MIDDLEWARE=KNOB) as base:
        status = await get(client, f"{base}/home/7", fault="reviews:slow=5, users:503")

    assert (status, len(shop.received), faults(shop)) == (200, 3, {"reviews:slow=5, users:503"})


async def test_django_s_test_clients_turn_the_knob_too(shop: Stub) -> None:
    with project(ROUTES, upstreams(shop, "x-demo-fault"), MIDDLEWARE=KNOB):
        asynchronous = await AsyncClient().get("/home/7?fault=users:html")
        synchronous = await asyncio.to_thread(Client().get, "/home/7?fault=users:html")

    assert (asynchronous.status_code, synchronous.status_code) == (200, 200)
    assert (len(shop.received), faults(shop)) == (6, {"users:html"})


@pytest.mark.parametrize("fault", ["", "users:503\r\nX-Injected: 1", "caf\u00e9"])
async def test_what_cannot_be_a_header_is_no_fault(shop: Stub, client: aiohttp.ClientSession, fault: str) -> None:
    async with gateway(ROUTES, upstreams(shop, "x-demo-fault", "x-injected"), PAGE_MIDDLEWARE=KNOB) as base:
        status = await get(client, f"{base}/home/7", fault=fault)

    assert (status, faults(shop)) == (200, {None})
    assert not any("x-injected" in asked.headers for asked in shop.received)


async def test_without_the_knob_or_without_leave_to_forward_it_there_is_no_fault(
    shop: Stub, client: aiohttp.ClientSession
) -> None:
    async with gateway(ROUTES, upstreams(shop, "x-demo-fault")) as base:
        await get(client, f"{base}/home/7", fault="users:503")
    async with gateway(ROUTES, upstreams(shop), PAGE_MIDDLEWARE=KNOB) as base:
        await get(client, f"{base}/home/7", fault="users:503")

    assert (len(shop.received), faults(shop)) == (6, {None})
