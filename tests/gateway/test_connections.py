"""One TCP connection and what its client does with it: it leaves, half leaves, asks again, asks ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import pytest
import structlog
import uvloop
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import path
from django.utils.decorators import async_only_middleware

from tests.conftest import StartStub
from tests.gateway.shop import ROUTES, shop
from tests.logs import Log
from tests.serving import gateway
from tests.stub import Gate, serving_stub
from tests.ways import Got, listening, until
from upstreams import Upstream


class Connection(NamedTuple):
    """One TCP connection to a server, on which a test writes and reads HTTP itself."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, method: str, where: str, body: bytes = b"", headers: str = "") -> None:
        length = f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n" if body else ""
        self.writer.write(
            f"{method} {where} HTTP/1.1\r\nHost: gateway\r\n{length}{headers}\r\n".encode("latin-1") + body
        )
        await self.writer.drain()

    async def answer(self) -> Got:
        """Read one answer that tells its length."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:-2])]
        length = int(dict(headers).get("content-length", "0"))
        return Got(int(head[0].split()[1]), headers, await self.reader.readexactly(length))

    def leave(self) -> None:
        """Go without a word, as a killed client does."""
        self.writer.transport.abort()


@asynccontextmanager
async def connected(base: str) -> AsyncIterator[Connection]:
    host, _, port = base.removeprefix("http://").partition(":")
    connection = Connection(*await asyncio.open_connection(host, int(port)))
    try:
        yield connection
    finally:
        connection.leave()


@pytest.mark.parametrize("where", ["/items/7", "/views/waiting"])
async def test_a_client_that_leaves_cancels_its_view_and_the_request_is_finished(
    stub: StartStub, log: Log, where: str
) -> None:
    server = await stub("shop")
    slow = Gate({"id": 7})
    server.on("/items/7", slow)
    reached, cancelled = asyncio.Event(), asyncio.Event()

    async def waiting(_: HttpRequest) -> HttpResponse:
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return HttpResponse()

    async with gateway([*ROUTES, path("views/waiting", waiting)], {"shop": server}) as base, connected(base) as client:
        with listening("asynchronous") as heard:
            await client.send("GET", where)
            await (slow.arrived if where == "/items/7" else reached).wait()
            client.leave()
            await until(lambda: bool(heard["finished"]))

    assert len(heard["started"]) == len(heard["finished"]) == 1
    assert [event["outcome"] for event in log.events("request.finished")] == ["disconnected"]
    assert cancelled.is_set() or server.cancelled == 1


async def test_a_client_that_leaves_while_it_sends_its_body_was_no_request(stub: StartStub, log: Log) -> None:
    async with gateway(ROUTES, await shop(stub)) as base, connected(base) as after:
        with listening("asynchronous") as heard:
            async with connected(base) as client:
                await client.send("POST", "/orders", headers="Content-Length: 100\r\n")
                client.writer.write(b'{"text": ')
                await client.writer.drain()
            await after.send("GET", "/nowhere")
            assert (await after.answer()).status == 404

    assert len(heard["started"]) == 1
    assert [event["url.path"] for event in log.events("request.started")] == ["/nowhere"]


async def test_a_client_that_leaves_a_large_answer_half_read_leaves_nothing_behind(stub: StartStub, log: Log) -> None:
    server = await stub("shop")
    server.on("/items/7", "x" * 8_000_000)
    table = {"shop": Upstream(server.url, max_body=9_000_000)}
    async with gateway(ROUTES, table) as base, connected(base) as after:
        with listening("asynchronous") as heard:
            async with connected(base) as client:
                await client.send("GET", "/items/7")
                await client.reader.readexactly(1000)
            await until(lambda: bool(heard["finished"]))
            await after.send("GET", "/nowhere")
            assert (await after.answer()).status == 404

    assert log.events("request.finished", **{"url.path": "/items/7"})[0]["outcome"] == "ok"
    assert log.events(level="error") == []


async def test_a_client_that_closes_its_half_has_left(stub: StartStub, log: Log) -> None:
    server = await stub("shop")
    slow = Gate({"id": 7})
    server.on("/items/7", slow)
    async with gateway(ROUTES, {"shop": server}) as base, connected(base) as client:
        await client.send("GET", "/items/7")
        await slow.arrived.wait()
        client.writer.write_eof()
        assert await client.reader.read() == b""

    assert [event["outcome"] for event in log.events("request.finished")] == ["disconnected"]


async def test_requests_on_one_connection_are_answered_one_after_another(stub: StartStub) -> None:
    async with gateway(ROUTES, await shop(stub)) as base, connected(base) as client:
        for where, status in (("/items/7", 200), ("/nowhere", 404), ("/broken", 502), ("/views/plain", 200)) * 2:
            await client.send("GET", where)
            assert (await client.answer()).status == status
        await client.send("HEAD", "/items/7")
        head = await client.reader.readuntil(b"\r\n\r\n")  # and nothing after it, or the next answer is garbled
        await client.send("OPTIONS", "/items/7")
        options = await client.answer()

    assert b"content-length: 54" in head
    assert (options.status, options.header("Content-Length")) == (204, None)


async def test_pipelined_requests_are_answered_in_their_order(stub: StartStub) -> None:
    async with gateway(ROUTES, await shop(stub)) as base, connected(base) as client:
        for where in ("/items/7", "/nowhere", "/views/synchronous", "/broken"):
            await client.send("GET", where)
        statuses = [(await client.answer()).status for _ in range(4)]

    assert statuses == [200, 404, 200, 502]


@async_only_middleware
def binding(answer: Any) -> Any:
    """Does what a project may do: says in every later line who asks."""

    async def bound(request: HttpRequest) -> HttpResponseBase:
        structlog.get_logger().info("unbound")
        structlog.contextvars.bind_contextvars(user=request.headers["X-User"])
        structlog.get_logger().info("bound")
        response: HttpResponseBase = await answer(request)
        return response

    return bound


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("asked", ["one by one", "ahead"])
def test_nothing_bound_in_one_request_is_in_the_lines_of_the_next(
    log: Log, loop: Callable[[], asyncio.AbstractEventLoop], asked: str
) -> None:
    async def scenario() -> None:
        async with serving_stub("shop") as server, AsyncExitStack() as stack:
            server.on("*", {})
            chain = ["gateway.middleware.Edge", f"{__name__}.binding"]
            base = await stack.enter_async_context(gateway(ROUTES, {"shop": server}, PAGE_MIDDLEWARE=chain))
            client = await stack.enter_async_context(connected(base))
            for user in ("alice", "bob", "carol"):
                headers = f"X-Request-ID: of-{user}\r\nX-User: {user}\r\n"
                # More than the server reads ahead: it pauses the connection, in the context of this very request.
                await client.send("POST", "/orders", b'{"text": "%s"}' % (b"x" * 200_000), headers)
                if asked == "one by one":
                    assert (await client.answer()).status == 200
            if asked == "ahead":
                assert [(await client.answer()).status for _ in range(3)] == [200, 200, 200]

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())

    assert [(event["request_id"], event.get("user")) for event in log.events("unbound")] == [
        ("of-alice", None),
        ("of-bob", None),
        ("of-carol", None),
    ]
    assert [event["user"] for event in log.events("bound")] == ["alice", "bob", "carol"]


@pytest.mark.parametrize(
    ("where", "status"), [("/orders", 413), ("/items/7", 405), ("/nowhere", 404)], ids=["page", "no body", "nowhere"]
)
@pytest.mark.parametrize("told", ["Content-Length: 90000000", "Transfer-Encoding: chunked"])
async def test_an_endless_body_is_answered_before_its_end(stub: StartStub, where: str, status: int, told: str) -> None:
    async with gateway(ROUTES, await shop(stub)) as base, connected(base) as client:
        await client.send("POST", where, headers=f"{told}\r\nContent-Type: application/json\r\n")
        for _ in range(120):  # 1.2 MB, more than any page here takes, and far less than was told
            client.writer.write(b"2710\r\n" + b"x" * 10_000 + b"\r\n" if "chunked" in told else b"x" * 10_004)
        got = await client.answer()

    assert (got.status, got.header("Content-Type")) == (status, "application/problem+json")
