"""What an upstream can answer, byte by byte: U11 to U47, U49 and U57 to U59 of the fault plan."""

from __future__ import annotations

import datetime
import email.utils
import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import aiohttp
import pytest

from tests.chaos import Step, answer, chunked, endlessly, fin, head, rst, serving_raw, silence
from tests.faults.scene import SHORT_ATTEMPT, SHORT_DEADLINE, scene
from tests.faults.table import READS, VARIANTS, Ending, Row, Variant, fails, param, whole
from tests.logs import CANARY, Log
from upstreams import GET, JSON, POST

SECRET: Final = f"X-Internal: {CANARY}"
OK: Final = f"HTTP/1.1 200 OK\r\n{SECRET}\r\nContent-Type: application/json\r\n".encode()
LENGTH: Final = OK + b"Content-Length: %d\r\n\r\n"
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TEXT: Final = json.dumps({"secret": CANARY, "more": "x" * 4000}).encode()
ZIPPED: Final = gzip.compress(TEXT)
_OPTIONS: Final = {"passthrough", "timeout"}
WRITES: Final = VARIANTS[2:]
LARGE: Final = 8 * 1024**2


class Case(NamedTuple):
    """What is answered, and what comes of it. `early` is answered before the request's body has been read."""

    number: str
    words: str
    ending: Ending
    steps: tuple[Step, ...]
    options: Mapping[str, Any] = {}
    page: Mapping[str, Any] = {}
    early: bool = False


def case(number: str, words: str, ending: Ending, *steps: Step, early: bool = False, **page: Any) -> Case:
    options: dict[str, Any] = {name: page.pop(name) for name in _OPTIONS & page.keys()}
    return Case(number, words, ending, steps, options, page, early)


def said(body: bytes = TEXT, status: str = "200 OK", *fields: str) -> bytes:
    """Write an answer with a secret in its headers and, unless another body is given, in its body."""
    return answer(body, status, SECRET, *fields)


def zipped(body: bytes, coding: str = "gzip") -> bytes:
    return said(body, "200 OK", f"Content-Encoding: {coding}")


def typed(kind: str) -> bytes:
    return said(TEXT, "200 OK", f"Content-Type: {kind}")


def without_type(body: bytes) -> bytes:
    return head("200 OK", SECRET, f"Content-Length: {len(body)}") + body


def members_without_end(members: int) -> bytes:
    return gzip.compress(b"") * members


def bomb() -> bytes:
    """Return 200 KiB of gzip that are 200 MiB of zeros, in one stream: after a full flush every block is the same."""
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    blocks = [packer.compress(bytes(1024**2)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)]
    return blocks[0] + blocks[1] * 199


def busy(after: str, status: str = "429 Too Many Requests") -> bytes:
    return said(TEXT, status, f"Retry-After: {after}")


def http_date(seconds: int) -> str:
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return email.utils.format_datetime(then, usegmt=True)


def moved(status: int, location: str) -> bytes:
    return said(b"", f"{status} Moved", f"Location: {location}")


TERMINATED: Final = fails("connection_terminated", attempts=3)
TIMEOUT: Final = fails("http_response_timeout", status=504, attempts=3)
PROTOCOL: Final = fails("http_protocol_error")
HEADERS: Final = fails("http_response_header_size")
INCOMPLETE: Final = fails("http_response_incomplete", attempts=3)
CODING: Final = fails("http_response_content_coding")
TOO_LARGE: Final = fails("http_response_body_size")
MALFORMED: Final = fails("body_malformed")
MISMATCH: Final = fails("body_mismatch")
STATUS: Final = fails("http_response_status")
BUSY: Final = fails("http_response_status", status=503, wait=1)

#: Seconds into which two attempts fit with two seconds between them, and no third.
ONE_RETRY: Final = 3.9

#: What is odd, and understood all the same; but not where Python's development mode makes aiohttp's parser strict.
ODD: Final = PROTOCOL if aiohttp.helpers.DEBUG else whole()

