"""Whatever comes over the wire is either an answer or one named fault, and costs one request, seen and told alike."""

from __future__ import annotations

import asyncio
import errno
import gc
import gzip
import json
import random
import socket
import ssl
import struct
import subprocess
import weakref
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple

import aiohttp
import pytest
from multidict import CIMultiDict

from tests.chaos import (
    Peer,
    Raw,
    Step,
    answer,
    chunked,
    deaf_port,
    endlessly,
    fin,
    head,
    rst,
    serving_raw,
    silence,
)
from tests.logs import CANARY
from tests.ports import free_port
from tests.serving import SHORT
from tests.upstreams.asking import Asking, asking, until
from upstreams import GET, HEAD, JSON, POST, PUT, Fault, Outcome, Reply, Retry, Upstream
from upstreams.connections import Connector, Protocol, Trip, open_connector
from upstreams.wire import Answer, exchange, fault_of, timeout_fault

TWICE = Retry(attempts=2, first_wait=0.0, longest_wait=0.0)
TEXT = json.dumps({"name": "x" * 4000}).encode()
ZIPPED = gzip.compress(TEXT)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LENGTH = OK + b"Content-Length: %d\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


async def apart(_: Peer) -> None:
    """Let what has been written be read before anything else comes."""
    for _turn in range(5):
        await asyncio.sleep(0)


class Case(NamedTuple):
    """What an upstream does with a request, what that is called, and whether a read is asked again."""

    name: str
    fault: Fault
    retried: bool
    steps: tuple[Step, ...]


def case(name: str, fault: Fault, *steps: Step, retried: bool = False) -> Any:
    return pytest.param(Case(name, fault, retried, steps), id=name.replace(" ", "-"))


def zipped(body: bytes, coding: str = "gzip") -> bytes:
    return answer(body, "200 OK", f"Content-Encoding: {coding}")


