"""How one HTTP service is spoken to: frozen configuration, checked as a whole when the table of upstreams is read."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from yarl import URL

from upstreams.policy import Breaker, Budget, Ejection, Hedge, Retry, is_count, is_flag, is_number, status_faults

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_URL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/\[\]]|%[0-9A-Fa-f]{2})*")
_LONGEST_NAME = 253  # characters, of which a part has 63 (RFC 1035 section 2.3.4)
_LONGEST_LABEL = 63
_MOST_BODY = 1024**3  # it is held in memory as a whole, and aiohttp counts a buffer in 32 bits
_USERINFO = re.compile(r"^([a-z][a-z0-9+.-]*://)?.*@", re.IGNORECASE | re.DOTALL)
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
#: Headers that belong to one connection, or that Tributary writes itself.
RESERVED_HEADERS = frozenset(
    {
        "accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate",
        "proxy-authorization", "te", "trailer", "traceparent", "transfer-encoding", "upgrade", "via", "x-request-id",
    }
)  # fmt: skip


#: Headers that a request has anyhow.
_SPOKEN_FOR = frozenset({"accept", "authorization", "content-type", "user-agent"})

#: Addresses that only lead to this machine's own network devices or to a cloud's metadata service, and to no one host.
LINK_LOCAL = (
    "0.0.0.0/8", "169.254.0.0/16", "100.100.100.200/32", "192.0.0.192/32", "224.0.0.0/4", "255.255.255.255/32",
    "::/128", "fe80::/10", "fd00:ec2::254/128", "ff00::/8",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Upstream:
    """One HTTP service. `url` is its base, to which request paths are added; several are hosts of the same service.

    `timeout` is one attempt's, in seconds, connecting and reading the whole body included. `retry` applies to safe
    requests (None: one attempt); writes are retried only where `idempotency_header` names the header by which the
    service recognises a repeat. `budget` bounds retries and hedges, `breaker` leaves a failing service alone, `hedge`
    asks again beside a slow attempt, `ejection` leaves out a failing host. `max_concurrency` bounds the attempts in
    flight from one worker; beyond them at most `max_waiting` wait, at most `max_wait` seconds each. `max_body` bounds
    the decoded bytes of one answer. `headers` are sent with every request; of the client's own, only those in
    `forward_headers` are. `deadline_header` names the header that tells the service how many milliseconds are left.
    `coalesce` lets identical safe requests of different clients share one answer while it is under way. `passthrough`
    statuses become the page's. `forbidden_networks` are addresses that are never connected to, whatever a name resolves
    to. `tls` replaces the system's certificate store.
    """

    url: str | tuple[str, ...] | list[str]
    timeout: float = field(default=1.0, kw_only=True)
    retry: Retry | None = field(default=Retry(), kw_only=True)
    budget: Budget | None = field(default=Budget(), kw_only=True)
    breaker: Breaker | None = field(default=Breaker(), kw_only=True)
    hedge: Hedge | None = field(default=None, kw_only=True)
    ejection: Ejection | None = field(default=Ejection(), kw_only=True)
    max_concurrency: int = field(default=64, kw_only=True)
    max_waiting: int = field(default=32, kw_only=True)
    max_wait: float = field(default=0.1, kw_only=True)
    max_body: int = field(default=1024 * 1024, kw_only=True)
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    forward_headers: tuple[str, ...] = field(default=(), kw_only=True)
    deadline_header: str | None = field(default=None, kw_only=True)
    coalesce: bool = field(default=False, kw_only=True)
    passthrough: tuple[int, ...] = field(default=(), kw_only=True)
    idempotency_header: str | None = field(default=None, kw_only=True)
    forbidden_networks: tuple[str, ...] = field(default=LINK_LOCAL, kw_only=True)
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
        yield from self._policy_faults()
        yield from status_faults("passthrough", self.passthrough)
        yield from _network_faults(self.forbidden_networks)
        yield from _tls_faults(self.tls)

    def _limit_faults(self) -> Iterator[str]:
        if not (is_number(self.timeout) and self.timeout > 0):
            yield f"timeout must be above 0 seconds, not {self.timeout!r}"
        if not (is_count(self.max_concurrency) and self.max_concurrency >= 1):
            yield f"max_concurrency must be 1 or more, not {self.max_concurrency!r}"
        if not (is_count(self.max_waiting) and self.max_waiting >= 0):
            yield f"max_waiting must be 0 or more, not {self.max_waiting!r}"
        if not (is_number(self.max_wait) and self.max_wait >= 0):
            yield f"max_wait must be 0 seconds or more, not {self.max_wait!r}"
        if not (is_count(self.max_body) and 1 <= self.max_body <= _MOST_BODY):
            yield f"max_body must be from 1 byte to 1 GiB, not {self.max_body!r}"
        if not is_flag(self.coalesce):
            yield f"coalesce must be True or False, not {self.coalesce!r}"

    def _policy_faults(self) -> Iterator[str]:
        sound = True
        for name, kind in _POLICIES.items():
            policy = getattr(self, name)
            faults = list(policy_faults(name, kind, policy))
            sound = sound and not faults
            yield from faults
        if sound and is_number(self.timeout):
            yield from self._contradictions()

    def _contradictions(self) -> Iterator[str]:
        """Say which policies cannot all be meant."""
        if self.hedge is not None and self.hedge.after is not None and self.hedge.after >= self.timeout:
            yield f"hedge.after must be below timeout ({self.timeout:g} s), not {self.hedge.after!r}"
        if self.hedge is not None and self.budget is None:
            yield "hedge is paid from the budget, which is None"
        slow_after = self.breaker.slow_after if self.breaker is not None else None
        if slow_after is not None and slow_after > self.timeout:
            yield f"breaker.slow_after must be at most timeout ({self.timeout:g} s), not {slow_after!r}"

    def _header_faults(self) -> Iterator[str]:
        yield from _headers_faults(self.headers)
        yield from _header_names_faults(self.forward_headers)
        named = {"idempotency_header": self.idempotency_header, "deadline_header": self.deadline_header}
        for option, name in named.items():
            if name is not None:
                yield from _header_name_faults(name)
                if str(name).lower() in _SPOKEN_FOR:
                    yield f"{option} cannot be {name!r}, which says something else"
        first, second = (str(name).lower() for name in named.values())
        if first == second != "none":
            yield f"idempotency_header and deadline_header must be two, not both {self.deadline_header!r}"


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
    if not _is_host(parts.hostname):
        return "names a host that there cannot be"
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
    return None if _is_readable(url) else "cannot be parsed"


def _is_readable(url: str) -> bool:
    """Tell whether aiohttp's own parser of URLs takes it too."""
    try:
        URL(url, encoded=True)
    except ValueError:
        return False
    return True