SILENT = [
    case("U11", "accepts, never answers", TIMEOUT, silence, timeout=SHORT_ATTEMPT),
    # A write that was sent is not taken back: it goes on until the attempt's own timeout, and is counted then.
    case(
        "U11",
        "deadline before timeout",
        fails("deadline_exceeded", status=504),
        silence,
        deadline=SHORT_DEADLINE,
        timeout=2 * SHORT_DEADLINE,
    ),
    case("U23", "slow headers", TIMEOUT, OK, endlessly(b"a: b\r\n", 0.05), timeout=SHORT_ATTEMPT),
    case("U24", "slow body", TIMEOUT, LENGTH % 9999, endlessly(b" ", 0.05), timeout=SHORT_ATTEMPT),
    case(
        "U25",
        "stall in the body",
        TIMEOUT,
        LENGTH % 99 + b'{"secret": "' + CANARY.encode(),
        silence,
        timeout=SHORT_ATTEMPT,
    ),
]
ENDED = [
    case("U12", "FIN without a byte", TERMINATED, fin),
    case("U15", "RST after the request", TERMINATED, rst),
    case("U16", "cut in the status line", TERMINATED, b"HTTP/1.1 20", fin),
    case("U17", "cut in the headers", TERMINATED, OK[:-9], fin),
    case("U17", "RST in the headers", TERMINATED, OK[:-9], rst),
    case("U26", "RST in the body", INCOMPLETE, LENGTH % 999 + TEXT[:99], rst),
    case("U27", "length too long, FIN", INCOMPLETE, LENGTH % 9999 + TEXT, fin),
    case("U30", "chunks cut short", INCOMPLETE, CHUNKED + chunked(TEXT), fin),
    case("U30", "chunk cut short", INCOMPLETE, CHUNKED + b"fff\r\n" + TEXT[:99], fin),
    case("U35", "gzip cut, right length", INCOMPLETE, zipped(ZIPPED[:-10])),
    case("U35", "gzip without its trailer", INCOMPLETE, zipped(ZIPPED[:-8])),
]
NO_HTTP = [
    case("U18", "garbage", PROTOCOL, b"\x16\x03\x01\x02garbage " + CANARY.encode() + b"\r\n\r\n", fin),
    case("U18", "HTTP/0.9", PROTOCOL, b"<html>" + CANARY.encode() + b"</html>", fin),
    case("U18", "status 99999", PROTOCOL, said(TEXT, "99999 High")),
    case("U18", "TLS alert", PROTOCOL, b"\x15\x03\x01\x00\x02\x02\x46", fin),
    case("U19", "status 000", PROTOCOL, said(TEXT, "000 Nothing")),
    # 199 announces an answer (RFC 9110, 15.2), like every 1xx; here none comes.
    case("U19", "status 199 only", TERMINATED, head("199 Wait", SECRET), fin),
    case("U19", "status 600", PROTOCOL, said(TEXT, "600 High")),
    case("U19", "status 700", PROTOCOL, said(TEXT, "700 High")),
    case("U20", "header without a colon", PROTOCOL, head("200 OK", CANARY), fin),
    case("U20", "header with NUL", PROTOCOL, said(TEXT, "200 OK", "a: b\0c")),
    case("U20", "header with a bad name", PROTOCOL, said(TEXT, "200 OK", f"{CANARY} b: c")),
    case("U28", "length too short", PROTOCOL, LENGTH % 2 + b"{}" + TEXT),
    case("U29", "length -1", PROTOCOL, LENGTH % -1, fin),
    case("U29", "two lengths", PROTOCOL, OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
    case("U29", "length and chunks", PROTOCOL, OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", fin),
    case("U31", "bad chunk size", PROTOCOL, CHUNKED + b"zz\r\n" + TEXT + b"\r\n0\r\n\r\n", fin),
    case("U32", "chunk longer than its size", PROTOCOL, CHUNKED + b"2\r\n{}" + TEXT + b"\r\n0\r\n\r\n", fin),
    case("U33", "unknown transfer coding", PROTOCOL, OK + b"Transfer-Encoding: xchunked\r\n\r\n" + TEXT, fin),
    case("U44", "101", PROTOCOL, head("101 Switching", SECRET, "Upgrade: x", "Connection: upgrade")),
    case("U44", "1,000 times 100", PROTOCOL, head("100 Continue") * 1000, said(b"{}")),
]  # fmt: skip
TOO_MUCH = [
    case("U21", "header of 9 KiB", HEADERS, said(TEXT, "200 OK", "a: " + CANARY * 500)),
    case("U21", "129 headers", HEADERS, said(TEXT, "200 OK", *[f"a-{n}: b" for n in range(129)])),
    case("U21", "1 MiB of headers", HEADERS, said(TEXT, "200 OK", *[f"a-{n}: " + "b" * 1000 for n in range(1024)])),
    case("U36", "gzip bomb of 200 MiB", TOO_LARGE, zipped(bomb())),
    case("U36", "5,000 gzip members", CODING, zipped(members_without_end(5000))),
    case("U38", "body without end", TOO_LARGE, OK + b"\r\n", endlessly(b" " * 16000)),
    case("U38", "length of 10 GiB", TOO_LARGE, LENGTH % (10 * 1024**3), silence),
]
CODED = [
    case("U34", "gzip that is none", CODING, zipped(TEXT)),
    case("U34", "gzip, wrong checksum", CODING, zipped(ZIPPED[:-8] + bytes(4) + ZIPPED[-4:])),
    case("U34", "deflate that is gzip", CODING, zipped(ZIPPED, "deflate")),
    *(case("U37", f"coding {name}", CODING, zipped(TEXT, name)) for name in ("br", "zstd", "foo")),
]
NO_JSON = [
    case("U39", "login page with 200", MALFORMED, said(b"<html>" + TEXT, "200 OK", "Content-Type: text/html")),
    case("U40", "no Content-Type", MALFORMED, without_type(TEXT)),
    case("U40", "utf-16", MALFORMED, typed("application/json; charset=utf-16")),
    case("U40", "unknown charset", MALFORMED, typed(f"application/json; charset={CANARY}")),
    case("U41", "invalid JSON", MALFORMED, said(TEXT[:-1])),
    case("U41", "empty body", MISMATCH, said(b"")),
    case("U41", "byte order mark", MALFORMED, said(b"\xef\xbb\xbf" + TEXT)),
    case("U41", "bad UTF-8", MALFORMED, said(b'"\xff' + CANARY.encode() + b'"')),
    case("U41", "trailing data", MALFORMED, said(TEXT + TEXT)),
    case("U42", "NaN", MALFORMED, said(b"[NaN]")),
    case("U42", "Infinity", MALFORMED, said(b"[Infinity]")),
    case("U42", "100,000 levels deep", MALFORMED, said(b"[" * 100_000 + b"]" * 100_000)),
    # Half a character is none (RFC 8259, 8.2), though the grammar has it.
    case("U42", "lone surrogate", MALFORMED, said(b'["\\ud800"]')),
    # What else JSON's grammar allows is spliced into the answer untouched: exact for whoever can read it.
    *(case("U42", words, whole(value), said(value)) for words, value in {
        "1e999": b"[1e999]",
        "double keys": b'{"a":1,"a":2}',
        "4,000 digits": b"[" + b"7" * 4000 + b"]",
        "2^64": b"[18446744073709551616]",
    }.items()),
]  # fmt: skip
STATUSES = [
    case("U43", "204", MISMATCH, head("204 No Content", SECRET)),
    case("U43", "204 where null may be", whole(b"null"), head("204 No Content", SECRET), type_=JSON | None),
    case("U43", "205", MISMATCH, head("205 Reset", SECRET, "Content-Length: 0")),
    case("U43", "304", STATUS, head("304 Not Modified", SECRET)),
    case("U43", "206", STATUS, said(TEXT, "206 Partial")),
    case("U45", "301 to the metadata", STATUS, moved(301, "http://169.254.169.254/latest")),
    *(case("U45", f"{status} in a loop", STATUS, moved(status, "/it")) for status in (302, 307, 308)),
    *(case("U46", f"{status}", STATUS, said(TEXT, f"{status} No")) for status in (400, 401, 403, 404, 409, 410, 422)),
    case("U46", "404 declared absent", whole(b"null"), said(TEXT, "404 No"), absent=(404,)),
    case("U46", "409 passed through", fails("http_response_status", status=409), said(TEXT, "409 No"),
         passthrough=(409,)),
    case("U49", "500", STATUS, said(TEXT, "500 Error")),
    case("U49", "502", fails("http_response_status", attempts=3), said(TEXT, "502 Bad Gateway")),
    case("U49", "503", BUSY._replace(attempts=3), said(TEXT, "503 Busy")),
    case("U49", "504", fails("http_response_status", attempts=3), said(TEXT, "504 Late")),
    case("U49", "503, Retry-After 2", BUSY._replace(attempts=2, wait=2), busy("2", "503 Busy"), deadline=ONE_RETRY),
    case("U49", "503, Retry-After 3600", BUSY._replace(wait=3600), busy("3600", "503 Busy")),
]  # fmt: skip
LIMITED = [
    case("U47", "429, Retry-After 0", BUSY._replace(attempts=3), busy("0")),
    case("U47", "429, Retry-After 2", BUSY._replace(attempts=2, wait=2), busy("2"), deadline=ONE_RETRY),
    case("U47", "429, Retry-After 3600", BUSY._replace(wait=3600), busy("3600")),
    case("U47", "429, Retry-After passed", BUSY._replace(attempts=3), busy(http_date(-60))),
    case("U47", "429, Retry-After in 3 days", BUSY._replace(wait=86400), busy(http_date(3 * 86400))),
    case("U47", "429, Retry-After garbage", BUSY, busy("soon")),
    case("U47", "429, Retry-After -1", BUSY, busy("-1")),
    case("U47", "429 without Retry-After", BUSY, said(TEXT, "429 Too Many Requests")),
]
ALLOWED = [
    case("U22", "folded header", ODD, OK + b"a: b\r\n c\r\nContent-Length: 2\r\n\r\n{}"),
    case("U22", "lines end with LF", ODD, (LENGTH % 2).replace(b"\r\n", b"\n") + b"{}"),
    case("U33", "body until the end", whole(), OK + b"\r\n{}", fin),
    case("U44", "103, then 200", whole(), head("103 Early Hints", SECRET), said(b"{}")),
    case("U57", "100 cookies", whole(), said(b"{}", "200 OK", *[f"Set-Cookie: s{n}={CANARY}" for n in range(100)])),
    case("U57", "Alt-Svc", whole(), said(b"{}", "200 OK", 'Alt-Svc: h3=":443"')),
    case("U57", "Connection: close", whole(), said(b"{}", "200 OK", "Connection: close"), fin),
]
EARLY = [
    case("U58", "413 before the body, FIN", STATUS, said(TEXT, "413 Too Large"), fin, early=True),
    case("U58", "413 before the body, open", STATUS, said(TEXT, "413 Too Large"), silence, early=True),
    case("U59", "413 before the body, RST", fails("http_response_status", "connection_terminated"),
         said(TEXT, "413 Too Large"), rst, early=True),
    case("U59", "RST before the body", fails("connection_terminated"), rst, early=True),
]  # fmt: skip


def params(cases: Sequence[Case], variants: Sequence[Variant]) -> list[Any]:
    return [param(each.number, each.words, each, variant) for each in cases for variant in variants]


@pytest.mark.parametrize(
    ("case_", "variant"),
    [
        *params([*SILENT, *ENDED, *NO_HTTP, *TOO_MUCH, *CODED, *NO_JSON, *STATUSES, *LIMITED], VARIANTS),
        *params(ALLOWED, READS),
        *params(EARLY, WRITES),
    ],
)
async def test_upstream_faults(log: Log, row: Row, case_: Case, variant: Variant) -> None:
    body = bytes(LARGE) if case_.early else b"{}"
    asked = GET("/it") if variant.method == "GET" else POST("/it", content=(body, "application/json"))
    row.expected = case_.ending.expected(variant)
    async with serving_raw() as upstream:
        (upstream.early if case_.early else upstream.on)("/it", *case_.steps)
        try:
            async with scene(
                log, upstream, asked, required=variant.required, options=case_.options, **case_.page
            ) as playing:
                found = await playing.ask()
                row.got = str(found)
                case_.ending.check(found, variant)
        finally:
            row.wire, row.logged = upstream.begun, len(log.events("attempt.finished", upstream="failing", sent=True))
        assert row.wire == row.logged == case_.ending.tries(variant)
        assert upstream.connections <= upstream.begun + 1  # the last is of whoever looks whether all have left
