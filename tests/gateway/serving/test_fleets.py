"""Whose connections a request uses: its worker's, or its own where there is no worker."""

from __future__ import annotations

from django.test import AsyncRequestFactory, RequestFactory

from gateway.serving.fleets import borrowed_fleet, opened_fleet
from tests.serving import project
from upstreams import Upstream

TABLE = {"shop": Upstream("http://127.0.0.1:1")}


async def test_a_workers_fleet_is_borrowed_and_left_open() -> None:
    with project([], TABLE):
        async with opened_fleet() as fleet:
            request = AsyncRequestFactory().get("/")
            request.scope["state"] = {"fleet": fleet}  # type: ignore[index]
            async with borrowed_fleet(request) as borrowed:
                pass
            still_open = [not client._connector.closed for client in fleet._clients.values()]

    assert borrowed is fleet
    assert still_open == [True]


async def test_without_a_worker_a_request_has_a_fleet_of_its_own_that_is_closed_after_it() -> None:
    with project([], TABLE):
        async with (
            borrowed_fleet(RequestFactory().get("/")) as first,
            borrowed_fleet(AsyncRequestFactory().get("/")) as second,
        ):
            pass

    assert first is not second
    assert all(client._connector.closed for fleet in (first, second) for client in fleet._clients.values())
