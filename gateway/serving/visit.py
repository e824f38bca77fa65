"""One client request from arrival to answer: its identity, and what its wide log line will say."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final

import structlog
from django.http import HttpRequest

from gateway.conf import conf
from gateway.console.place import is_console
from gateway.log import events
from gateway.log.redact import redact
from gateway.log.render import identify
from gateway.log.setup import holding
from upstreams import Deadline, Fault, Inbound
from upstreams.inbound import new_span_id, new_trace_id

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_MILLISECONDS: Final = re.compile(r"[0-9]{1,9}")
_WAIT: Final = re.compile(r'(?:^|,)\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:$|[,;])', re.IGNORECASE)
_NO_SCOPE: Final[Mapping[str, Any]] = {}
_DEFINED_FLAGS: Final = 0b11
_MAX_KEY: Final = 255
_CLIENT_ERROR: Final = 400
_SERVER_ERROR: Final = 500
#: What every wide line has, and no input may be called there.
OWN_FIELDS: Final = frozenset(
    {
        "attempts", "bytes_out", "calls", "calls_failed", "complete", "duration_ms", "event", "level", "outcome",
        "page", "parent_span_id", "queued_ms", "request_id", "schema", "span_id", "timestamp", "trace_id",
    }
)  # fmt: skip


class Visit:
    """Live: `inbound` is fixed at arrival, `fields` grow until the request is finished.

    `waited` is how many seconds ago it arrived, where it had to wait before it began. `arrived_ns` is the moment of
    `inbound.started` by the clock on the wall, in nanoseconds since 1970. A `quiet` one, the console's, has an identity
    and no events of its own.
    """

    def __init__(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        route: str | None = None,
        *,
        waited: float = 0.0,
        quiet: bool = False,
    ) -> None:
        self.inbound = inbound_of(headers, waited)
        self.arrived_ns = time.time_ns() - int(waited * 1e9)
        self.fields: dict[str, Any] = {"http.request.method": method, "http.route": route, "url.path": path}
        if waited:
            self.fields["queued_ms"] = round(waited * 1000, 3)
        self.streaming = False
        self._waited = waited
        self._quiet = quiet
        current_visit.set(self)
        structlog.contextvars.clear_contextvars()
        self._identify()
        holding.begin()
        if not quiet:
            events.request_started(method=method, path=path, queued_ms=self.fields.get("queued_ms"))

    def __repr__(self) -> str:
        """Show which request this is."""
        return f"<Visit {self.inbound.request_id} {self.fields['url.path']}>"

    def route(self, route: str) -> None:
        """Say which route it is, on every line from here on."""
        self.fields["http.route"] = route
        self._identify()

    def _identify(self) -> None:
        identity = {"trace_id": self.inbound.trace_id, "request_id": self.inbound.request_id}
        if (route := self.fields["http.route"]) is not None:
            identity["http.route"] = route
        identify(identity)

    def note(self, fields: Mapping[str, Any]) -> None:
        """Put fields of the page's choice on the wide line, masked where they look like secrets."""
        self.fields.update(redact(dict(fields)))

    def finish(self, status: int, size: int | None) -> None:
        """Log the wide line of an answered request."""
        outcome = _outcome(status, complete=self.fields.get("complete", True))
        self._log(outcome, {"http.response.status_code": status, "bytes_out": size})

    def abandon(self, size: int = 0) -> None:
        """Log the wide line of a request whose client left, after `size` bytes of a stream."""
        if not self._quiet:
            events.client_disconnected()
        self._log("disconnected", {"http.response.status_code": None, "bytes_out": size})

    def _log(self, outcome: str, fields: Mapping[str, Any]) -> None:
        duration = time.perf_counter() - self.inbound.started
        level = {"failed": "error", "partial": "warning"}.get(outcome, "info")
        holding.end(healthy=outcome in {"ok", "rejected"})
        if self._quiet:
            return
        wide = {**self.fields, **fields, "outcome": outcome, "span_id": self.inbound.span_id}
        if self.inbound.parent_span_id is not None:
            wide["parent_span_id"] = self.inbound.parent_span_id
        events.request_finished(level=level, fields=wide, duration=duration)

    def deadline(self, seconds: float) -> Deadline:
        """Return by when to answer: `seconds` from arrival, or sooner if the client says so; never later."""
        headers = self.inbound.headers
        if "prefer" in headers or conf().deadline_header in headers:
            seconds = min((seconds, *_asked_times(headers)))
        return Deadline.within(seconds - self._waited)

    def failed(self, fault: Fault | None) -> None:
        """Say which fault decided the answer."""
        if fault is not None:
            self.fields["error.type"] = fault.word


#: The request that this context, or a task that was started in it, works for.
current_visit: Final[ContextVar[Visit | None]] = ContextVar("current_visit", default=None)


def _outcome(status: int, *, complete: bool) -> str:
    if status >= _SERVER_ERROR:
        return "failed"
    if status >= _CLIENT_ERROR:
        return "rejected"
    return "ok" if complete else "partial"


def _asked_times(headers: Mapping[str, str]) -> Iterator[float]:
    """Yield the seconds that a client will wait: by the deadline header, in milliseconds, and by Prefer (RFC 7240).

    What is no number is ignored, as RFC 7240 asks for.
    """
    if _MILLISECONDS.fullmatch(left := headers.get(conf().deadline_header, "")):
        yield int(left) / 1000
    if wait := _WAIT.search(headers.get("prefer", "")):
        yield float(wait[1])


def visit_of(request: HttpRequest) -> Visit:
    """Return the request's visit, begun now if no middleware has, and told its route once that is known."""
    visit: Visit | None = getattr(request, "visit", None)
    if visit is not None and visit.fields["http.route"] is not None:
        return visit
    route = request.resolver_match.route if request.resolver_match is not None else None
    if visit is None:
        quiet = is_console(request.path)
        waited = getattr(request, "scope", _NO_SCOPE).get("tributary.waited", 0.0)
        visit = Visit(request.method or "", request.path, headers_of(request), route, waited=waited, quiet=quiet)
        request.visit = visit  # type: ignore[attr-defined]
    elif route is not None:
        visit.route(route)
    return visit


def headers_of(request: HttpRequest) -> dict[str, str]:
    """Return the request's headers by lower-case name; a repeated one is joined with commas (RFC 9110 section 5.3)."""
    scope = getattr(request, "scope", None)
    if scope is None:
        return {name.lower(): value for name, value in request.headers.items()}
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    headers = dict(fields)
    if len(headers) < len(fields):
        repeated: dict[str, list[str]] = {}
        for name, value in fields:
            repeated.setdefault(name, []).append(value)
        headers = {name: ",".join(values) for name, values in repeated.items()}
    return headers


def inbound_of(headers: Mapping[str, str], waited: float = 0.0) -> Inbound:
    """Return what headers say of a request's identity, and make up what they do not say; it came `waited` s ago."""
    trace = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    trace_id = trace[1] if trace else new_trace_id()
    span_id = new_span_id()
    request_id = headers.get("x-request-id", "")
    key = headers.get("idempotency-key", "")
    return Inbound(
        request_id=request_id if _REQUEST_ID.fullmatch(request_id) else trace_id,
        trace_id=trace_id,
        span_id=span_id,
        trace_flags=f"{int(trace[3], 16) & _DEFINED_FLAGS:02x}" if trace else "01",
        headers=headers,
        idempotency_key=key if 0 < len(key) <= _MAX_KEY else f"{trace_id}-{span_id}",
        started=time.perf_counter() - waited,
        parent_span_id=trace[2] if trace else None,
    )
