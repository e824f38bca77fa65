"""`manage.py serve`: it starts only when all is well, and stops only when all is answered."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
import uvloop
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.urls import clear_url_caches, path

from gateway.management.commands.serve import UVICORN, bound, serve
from tests.gateway.shop import ROUTES, Item
from tests.gateway.test_connections import connected
from tests.program import URLS, program, write_project
from tests.serving import project
from tests.stub import Gate, serving_stub
from upstreams import Upstream

LISTENERS = 8
SERVE = ("manage.py", "serve", "--port", "0")


async def test_it_refuses_to_start_with_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    environment = write_project(tmp_path, {"shop": "ftp://elsewhere", "other": "http://user:word@other"})
    async with program(*SERVE, environment=environment) as server:
        ended = await server.ends()

    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.splitlines()[:4] == [
        "CommandError: the gateway cannot start:",
        "  gateway.E001: UPSTREAMS cannot be used:",
        "    shop: url 'ftp://elsewhere' must start with http:// or https://",
        "    other: url 'http://***@other' holds a user name or password: send those in headers=",
    ]
    assert "Traceback" not in ended.err


async def test_a_server_that_is_not_ours_does_not_start_it_either(tmp_path: Path) -> None:
    environment = write_project(tmp_path, {"other": "http://other"})
    arguments = ("-m", "uvicorn", "gateway.asgi:application", "--lifespan", "on", "--port", "0", "--no-access-log")
    async with program(*arguments, environment=environment) as server:
        ended = await server.ends()

    assert ended.code == 3
    (said,) = [event for event in server.events("log.recorded") if "E002" in str(event["message"])]
    assert "Item.item names the upstream 'shop', which UPSTREAMS does not have." in str(said["message"])
    assert "Traceback" not in ended.out + ended.err


WRITING = URLS.replace(
    "urlpatterns =",
    """
class Text(msgspec.Struct):
    text: str


class Place(AggregateView):
    deadline = 60.0

    @call("shop")
    def placed(self, body: Text) -> Request[JSON]:
        return POST("/orders", json=body)


urlpatterns = [path("orders", Place.as_view())]
urlpatterns +=""",
).replace("from django.urls", "import msgspec\nfrom django.urls")


async def test_what_is_under_way_is_finished_before_it_stops(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    reading, writing = Gate({"id": 7}), Gate({"placed": True})
    async with serving_stub("shop") as shop:
        shop.on("/items/7", reading).on("/orders", writing)
        environment = write_project(tmp_path, {"shop": shop.url}, WRITING)
        async with program(*SERVE, environment=environment) as server:
            base = await server.base()
            asking = asyncio.create_task(client.get(f"{base}/items/7"))
            leaving = asyncio.create_task(client.post(f"{base}/orders", json={"text": "x"}))
            await reading.arrived.wait()
            await writing.arrived.wait()
            leaving.cancel()
            await server.says("client.disconnected")
            server.told(signal.SIGTERM)
            await server.says("Shutting down")
            reading.open.set()
            writing.open.set()
            async with await asking as answer:
                body = await answer.json()
            ended = await server.ends()

    assert (answer.status, body["data"]) == (200, {"item": {"id": 7}})
    assert shop.cancelled == 0
    outcomes = {event["call"]: event["outcome"] for event in server.events("attempt.finished")}
    assert outcomes == {"item": "ok", "placed": "ok"}
    assert [len(server.events(name)) for name in ("gateway.started", "gateway.stopped")] == [1, 1]
    assert ended.code == -signal.SIGTERM
    assert "Traceback" not in ended.out + ended.err


@pytest.mark.parametrize("listeners", [1, LISTENERS])
def test_new_clients_are_taken_as_many_in_a_turn_of_uvloop_as_there_are_listeners(listeners: int) -> None:
    async def most_in_a_turn() -> int:
        loop, turn, taken = asyncio.get_running_loop(), 0, Counter[int]()

        class Connection(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                taken[turn] += 1
                transport.abort()  # type: ignore[attr-defined]

        (listener,) = bound("127.0.0.1", 0)
        sockets = [listener, *(listener.dup() for _ in range(listeners - 1))]
        servers = [await loop.create_server(Connection, sock=socket_) for socket_ in sockets]
        clients = [socket.socket() for _ in range(5 * LISTENERS)]
        for client in clients:
            client.setblocking(False)  # noqa: FBT003 - it is the socket's own method
            client.connect_ex(listener.getsockname())
        while taken.total() < len(clients):
            await asyncio.sleep(0)
            turn += 1
        for client in clients:
            client.close()
        for server in servers:
            server.close()
            await server.wait_closed()
        return max(taken.values())

    with asyncio.Runner(debug=False, loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(most_in_a_turn()) == listeners


@pytest.mark.parametrize("workers", [1, 2])
def test_of_two_that_start_at_once_at_one_port_the_later_one_says_that_it_is_taken(workers: int) -> None:
    (ours,) = bound("127.0.0.1", 0)
    host, port = ours.getsockname()
    with socket.socket() as other, project([], {}):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((host, port))
        other.listen()
        with pytest.raises(CommandError, match=r"cannot listen on 127\.0\.0\.1 port [0-9]+: "):
            serve(uvicorn.Config("gateway.asgi:application", host=host, port=port, workers=workers, **UVICORN), [ours])
    ours.close()


async def test_a_worker_that_is_alone_listens_several_times(tmp_path: Path) -> None:
    environment = write_project(tmp_path, {"shop": "http://shop"})
    async with program(*SERVE, environment=environment) as server:
        port = (await server.base()).rpartition(":")[2]
        (started,) = server.events("gateway.started")
        assert await asyncio.to_thread(listening, str(started["process.pid"]), int(port)) == LISTENERS


def listening(pid: str, port: int) -> int:
    """Return how many descriptors of a process listen at a port, by Linux's /proc."""
    rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(link == f"socket:[{inode}]" for link in links for inode in inodes)


