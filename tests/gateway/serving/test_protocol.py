"""How much a client may say before its request begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from django.urls import path

from tests.conftest import StartStub
from tests.gateway.serving.test_holds import Page
from tests.serving import gateway
from tests.stub import Gate

BEGUN = b"GET /page HTTP/1.1\r\nHost: shop\r\n"
PIECE = 16 * 1024
MOST = 64 * 1024


@asynccontextmanager
async def client(base: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = base.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"GET /", b"a" * PIECE),
        (BEGUN + b"X-Long: ", b"a" * PIECE),
        (BEGUN, b"X-Many: a\r\n" * (PIECE // 11)),
    ],
    ids=["a path", "a header", "headers"],
)
async def test_headers_without_end_are_a_431_and_are_not_kept(stub: StartStub, begun: bytes, more: bytes) -> None:
    server = await stub("shop")
    async with gateway([path("page", Page.as_view())], {"shop": server}) as base, client(base) as (reader, writer):
        writer.write(begun)
        sent = 0
        answered = asyncio.create_task(reader.read())
        while not answered.done() and sent < 100 * MOST:
            writer.write(more)
            sent += len(more)
            await asyncio.wait([answered], timeout=0.01)
        answer = await answered

    assert answer.startswith(b"HTTP/1.1 431 ")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head
    assert sent < 100 * MOST


async def test_many_headers_in_many_requests_are_no_matter(stub: StartStub) -> None:
    server = (await stub("shop")).on("/item", {})
    request = BEGUN + b"X-Long: " + b"a" * (MOST // 2) + b"\r\n\r\n"
    async with gateway([path("page", Page.as_view())], {"shop": server}) as base, client(base) as (reader, writer):
        for _ in range(5):
            for begin in range(0, len(request), PIECE):
                writer.write(request[begin : begin + PIECE])
                await writer.drain()
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readuntil(b'"errors":{}}')


async def test_the_answer_to_the_request_before_is_not_mixed_with_a_refusal(stub: StartStub) -> None:
    held = Gate({})
    server = (await stub("shop")).on("/item", held)
    async with gateway([path("page", Page.as_view())], {"shop": server}) as base, client(base) as (reader, writer):
        writer.write(BEGUN + b"\r\n")
        await held.arrived.wait()
        writer.write(BEGUN + b"X-Long: " + b"a" * 3 * MOST)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        held.open.set()


async def test_the_body_of_the_request_before_is_not_counted_as_headers(stub: StartStub) -> None:
    server = (await stub("shop")).on("/item", {})
    body = b"a" * (MOST * 5 // 8)
    first = b"POST /page HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    second = BEGUN + b"X-Long: " + b"a" * (MOST // 2)
    async with gateway([path("page", Page.as_view())], {"shop": server}) as base, client(base) as (reader, writer):
        writer.write(first + second)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
        writer.write(b"\r\n\r\n")
        assert b"HTTP/1.1 200 " in await reader.readuntil(b'"errors":{}}')
