"""What can go wrong before a byte of HTTP is read: names, addresses, TLS; U1 to U10 of the fault plan."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.chaos import answer, deaf_port, proxying, serving_raw, silence
from tests.faults.network import naming, own_network
from tests.faults.scene import SHORT_ATTEMPT, Nowhere, Place, Through, scene
from tests.faults.table import VARIANTS, Ending, Row, Variant, fails, param, whole
from tests.logs import Log
from tests.ports import free_port
from upstreams import GET, POST

#: Opens an upstream, given a directory of certificates: where it is, and how it is configured.
Opens = Callable[[Path], AbstractAsyncContextManager[tuple[Place, Mapping[str, Any]]]]
SHORT: Final = {"timeout": SHORT_ATTEMPT}
Opened = AsyncIterator[tuple[Place, Mapping[str, Any]]]


async def first_is(address: str) -> None:
    """See that this is the address that will be tried first."""
    found = await asyncio.get_running_loop().getaddrinfo("upstream.test", 80, type=socket.SOCK_STREAM)
    assert [sockaddr[0] for *_, sockaddr in found] == [address, "127.0.0.1"]


def served_tls(pem: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def trusting(pem: Path) -> Mapping[str, Any]:
    return {"tls": ssl.create_default_context(cafile=pem)}


@asynccontextmanager
async def refused(_: Path) -> Opened:
    yield Nowhere(f"http://127.0.0.1:{free_port()}"), {}


@asynccontextmanager
async def deaf(_: Path) -> Opened:
    with deaf_port() as port:
        yield Nowhere(f"http://127.0.0.1:{port}"), SHORT


@asynccontextmanager
async def unreachable(_: Path) -> Opened:
    with own_network("ip route add unreachable 198.51.100.1"):
        yield Nowhere("http://198.51.100.1"), {}


@asynccontextmanager
async def no_such_name(_: Path) -> Opened:
    yield Nowhere("http://nobody.invalid"), {}


@asynccontextmanager
async def mute_names(directory: Path) -> Opened:
    async with naming(directory):
        yield Nowhere("http://upstream.test"), SHORT


@asynccontextmanager
async def first_address_refuses(directory: Path) -> Opened:
    async with naming(directory) as names:
        names.leads("upstream.test", "::1", "127.0.0.1")
        await first_is("::1")
        async with serving_raw() as upstream:
            upstream.on("*", answer()).host = "upstream.test"
            yield upstream, {}


@asynccontextmanager
async def first_address_is_deaf(directory: Path) -> Opened:
    async with naming(directory) as names:
        names.leads("upstream.test", "::1", "127.0.0.1")
        await first_is("::1")
        with deaf_port("::1") as port:
            async with serving_raw(port=port) as upstream:
                upstream.on("*", answer()).host = "upstream.test"
                yield upstream, {}


@asynccontextmanager
async def forbidden(_: Path) -> Opened:
    yield Nowhere("http://169.254.169.254"), {}


@asynccontextmanager
async def self_signed(certificates: Path) -> Opened:
    async with serving_raw(tls=served_tls(certificates / "good.pem")) as upstream:
        yield upstream, {}


@asynccontextmanager
async def expired(certificates: Path) -> Opened:
    async with serving_raw(tls=served_tls(certificates / "expired.pem")) as upstream:
        yield upstream, trusting(certificates / "expired.pem")


@asynccontextmanager
async def wrong_host(certificates: Path) -> Opened:
    async with serving_raw(tls=served_tls(certificates / "good.pem")) as upstream:
        upstream.host = "localhost"
        yield upstream, trusting(certificates / "good.pem")


@asynccontextmanager
async def trusted(certificates: Path) -> Opened:
    async with serving_raw(tls=served_tls(certificates / "good.pem")) as upstream:
        upstream.on("*", answer())
        yield upstream, trusting(certificates / "good.pem")


@asynccontextmanager
async def mute_tls(_: Path) -> Opened:
    async with serving_raw(silence) as upstream:
        upstream.scheme = "https"
        yield upstream, SHORT


@asynccontextmanager
async def tls_to_plain(_: Path) -> Opened:
    async with serving_raw(answer(b"", "400 Bad Request"), silence) as upstream:
        upstream.scheme = "https"
        yield upstream, {}


@asynccontextmanager
async def plain_to_tls(certificates: Path) -> Opened:
    async with (
        serving_raw(tls=served_tls(certificates / "good.pem")) as upstream,
        proxying(upstream.port) as proxy,
    ):
        yield Through(proxy), {}


class Case(NamedTuple):
    """An upstream, what comes of a call to it, and whether anything of the request leaves."""

    number: str
    words: str
    opens: Opens
    ending: Ending
    sent: bool = False


CASES: Final = [
    Case("U1", "connection refused", refused, fails("connection_refused", attempts=3)),
    Case("U2", "nobody takes the call", deaf, fails("connection_timeout", status=504, attempts=3)),
    Case("U3", "no route to the host", unreachable, fails("connection_refused", attempts=3)),
    Case("U3", "link-local address", forbidden, fails("destination_ip_prohibited")),
    Case("U4", "no such name", no_such_name, fails("dns_error")),
    Case("U5", "name server is mute", mute_names, fails("dns_timeout", status=504, attempts=3)),
    Case("U6", "first address refuses", first_address_refuses, whole(), sent=True),
    Case("U6", "first address is deaf", first_address_is_deaf, whole(), sent=True),
    Case("U8", "self-signed certificate", self_signed, fails("tls_certificate_error")),
    Case("U8", "expired certificate", expired, fails("tls_certificate_error")),
    Case("U8", "certificate of another", wrong_host, fails("tls_certificate_error")),
    Case("U8", "certificate is right", trusted, whole(), sent=True),
    Case("U9", "TLS handshake stalls", mute_tls, fails("connection_timeout", status=504, attempts=3)),
    Case("U10", "TLS to a plain port", tls_to_plain, fails("tls_protocol_error")),
    Case("U10", "plain to a TLS port", plain_to_tls,
         fails("connection_terminated", attempts=3), sent=True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("case_", "variant"), [param(each.number, each.words, each, variant) for each in CASES for variant in VARIANTS]
)
async def test_upstream_faults(
    log: Log, row: Row, certificates: Path, tmp_path: Path, case_: Case, variant: Variant
) -> None:
    asked = GET("/it") if variant.method == "GET" else POST("/it", json={})
    row.expected = case_.ending.expected(variant)
    directory = tmp_path if "names" in case_.opens.__name__ or "address" in case_.opens.__name__ else certificates
    async with case_.opens(directory) as (place, options):
        try:
            async with scene(log, place, asked, required=variant.required, options=options) as playing:
                found = await playing.ask()
                row.got = str(found)
                case_.ending.check(found, variant)
        finally:
            row.wire, row.logged = place.begun, len(log.events("attempt.finished", upstream="failing", sent=True))
        attempts = log.events("attempt.finished", upstream="failing")
        assert len(attempts) == found.error.get("attempts", 1)
        assert {attempt["sent"] for attempt in attempts} == {case_.sent}
