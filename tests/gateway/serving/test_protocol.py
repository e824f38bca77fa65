"""What a client may send beside requests and bodies, and for how long it may be silent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
from django.http import HttpRequest
from django.urls import path

from gateway import call, part
from gateway.serving import protocol
from tests.conftest import StartStub
from tests.gateway.serving.test_holds import Page
from tests.serving import PatientPage, gateway
from tests.stub import Gate
from upstreams import GET, JSON, Request

BEGUN = b"GET /page HTTP/1.1\r\nHost: shop\r\n"
SAYING = b"POST /said HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
CHUNKED = SAYING + b"Transfer-Encoding: chunked\r\n"
PIECE = 16 * 1024
MOST = 64 * 1024


class Said(msgspec.Struct):
    word: str


class SaidPage(PatientPage):
    """What the client said, and its header X-User."""

    @part
    async def said(self, fan: object, body: Said, request: HttpRequest) -> list[str | None]:
        return [body.word, request.headers.get("X-User")]


class HeldPage(PatientPage):
    @call("shop")
    def item(self) -> Request[JSON]:
        return GET("/held")


ROUTES = [path("page", Page.as_view()), path("held", HeldPage.as_view()), path("said", SaidPage.as_view())]


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
        answer = await refused(reader, writer, more)

    assert answer.startswith(b"HTTP/1.1 431 ")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head


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


@pytest.mark.parametrize(
    "behind", [BEGUN + b"X-Long: " + b"a" * 3 * MOST, b"garbage\r\n\r\n"], ids=["too large", "no HTTP"]
)
@pytest.mark.parametrize("accept", [b"application/json", b"application/jsonl"])
async def test_a_refusal_does_not_get_into_the_answer_before_it(stub: StartStub, behind: bytes, accept: bytes) -> None:
    held = Gate({})
    server = (await stub("shop")).on("/held", held)
    async with gateway(ROUTES, {"shop": server}) as base, client(base) as (reader, writer):
        writer.write(b"GET /held HTTP/1.1\r\nHost: shop\r\nAccept: " + accept + b"\r\n\r\n")
        await held.arrived.wait()
        writer.write(behind)
        await asked(base, b"/page")
        held.open.set()
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert b'"complete":true' in answer


async def test_headers_of_just_too_much_are_a_431_though_they_come_at_once(stub: StartStub) -> None:
    fits = b"GET /page HTTP/1.1\r\nX-Long: " + b"a" * (MOST - len("/page") - len("X-Long"))
    async with gateway(ROUTES, {"shop": (await stub("shop")).on("/item", {})}) as base:
        async with client(base) as (reader, writer):
            writer.write(fits + b"\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        async with client(base) as (reader, writer):
            writer.write(fits + b"a\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 431 ")


async def test_trailers_are_no_headers(stub: StartStub) -> None:
    async with gateway(ROUTES, {"shop": await stub("shop")}) as base, client(base) as (reader, writer):
        writer.write(CHUNKED + b'\r\ne\r\n{"word": "so"}\r\n0\r\nX-User: admin\r\n\r\n')
        assert b'"said":["so",null]' in await reader.readuntil(b'"errors":{}}')
        writer.write(BEGUN.replace(b"/page", b"/nowhere") + b"\r\n")
        assert b"HTTP/1.1 404 " in await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("more", [b"X-Many: a\r\n" * (PIECE // 11), b"a" * PIECE], ids=["trailers", "a trailer"])
async def test_trailers_without_end_are_refused_and_are_not_kept(stub: StartStub, more: bytes) -> None:
    async with gateway(ROUTES, {"shop": await stub("shop")}) as base, client(base) as (reader, writer):
        writer.write(CHUNKED + b"\r\n0\r\nX-")
        answer = await refused(reader, writer, more)

    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("kind", [b"h2c", b"websocket"])
@pytest.mark.parametrize("arriving", ["at once", "in pieces"])
@pytest.mark.parametrize("framing", [b"Content-Length: 14", b"Transfer-Encoding: chunked"], ids=["length", "chunks"])
async def test_an_offer_to_upgrade_is_not_taken_and_its_request_is_as_any_other(
    stub: StartStub, kind: bytes, arriving: str, framing: bytes
) -> None:
    body = b'{"word": "so"}'
    wire = b"e\r\n" + body + b"\r\n0\r\n\r\n" if b"chunked" in framing else body
    offer = SAYING + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + kind + b"\r\n" + framing + b"\r\n\r\n"
    behind = BEGUN + b"Connection: Upgrade\r\nUpgrade: " + kind + b"\r\n\r\n"
    async with (
        gateway(ROUTES, {"shop": (await stub("shop")).on("/item", {})}) as base,
        client(base) as (reader, writer),
    ):
        pieces = (
            [offer + wire + behind + behind] if arriving == "at once" else [offer, wire[:9], wire[9:] + behind, behind]
        )
        for piece in pieces:
            writer.write(piece)
            await asked(base, b"/nowhere")  # which is answered when what came before it has been read
        answers = [await reader.readuntil(b'"errors":{}}') for _ in range(3)]

    assert b'"said":["so",null]' in answers[0]
    assert all(b'"item":{}' in answer for answer in answers[1:])


async def test_a_body_behind_an_offer_to_upgrade_is_no_request(stub: StartStub) -> None:
    inner = BEGUN + b"\r\n"
    offer = SAYING + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(inner)
    async with gateway(ROUTES, {"shop": await stub("shop")}) as base, client(base) as (reader, writer):
        writer.write(offer)
        await asked(base, b"/nowhere")
        writer.write(inner + b"GET /nowhere HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        answer = await reader.read()

    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"400", b"404"]


async def test_requests_behind_a_request_are_answered_in_order_and_are_bounded(stub: StartStub) -> None:
    held = Gate({})
    server = (await stub("shop")).on("/held", held)
    many = 1000
    async with gateway(ROUTES, {"shop": server}) as base, client(base) as (reader, writer):
        writer.write(b"GET /held HTTP/1.1\r\nHost: shop\r\n\r\n")
        writer.write(b"GET /nowhere HTTP/1.1\r\n\r\n" * many)
        await held.arrived.wait()
        await asked(base, b"/page")
        held.open.set()
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 404 ") == 64


async def test_a_body_that_is_to_come_behind_a_request_under_way_is_waited_for(stub: StartStub) -> None:
    held = Gate({})
    server = (await stub("shop")).on("/held", held)
    async with gateway(ROUTES, {"shop": server}) as base, client(base) as (reader, writer):
        writer.write(b"GET /held HTTP/1.1\r\nHost: shop\r\n\r\n" + SAYING + b'Content-Length: 14\r\n\r\n{"word"')
        await held.arrived.wait()
        await asked(base, b"/nowhere")
        writer.write(b': "so"}')
        held.open.set()
        assert b'"item":{}' in await reader.readuntil(b'"errors":{}}')
        assert b'"said":["so",null]' in await reader.readuntil(b'"errors":{}}')


SILENT = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "half a line": b"GET /page HT",
    "half the headers": BEGUN,
    "no body": CHUNKED + b"\r\n",
    "half a body": CHUNKED + b"\r\n5\r\n{",
}


@pytest.mark.parametrize("said", SILENT.values(), ids=SILENT)
async def test_a_client_that_falls_silent_is_let_go(
    stub: StartStub, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_LONGEST_HEAD", 0.1)
    monkeypatch.setattr(protocol, "_LONGEST_SILENCE", 0.1)
    async with gateway(ROUTES, {"shop": await stub("shop")}, keep_alive=0.1) as base:
        before = asyncio.all_tasks()
        async with client(base) as (reader, writer):
            writer.write(said)
            assert await reader.read() == b""
        assert asyncio.all_tasks() <= before


async def test_an_empty_line_behind_an_answered_request_does_not_keep_its_connection(stub: StartStub) -> None:
    server = (await stub("shop")).on("/item", {})
    async with gateway(ROUTES, {"shop": server}, keep_alive=0.1) as base, client(base) as (reader, writer):
        writer.write(BEGUN + b"\r\n")
        await reader.readuntil(b'"errors":{}}')
        writer.write(b"\r\n")
        assert await reader.read() == b""


async def test_headers_that_come_a_byte_at_a_time_have_an_end(stub: StartStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_LONGEST_HEAD", 0.2)
    async with gateway(ROUTES, {"shop": await stub("shop")}) as base, client(base) as (reader, writer):
        writer.write(BEGUN + b"X-Slow: ")
        ended = asyncio.create_task(reader.read())
        while not ended.done():
            writer.write(b"a")
            await asyncio.wait([ended], timeout=0.01)
        with suppress(ConnectionResetError):  # it is closed on what is being sent
            assert await ended == b""


async def refused(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, more: bytes) -> bytes:
    """Send ever more until an answer is there, and return it: what has been sent by then is bounded."""
    answered, sent = asyncio.create_task(reader.read()), 0
    while not answered.done() and sent < 100 * MOST:
        writer.write(more)
        sent += len(more)
        await asyncio.wait([answered], timeout=0.01)
    assert sent < 100 * MOST
    return await answered


async def asked(base: str, where: bytes) -> None:
    """Ask for something else; once it is answered, the gateway has read what was sent before."""
    async with client(base) as (reader, writer):
        writer.write(b"GET " + where + b" HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        await reader.read()


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
