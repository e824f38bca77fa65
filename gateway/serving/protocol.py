"""uvicorn's HTTP, with an end to what a client may send that is no body, and to how long it may say nothing.

uvicorn keeps whatever comes: headers that do not end, trailers, requests behind a request that is being answered. It
makes headers of trailers, a second request of the body of one that offers an upgrade, and puts its 400 into an answer
that is on its way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_MOST_HEAD: Final = 64 * 1024  # bytes of a request's path, query and headers
_MOST_AROUND: Final = 512 * 1024  # bytes in a row of chunks' sizes and trailers; a piece from the wire has half of it
_MOST_BEHIND: Final = 64  # requests that wait on a connection for those before them
_LONGEST_HEAD: Final = 10.0  # seconds from its beginning to its end
_LONGEST_SILENCE: Final = 30.0  # seconds without any of a body that is to come
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


def _refusal(status: str, why: str) -> bytes:
    fields = f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(why)}\r\nconnection: close"
    return f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n{why}".encode()


_INVALID: Final = _refusal("400 Bad Request", "Invalid HTTP request received.")
_TOO_LARGE: Final = _refusal("431 Request Header Fields Too Large", "The request's headers are too large")  # RFC 6585


class _Refused(Exception):
    """Ends the parsing of what has been refused."""


class Protocol(HttpToolsProtocol):
    """One client's connection."""

    _running: RequestResponseCycle | None = None
    _over = False  # nothing is read any more
    _begun: Mapping[str, Any] | None = None  # the request whose head is to be ended by `_until`, on the loop's clock
    _until = 0.0
    _beside = 0  # bytes in a row that were no body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Take the transport, and wait for a request as long as for the next one."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._wait(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered; uvicorn tells the one that came last."""
        self._abandon()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the wire."""
        if self._over:
            return
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            if not self._over:
                self.logger.warning("Invalid HTTP request received.")
                self._refuse(_INVALID)
            return
        scope: Mapping[str, Any] | None = self.scope
        if scope is None:
            self._wait(self.timeout_keep_alive)
        else:
            self._bound(scope, len(data))

    def on_headers_complete(self) -> None:
        """Begin a request, or have it wait for those before it."""
        if len(self.url) + sum(map(len, chain.from_iterable(self.headers))) > _MOST_HEAD:
            self._refuse(_TOO_LARGE)
            raise _Refused
        if len(self.pipeline) >= _MOST_BEHIND:
            self._refuse(_INVALID)
            raise _Refused
        super().on_headers_complete()
        self.headers = []  # trailers go there: no field of theirs is a header's (RFC 9110 section 6.5.1)

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._beside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request, unless its body is to come though an upgrade was offered."""
        if not (self.parser.should_upgrade() and self._framing()):
            super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Let a client go that has been silent too long; one whose body we do not take is not."""
        if self.flow.read_paused and not self._over:
            self._wait(_LONGEST_SILENCE)
        else:
            super().timeout_keep_alive_handler()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _parse(self, data: bytes | memoryview) -> None:
        """Parse a piece. An offer to upgrade is not taken (RFC 9110 section 7.8), and its request is as any other."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = memoryview(data)[offer.args[0] :]
                self._go_on()
            else:
                return

    def _go_on(self) -> None:
        """Go on with a new parser: the one there was has taken a request to have no body."""
        framing = self._framing()
        self.parser = httptools.HttpRequestParser(_Rest(self) if framing else self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        if framing:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)

    def _framing(self) -> bytes:
        """Return the headers that tell how the latest request's body ends; none without a body."""
        return b"".join(b"%b: %b\r\n" % field for field in self.scope["headers"] if field[0] in _FRAMING)

    def _bound(self, scope: Mapping[str, Any], size: int) -> None:
        """Set an end to what has come in part, in bytes and in time, after a piece of a size."""
        if "method" not in scope:
            if scope is not self._begun:  # what it came with may be the body of a request before, but for a little
                self._begun, self._until, self._beside = scope, self.loop.time() + _LONGEST_HEAD, 0
            else:
                self._beside += size
            self._wait(self._until - self.loop.time())
            if self._beside > _MOST_HEAD:
                self._refuse(_TOO_LARGE)
        elif self.cycle.more_body or self.cycle.response_complete:
            self._beside += size
            self._wait(self.timeout_keep_alive if self.cycle.response_complete else _LONGEST_SILENCE)
            if self._beside > _MOST_AROUND:
                self._refuse(_INVALID)

    def _wait(self, seconds: float) -> None:
        """Let the client go if nothing comes for so long; uvicorn has one timer for that."""
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _refuse(self, answer: bytes) -> None:
        """Read no more, and close: where requests are under way once they are answered, else with an answer."""
        self._over = True
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not (cycle.response_complete or cycle.more_body):
            cycle.keep_alive = False
            return
        if cycle is None or cycle.response_complete or (cycle is self._running and not cycle.response_started):
            self._say_last(answer)
        else:
            self.transport.close()

    def _say_last(self, answer: bytes) -> None:
        """End what is sent, and let the client end: to close on what it still sends would take the answer from it."""
        self._abandon()
        self.transport.write(answer)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._wait(self.timeout_keep_alive)
        else:
            self.transport.close()

    def _abandon(self) -> None:
        """Have the request that is being answered see that nobody waits for its answer."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()


class _Flow(FlowControl):
    """Reads no further as long as there are requests that wait."""

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Read on."""
        if not self._pipeline:
            super().resume_reading()


class _Rest:
    """What a new parser reports to: of the request that it goes on with the head is known, and all behind it is not."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._is_known = True
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        if not self._is_known:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_known:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_known:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_known:
            self._is_known = False
        else:
            self._protocol.on_headers_complete()
