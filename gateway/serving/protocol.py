"""uvicorn's HTTP, with an end to how much a client may say before its request begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_MOST: Final = 64 * 1024  # bytes of a request's line and headers, but for the pieces they begin and end in
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 35\r\nconnection: close\r\n\r\n"
    b"The request's headers are too large"
)


class Protocol(HttpToolsProtocol):
    """One client's connection. uvicorn keeps whatever headers come until they end; here 431 is said (RFC 6585)."""

    _begun: Mapping[str, Any] | None = None
    _head = 0

    def data_received(self, data: bytes) -> None:
        """Take bytes from the wire."""
        super().data_received(data)
        scope: Mapping[str, Any] | None = self.scope
        if scope is None or "method" in scope:  # nothing has begun, or its headers have ended
            return
        if scope is not self._begun:  # what it came with may be the body of the request before, but for a little
            self._begun, self._head = scope, 0
            return
        self._head += len(data)
        if self._head > _MOST and not self.transport.is_closing():
            self._refuse()

    def _refuse(self) -> None:
        """Close; say why unless that would get into the answer to a request before."""
        before: RequestResponseCycle | None = self.cycle
        if before is None or before.response_complete:
            self.transport.write(_TOO_LARGE)
        self.transport.close()
