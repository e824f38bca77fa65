"""One HTTP exchange: a request goes out on a connection, an answer is read within limits, or aiohttp's error is named.

It follows no redirect.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_writer import _serialize_headers
from multidict import CIMultiDict, CIMultiDictProxy

from upstreams.connections import FIRST_STATUS, Connector, NoAllowedAddress, Trip
from upstreams.fault import Fault
from upstreams.inflate import CODINGS, BodyIncomplete, BodyTooLarge, CodingError, Inflater
from upstreams.request import InvalidParameter
from upstreams.values import Unreadable

_STATUS_LINE: Final = range(FIRST_STATUS, 600)
_NO_CONTENT: Final = 204
_LONGEST_READ_OFF: Final = 0.1  # seconds that an unwanted body is waited for; a new connection costs less
_MEDIA_TYPE: Final = re.compile(r"[\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127}", re.ASCII)
_CHARSET: Final = re.compile(r'(?:^|;)\s*charset\s*=\s*"?([^";\s]*)', re.IGNORECASE)
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})  # whose body's length is told though there is none
_HEADERS_TOO_LARGE: Final = re.compile("Got more than|Too many headers")


class Answer(msgspec.Struct, frozen=True):
    """An upstream's answer, read whole and inflated. `content_type` is empty when it has none, or none that is one."""

    status: int
    headers: Mapping[str, str]
    content_type: str
    charset: str | None
    body: bytes


async def exchange(
    connector: Connector,
    base: str,
    method: str,
    target: str,
    headers: CIMultiDict[str],
    body: bytes | None,
    limit: int,
    trip: Trip,
    until: float,
) -> Answer:
    """Send one request and read its whole answer by `until`, at most `limit` bytes of it once inflated.

    `headers` are all that are sent but for the body's length. Raises TimeoutError and what `fault_of` names; the
    connection is given up unless the request was sent and the answer read to its end.
    """
    if body is not None or method in _WITH_BODY:
        headers["content-length"] = str(len(body or b""))
    head = _serialize_headers(f"{method} {target} HTTP/1.1", headers)
    connection = await connector.connection(base, trip, until)
    protocol: Any = connection.protocol
    timer = protocol.expire_at(until)  # asyncio.timeout_at would cost three times as much
    ended = False
    try:
        protocol.send(trip, head, body, head_only=method == "HEAD", most=limit)
        message, payload = await protocol.answer()
        status = trip.status = message.code
        fields = message.headers
        if status not in _STATUS_LINE or ("Transfer-Encoding" in fields and not _is_chunked(fields)):
            raise ProtocolError  # of a coding that it does not know, aiohttp passes on the text as if it were the body
        useful = status < 300 and status != _NO_CONTENT and method != "HEAD"
        content = await (_read(fields, payload, limit) if useful else _read_off(payload, limit))
        more_comes = status == _NO_CONTENT and _has_body(fields)
        ended = payload.is_eof() and not more_comes and not (body and protocol.is_sending())
        kind, charset = _media_type(fields.get("Content-Type", ""))
        return Answer(status, fields, kind, charset, content)
    finally:
        timer.cancel()
        if ended:
            connector.keep(base, connection)
        else:
            protocol.abort()
            connection.close()


def _is_chunked(fields: CIMultiDictProxy[str]) -> bool:
    return ", ".join(fields.getall("Transfer-Encoding")).lower() == "chunked"


def _has_body(fields: CIMultiDictProxy[str]) -> bool:
    """Tell whether headers announce a body, which a status may forbid: it may come all the same."""
    return "Transfer-Encoding" in fields or fields.get("Content-Length", "").strip("0") != ""


class ProtocolError(Exception):
    """An answer that HTTP does not allow here."""


@lru_cache(maxsize=256)
def _media_type(value: str) -> tuple[str, str | None]:
    """Return a Content-Type's media type and charset in lower case.

    aiohttp reads them with the standard library's parser of mail headers, which some values make raise IndexError.
    """
    kind, _, parameters = value.partition(";")
    found = _MEDIA_TYPE.fullmatch(kind.strip())
    charset = _CHARSET.search(parameters)
    return found[0].lower() if found else "", charset[1].lower() if charset else None


async def _read(headers: CIMultiDictProxy[str], payload: aiohttp.StreamReader, limit: int) -> bytes:
    length = headers.get("Content-Length")
    if length is not None and int(length.lstrip("0") or "0") > limit:  # of many digits, all but 20 are zeros
        raise BodyTooLarge
    if "Content-Encoding" not in headers:
        if length is None:
            return await _read_through(bytes, payload, limit)
        return payload.read_nowait() if payload.is_eof() else await _read_whole(payload)
    coding = ", ".join(headers.getall("Content-Encoding")).strip().lower()
    if coding == "identity":
        return await _read_through(bytes, payload, limit)
    if coding not in CODINGS:
        raise CodingError(coding)
    inflater = Inflater(coding, limit)
    body = await _read_through(inflater.feed, payload, limit)
    inflater.close()
    return body


async def _read_whole(payload: aiohttp.StreamReader) -> bytes:
    """Read a body of a known length, for which one waits once, and not for each of its pieces."""
    if (error := payload.exception()) is not None:
        raise error
    await payload.wait_eof()
    return payload.read_nowait()


async def _read_off(payload: aiohttp.StreamReader, limit: int) -> bytes:
    """Read a body that nobody wants, so that its connection can be used again.

    One that is broken or slow costs no more than that.
    """
    with suppress(BodyTooLarge, aiohttp.ClientError, HttpProcessingError, OSError):
        async with asyncio.timeout(_LONGEST_READ_OFF):
            return await _read_through(bytes, payload, limit)
    return b""


async def _read_through(function: Callable[[bytes], bytes], payload: aiohttp.StreamReader, limit: int) -> bytes:
    """Read a body, at most `limit` bytes of it, each chunk through a function as it comes."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in payload.iter_any():
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
    (HttpProcessingError, Fault.HTTP_PROTOCOL_ERROR),
    (BodyTooLarge, Fault.HTTP_RESPONSE_BODY_SIZE),
    (CodingError, Fault.HTTP_RESPONSE_CONTENT_CODING),
    (BodyIncomplete, Fault.HTTP_RESPONSE_INCOMPLETE),
    (ProtocolError, Fault.HTTP_PROTOCOL_ERROR),
    (InvalidParameter, Fault.HTTP_REQUEST_DENIED),
    (OSError, Fault.CONNECTION_TERMINATED),
)


def fault_of(error: Exception) -> Fault:
    """Name what went wrong in an exchange. Anything unknown is a mistake of ours, and says so."""
    if isinstance(error, Unreadable):
        return error.fault
    if isinstance(error, HttpProcessingError) and _HEADERS_TOO_LARGE.match(error.message):
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
