"""A worker's life as its server sees it: started with what requests need, or not at all, and closed at the end."""

from __future__ import annotations

import asyncio
import gc
import runpy
from collections.abc import Mapping
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from gateway import __version__
from gateway.asgi import Application
from gateway.serving.lifespan import lifespan, worker
from tests.conftest import StartStub
from tests.gateway.shop import ROUTES, shop
from tests.logs import Log
from tests.serving import gateway, project
from tests.ways import until
from upstreams import Fleet, Upstream

NOBODY = {"shop": Upstream("http://127.0.0.1:1")}


class Server:
    """Speaks the server's half of the lifespan protocol; `sent` is what the application said."""

    def __init__(self, **scope: Any) -> None:
        self.scope: dict[str, Any] = {"type": "lifespan", **scope}
        self.sent: list[Mapping[str, Any]] = []
        self.asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def run(self) -> None:
        async def send(message: Mapping[str, Any]) -> None:
            self.sent.append(message)

        self.asked.put_nowait({"type": "lifespan.startup"})
        async with asyncio.timeout(20):
            await lifespan(self.scope, self.asked.get, send)


async def test_requests_share_the_workers_connections_and_they_are_closed_at_the_end(stub: StartStub, log: Log) -> None:
    server = Server(state={})
    with project(ROUTES, await shop(stub)):
        running = asyncio.create_task(server.run())
        await until(lambda: bool(server.sent))
        fleet = server.scope["state"]["fleet"]
        server.asked.put_nowait({"type": "lifespan.shutdown"})
        await running

    assert isinstance(fleet, Fleet)
    assert all(client._connector.closed for client in fleet._clients.values())
    assert [message["type"] for message in server.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    (started,), (stopped,) = log.events("gateway.started"), log.events("gateway.stopped")
    assert (started["service.version"], started["upstreams"]) == (__version__, ["shop"])
    assert started["process.pid"] == stopped["process.pid"]


async def test_one_connection_serves_many_requests_of_a_worker(stub: StartStub, log: Log, client: Any) -> None:
    async with gateway(ROUTES, await shop(stub)) as base:
        for _ in range(3):
            async with client.get(f"{base}/items/7") as answer:
                assert answer.status == 200

    assert [event["conn"] for event in log.events("attempt.finished")] == ["new", "reused", "reused"]


async def test_the_garbage_collector_is_spared_while_a_worker_serves_and_no_longer() -> None:
    former = gc.get_threshold()
    with project([], {}):
        async with worker():
            assert gc.get_freeze_count() > 0
            assert gc.get_threshold() > former

    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == former


async def test_a_worker_that_finds_a_mistake_says_so_and_does_not_start(log: Log) -> None:
    server = Server(state={})
    with project(ROUTES, {}), pytest.raises(ImproperlyConfigured):
        await server.run()

    assert [message["type"] for message in server.sent] == ["lifespan.startup.failed"]
    assert server.sent[0]["message"].startswith(
        "the gateway cannot start:\n"
        "  gateway.E002: Item.item names the upstream 'shop', which UPSTREAMS does not have.\n"
    )
    assert log.events("gateway.started") == []


def test_a_wsgi_server_does_not_start_with_a_mistake_either() -> None:
    with project(ROUTES, {}), pytest.raises(ImproperlyConfigured, match="the gateway cannot start:"):
        runpy.run_module("gateway.wsgi")
    with project(ROUTES, NOBODY):
        assert callable(runpy.run_module("gateway.wsgi")["application"])


async def test_a_server_that_hands_no_state_on_is_refused_by_name() -> None:
    server = Server()
    with project(ROUTES, NOBODY), pytest.raises(ImproperlyConfigured):
        await server.run()

    assert server.sent == [
        {
            "type": "lifespan.startup.failed",
            "message": "this server hands no lifespan state to requests; uvicorn does",
        }
    ]


async def test_a_worker_that_is_killed_while_it_serves_closes_its_connections(log: Log) -> None:
    server = Server(state={})
    with project(ROUTES, NOBODY):
        running = asyncio.create_task(server.run())
        await until(lambda: bool(server.sent))
        fleet = server.scope["state"]["fleet"]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    assert all(client._connector.closed for client in fleet._clients.values())
    assert len(log.events("gateway.started")) == 1


async def test_a_websocket_is_refused_before_it_is_one() -> None:
    sent: list[Mapping[str, Any]] = []
    connecting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    connecting.put_nowait({"type": "websocket.connect"})

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    with project(ROUTES, NOBODY):
        await Application()({"type": "websocket", "path": "/items/7"}, connecting.get, send)

    assert connecting.empty()
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1000)]


async def test_a_kind_of_connection_that_is_unknown_is_an_error_of_the_servers() -> None:
    async def nothing(*_: Any) -> Any:
        raise AssertionError

    with project(ROUTES, NOBODY), pytest.raises(ValueError, match="this gateway speaks HTTP, not telepathy"):
        await Application()({"type": "telepathy"}, nothing, nothing)