async def test_two_workers_serve_one_address_and_stop_together(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    async with serving_stub("shop") as shop:
        shop.on("*", {})
        environment = write_project(tmp_path, {"shop": shop.url})
        async with program(*SERVE, "--workers", "2", environment=environment) as server:
            base = await server.base()
            await server.says("gateway.started", times=2)
            async with client.get(f"{base}/items/7") as answer:
                assert answer.status == 200
            server.told(signal.SIGTERM)
            ended = await server.ends()

    started, stopped = server.events("gateway.started"), server.events("gateway.stopped")
    assert len({event["process.pid"] for event in started}) == 2
    assert {event["process.pid"] for event in started} == {event["process.pid"] for event in stopped}
    assert ended.code == 0
    assert "Traceback" not in ended.out + ended.err


CONTEXT = (
    URLS
    + """
import contextvars

from django.http import HttpResponse
from django.utils.decorators import async_only_middleware

LEFT = contextvars.ContextVar("left", default="nothing")


@async_only_middleware
def leaving(answer):
    async def left(request):
        found = LEFT.get()
        LEFT.set(request.headers["X-User"])
        response = await answer(request)
        response["X-Found"] = found
        response["X-Scheme"] = request.scheme
        return response

    return left
"""
)


async def test_a_request_finds_nothing_of_another_and_believes_no_stranger(tmp_path: Path) -> None:
    environment = write_project(
        tmp_path,
        {"shop": "http://127.0.0.1:1"},
        CONTEXT,
        'PAGE_MIDDLEWARE = ["gateway.middleware.Edge", "small_urls.leaving"]',
    )
    async with program(*SERVE, environment=environment) as server, connected(await server.base()) as client:
        for user in ("alice", "bob", "carol"):
            await client.send("GET", "/nowhere", headers=f"X-User: {user}\r\nX-Forwarded-Proto: https\r\n")
        answers = [await client.answer() for _ in range(3)]

    assert [answer.header("X-Found") for answer in answers] == ["nothing"] * 3
    assert [answer.header("X-Scheme") for answer in answers] == ["http"] * 3
    assert [answer.header("Server") for answer in answers] == [None] * 3


FAULTS: dict[str, tuple[dict[str, Any], str]] = {  # settings, and what is said of them
    "an upstream that cannot be used": ({"UPSTREAMS": {"shop": Upstream("shop:80")}}, "must start with http"),
    "an upstream that is not there": ({"UPSTREAMS": {}}, "which UPSTREAMS does not have"),
    "a name of its own that is none": ({"GATEWAY_NAME": "two words"}, "GATEWAY_NAME must be"),
    "middleware that does not belong around pages": (
        {"PAGE_MIDDLEWARE": ["django.middleware.common.CommonMiddleware"]},
        "is not native async middleware",
    ),
    "a chain that is no list": ({"PAGE_MIDDLEWARE": "gateway.middleware.Edge"}, "PAGE_MIDDLEWARE must be a list"),
    "a name that no URL gives": ({"ROOT_URLCONF": __name__}, "Item has a parameter 'item_id'"),
}


urlpatterns = [path("items", Item.as_view())]


@pytest.mark.parametrize(("settings", "why"), FAULTS.values(), ids=FAULTS.keys())
def test_it_does_not_start_with(settings: dict[str, Any], why: str) -> None:
    with project(ROUTES, {"shop": Upstream("http://127.0.0.1:1")}), override_settings(**settings):
        clear_url_caches()
        with pytest.raises(CommandError, match="the gateway cannot start:") as refused:
            call_command("serve")

    assert why in str(refused.value)


@pytest.mark.parametrize("command", [("serve", "--port"), ("runserver", "--noreload")])
def test_a_port_that_is_taken_is_said_in_a_sentence(command: tuple[str, str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with project(ROUTES, {"shop": Upstream("http://127.0.0.1:1")}), pytest.raises(CommandError) as refused:
            call_command(*command, str(port))

    assert str(refused.value) == f"cannot listen on 127.0.0.1 port {port}: Address already in use"


@pytest.mark.parametrize("arguments", [("--host", "no.such.host.invalid"), ("--port", "70000")])
def test_an_address_that_is_none_is_said_in_a_sentence(arguments: tuple[str, str]) -> None:
    unusable = pytest.raises(CommandError, match="cannot listen on")
    with project(ROUTES, {"shop": Upstream("http://127.0.0.1:1")}), unusable:
        call_command("serve", *arguments)