def _is_host(host: str) -> bool:
    """Tell whether a host is an address, or a name whose parts have 1 to 63 characters, the last not digits alone."""
    *_, last = labels = host.removesuffix(".").split(".")
    if ":" in host or last.isdigit():
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True
    return len(host) <= _LONGEST_NAME and all(0 < len(label) <= _LONGEST_LABEL for label in labels)


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


def policy_faults(name: str, kind: type, policy: Any) -> Iterator[str]:
    """Say what is wrong with a policy, or with what stands in its place."""
    if isinstance(policy, kind):
        yield from policy.faults()  # type: ignore[attr-defined] # as all of them have
    elif policy is not None:
        yield f"{name} must be {kind.__name__}(...) or None, not {policy!r}"


def _network_faults(networks: object) -> Iterator[str]:
    if not isinstance(networks, (tuple, list)):
        yield f"forbidden_networks must be a tuple of networks, not {networks!r}"
        return
    for network in networks:
        if not isinstance(network, str):  # ip_network would take a number for an address
            yield f"forbidden_networks: {network!r} is no text"
            continue
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            yield f"forbidden_networks: {error}"


def _tls_faults(tls: object) -> Iterator[str]:
    if isinstance(tls, ssl.SSLContext):
        if tls.verify_mode is not ssl.CERT_REQUIRED or not tls.check_hostname:
            yield "tls must verify certificates and host names"
    elif tls is not None:
        yield f"tls must be an ssl.SSLContext, not {type(tls).__name__}"


_POLICIES: Mapping[str, type] = {
    "retry": Retry,
    "budget": Budget,
    "breaker": Breaker,
    "hedge": Hedge,
    "ejection": Ejection,
}
