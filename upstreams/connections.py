"""The connections to one upstream: opened to allowed addresses, used again while nothing has come on them.

The one place that knows aiohttp's connector. Its hidden retry is off (a private switch, guarded by a test that counts),
it keeps no cookie, reads no proxy settings and inflates nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import math
import select
import socket
import termios
import time
from typing import Any, Final, Literal

import aiohttp
from aiohttp.http_exceptions import BadHttpMessage

from upstreams.addresses import ForbiddenNetworks, ProhibitedAddress
from upstreams.upstream import Upstream

_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
FIRST_STATUS: Final = 200  # those below are informational
_MOST_EARLY: Final = 64  # informational answers before the real one; each costs time, and there is no other limit
_LONGEST_LIFE: Final = 60.0  # seconds of one connection; then its name is resolved again, and may lead elsewhere


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
        if data[0].code < FIRST_STATUS:
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


class NoAllowedAddress(Exception):
    """A host all of whose addresses are forbidden. No OSError, which aiohttp would take for its own."""
