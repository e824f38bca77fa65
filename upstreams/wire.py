"""One HTTP exchange: a request goes out on a connection, an answer is read within limits, or aiohttp's error is named.

It follows no redirect.
"""

from __future__ import annotations

import errno
import io
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import aiohttp
import msgspec
from yarl import URL

from upstreams.connections import FIRST_STATUS, NoAllowedAddress, Trip
from upstreams.fault import Fault
from upstreams.inflate import CODINGS, BodyIncomplete, BodyTooLarge, CodingError, Inflater
from upstreams.request import InvalidParameter
from upstreams.values import Unreadable

_STATUS_LINE: Final = range(FIRST_STATUS, 600)
_MEDIA_TYPE: Final = re.compile(r"[\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127}", re.ASCII)
_CHARSET: Final = re.compile(r'(?:^|;)\s*charset\s*=\s*"?([^";\s]*)', re.IGNORECASE)
_LARGE: Final = 1024 * 1024  # bytes; aiohttp writes more than that in one go, and warns of it, unless it is a file
_HEADERS_TOO_LARGE: Final = re.compile("Got more than|Too many headers")


class Answer(msgspec.Struct, frozen=True):
    """An upstream's answer, read whole and inflated. `content_type` is empty when it has none, or none that is one."""

    status: int
    headers: Mapping[str, str]
    content_type: str
    charset: str | None
    body: bytes


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
