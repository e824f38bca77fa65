"""One HTTP exchange: a request goes out on a connection, an answer is read within limits, or aiohttp's error is named.

The one place that knows aiohttp's ways. Its hidden retry is off (a private switch, guarded by a test that counts),
it follows no redirect, keeps no cookie, reads no proxy settings and inflates nothing.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import functools
import io
import math
import re
import select
import socket
import ssl
import termios
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal

import aiohttp
import msgspec
from aiohttp.http_exceptions import BadHttpMessage
from yarl import URL

from upstreams.addresses import ForbiddenNetworks, ProhibitedAddress
from upstreams.fault import Fault
from upstreams.inflate import CODINGS, BodyIncomplete, BodyTooLarge, CodingError, Inflater
from upstreams.request import InvalidParameter
from upstreams.upstream import Upstream
from upstreams.values import Unreadable

_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
_FIRST_STATUS: Final = 200
_STATUS_LINE: Final = range(_FIRST_STATUS, 600)
_MEDIA_TYPE: Final = re.compile(r"[\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127}", re.ASCII)
_CHARSET: Final = re.compile(r'(?:^|;)\s*charset\s*=\s*"?([^";\s]*)', re.IGNORECASE)
_LARGE: Final = 1024 * 1024  # bytes; aiohttp writes more than that in one go, and warns of it, unless it is a file
_HEADERS_TOO_LARGE: Final = re.compile("Got more than|Too many headers")
_MOST_EARLY: Final = 64  # informational answers before the real one; each costs time, and there is no other limit
_LONGEST_LIFE: Final = 60.0  # seconds of one connection; then its name is resolved again, and may lead elsewhere


class Answer(msgspec.Struct, frozen=True):
    """An upstream's answer, read whole and inflated. `content_type` is empty when it has none, or none that is one."""

    status: int
    headers: Mapping[str, str]
    content_type: str
    charset: str | None
    body: bytes


class Trip:
    """What is known of one attempt on the wire while it is under way, and after.

    `resolving`: it waits for a name's addresses, or waited for them to the end. `sent`: bytes of the request may have
    left, on a connection (`conn`) that is new or reused. `answered` is False only if not a byte of an answer has come.
    `status` is the answer's, once its headers are there.
    """

    __slots__ = ("answered", "conn", "resolving", "sent", "status")

    def __init__(self) -> None:
        self.resolving = False
        self.sent = False
        self.conn: Literal["new", "reused"] | None = None
        self.answered = False
        self.status: int | None = None

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Ride along with aiohttp's request, as its client middleware."""
        request.trip = self  # type: ignore[attr-defined] # _Ride declares it
        return await handler(request)


class _Protocol(aiohttp.client_proto.ResponseHandler):
    """One connection: tells the trip it carries that an answer has begun, and counts what comes before the answer.

    `trip` is None before the first and between two. `addressed` is False once bytes have come while it was: aiohttp's
    parser may keep those to itself. `until` is when the connection is too old, on the monotonic clock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.trip: Trip | None = None
        self.addressed = True
        self.until = time.monotonic() + _LONGEST_LIFE
        self._used = False
        self._early = 0

    def carry(self, trip: Trip) -> None:
        """Take a trip aboard, the moment before its bytes may leave."""
        trip.sent = True
        trip.conn = "reused" if self._used else "new"
        trip.answered = not self.addressed
        self.trip = trip
        self._used = True
        self._early = 0

    def data_received(self, data: bytes) -> None:
        if self.trip is not None:
            self.trip.answered = True
        elif data:  # without any, aiohttp only wakes its parser
            self.addressed = False
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is not None and self.trip is not None and _has_unread(self.transport):
            self.trip.answered = True
        super().connection_lost(exc)

    def feed_data(
        self, data: tuple[aiohttp.http_parser.RawResponseMessage, aiohttp.StreamReader], size: int = 0
    ) -> None:
        """Take an answer's head from the parser; too many informational ones are no HTTP."""
        if data[0].code < _FIRST_STATUS:
            self._early += 1
        if self._early <= _MOST_EARLY:
            super().feed_data(data, size)
        else:
            self.set_exception(BadHttpMessage("too many informational answers"))
            if self.transport is not None:
                self.transport.close()


def _has_unread(transport: asyncio.BaseTransport | None) -> bool:
    """Tell whether bytes wait in a broken connection: when it is writing that fails, nobody reads what had come."""
    broken = transport.get_extra_info("socket") if transport is not None else None
    if broken is None or broken.fileno() < 0:
        return True
    try:
        return any(fcntl.ioctl(broken.fileno(), termios.FIONREAD, bytes(4)))
    except OSError:
        return True


class _Ride(aiohttp.ClientRequest):
    """Tells its Trip the moment bytes may leave: neither tracing nor exceptions say so this cheaply."""

    trip: Trip

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        conn.protocol.carry(self.trip)  # type: ignore[union-attr] # a _Protocol, as _Connector makes them
        return await super().send(conn)


