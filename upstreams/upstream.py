"""How one HTTP service is spoken to: frozen configuration, checked as a whole when the table of upstreams is read."""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

_MAX_STATUS = 599
_MIN_STATUS = 400
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_URL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/\[\]]|%[0-9A-Fa-f]{2})*")
_USERINFO = re.compile(r"^([a-z][a-z0-9+.-]*://)?.*@", re.IGNORECASE | re.DOTALL)
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
#: Headers that belong to one connection, or that Tributary writes itself.
RESERVED_HEADERS = frozenset(
    {
        "accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate",
        "proxy-authorization", "te", "trailer", "traceparent", "transfer-encoding", "upgrade", "via", "x-request-id",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed attempt is made again: at most `attempts` in all, counting the first.

    The wait before attempt n+1 is drawn evenly from 0 to `first_wait` * 2^(n-1) seconds, at most `longest_wait` (full
    jitter), or what the upstream's Retry-After asks for. `statuses` are the answers worth another attempt; a 429 only
    when it says when. Nothing is retried past the page's deadline.
    """

    attempts: int = 3
    first_wait: float = 0.025
    longest_wait: float = 0.25
    statuses: tuple[int, ...] = (429, 502, 503, 504)

    def faults(self) -> Iterator[str]:
        """Say what is wrong with these values, a sentence each."""
        if not (_is_count(self.attempts) and self.attempts >= 1):
            yield f"retry.attempts must be 1 or more, not {self.attempts!r}"
        if not (_is_number(self.longest_wait) and self.longest_wait >= 0):
            yield f"retry.longest_wait must be 0 seconds or more, not {self.longest_wait!r}"
        elif not (_is_number(self.first_wait) and 0 <= self.first_wait <= self.longest_wait):
            yield f"retry.first_wait must be from 0 to longest_wait, not {self.first_wait!r}"
        yield from _status_faults("retry.statuses", self.statuses)


@dataclass(frozen=True, slots=True)
class Upstream:
    """One HTTP service. `url` is its base, to which request paths are added; several are taken in turn.

    `timeout` is one attempt's, in seconds, connecting and reading the whole body included. `retry` applies to safe
    requests (None: one attempt); writes are retried only where `idempotency_header` names the header by which the
    service recognises a repeat. `max_concurrency` bounds the requests in flight from one worker, `max_body` the
    decoded bytes of one answer. `headers` are sent with every request; of the client's own, only those in
    `forward_headers` are. `passthrough` statuses become the page's. `tls` replaces the system's certificate store.
    """

    url: str | tuple[str, ...] | list[str]
    timeout: float = field(default=1.0, kw_only=True)
    retry: Retry | None = field(default=Retry(), kw_only=True)
    max_concurrency: int = field(default=64, kw_only=True)
    max_body: int = field(default=1024 * 1024, kw_only=True)
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    forward_headers: tuple[str, ...] = field(default=(), kw_only=True)
    passthrough: tuple[int, ...] = field(default=(), kw_only=True)
    idempotency_header: str | None = field(default=None, kw_only=True)
    tls: ssl.SSLContext | None = field(default=None, kw_only=True)

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs, without a trailing slash."""
        urls = (self.url,) if isinstance(self.url, str) else tuple(self.url)
        return tuple(url.rstrip("/") for url in urls)

    def faults(self) -> Iterator[str]:
        """Say what is wrong with these values, a sentence each."""
        yield from _urls_faults(self.url)
        yield from self._limit_faults()
        yield from self._header_faults()
        yield from _retry_faults(self.retry)
        yield from _status_faults("passthrough", self.passthrough)
        yield from _tls_faults(self.tls)

    def _limit_faults(self) -> Iterator[str]:
        if not (_is_number(self.timeout) and self.timeout > 0):
            yield f"timeout must be above 0 seconds, not {self.timeout!r}"
        if not (_is_count(self.max_concurrency) and self.max_concurrency >= 1):
            yield f"max_concurrency must be 1 or more, not {self.max_concurrency!r}"
        if not (_is_count(self.max_body) and self.max_body >= 1):
            yield f"max_body must be 1 byte or more, not {self.max_body!r}"

    def _header_faults(self) -> Iterator[str]:
        yield from _headers_faults(self.headers)
        yield from _header_names_faults(self.forward_headers)
        if self.idempotency_header is not None:
            yield from _header_name_faults(self.idempotency_header)


class UpstreamTableError(ValueError):
    """Everything that is wrong with a table of upstreams, one sentence a line."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("UPSTREAMS cannot be used:\n" + "\n".join(f"  {fault}" for fault in faults))
        self.faults = faults


def check_table(table: object) -> dict[str, Upstream]:
    """Return the table as it is, or raise UpstreamTableError naming every fault in it at once."""
    if not isinstance(table, Mapping):
        raise UpstreamTableError([f"it must be a dict of name to Upstream, not {type(table).__name__}"])
    faults = []
    for name, upstream in table.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            faults.append(f"{name!r}: a name is letters, digits, - and _")
        elif not isinstance(upstream, Upstream):
            faults.append(f"{name}: must be an Upstream, not {type(upstream).__name__}")
        else:
            faults.extend(f"{name}: {fault}" for fault in upstream.faults())
    if faults:
        raise UpstreamTableError(faults)
    return dict(table)


def is_token(text: object) -> bool:
    """Tell whether something is a token of HTTP (RFC 9110 section 5.6.2), as header names are."""
    return isinstance(text, str) and bool(text) and _TOKEN.issuperset(text)


def _urls_faults(given: object) -> Iterator[str]:
    if not isinstance(given, (str, tuple, list)):
        yield f"url must be a base URL, or several in a tuple, not {type(given).__name__}"
        return
    urls = (given,) if isinstance(given, str) else given
    if not urls:
        yield "url must name at least one base URL"
    for url in urls:
        if not isinstance(url, str):
            yield f"url must be text, not {type(url).__name__}"
        elif fault := _url_fault(url.rstrip("/")):
            yield f"url {_without_secrets(url)!r} {fault}"


def _url_fault(url: str) -> str | None:  # noqa: PLR0911 - one line a fault
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "cannot be parsed"
    if parts.scheme not in {"http", "https"}:
        return "must start with http:// or https://"
    if not parts.hostname:
        return "names no host"
    if port == 0:
        return "has port 0"
    if parts.username is not None or parts.password is not None:
        return "holds a user name or password: send those in headers="
    if "?" in url or "#" in url:
        return "must have no query or fragment"
    if not _URL.fullmatch(url):
        return "has a character that must be percent-encoded"
    if {"", ".", ".."}.intersection(unquote(segment) for segment in parts.path.split("/")[1:]):
        return "must hold no empty, . or .. segment"
    return None


def _without_secrets(url: str) -> str:
    """Return a URL as it may be printed: a user name, a password or a query can be secret."""
    return re.split("[?#]", _USERINFO.sub(r"\1***@", url))[0]


def _headers_faults(headers: object) -> Iterator[str]:
    if not isinstance(headers, Mapping):
        yield f"headers must be a dict of name to value, not {type(headers).__name__}"
        return
    for name, value in headers.items():
        yield from _header_name_faults(name)
        if not (isinstance(value, str) and value.isascii() and value.replace("\t", "").isprintable()):
            yield f"header {name!r} has a value that cannot be sent"


def _header_names_faults(names: object) -> Iterator[str]:
    if not isinstance(names, (tuple, list)):
        yield f"forward_headers must be a tuple of header names, not {names!r}"
        return
    for name in names:
        yield from _header_name_faults(name)


def _header_name_faults(name: object) -> Iterator[str]:
    if not is_token(name):
        yield f"{name!r} is not a header name"
    elif str(name).lower() in RESERVED_HEADERS:
        yield f"header {name!r} cannot be configured: it belongs to the connection or is written by the gateway"


def _retry_faults(retry: object) -> Iterator[str]:
    if isinstance(retry, Retry):
        yield from retry.faults()
    elif retry is not None:
        yield f"retry must be a Retry, or None for one attempt, not {retry!r}"


def _tls_faults(tls: object) -> Iterator[str]:
    if isinstance(tls, ssl.SSLContext):
        if tls.verify_mode is not ssl.CERT_REQUIRED or not tls.check_hostname:
            yield "tls must verify certificates and host names"
    elif tls is not None:
        yield f"tls must be an ssl.SSLContext, not {type(tls).__name__}"


def _status_faults(name: str, statuses: object) -> Iterator[str]:
    if not isinstance(statuses, (tuple, list)):
        yield f"{name} must be a tuple of statuses, not {statuses!r}"
        return
    for status in statuses:
        if not (_is_count(status) and _MIN_STATUS <= status <= _MAX_STATUS):
            yield f"{name} holds {status!r}, which is no error status (400 to 599)"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
