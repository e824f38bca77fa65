"""How one HTTP service is spoken to: frozen configuration, checked as a whole when the table of upstreams is read."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

_MAX_STATUS = 599
_MIN_STATUS = 400
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
#: Headers that belong to one connection, or that Tributary writes itself.
RESERVED_HEADERS = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "te", "trailer", "traceparent", "transfer-encoding", "upgrade", "via", "x-request-id",
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
        if self.attempts < 1:
            yield f"retry.attempts must be 1 or more, not {self.attempts}"
        if not 0 <= self.first_wait <= self.longest_wait:
            yield f"retry.first_wait must be from 0 to longest_wait, not {self.first_wait}"
        for status in self.statuses:
            if not _MIN_STATUS <= status <= _MAX_STATUS:
                yield f"retry.statuses holds {status}, which is no error status (400 to 599)"


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
        yield from self._url_faults()
        yield from self._limit_faults()
        yield from self._header_faults()
        if self.retry is not None:
            yield from self.retry.faults()
        for status in self.passthrough:
            if not _MIN_STATUS <= status <= _MAX_STATUS:
                yield f"passthrough holds {status}, which is no error status (400 to 599)"
        if self.tls is not None and (self.tls.verify_mode is not ssl.CERT_REQUIRED or not self.tls.check_hostname):
            yield "tls must verify certificates and host names"

    def _url_faults(self) -> Iterator[str]:
        if not self.urls:
            yield "url must name at least one base URL"
        for url in self.urls:
            if fault := _url_fault(url):
                yield f"url {_without_userinfo(url)!r} {fault}"

    def _limit_faults(self) -> Iterator[str]:
        if not self.timeout > 0:
            yield f"timeout must be above 0 seconds, not {self.timeout}"
        if self.max_concurrency < 1:
            yield f"max_concurrency must be 1 or more, not {self.max_concurrency}"
        if self.max_body < 1:
            yield f"max_body must be 1 byte or more, not {self.max_body}"

    def _header_faults(self) -> Iterator[str]:
        names = [*self.headers, *self.forward_headers]
        if self.idempotency_header is not None:
            names.append(self.idempotency_header)
        for name in names:
            if not name or not _TOKEN.issuperset(name):
                yield f"{name!r} is not a header name"
            elif name.lower() in RESERVED_HEADERS:
                yield f"header {name!r} cannot be configured: it belongs to the connection or is written by the gateway"
        for name, value in self.headers.items():
            if not value.isascii() or any(character in value for character in "\r\n\0"):
                yield f"header {name!r} has a value that cannot be sent"


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
        if not isinstance(name, str) or not name or not _TOKEN.issuperset(name):
            faults.append(f"{name!r}: a name is letters, digits, - and _")
        elif not isinstance(upstream, Upstream):
            faults.append(f"{name}: must be an Upstream, not {type(upstream).__name__}")
        else:
            faults.extend(f"{name}: {fault}" for fault in upstream.faults())
    if faults:
        raise UpstreamTableError(faults)
    return dict(table)


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
    if parts.query or parts.fragment:
        return "must have no query or fragment"
    if not url.isascii() or any(character.isspace() for character in url):
        return "has a character that must be percent-encoded"
    return None


def _without_userinfo(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return SplitResult(parts.scheme, "***@" + parts.netloc.rpartition("@")[2], parts.path, "", "").geturl()