TERMINATED = [
    case("fin without a byte", Fault.CONNECTION_TERMINATED, fin, retried=True),
    case("reset", Fault.CONNECTION_TERMINATED, rst, retried=True),
    case("cut in the status line", Fault.CONNECTION_TERMINATED, b"HTTP/1.1 20", fin, retried=True),
    case("cut in the headers", Fault.CONNECTION_TERMINATED, OK[:-9], fin, retried=True),
    case("reset in the headers", Fault.CONNECTION_TERMINATED, OK[:-9], rst, retried=True),
    case("informational answer only", Fault.CONNECTION_TERMINATED, head("199 Wait"), fin, retried=True),
]
PROTOCOL = [
    case("garbage", Fault.HTTP_PROTOCOL_ERROR, b"\x16\x03\x01\x02garbage\r\n\r\n", fin),
    case("http 0.9", Fault.HTTP_PROTOCOL_ERROR, b"<html>hello</html>", fin),
    case("http 2 preface", Fault.HTTP_PROTOCOL_ERROR, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", fin),
    case("http 3 status line", Fault.HTTP_PROTOCOL_ERROR, answer().replace(b"HTTP/1.1", b"HTTP/3.0")),
    case("another protocol", Fault.HTTP_PROTOCOL_ERROR, answer().replace(b"HTTP/1.1", b"ICY")),
    case("status that is no number", Fault.HTTP_PROTOCOL_ERROR, head("abc OK"), fin),
    case("status with five digits", Fault.HTTP_PROTOCOL_ERROR, head("20000 OK"), fin),
    case("status 000", Fault.HTTP_PROTOCOL_ERROR, answer(b"{}", "000 Nothing")),
    case("status 099", Fault.HTTP_PROTOCOL_ERROR, answer(b"{}", "099 Low")),
    case("status 101", Fault.HTTP_PROTOCOL_ERROR, head("101 Switching", "Upgrade: x", "Connection: upgrade")),
    case("status 600", Fault.HTTP_PROTOCOL_ERROR, answer(b"{}", "600 High")),
    case("status 999", Fault.HTTP_PROTOCOL_ERROR, answer(b"{}", "999 High")),
    case("header without a colon", Fault.HTTP_PROTOCOL_ERROR, head("200 OK", "garbage"), fin),
    case("header with a space in its name", Fault.HTTP_PROTOCOL_ERROR, answer(b"{}", "200 OK", "a b: c")),
    case("header with NUL", Fault.HTTP_PROTOCOL_ERROR, answer(b"{}", "200 OK", "a: b\0c")),
    case("negative length", Fault.HTTP_PROTOCOL_ERROR, LENGTH % -1, fin),
    case("length with a sign", Fault.HTTP_PROTOCOL_ERROR, OK + b"Content-Length: +2\r\n\r\n{}", fin),
    case("length in hex", Fault.HTTP_PROTOCOL_ERROR, OK + b"Content-Length: 0x2\r\n\r\n{}", fin),
    case("length beyond 64 bits", Fault.HTTP_PROTOCOL_ERROR, LENGTH % 10**30, fin),
    case("two lengths", Fault.HTTP_PROTOCOL_ERROR, OK + b"Content-Length: 2\r\n" + (LENGTH % 3)[len(OK) :] + b"{} "),
    case("list of lengths", Fault.HTTP_PROTOCOL_ERROR, OK + b"Content-Length: 2, 2\r\n\r\n{}", fin),
    case("length and chunks", Fault.HTTP_PROTOCOL_ERROR, OK + b"Content-Length: 2\r\n" + CHUNKED[len(OK) :], fin),
    case("body longer than its length", Fault.HTTP_PROTOCOL_ERROR, LENGTH % 2 + b"{}extra"),
    case("body of a 204", Fault.HTTP_PROTOCOL_ERROR, answer(b"{}", "204 No Content")),
    case("chunk size that is none", Fault.HTTP_PROTOCOL_ERROR, CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", fin),
    case("chunk size that is none, later", Fault.HTTP_PROTOCOL_ERROR, CHUNKED + chunked(b"{}"), apart, b"zz\r\n"),
    case("chunk longer than its size", Fault.HTTP_PROTOCOL_ERROR, CHUNKED + b"2\r\n{}{}\r\n0\r\n\r\n", fin),
    case("unknown transfer coding", Fault.HTTP_PROTOCOL_ERROR, OK + b"Transfer-Encoding: xchunked\r\n\r\n{}", fin),
    case("65 early answers", Fault.HTTP_PROTOCOL_ERROR, head("100 Continue") * 65 + answer()),
    case("1000 early answers", Fault.HTTP_PROTOCOL_ERROR, head("102 Processing") * 1000, answer()),
    case("early answers without end", Fault.HTTP_PROTOCOL_ERROR, endlessly(head("103 Early Hints"))),
    case("two transfer codings", Fault.HTTP_PROTOCOL_ERROR, CHUNKED[:-2] + b"Transfer-Encoding: gzip\r\n\r\n{}", fin),
    case("transfer in gzip", Fault.HTTP_PROTOCOL_ERROR, OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
]  # fmt: skip
HEADER_SIZE = [
    case("header of 9 KiB", Fault.HTTP_RESPONSE_HEADER_SIZE, answer(b"{}", "200 OK", "a: " + "b" * 9000)),
    case("header name of 9 KiB", Fault.HTTP_RESPONSE_HEADER_SIZE, answer(b"{}", "200 OK", "a" * 9000 + ": b")),
    case("200 headers", Fault.HTTP_RESPONSE_HEADER_SIZE, answer(b"{}", "200 OK", *[f"a-{n}: b" for n in range(200)])),
    case("trailer of 9 KiB", Fault.HTTP_RESPONSE_HEADER_SIZE, CHUNKED, apart, b"0\r\na: " + b"b" * 9000),
    case("reason of 9 KiB", Fault.HTTP_RESPONSE_HEADER_SIZE, answer(b"{}", "200 " + "O" * 9000)),
    case("headers without end", Fault.HTTP_RESPONSE_HEADER_SIZE, OK, endlessly(b"a: b\r\n" * 100)),
    case("a header without end", Fault.HTTP_RESPONSE_HEADER_SIZE, OK + b"a: ", endlessly(b"b" * 1000)),
]
INCOMPLETE = [
    case("body shorter than its length", Fault.HTTP_RESPONSE_INCOMPLETE, LENGTH % 9 + b"{}", fin, retried=True),
    case("reset in the body", Fault.HTTP_RESPONSE_INCOMPLETE, LENGTH % 9 + b"{}", rst, retried=True),
    case("reset in a body until the end", Fault.HTTP_RESPONSE_INCOMPLETE, OK + b"\r\n{}", apart, rst, retried=True),
    case("no last chunk", Fault.HTTP_RESPONSE_INCOMPLETE, CHUNKED + chunked(b"{}"), fin, retried=True),
    case("cut in a chunk", Fault.HTTP_RESPONSE_INCOMPLETE, CHUNKED + b"20\r\n{}", fin, retried=True),
    case("reset in a chunk", Fault.HTTP_RESPONSE_INCOMPLETE, CHUNKED + b"20\r\n{}", rst, retried=True),
    case("gzip cut", Fault.HTTP_RESPONSE_INCOMPLETE, zipped(ZIPPED[:-10]), retried=True),
    case("gzip without its trailer", Fault.HTTP_RESPONSE_INCOMPLETE, zipped(ZIPPED[:-8]), retried=True),
    case("second gzip member cut", Fault.HTTP_RESPONSE_INCOMPLETE, zipped(ZIPPED + ZIPPED[:-5]), retried=True),
]
BODY_SIZE = [
    case("declared length over the limit", Fault.HTTP_RESPONSE_BODY_SIZE, LENGTH % (10 * 1024**3), silence),
    case("chunks without end", Fault.HTTP_RESPONSE_BODY_SIZE, CHUNKED, endlessly(chunked(b" " * 16000))),
    case("body until the end, without end", Fault.HTTP_RESPONSE_BODY_SIZE, OK + b"\r\n", endlessly(b" " * 16000)),
    case("gzip bomb", Fault.HTTP_RESPONSE_BODY_SIZE, zipped(gzip.compress(b" " * 10_000_000))),
    case(
        "gzip that grows without giving anything",
        Fault.HTTP_RESPONSE_BODY_SIZE,
        OK + b"Content-Encoding: gzip\r\n" + CHUNKED[len(OK) :] + chunked(ZIPPED[:10]),
        endlessly(chunked(b"\0\0\0\xff\xff" * 3000)),
    ),
]
CODING = [
    case(
        "gzip with a wrong checksum", Fault.HTTP_RESPONSE_CONTENT_CODING, zipped(ZIPPED[:-8] + bytes(4) + ZIPPED[-4:])
    ),
    case("gzip that is plain", Fault.HTTP_RESPONSE_CONTENT_CODING, zipped(TEXT)),
    case("deflate that is gzip", Fault.HTTP_RESPONSE_CONTENT_CODING, zipped(ZIPPED, "deflate")),
    case("brotli", Fault.HTTP_RESPONSE_CONTENT_CODING, zipped(TEXT, "br")),
    case("unknown coding", Fault.HTTP_RESPONSE_CONTENT_CODING, zipped(TEXT, "foo")),
    case("coding without a name", Fault.HTTP_RESPONSE_CONTENT_CODING, zipped(TEXT, "")),
    case("two codings", Fault.HTTP_RESPONSE_CONTENT_CODING, zipped(gzip.compress(ZIPPED), "gzip, gzip")),
    case(
        "two codings in two headers", Fault.HTTP_RESPONSE_CONTENT_CODING, zipped(ZIPPED, "gzip\r\nContent-Encoding: br")
    ),
    case("members without end", Fault.HTTP_RESPONSE_CONTENT_CODING, zipped(gzip.compress(b"") * 5000)),
]
MALFORMED = [
    case("login page", Fault.BODY_MALFORMED, answer(b"<html></html>", "200 OK", "Content-Type: text/html")),
    case("no content type", Fault.BODY_MALFORMED, LENGTH.replace(b"Content-Type", b"X-Type") % 2 + b"{}"),
    case("empty content type", Fault.BODY_MALFORMED, answer(b"{}", "200 OK", "Content-Type: ")),
    case(
        "content type that is none", Fault.BODY_MALFORMED, answer(b"{}", "200 OK", "Content-Type: application/json/x")
    ),
    case("content type without utf-8", Fault.BODY_MALFORMED, answer(b"{}", "200 OK", "Content-Type: a\udcff/json")),
    case("what upsets a parser of mail", Fault.BODY_MALFORMED, answer(b"{}", "200 OK", "Content-Type: text/h;m*")),
    case("utf-16", Fault.BODY_MALFORMED, answer(b"{}", "200 OK", "Content-Type: application/json; charset=UTF-16")),
    case("bad utf-8", Fault.BODY_MALFORMED, answer(b'"\xff"')),
    case("bom", Fault.BODY_MALFORMED, answer(b"\xef\xbb\xbf{}")),
    case("nan", Fault.BODY_MALFORMED, answer(b"[NaN]")),
    case("empty", Fault.BODY_MISMATCH, answer(b"")),
]
STATUS = [
    case("302", Fault.HTTP_RESPONSE_STATUS, answer(b"{}", "302 Found", "Location: /elsewhere")),
    case("304", Fault.HTTP_RESPONSE_STATUS, head("304 Not Modified", "Content-Length: 99")),
    case("206", Fault.HTTP_RESPONSE_STATUS, answer(b"{}", "206 Partial")),
    case("404", Fault.HTTP_RESPONSE_STATUS, answer(b"{}", "404 Not Found")),
    case("500", Fault.HTTP_RESPONSE_STATUS, answer(b"{}", "500 Error")),
    case("503", Fault.HTTP_RESPONSE_STATUS, answer(b"{}", "503 Busy"), retried=True),
    # Of an error only the status counts, whatever becomes of its body.
    case("404 as html", Fault.HTTP_RESPONSE_STATUS, answer(b"<html>", "404 Not Found", "Content-Type: text/html")),
    case("404 in brotli", Fault.HTTP_RESPONSE_STATUS, answer(b"x", "404 Not Found", "Content-Encoding: br")),
    case("404 of 2 MiB", Fault.HTTP_RESPONSE_STATUS, answer(b"x" * 2 * 1024**2, "404 Not Found")),
    case("404 without end", Fault.HTTP_RESPONSE_STATUS, head("404 Not Found"), endlessly(b"x" * 16000)),
    case("404 cut", Fault.HTTP_RESPONSE_STATUS, head("404 Not Found", "Content-Length: 9"), fin),
    case("404 that stalls", Fault.HTTP_RESPONSE_STATUS, head("404 Not Found", "Content-Length: 9"), silence),
    case(
        "404 in chunks that are none", Fault.HTTP_RESPONSE_STATUS,
        head("404 Not Found", "Transfer-Encoding: chunked"), apart, b"zz\r\n",
    ),
    case("503 reset", Fault.HTTP_RESPONSE_STATUS, head("503 Busy", "Content-Length: 9"), rst, retried=True),
]  # fmt: skip
SLOW = [
    case("silence", Fault.HTTP_RESPONSE_TIMEOUT, silence),
    case("silence in the headers", Fault.HTTP_RESPONSE_TIMEOUT, OK, silence),
    case("silence in the body", Fault.HTTP_RESPONSE_TIMEOUT, LENGTH % 99 + b"{", silence),
    case("headers drop by drop", Fault.HTTP_RESPONSE_TIMEOUT, OK + b"a: ", endlessly(b"b", 0.005)),
    case("body drop by drop", Fault.HTTP_RESPONSE_TIMEOUT, LENGTH % 9999, endlessly(b" ", 0.005)),
    case("now and then a wait", Fault.HTTP_RESPONSE_TIMEOUT, endlessly(head("102 Processing"), 0.1)),
]


@pytest.mark.parametrize(
    "case_", [*TERMINATED, *PROTOCOL, *HEADER_SIZE, *INCOMPLETE, *BODY_SIZE, *CODING, *MALFORMED, *STATUS]
)
async def test_what_an_upstream_does_wrong_has_a_name_and_a_price(raw: Raw, case_: Case) -> None:
    raw.on("/read", *case_.steps).on("/write", *case_.steps)

    async with asking(Upstream(raw.url, retry=TWICE)) as one:
        outcome = await one.ask(GET("/read", token=CANARY))
        assert (outcome.fault, outcome.attempts) == (case_.fault, 2 if case_.retried else 1)
        assert outcome.value is None
        assert [attempt.fault for attempt in one.notes.attempts] == [case_.fault] * outcome.attempts
        assert len(raw.requests) == one.notes.sent == outcome.attempts
        assert outcome.fault is not Fault.HTTP_RESPONSE_STATUS or outcome.status == one.notes.attempts[0].status

        outcome = await one.ask(POST("/write", json={"password": CANARY}))
        assert (outcome.fault, outcome.attempts) == (case_.fault, 1)


@pytest.mark.parametrize("case_", SLOW)
async def test_an_upstream_that_is_too_slow_is_given_up_at_the_attempt_s_timeout(raw: Raw, case_: Case) -> None:
    raw.on("/", *case_.steps)

    async with asking(Upstream(raw.url, retry=None, timeout=SHORT)) as one:
        outcome = await one.ask(GET("/"))

    assert (outcome.fault, outcome.attempts, len(raw.requests)) == (Fault.HTTP_RESPONSE_TIMEOUT, 1, 1)
    assert [(attempt.sent, attempt.conn) for attempt in one.notes.attempts] == [(True, "new")]


async def test_a_status_is_what_an_attempt_ends_with_though_a_body_nobody_wants_outlasts_it(
    raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upstreams.wire._LONGEST_READ_OFF", 60.0)  # seconds
    raw.on("/", head("404 Not Found", "Content-Length: 9"), silence)

    async with asking(Upstream(raw.url, retry=None, timeout=SHORT)) as one:
        outcome = await one.ask(GET("/"))

    assert (outcome.fault, outcome.status) == (Fault.HTTP_RESPONSE_STATUS, 404)
    assert [attempt.duration >= SHORT for attempt in one.notes.attempts] == [True]


async def test_a_timeout_is_tried_again_on_a_new_connection(raw: Raw) -> None:
    raw.on("/", silence).on("/", answer())

    async with asking(Upstream(raw.url, retry=TWICE, timeout=SHORT)) as one:
        outcome = await one.ask(GET("/"))

    assert (outcome.fault, outcome.attempts) == (None, 2)
    assert [attempt.conn for attempt in one.notes.attempts] == ["new", "new"]


@pytest.mark.parametrize(
    ("steps", "body"),
    [
        pytest.param((answer(TEXT),), TEXT, id="length"),
        pytest.param((OK + b"Content-Length: " + b"0" * 5000 + b"2\r\n\r\n{}",), b"{}", id="length with many zeros"),
        pytest.param((CHUNKED + chunked(TEXT[:9], TEXT[9:]) + b"0\r\n\r\n",), TEXT, id="chunks"),
        pytest.param((CHUNKED + chunked(TEXT) + b"0\r\nx-sum: 1\r\n\r\n",), TEXT, id="trailer"),
        pytest.param((CHUNKED + b"2;name=value\r\n{}\r\n0\r\n\r\n",), b"{}", id="chunk extension"),
        pytest.param((OK + b"\r\n" + TEXT, fin), TEXT, id="until the end"),
        pytest.param((OK.replace(b"1.1", b"1.0") + b"\r\n" + TEXT, fin), TEXT, id="http 1.0"),
        pytest.param((zipped(ZIPPED),), TEXT, id="gzip"),
        pytest.param((zipped(ZIPPED, "GZIP"),), TEXT, id="gzip in capitals"),
        pytest.param((zipped(zlib.compress(TEXT), "deflate"),), TEXT, id="deflate"),
        pytest.param((zipped(gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:])),), TEXT, id="two members"),
        pytest.param((head("100 Continue"), head("103 Early Hints"), answer()), b"{}", id="early answers"),
        pytest.param((head("100 Continue") * 64 + answer(),), b"{}", id="64 early answers"),
        pytest.param((answer(b"{}", "299 Odd"),), b"{}", id="unknown 2xx"),
        pytest.param((answer(b"{}", "200"),), b"{}", id="no reason"),
        *(
            pytest.param((answer(b"{}", "200 OK", f"Content-Type: {kind}"),), b"{}", id=kind)
            for kind in (
                'APPLICATION/JSON ;CHARSET="UTF-8"', "application/vnd.shop.v2+json",
                "application/json;charset=us-ascii", "application/json;;x=;", "application/json; charset*=utf-8''x",
            )
        ),
    ],
)  # fmt: skip
async def test_what_http_allows_is_read(raw: Raw, steps: tuple[Step, ...], body: bytes) -> None:
    raw.on("/", *steps)

    async with asking(Upstream(raw.url)) as one:
        outcome = await one.ask(GET("/"))

    assert (outcome.fault, outcome.value, outcome.attempts) == (None, JSON(body), 1)
    assert one.notes.attempts[0].body_bytes == len(body)


async def test_early_answers_are_counted_for_each_request(raw: Raw) -> None:
    raw.on("/", head("100 Continue") * 40 + answer())

    async with asking(Upstream(raw.url)) as one:
        for _ in range(3):
            assert (await one.ask(GET("/"))).fault is None

    assert [attempt.conn for attempt in one.notes.attempts] == ["new", "reused", "reused"]


@pytest.mark.parametrize("most", [1000, 4 * 1024**2])
@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("way", ["length", "chunks", "gzip"])
async def test_a_body_may_fill_max_body_and_not_pass_it(raw: Raw, way: str, more: int, most: int) -> None:
    body = b"[" + b" " * (most + more - 2) + b"]"
    ways = {
        "length": answer(body),
        "chunks": CHUNKED + chunked(body) + b"0\r\n\r\n",
        "gzip": zipped(gzip.compress(body)),
    }
    raw.on("/", ways[way])

    async with asking(Upstream(raw.url, max_body=most, timeout=60.0)) as one:
        outcome = await one.ask(GET("/"))

    assert outcome.fault is (None if more <= 0 else Fault.HTTP_RESPONSE_BODY_SIZE)


@pytest.mark.parametrize(
    "fields",
    [("Content-Length: 10000000000",), ("Content-Length: 2", "Content-Encoding: br"), ("Transfer-Encoding: chunked",)],
)
async def test_the_answer_to_a_head_has_headers_and_no_body(raw: Raw, fields: tuple[str, ...]) -> None:
    raw.on("/", head("200 OK", "X-Total: 7", *fields))

    async with asking(Upstream(raw.url)) as one:
        outcome = await one.ask(HEAD("/"), Reply[None])

    assert outcome.fault is None
    assert (outcome.value.value, outcome.value.headers["x-total"]) == (None, "7")


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted", "204 No Content", "205 Reset"])
async def test_an_answer_without_a_body_is_none_where_the_type_has_it(raw: Raw, status: str) -> None:
    raw.on("/", head(status) if status.startswith("204") else head(status, "Content-Length: 0"))

    async with asking(Upstream(raw.url)) as one:
        assert (await one.ask(GET("/"), JSON | None)).fault is None
        assert (await one.ask(GET("/"), JSON)).fault is Fault.BODY_MISMATCH


@pytest.mark.parametrize(
    "rest",
    [
        CHUNKED + b"2\r\n{}\r\n0\r\nx-left: of another\r\n\r\n",
        CHUNKED + b"2\r\n{}\r\n0\r\nContent-Encoding: br\r\n\r\n",
        answer() + b"HTTP/1.1 500 Oh\r\nx-left: ",
        answer() + b"H",
    ],
    ids=["trailer", "trailer that says much", "part of another answer", "a byte of another answer"],
)
async def test_nothing_of_one_answer_is_in_the_next(raw: Raw, rest: bytes) -> None:
    raw.on("/first", rest).on("/second", answer(b'"second"'))

    async with asking(Upstream(raw.url, retry=TWICE)) as one:
        await one.ask(GET("/first"))
        second = await one.ask(GET("/second"), Reply[str])

    assert (second.fault, second.status, second.value.value) == (None, 200, "second")
    assert set(second.value.headers) == {"content-type", "content-length"}


@pytest.mark.parametrize("field", ["Transfer-Encoding: chunked", "Content-Length: 5", "Content-Length: 10000000000"])
async def test_a_body_that_a_204_announces_is_taken_for_no_other_answer(raw: Raw, field: str) -> None:
    raw.on("/write", head("204 No Content", field), apart, b"0\r\n\r\n").on("/read", answer())

    async with asking(Upstream(raw.url)) as one:
        for _ in range(2):
            assert (await one.ask(POST("/write"), None)).fault is None
            assert (await one.ask(GET("/read"))).fault is None

    assert [attempt.conn for attempt in one.notes.attempts] == ["new"] * 2 + ["reused", "new"]


async def test_an_upload_that_nobody_takes_is_let_go_of_with_its_attempt() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as idle:
        upstream = Upstream(f"http://127.0.0.1:{idle.getsockname()[1]}", timeout=0.3, breaker=None)
        async with asking(upstream) as one:
            transports: set[Any] = set()
            for _ in range(3):
                asked = asyncio.create_task(one.ask(POST("/", content=(bytes(8 << 20), "application/octet-stream"))))
                await until(lambda: any(protocol.transport for protocol in one.connector._acquired))
                transports |= {protocol.transport for protocol in one.connector._acquired}
                assert (await asked).fault is Fault.HTTP_RESPONSE_TIMEOUT
            assert len(transports) == 3
            await until(lambda: all(transport.get_extra_info("socket").fileno() < 0 for transport in transports))


@pytest.mark.parametrize("end", [silence, fin, rst], ids=["open", "fin", "rst"])
async def test_an_answer_that_comes_before_the_body_has_left_is_taken(end: Callable[[Peer], Awaitable[None]]) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.write(answer(b"{}", "413 Content Too Large"))
        await end(peer)

    async with serving_raw(refuse) as server, asking(Upstream(server.url, timeout=30.0)) as one:
        outcome = await one.ask(POST("/", content=(bytes(20_000_000), "application/octet-stream")))

    assert (outcome.fault, outcome.status) == (Fault.HTTP_RESPONSE_STATUS, 413)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_fault_and_nobody_connects_to_its_target(raw: Raw, status: int) -> None:
    async with serving_raw() as target:
        target.on("*", answer(b'"stolen"'))
        raw.on("/", answer(b"", f"{status} Moved", f"Location: {target.url}/x"))
        async with asking(Upstream(raw.url, headers={"x-api-key": CANARY}, retry=TWICE)) as one:
            outcome = await one.ask(GET("/"))

        assert (outcome.fault, outcome.status, outcome.attempts) == (Fault.HTTP_RESPONSE_STATUS, status, 1)
        assert target.connections == 0


class Wire:
    """The wire without a client: one exchange at a time, and what it was."""

    def __init__(self, connector: Connector, upstream: Upstream) -> None:
        self.connector = connector
        self.base = upstream.urls[0]
        self.answers: list[Answer] = []

    async def ask(self, target: str = "/", method: str = "GET", within: float = 60.0) -> tuple[Fault | None, Trip]:
        trip = Trip()
        headers = CIMultiDict(host="127.0.0.1")
        until = asyncio.get_running_loop().time() + within
        try:
            self.answers.append(
                await exchange(self.connector, self.base, method, target, headers, None, 1 << 20, trip, until)
            )
        except TimeoutError:
            return timeout_fault(trip), trip
        except Exception as error:  # noqa: BLE001 - whatever it is has a name
            return fault_of(error), trip
        return None, trip

    def reads(self) -> bool:
        """Tell whether a body has come in part."""
        under_way: list[Any] = [protocol for protocol in self.connector._acquired if isinstance(protocol, Protocol)]
        return any(protocol._payload is not None and protocol._payload.total_bytes for protocol in under_way)

    @property
    def idle(self) -> list[Any]:
        """The connections that wait to be used again."""
        return [connection.protocol for idle in self.connector._idle.values() for connection in idle]


@asynccontextmanager
async def wired(upstream: Upstream, resolver: aiohttp.abc.AbstractResolver | None = None) -> AsyncIterator[Wire]:
    """Open a connector as the client does, on a resolver that may be the test's."""
    connector = open_connector(upstream, resolver)
    async with connector:
        yield Wire(connector, upstream)


class Names(aiohttp.abc.AbstractResolver):
    """A name service with one answer: addresses, an error, or none ever. `asked` counts the questions."""

    def __init__(self, *addresses: str, error: OSError | None = None) -> None:
        self.addresses = addresses
        self.error = error
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[aiohttp.abc.ResolveResult]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        if not self.addresses:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return [
            aiohttp.abc.ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None: ...


class TestAddresses:
    """What is forbidden is not connected to, whatever leads there."""

    @pytest.mark.parametrize(
        "host",
        ["169.254.169.254", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[fe80::1]", "0.0.0.0", "224.0.0.1"],
    )
    @pytest.mark.parametrize("scheme", ["http", "https"])
    async def test_an_upstream_at_a_forbidden_address_is_not_asked(self, scheme: str, host: str) -> None:
        async with wired(Upstream(f"{scheme}://{host}:1")) as wire:
            fault, trip = await wire.ask()

        assert (fault, trip.sent, trip.conn, trip.answered) == (Fault.DESTINATION_IP_PROHIBITED, False, None, False)

    @pytest.mark.parametrize("addresses", [("127.0.0.1",), ("127.0.0.1", "::ffff:127.0.0.1"), ("127.0.0.1",) * 3])
    async def test_nor_is_one_whose_name_leads_there(self, addresses: tuple[str, ...]) -> None:
        async with serving_raw() as server:
            upstream = Upstream(f"http://name.test:{server.port}", forbidden_networks=("127.0.0.0/8",))
            async with wired(upstream, Names(*addresses)) as wire:
                for _ in range(3):
                    assert (await wire.ask())[0] is Fault.DESTINATION_IP_PROHIBITED

            assert server.connections == 0

    @pytest.mark.parametrize("addresses", [("127.0.0.2", "127.0.0.1"), ("127.0.0.1", "127.0.0.2")])
    async def test_of_a_name_s_addresses_those_that_are_allowed_are_used(self, addresses: tuple[str, ...]) -> None:
        async with serving_raw() as server:
            server.on("/", answer(b"{}", "200 OK", "Connection: close"))
            with socket.create_server(("127.0.0.2", server.port)) as forbidden:
                forbidden.setblocking(False)  # noqa: FBT003
                upstream = Upstream(f"http://name.test:{server.port}", forbidden_networks=("127.0.0.2/32",))
                async with wired(upstream, Names(*addresses)) as wire:
                    for _ in range(4):
                        assert (await wire.ask())[0] is None

                with pytest.raises(BlockingIOError):
                    forbidden.accept()
            assert server.connections == 4

    @pytest.mark.parametrize("addresses", [("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "127.0.0.1")])
    async def test_when_an_allowed_one_refuses_that_is_the_fault(self, addresses: tuple[str, ...]) -> None:
        upstream = Upstream(f"http://name.test:{free_port()}", forbidden_networks=("127.0.0.2/32",))
        async with wired(upstream, Names(*addresses)) as wire:
            for _ in range(4):
                assert (await wire.ask())[0] is Fault.CONNECTION_REFUSED

    async def test_a_resolver_s_answer_that_is_no_address_is_not_resolved_further(self) -> None:
        async with wired(Upstream("http://name.test"), Names("localhost")) as wire:
            assert (await wire.ask())[0] is Fault.DESTINATION_IP_PROHIBITED


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (errno.ECONNREFUSED, Fault.CONNECTION_REFUSED),
        (errno.EHOSTUNREACH, Fault.CONNECTION_REFUSED),
        (errno.ENETUNREACH, Fault.CONNECTION_REFUSED),
        (errno.ETIMEDOUT, Fault.CONNECTION_TIMEOUT),
        (errno.EMFILE, Fault.CONNECTION_LIMIT_REACHED),
        (errno.ENFILE, Fault.CONNECTION_LIMIT_REACHED),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else None,
)
def test_why_no_connection_came_about_is_told_apart(number: int, fault: Fault) -> None:
    nowhere: Any = None
    assert fault_of(aiohttp.ClientConnectorError(nowhere, OSError(number, "reason"))) is fault


class TestNames:
    """Names are resolved in time, and again when what they led to fails or grows old."""

    async def test_a_name_service_that_does_not_answer_is_a_timeout_of_its_own(self) -> None:
        async with wired(Upstream("http://name.test"), Names()) as wire:
            fault, trip = await wire.ask(within=0.5)

        assert (fault, trip.resolving, trip.sent) == (Fault.DNS_TIMEOUT, True, False)

    @pytest.mark.parametrize(
        ("error", "fault"),
        [
            (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), Fault.DNS_TIMEOUT),
            (TimeoutError(), Fault.DNS_TIMEOUT),
            (socket.gaierror(socket.EAI_NONAME, "Not known"), Fault.DNS_ERROR),
            (socket.gaierror(socket.EAI_FAIL, "Failure"), Fault.DNS_ERROR),
        ],
        ids=["again", "timeout", "unknown", "fail"],
    )
    async def test_one_that_fails_for_now_is_told_from_one_that_knows_no_such_name(
        self, error: OSError, fault: Fault
    ) -> None:
        async with wired(Upstream("http://name.test"), Names(error=error)) as wire:
            assert (await wire.ask())[0] is fault

    async def test_past_the_name_a_timeout_is_the_connection_s(self) -> None:
        with deaf_port() as port:
            async with wired(Upstream(f"http://name.test:{port}"), Names("127.0.0.1")) as wire:
                fault, trip = await wire.ask(within=0.5)

        assert (fault, trip.resolving) == (Fault.CONNECTION_TIMEOUT, False)

    @pytest.mark.parametrize("deaf", [True, False], ids=["deaf", "refusing"])
    async def test_when_connecting_fails_the_name_is_resolved_again(self, deaf: bool) -> None:  # noqa: FBT001
        names = Names("127.0.0.2")
        async with serving_raw() as server, wired(Upstream(f"http://name.test:{server.port}"), names) as wire:
            server.on("/", answer())
            with socket.socket() as gone, socket.socket() as queued:
                gone.bind(("127.0.0.2", server.port))
                if deaf:
                    gone.listen(0)
                    queued.setblocking(False)  # noqa: FBT003
                    queued.connect_ex(gone.getsockname())
                assert (await wire.ask(within=SHORT))[0] is (
                    Fault.CONNECTION_TIMEOUT if deaf else Fault.CONNECTION_REFUSED
                )
                names.addresses = ("127.0.0.1",)
                assert (await wire.ask())[0] is None

        assert names.asked == 2

    async def test_until_then_it_is_asked_for_once(self) -> None:
        names = Names("127.0.0.1")
        async with serving_raw() as server, wired(Upstream(f"http://name.test:{server.port}"), names) as wire:
            server.on("/", answer(b"{}", "200 OK", "Connection: close"))
            await asyncio.gather(*(wire.ask() for _ in range(10)))
            await wire.ask()

            assert (server.connections, names.asked) == (11, 1)

    async def test_who_waits_for_a_name_is_not_robbed_of_it_by_who_failed_to_connect(self) -> None:
        async with wired(Upstream(f"http://name.test:{free_port()}"), Names("127.0.0.1")) as wire:

            async def ask(turns: int) -> None:
                for _ in range(turns):
                    await asyncio.sleep(0)
                for _ in range(20):
                    assert (await wire.ask())[0] is Fault.CONNECTION_REFUSED

            await asyncio.gather(*map(ask, range(8)))


class TestAnswered:
    """A trip knows whether a byte of an answer came, however the connection ended."""

    @pytest.mark.parametrize("first", ["new", "reused"])
    @pytest.mark.parametrize(
        ("steps", "answered"),
        [
            ((fin,), False),
            ((rst,), False),
            ((b"H", fin), True),
            ((b"H", rst), True),
            ((b"HTTP/1.1 20", fin), True),
            ((OK[:-9], fin), True),
            ((OK[:-9], rst), True),
            ((head("100 Continue"), fin), True),
            ((b"\r\n", fin), True),
            ((b"\x16\x03", fin), True),
        ],
        ids=[
            "fin", "rst", "one byte", "one byte, rst", "status line", "headers", "headers, rst", "early answer",
            "empty line", "garbage",
        ],
    )  # fmt: skip
    async def test_after_a_failure(self, first: str, steps: tuple[Step, ...], *, answered: bool) -> None:
        async with serving_raw() as server, wired(Upstream(server.url)) as wire:
            server.on("/warm", answer()).on("/", *steps)
            if first == "reused":
                assert (await wire.ask("/warm"))[1].answered is True
            fault, trip = await wire.ask()

        assert fault in {Fault.CONNECTION_TERMINATED, Fault.HTTP_PROTOCOL_ERROR}
        assert (trip.sent, trip.conn, trip.answered) == (True, first, answered)

    async def test_after_a_timeout(self) -> None:
        async with serving_raw() as server, wired(Upstream(server.url)) as wire:
            server.on("/silence", silence).on("/begun", b"HTTP", silence)

            assert (await wire.ask("/silence", within=0.1))[1].answered is False
            assert (await wire.ask("/begun", within=SHORT))[1].answered is True

    async def test_what_came_before_the_request_counts(self) -> None:
        trip = Trip()
        async with wired(Upstream("http://127.0.0.1")) as wire:
            protocol: Any = wire.connector._factory()
            protocol.data_received(b"220 mail ready\r\n")
            with pytest.raises(aiohttp.ClientConnectionResetError):  # it is no connection's
                protocol.send(trip, b"", None, head_only=False, most=1 << 20)

        assert trip.answered is True

    @pytest.mark.parametrize(("text", "answered"), [(b"HTTP/1.1 20", True), (b"", False)], ids=["some", "none"])
    async def test_what_nobody_read_because_writing_failed_counts(self, text: bytes, *, answered: bool) -> None:
        """The transport gives up at the first write that fails, with the beginning of an answer before it unread."""
        trip = Trip()
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)  # noqa: FBT003
            async with wired(Upstream("http://127.0.0.1")) as wire:
                loop = asyncio.get_running_loop()
                _, protocol = await loop.create_connection(wire.connector._factory, *server.getsockname())
                peer, _ = await loop.sock_accept(server)
                peer.send(text)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()
                protocol.send(trip, b"GET / HTTP/1.1\r\n\r\n", None, head_only=False, most=1 << 20)  # type: ignore[attr-defined]
                await until(lambda: protocol.transport is None)

        assert trip.answered is answered


class TestConnecting:
    """Attempts that never leave this machine are not `sent`."""

    @staticmethod
    def check(one: Asking, outcome: Outcome, fault: Fault, attempts: int) -> None:
        assert (outcome.fault, outcome.attempts, outcome.status) == (fault, attempts, None)
        assert [(a.fault, a.sent, a.conn) for a in one.notes.attempts] == [(fault, False, None)] * attempts

    async def test_a_port_where_nobody_listens_refuses(self) -> None:
        async with asking(Upstream(f"http://127.0.0.1:{free_port()}", retry=TWICE)) as one:
            self.check(one, await one.ask(GET("/")), Fault.CONNECTION_REFUSED, 2)

    async def test_a_name_that_does_not_exist_is_not_asked_for_twice(self) -> None:
        async with asking(Upstream("http://nobody.invalid", retry=TWICE)) as one:
            self.check(one, await one.ask(GET("/")), Fault.DNS_ERROR, 1)

    async def test_an_address_that_is_forbidden_is_not_asked_for_twice(self) -> None:
        async with serving_raw() as server:
            upstream = Upstream(server.url, retry=TWICE, forbidden_networks=("127.0.0.0/8",))
            async with asking(upstream) as one:
                self.check(one, await one.ask(GET("/")), Fault.DESTINATION_IP_PROHIBITED, 1)

            assert server.connections == 0

    async def test_a_machine_that_does_not_answer_times_out(self) -> None:
        with deaf_port() as port:
            async with asking(Upstream(f"http://127.0.0.1:{port}", retry=TWICE, timeout=0.3)) as one:
                self.check(one, await one.ask(GET("/")), Fault.CONNECTION_TIMEOUT, 2)

    async def test_a_tls_handshake_that_is_never_answered_times_out(self) -> None:
        async with (
            serving_raw() as plain,
            asking(Upstream(f"https://127.0.0.1:{plain.port}", retry=TWICE, timeout=0.3)) as one,
        ):
            self.check(one, await one.ask(GET("/")), Fault.CONNECTION_TIMEOUT, 2)

    async def test_plain_http_where_tls_is_wanted_is_a_tls_error(self) -> None:
        async with (
            serving_raw(answer(b"", "400 Bad Request"), silence) as plain,
            asking(Upstream(f"https://127.0.0.1:{plain.port}", retry=TWICE)) as one,
        ):
            self.check(one, await one.ask(GET("/")), Fault.TLS_PROTOCOL_ERROR, 1)

    async def test_a_connection_that_ends_in_the_handshake_is_a_fault_of_tls_or_of_the_connection(self) -> None:
        async with serving_raw(rst) as plain, asking(Upstream(f"https://127.0.0.1:{plain.port}", retry=None)) as one:
            outcome = await one.ask(GET("/"))

        assert outcome.fault in {Fault.CONNECTION_REFUSED, Fault.CONNECTION_TERMINATED, Fault.TLS_PROTOCOL_ERROR}
        assert one.notes.sent == 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1 and nobody else, signed by itself."""
    if which("openssl") is None:
        pytest.skip("the openssl command makes the certificate, and there is none")
    pem = tmp_path_factory.mktemp("tls") / "self.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=upstream", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", pem, "-out", pem.with_suffix(".crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    pem.write_bytes(pem.read_bytes() + pem.with_suffix(".crt").read_bytes())
    return pem


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate.with_suffix(".crt"))


class TestTLS:
    async def test_a_certificate_signed_by_itself_is_not_trusted(self, server_tls: ssl.SSLContext) -> None:
        async with serving_raw(tls=server_tls) as server, asking(Upstream(server.url, retry=TWICE)) as one:
            TestConnecting.check(one, await one.ask(GET("/")), Fault.TLS_CERTIFICATE_ERROR, 1)

    async def test_a_certificate_for_another_name_is_not_trusted(
        self, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
    ) -> None:
        async with (
            serving_raw(tls=server_tls) as server,
            asking(Upstream(f"https://localhost:{server.port}", tls=trusting, retry=TWICE)) as one,
        ):
            TestConnecting.check(one, await one.ask(GET("/")), Fault.TLS_CERTIFICATE_ERROR, 1)

    async def test_a_trusted_one_is_and_its_connection_is_used_again(
        self, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
    ) -> None:
        async with serving_raw(tls=server_tls) as server, asking(Upstream(server.url, tls=trusting)) as one:
            server.on("/", answer(b'"safe"'))
            for _ in range(3):
                assert (await one.ask(GET("/"))).value == JSON(b'"safe"')

        assert one.notes.attempts[0].conn == "new"
        assert "reused" in {attempt.conn for attempt in one.notes.attempts}

    async def test_plain_http_to_a_tls_port_is_a_fault(self, server_tls: ssl.SSLContext) -> None:
        async with serving_raw(tls=server_tls) as server, asking(Upstream(f"http://127.0.0.1:{server.port}")) as one:
            outcome = await one.ask(POST("/"))

        assert outcome.fault in {Fault.CONNECTION_TERMINATED, Fault.HTTP_PROTOCOL_ERROR}


@pytest.fixture
def netrc(tmp_path: Path) -> Path:
    """A file of passwords as some tools read it."""
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login me password secret")
    return file


class TestCanaries:
    """What connections.py and wire.py take for granted of aiohttp, private names too. Any release may change it."""

    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "POST"])
    @pytest.mark.parametrize("end", [fin, rst], ids=["fin", "rst"])
    async def test_a_closed_connection_costs_one_request_on_the_wire(self, method: str, end: Step) -> None:
        async with serving_raw() as server, wired(Upstream(server.url)) as wire:
            server.on("/warm", answer()).on("/", end)
            assert (await wire.ask("/", method))[0] is Fault.CONNECTION_TERMINATED
            assert len(server.requests) == 1

            await wire.ask("/warm")
            fault, trip = await wire.ask("/", method)
            assert (fault, trip.conn, len(server.requests)) == (Fault.CONNECTION_TERMINATED, "reused", 3)

    async def test_every_private_name_is_there(self) -> None:
        async with asking(Upstream("http://127.0.0.1")) as one:
            connector = one.connector
            assert isinstance(connector, aiohttp.TCPConnector)
            assert connector.limit == 0
            for name in ("close", "_create_connection", "_wrap_create_connection"):
                assert getattr(type(connector), name) is not getattr(aiohttp.TCPConnector, name)
            assert connector._socket_factory is not None
            protocol = connector._factory()
            for name in ("connection_made", "data_received", "connection_lost", "feed_data"):
                assert getattr(type(protocol), name) is not getattr(aiohttp.client_proto.ResponseHandler, name)
            assert (protocol._loop, protocol.should_close) == (asyncio.get_running_loop(), False)
            connector._cached_hosts.add(("name", 80), [])
            assert list(connector._cached_hosts._timestamps) == [("name", 80)]
            assert connector._cached_hosts._ttl == 10
            assert issubclass(aiohttp.http_exceptions.BadHttpMessage, aiohttp.http_exceptions.HttpProcessingError)

    async def test_an_attempt_says_whether_its_connection_is_new(self, raw: Raw) -> None:
        raw.on("/", answer()).on("/last", answer(b"{}", "200 OK", "Connection: close"))
        async with asking(Upstream(raw.url)) as one:
            for target in ("/", "/", "/last", "/"):
                await one.ask(GET(target))

        assert [attempt.conn for attempt in one.notes.attempts] == ["new", "reused", "reused", "new"]
        assert raw.connections == 2

    async def test_an_attempt_says_what_the_upstream_was_asked_with(self, raw: Raw) -> None:
        raw.on("/", answer())
        async with asking(Upstream(raw.url)) as one:
            for request in (GET("/"), POST("/", json={}), PUT("/", json={})):
                await one.ask(request)

        assert [attempt.method for attempt in one.notes.attempts] == ["GET", "POST", "PUT"]
        assert [sent.split()[0] for sent in raw.requests] == [b"GET", b"POST", b"PUT"]

    async def test_a_connection_goes_back_when_its_error_was_read_to_the_end(self, raw: Raw) -> None:
        raw.on("/", answer(b"<html>" * 1000, "404 Not Found", "Content-Type: text/html"))
        async with asking(Upstream(raw.url)) as one:
            for _ in range(3):
                await one.ask(GET("/"))

        assert raw.connections == 1

    async def test_cookies_are_not_kept(self, raw: Raw) -> None:
        raw.on("/", answer(b"{}", "200 OK", "Set-Cookie: sid=1; Path=/", "Set-Cookie: b=2"))
        async with asking(Upstream(raw.url)) as one:
            for _ in range(2):
                await one.ask(GET("/"))

        assert not [request for request in raw.requests if b"cookie" in request.lower()]

    async def test_the_environment_s_proxies_and_passwords_are_not_used(
        self, raw: Raw, monkeypatch: pytest.MonkeyPatch, netrc: Path
    ) -> None:
        monkeypatch.setenv("NETRC", str(netrc))
        raw.on("/", answer())
        async with serving_raw() as proxy, asking(Upstream(raw.url)) as one:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.url)
            assert (await one.ask(GET("/"))).fault is None

            assert proxy.connections == 0
        assert b"authorization" not in raw.requests[0].lower()


class TestConnections:
    """An answer belongs to the request it was asked with, or to nobody; a connection is kept while it is fit."""

    async def test_what_comes_unasked_on_an_idle_connection_is_nobody_s_answer(self, raw: Raw) -> None:
        raw.on("/alice", answer(b'"alice"')).on("/bob", answer(b'"bob"'))
        async with asking(Upstream(raw.url)) as one:
            await one.ask(GET("/alice"))
            raw.push(answer(f'"{CANARY}"'.encode()))
            outcome = await one.ask(GET("/bob"))

        assert outcome.value == JSON(b'"bob"')
        assert [attempt.conn for attempt in one.notes.attempts] == ["new", "new"]

    async def test_not_even_when_aiohttp_has_read_it(self, raw: Raw) -> None:
        raw.on("/alice", answer(b'"alice"')).on("/bob", answer(b'"bob"'))
        async with asking(Upstream(raw.url)) as one:
            await one.ask(GET("/alice"))
            assert one.connector is not None
            ((kept,),) = one.connector._idle.values()
            idle: Any = kept.protocol
            raw.push(answer(f'"{CANARY}"'.encode()))
            await until(lambda: idle.should_close)
            outcome = await one.ask(GET("/bob"))

        assert outcome.value == JSON(b'"bob"')

    async def test_not_even_when_its_parser_waits_for_the_rest(self, raw: Raw) -> None:
        raw.on("/alice", answer(b'"alice"')).on("/bob", answer(b'"bob"'))
        async with asking(Upstream(raw.url)) as one:
            await one.ask(GET("/alice"))
            assert one.connector is not None
            ((kept,),) = one.connector._idle.values()
            idle: Any = kept.protocol
            raw.push(b"HTTP/1.1 200 ")
            await until(lambda: not idle.addressed)
            outcome = await one.ask(GET("/bob"))

        assert outcome.value == JSON(b'"bob"')
        assert [attempt.conn for attempt in one.notes.attempts] == ["new", "new"]

    async def test_one_that_the_upstream_has_closed_is_not_asked(self, raw: Raw) -> None:
        raw.on("/", answer())
        async with asking(Upstream(raw.url, retry=None)) as one:
            await one.ask(POST("/"))
            for peer in raw.peers:
                peer.writer.close()
            outcome = await one.ask(POST("/"))

        assert (outcome.fault, [attempt.conn for attempt in one.notes.attempts]) == (None, ["new", "new"])

    @pytest.mark.parametrize(
        ("since", "ago", "conn"),
        [("until", 55.0, "reused"), ("until", 61.0, "new"), ("kept", 3.0, "reused"), ("kept", 4.1, "new")],
        ids=["young", "old", "idle for a moment", "idle for long"],
    )
    async def test_one_older_than_a_minute_or_idle_for_four_seconds_is_not_used_again(
        self, since: str, ago: float, conn: str
    ) -> None:
        async with serving_raw() as server, wired(Upstream(server.url)) as wire:
            server.on("/", answer())
            await wire.ask()
            (idle,) = wire.idle
            setattr(idle, since, getattr(idle, since) - ago)

            assert (await wire.ask())[1].conn == conn
            assert len(wire.idle) == 1

    async def test_who_sends_unasked_is_hung_up_on_and_not_read(self) -> None:
        async with serving_raw() as server, wired(Upstream(server.url)) as wire:
            server.on("/", answer())
            await wire.ask()
            (idle,) = wire.idle
            server.push(answer(CANARY.encode()))
            async with asyncio.timeout(60):
                await until(lambda: idle.transport is None)

            assert not idle._buffer

    async def test_a_thousand_requests_among_answers_that_nobody_asked_for_get_their_own(self) -> None:
        unasked = (answer(f'"{CANARY}"'.encode()), head("408 Request Timeout", "Content-Length: 0"), b"HTTP/1.1 200 OK")

        async def own(peer: Peer) -> None:
            target = server.requests[-1].split(b" ", 2)[1]
            peer.writer.write(answer(b'"%b"' % target))

        async with serving_raw() as server, wired(Upstream(server.url)) as wire:
            server.on("*", own)
            reused = 0
            for number in range(1000):
                fault, trip = await wire.ask(f"/{number}")
                assert (fault, wire.answers[-1].body) == (None, b'"/%d"' % number)
                reused += trip.conn == "reused"
                if number % 4:
                    server.push(unasked[number % 3])
                for _ in range(number % 5):  # read by aiohttp, or still in the kernel
                    await asyncio.sleep(0)

        assert (server.connections, len(server.requests)) == (1000 - reused, 1000)
        assert reused == 250

    async def test_the_one_used_last_is_used_first_and_the_others_are_closed_in_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("upstreams.connections._LONGEST_IDLE", 2.0)
        async with serving_raw() as server, wired(Upstream(server.url)) as wire:
            server.on("/", answer())
            await asyncio.gather(*(wire.ask() for _ in range(3)))
            *others, latest = wire.idle
            assert (len(others), repr(wire.connector)) == (2, "<Connector in_use=0 idle=3>")

            for other in others:
                other.kept -= 2.0
            while any(other.transport for other in others):
                assert (await wire.ask())[1].conn == "reused"
            assert wire.idle == [latest]

    @pytest.mark.parametrize(
        "begun",
        [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"\r\n{"],
        ids=["length", "chunks", "until the end"],
    )
    async def test_a_body_that_is_under_way_when_all_are_closed_is_incomplete(self, begun: bytes) -> None:
        async with serving_raw() as server, wired(Upstream(server.url)) as wire:
            server.on("/", OK + begun, silence)
            asked = asyncio.create_task(wire.ask())
            await until(wire.reads)
            await wire.connector.close()

            assert (await asked)[0] is Fault.HTTP_RESPONSE_INCOMPLETE

    async def test_an_exchange_whose_time_is_up_leaves_no_circle_behind(self) -> None:
        async with serving_raw() as server, wired(Upstream(server.url)) as wire:
            server.on("/", LENGTH % 99 + b"{", silence)
            asked = asyncio.create_task(wire.ask(within=0.5))
            await until(wire.reads)
            (protocol,) = map(weakref.ref, wire.connector._acquired)
            gc.disable()
            try:
                assert (await asked)[0] is Fault.HTTP_RESPONSE_TIMEOUT
                await until(lambda: protocol() is None)
            finally:
                gc.enable()


async def test_random_bytes_for_an_answer_are_always_a_named_fault_or_a_value() -> None:
    """Whole answers with some of their bytes changed, dropped or doubled."""
    whole = [answer(TEXT[:60]), zipped(gzip.compress(TEXT)), CHUNKED + chunked(b"[1,", b"2]") + b"0\r\n\r\n"]
    async with serving_raw() as server:
        for _ in range(150):
            text = bytearray(random.choice(whole))
            for _ in range(random.randint(1, 4)):
                at = random.randrange(len(text))
                text[at : at + 1] = random.choice([b"", bytes([random.randrange(256)]), text[at : at + 1] * 2])
            server.on("*", bytes(text), fin)
        async with asking(Upstream(server.url, retry=None)) as one:
            for _ in range(150):
                outcome = await one.ask(GET("/"))
                assert outcome.fault is not Fault.PROXY_INTERNAL_ERROR
                assert (outcome.fault is None) == (outcome.value is not None)
