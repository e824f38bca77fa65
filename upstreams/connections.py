"""The connections to one upstream: opened to allowed addresses, used again while nothing has come on them.

The one place that knows aiohttp's connector and connections. They, their parser and their buffers are used without its
session, whose cookies, redirects, proxies and hidden repeats are not wanted, and cost as much as all the rest.
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
from collections import deque
from typing import Any, Final, Literal

import aiohttp
import msgspec
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.http_parser import RawResponseMessage
from yarl import URL

from upstreams.addresses import ForbiddenNetworks, ProhibitedAddress
from upstreams.upstream import Upstream

_NO_TIMER: Final = TimerNoop()
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
FIRST_STATUS: Final = 200
_INFORMATIONAL: Final = frozenset(range(100, FIRST_STATUS)) - {101}  # which ends HTTP
_MOST_EARLY: Final = 64  # informational answers before the real one; each costs time, and there is no other limit
_LONGEST_LIFE: Final = 60.0  # seconds of one connection; then its name is resolved again, and may lead elsewhere
_LONGEST_IDLE: Final = 4.0  # seconds; below the 5 after which common servers close idle connections


class Trip(msgspec.Struct, eq=False):
    """What is known of one attempt on the wire while it is under way, and after.

    `resolving`: it waits for a name's addresses, or waited for them to the end. `sent`: bytes of the request may have
    left, on a connection (`conn`) that is new or reused. `answered` is False only if not a byte of an answer has come.
    `status` is the answer's, once its headers are there.
    """

    resolving: bool = False
    sent: bool = False
    conn: Literal["new", "reused"] | None = None
    answered: bool = False
    status: int | None = None


class Protocol(ResponseHandler):
    """One connection: sends a request, waits for its answer, and tells the trip it carries that one has begun.

    `trip` is None before the first and between two. `addressed` is False once bytes have come while it was.
    `arrivals` tells of bytes that wait to be read. `until` is when the connection is too old, and `kept` since when it
    has been idle, on the monotonic clock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.trip: Trip | None = None
        self.addressed = True
        self.arrivals = select.poll()
        self.until = time.monotonic() + _LONGEST_LIFE
        self.kept = 0.0
        self._used = False
        self._early = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, and watch its socket."""
        super().connection_made(transport)
        self.arrivals.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def send(self, trip: Trip, head: bytes, body: bytes | None, *, head_only: bool, most: int) -> None:
        """Take a trip aboard and send its request; of an answer to HEAD there is the head only.

        An answer's body is taken in without a pause as long as there is no more of it than `most` bytes.
        """
        trip.sent = True
        trip.conn = "reused" if self._used else "new"
        trip.answered = not self.addressed
        self.trip = trip
        self._used = True
        self._early = 0
        # Each answer has a parser of its own: aiohttp's keeps trailers, and what was sent too much, for the next one.
        self.set_response_params(
            timer=_NO_TIMER, skip_payload=head_only, read_until_eof=True, auto_decompress=False, read_bufsize=most
        )
        transport = self.transport
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("the connection has been closed")
        if body is None:
            transport.write(head)
        else:
            transport.writelines((head, body))

    def expire_at(self, moment: float) -> asyncio.TimerHandle:
        """Have the exchange fail with TimeoutError at a moment on the loop's clock, unless the timer is cancelled."""
        return self._loop.call_at(moment, self._expire)

    async def answer(self) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
        """Wait for the answer's head, past informational ones (RFC 9110 section 15.2); its body is to be read."""
        message, payload = await self.read()
        while message.code in _INFORMATIONAL:
            message, payload = await self.read()
        payload.on_eof(self._arrived)
        return message, payload

    def is_sending(self) -> bool:
        """Tell whether part of a request has not left yet."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def _arrived(self) -> None:
        """Let the trip go: what comes from now on is for nobody."""
        self.trip = None

    def data_received(self, data: bytes) -> None:
        """Take bytes from the wire; whoever sends them between two exchanges is hung up on."""
        if self.trip is not None:
            self.trip.answered = True
        elif data:  # without any, aiohttp only wakes its parser
            self.addressed = False
            if self._used:
                self.abort()
                return
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Take note of the end: one in good order may be that of a body, a break is not."""
        if exc is not None:
            if self.trip is not None and _has_unread(self.transport):
                self.trip.answered = True
            self._break_off(aiohttp.ClientPayloadError("the connection broke"))
        super().connection_lost(exc)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Fail the exchange. aiohttp tells who waits for a head, and not who reads a body."""
        super().set_exception(exc, *cause)
        self._break_off(exc)

    def _expire(self) -> None:
        self.set_exception(TimeoutError)  # type: ignore[arg-type] # an instance would keep what keeps it, and live on

    def _break_off(self, error: BaseException) -> None:
        """Let a body that is under way end with an error."""
        payload = self._payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(error)

    def close(self) -> None:
        """Close in good order. aiohttp lets go of a body that is under way without a word to who reads it."""
        self._break_off(aiohttp.ClientPayloadError("the connection was closed"))
        super().close()

    def abort(self) -> None:
        """Close at once: in good order it would be once all that was to be sent has been taken, if it ever is."""
        self._break_off(aiohttp.ClientPayloadError("the connection was closed"))
        self.trip = None
        if self.transport is not None:
            self.transport.abort()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's own
        """Read on if that was held up, unless the answer is here as a whole: nothing can have been since.

        aiohttp asks for it after every piece.
        """
        if self._reading_paused and self.trip is not None:
            super().resume_reading(resume_parser)

    def feed_data(self, data: tuple[RawResponseMessage, aiohttp.StreamReader], size: int = 0) -> None:
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


class _Opening(aiohttp.ClientRequest):
    """A request as aiohttp wants to see it before it opens a connection. It is never sent."""

    trip: Trip


class Connector(aiohttp.TCPConnector):
    """Connects to addresses that are allowed, and keeps connections from one exchange to the next. Live: prints them.

    aiohttp's own pool is not used: it would give an answer that nobody asked for to the next request, whoever that is
    for, and it costs twice as much. A connection on which something has come, if only its end, is closed.
    """

    def __init__(self, upstream: Upstream, **options: Any) -> None:
        super().__init__(socket_factory=self._open_socket, **options)
        self._forbidden = ForbiddenNetworks(upstream.forbidden_networks)
        self._tls = upstream.tls or True
        self._factory = functools.partial(Protocol, loop=self._loop)  # type: ignore[assignment] # it is invariant
        self._idle: dict[str, deque[Connection]] = {base: deque() for base in upstream.urls}  # the longest first
        self._sweeping: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        """Show how many connections there are."""
        return f"<Connector in_use={self.in_use} idle={self.idle}>"

    @property
    def in_use(self) -> int:
        """How many connections are in use, or being opened: aiohttp takes the idle ones to be in use too."""
        return len(self._acquired) - self.idle

    @property
    def idle(self) -> int:
        """How many connections wait for another exchange."""
        return sum(map(len, self._idle.values()))

    async def connection(self, base: str, trip: Trip, until: float) -> Connection:
        """Return a connection to one of the upstream's base URLs: the latest idle one, or one that is there by `until`.

        It is to be kept, or closed. Raises aiohttp's errors, and TimeoutError.
        """
        idle = self._idle[base]
        while idle:
            connection = idle.pop()
            if _is_idle(connection):
                return connection
            connection.close()
        opening = self._opening(base)
        opening.trip = trip
        async with asyncio.timeout_at(until):
            return await self.connect(opening, [], _NO_TIMEOUT)

    def keep(self, base: str, connection: Connection) -> None:
        """Keep a connection whose exchange has come to its end for another, if it can have one."""
        protocol = _protocol(connection)
        if self.closed or protocol.should_close:
            connection.close()
            return
        protocol.kept = time.monotonic()
        self._idle[base].append(connection)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(_LONGEST_IDLE, self._sweep)

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close every connection, the idle ones with those that are in use."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        idle = [connection for kept in self._idle.values() for connection in kept]
        for kept in self._idle.values():
            kept.clear()
        try:
            await super().close(abort_ssl=abort_ssl)
        finally:
            for connection in idle:
                connection.close()

    def _sweep(self) -> None:
        """Close what has been idle for too long; again in a while, as long as anything is idle."""
        latest = time.monotonic() - _LONGEST_IDLE
        for idle in self._idle.values():
            while idle and _protocol(idle[0]).kept <= latest:
                idle.popleft().close()
        self._sweeping = self._loop.call_later(_LONGEST_IDLE, self._sweep) if self.idle else None

    def _opening(self, base: str) -> _Opening:
        session: Any = None  # which is asked for nothing
        return _Opening("GET", URL(base, encoded=True), loop=self._loop, session=session, ssl=self._tls)

    def _open_socket(self, info: aiohttp.connector.AddrInfoType) -> socket.socket:
        """Open the socket for an address: names and literals alike come by here, and no later than this."""
        family, kind, protocol, _, address = info
        if address[0] in self._forbidden:
            raise ProhibitedAddress
        return socket.socket(family, kind, protocol)

    async def _create_connection(self, req: aiohttp.ClientRequest, *args: Any, **kwargs: Any) -> ResponseHandler:
        req.trip.resolving = True  # type: ignore[attr-defined] # it is an _Opening
        try:
            return await super()._create_connection(req, *args, **kwargs)
        except BaseException:  # an attempt's timeout comes as a cancellation
            self._expire(req)
            raise

    async def _wrap_create_connection(
        self, *args: Any, req: aiohttp.ClientRequest, **kwargs: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
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


def _is_idle(connection: Connection) -> bool:
    """Tell whether a kept connection is fit for a request: nothing has come on it, neither read nor still waiting."""
    protocol = _protocol(connection)
    now = time.monotonic()
    young = protocol.until >= now and protocol.kept + _LONGEST_IDLE >= now
    return young and protocol.addressed and protocol.is_connected() and not protocol.arrivals.poll(0)


def _protocol(connection: Connection) -> Protocol:
    protocol = connection.protocol
    assert isinstance(protocol, Protocol)  # noqa: S101 - the connector makes no others
    return protocol


def open_connector(upstream: Upstream, resolver: aiohttp.abc.AbstractResolver | None = None) -> Connector:
    """Open the connector of one upstream; must run in the loop that will use it.

    `resolver` finds the addresses of names; None is the system's, in threads.
    """
    return Connector(
        upstream,
        resolver=resolver,
        limit=0,  # the client's own permits come first, and say so when they run out
        ttl_dns_cache=10,  # seconds; long enough to spare the name service, short enough to follow a service that moves
    )


class NoAllowedAddress(Exception):
    """A host all of whose addresses are forbidden. No OSError, which aiohttp would take for its own."""