class _Connector(aiohttp.TCPConnector):
    """Connects to addresses that are allowed, and hands out idle connections that are still idle and not too old.

    aiohttp would give an answer that nobody asked for to the next request, whoever that is for; and what has come may
    also be the connection's end. Connections with such arrivals are closed.
    """

    def __init__(self, forbidden: ForbiddenNetworks, **options: Any) -> None:
        super().__init__(socket_factory=self._open_socket, **options)
        self._forbidden = forbidden
        self._factory = functools.partial(_Protocol, loop=self._loop)  # type: ignore[assignment] # it is invariant

    def _open_socket(self, info: aiohttp.connector.AddrInfoType) -> socket.socket:
        """Open the socket for an address: names and literals alike come by here, and no later than this."""
        family, kind, protocol, _, address = info
        if address[0] in self._forbidden:
            raise ProhibitedAddress
        return socket.socket(family, kind, protocol)

    async def _get(
        self, key: aiohttp.client_reqrep.ConnectionKey, traces: list[aiohttp.tracing.Trace]
    ) -> aiohttp.connector.Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            if _is_idle(connection):
                return connection
            connection.close()
        return None

    def _release(
        self,
        key: aiohttp.client_reqrep.ConnectionKey,
        protocol: aiohttp.client_proto.ResponseHandler,
        *,
        should_close: bool = False,
    ) -> None:
        if isinstance(protocol, _Protocol):
            protocol.trip = None  # what comes from now on is for nobody
        super()._release(key, protocol, should_close=should_close)

    async def _create_connection(
        self, req: aiohttp.ClientRequest, *args: Any, **kwargs: Any
    ) -> aiohttp.client_proto.ResponseHandler:
        req.trip.resolving = True  # type: ignore[attr-defined] # every request of ours is a _Ride
        try:
            return await super()._create_connection(req, *args, **kwargs)
        except BaseException:  # an attempt's timeout comes as a cancellation
            self._expire(req)
            raise

    async def _wrap_create_connection(
        self, *args: Any, req: aiohttp.ClientRequest, **kwargs: Any
    ) -> tuple[asyncio.Transport, aiohttp.client_proto.ResponseHandler]:
        """Connect to one of a name's addresses. aiohttp asks for it first with all of them, then with ever fewer."""
        trip: Trip = req.trip  # type: ignore[attr-defined]
        all_of_them, trip.resolving = trip.resolving, False
        try:
            return await super()._wrap_create_connection(*args, req=req, **kwargs)
        except aiohttp.ClientConnectorError as error:
            if all_of_them and isinstance(error.os_error, ProhibitedAddress):
                raise NoAllowedAddress from None
            raise

    def _expire(self, request: aiohttp.ClientRequest) -> None:
        """Have a name resolved anew. `clear_dns_cache` would take its addresses from those who wait for them."""
        key = (request.url.raw_host, request.port)
        if key in self._cached_hosts:
            self._cached_hosts._timestamps[key] = -math.inf  # type: ignore[index] # noqa: SLF001


def _is_idle(connection: aiohttp.connector.Connection) -> bool:
    """Tell whether a connection is young, and nothing has come on it: neither read already nor still waiting."""
    protocol, transport = connection.protocol, connection.transport
    if not isinstance(protocol, _Protocol) or transport is None or protocol.should_close:
        return False
    if not protocol.addressed or protocol.until < time.monotonic():
        return False
    arrivals = select.poll()
    arrivals.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return not arrivals.poll(0)


def open_session(upstream: Upstream, resolver: aiohttp.abc.AbstractResolver | None = None) -> aiohttp.ClientSession:
    """Open the session and connector of one upstream; must run in the loop that will use it.

    `resolver` finds the addresses of names; None is the system's, in threads.
    """
    connector = _Connector(
        ForbiddenNetworks(upstream.forbidden_networks),
        resolver=resolver,
        limit=0,  # the client's own permits come first, and say so when they run out
        ttl_dns_cache=10,  # seconds; long enough to spare the name service, short enough to follow a service that moves
        ssl=upstream.tls or True,
        keepalive_timeout=4.0,  # below the 5 s after which common servers close idle connections
    )
    session = aiohttp.ClientSession(
        connector=connector,
        request_class=_Ride,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=_NO_TIMEOUT,
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=("Content-Type",),
    )
    session._retry_connection = False  # noqa: SLF001 - or aiohttp sends some requests twice, unseen
    return session


async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    limit: int,
    trip: Trip,
) -> Answer:
    """Send one request and read its whole answer, at most `limit` bytes of it once inflated.

    Raises what `fault_of` names; the connection is given up unless the answer was read to its end.
    """
    async with session.request(
        method,
        URL(url, encoded=True),
        headers=headers,
        data=io.BytesIO(body) if body is not None and len(body) > _LARGE else body,
        allow_redirects=False,
        middlewares=(trip,),
    ) as response:
        trip.status = response.status
        if response.status not in _STATUS_LINE or not _is_framed(response):
            raise ProtocolError
        useful = response.status < 300 and method != "HEAD"
        content = await (_read(response, limit) if useful else _read_off(response, limit))
        return Answer(response.status, response.headers, *_media_type(response), content)


class NoAllowedAddress(Exception):
    """A host all of whose addresses are forbidden. No OSError, which aiohttp would take for its own."""


class ProtocolError(Exception):
    """An answer that HTTP does not allow here."""


def _media_type(response: aiohttp.ClientResponse) -> tuple[str, str | None]:
    """Return a Content-Type's media type and charset in lower case.

    aiohttp reads them with the standard library's parser of mail headers, which some values make raise IndexError.
    """
    kind, _, parameters = response.headers.get("Content-Type", "").partition(";")
    found = _MEDIA_TYPE.fullmatch(kind.strip())
    charset = _CHARSET.search(parameters)
    return found[0].lower() if found else "", charset[1].lower() if charset else None


def _is_framed(response: aiohttp.ClientResponse) -> bool:
    """Tell whether the body's end is known: aiohttp passes on an unknown transfer coding as if it were the body."""
    return response.headers.get("Transfer-Encoding", "chunked").lower() == "chunked"


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    if (response.content_length or 0) > limit:
        raise BodyTooLarge
    coding = ", ".join(response.headers.getall("Content-Encoding", ("identity",))).strip().lower()
    if coding == "identity":
        return await _read_plain(response, limit)
    if coding not in CODINGS:
        raise CodingError(coding)
    inflater = Inflater(coding, limit)
    body = await _read_through(inflater.feed, response, limit)
    inflater.close()
    return body


async def _read_plain(response: aiohttp.ClientResponse, limit: int) -> bytes:
    if response.content_length is not None:
        return await response.content.read()
    return await _read_through(bytes, response, limit)


async def _read_off(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a body that nobody wants, so that its connection can be used again; a broken one costs no more than that."""
    with suppress(BodyTooLarge, aiohttp.ClientError, OSError):
        return await _read_through(bytes, response, limit)
    return b""


async def _read_through(function: Callable[[bytes], bytes], response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a body, at most `limit` bytes of it, each chunk through a function as it comes."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge
        chunks.append(function(chunk))
    return b"".join(chunks)


#: What tells more of a connection that did not come about than its exception's class.
_ERRNOS: Final = {
    socket.EAI_AGAIN: Fault.DNS_TIMEOUT,
    errno.ETIMEDOUT: Fault.CONNECTION_TIMEOUT,
    errno.EMFILE: Fault.CONNECTION_LIMIT_REACHED,
    errno.ENFILE: Fault.CONNECTION_LIMIT_REACHED,
}
#: The first row whose class fits names the fault, so subclasses come before their bases.
_FAULTS: Final[tuple[tuple[type[BaseException], Fault], ...]] = (
    (NoAllowedAddress, Fault.DESTINATION_IP_PROHIBITED),
    (aiohttp.ClientConnectorDNSError, Fault.DNS_ERROR),
    (aiohttp.ClientConnectorCertificateError, Fault.TLS_CERTIFICATE_ERROR),
    (ssl.SSLCertVerificationError, Fault.TLS_CERTIFICATE_ERROR),
    (aiohttp.ClientSSLError, Fault.TLS_PROTOCOL_ERROR),
    (ssl.SSLError, Fault.TLS_PROTOCOL_ERROR),
    (aiohttp.ClientConnectorError, Fault.CONNECTION_REFUSED),
    (aiohttp.ServerTimeoutError, Fault.CONNECTION_TIMEOUT),
    (aiohttp.ServerConnectionError, Fault.CONNECTION_TERMINATED),
    (aiohttp.ClientPayloadError, Fault.HTTP_RESPONSE_INCOMPLETE),
    (aiohttp.ClientOSError, Fault.CONNECTION_TERMINATED),
    (aiohttp.ClientResponseError, Fault.HTTP_PROTOCOL_ERROR),
    (BodyTooLarge, Fault.HTTP_RESPONSE_BODY_SIZE),
    (CodingError, Fault.HTTP_RESPONSE_CONTENT_CODING),
    (BodyIncomplete, Fault.HTTP_RESPONSE_INCOMPLETE),
    (ProtocolError, Fault.HTTP_PROTOCOL_ERROR),
    (aiohttp.InvalidURL, Fault.HTTP_REQUEST_DENIED),
    (InvalidParameter, Fault.HTTP_REQUEST_DENIED),
    (OSError, Fault.CONNECTION_TERMINATED),
)


def fault_of(error: Exception) -> Fault:
    """Name what went wrong in an exchange. Anything unknown is a mistake of ours, and says so."""
    if isinstance(error, Unreadable):
        return error.fault
    if isinstance(error, aiohttp.ClientResponseError) and _HEADERS_TOO_LARGE.match(error.message):
        return Fault.HTTP_RESPONSE_HEADER_SIZE
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno in _ERRNOS:
        return _ERRNOS[error.os_error.errno]
    for kind, fault in _FAULTS:
        if isinstance(error, kind):
            return fault
    return Fault.PROXY_INTERNAL_ERROR


def timeout_fault(trip: Trip) -> Fault:
    """Name an attempt's own timeout by how far it had come."""
    if trip.sent:
        return Fault.HTTP_RESPONSE_TIMEOUT
    return Fault.DNS_TIMEOUT if trip.resolving else Fault.CONNECTION_TIMEOUT
