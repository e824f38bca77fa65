"""Metrics, counted from the log's own events: names and buckets are OpenTelemetry's, as Prometheus spells them.

No label holds what a client can make up: routes are those of the URLconf, methods those of RFC 9110.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from gateway.telemetry.words import METHODS, OTHER_METHOD, known_method, server_error

#: Seconds, as OpenTelemetry's conventions for HTTP advise.
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}

Fields = Mapping[str, Any]


class Metrics:
    """What one worker counts; where workers share PROMETHEUS_MULTIPROC_DIR, each renders what all have counted.

    Live. `upstreams` are named from the start, so that a rate over their first failure is known. Raises
    ImproperlyConfigured for a directory that cannot be written to.
    """

    def __init__(self, upstreams: Iterable[str]) -> None:
        self._directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if self._directory and not os.access(self._directory, os.W_OK | os.X_OK):
            raise ImproperlyConfigured("PROMETHEUS_MULTIPROC_DIR must name a directory that workers can write to")
        self._meters: list[Counter | Gauge | Histogram] = []
        self._define()
        self._children: dict[tuple[Any, ...], Any] = {}
        self._hear: dict[str, Callable[[Fields], None]] = {
            "request.finished": self._request_finished,
            "attempt.finished": self._attempt_finished,
            "retry.scheduled": self._retry_scheduled,
            "call.skipped": self._call_skipped,
            "flight.joined": self._flight_joined,
            "breaker.changed": self._breaker_changed,
            "host.ejected": self._host_ejected,
            "requests.shed": self._requests_shed,
            "log.dropped": self._log_dropped,
            "spans.dropped": self._spans_dropped,
        }
        # Gauges are set, not only named: in a shared directory an earlier process of this number may have left others.
        self._under_way = {method: self._active.labels(method) for method in (*METHODS, OTHER_METHOD)}
        for active in self._under_way.values():
            active.set(0)
        for upstream in upstreams:
            self._breaker.labels(upstream).set(_STATES["closed"])
            for meter in (self._hedges, self._coalesced, self._skipped):
                meter.labels(upstream)

    def __repr__(self) -> str:
        """Show how many series this worker has come to."""
        return f"<Metrics series={len(self._children)} directory={self._directory}>"

    def _define(self) -> None:
        self._requests = self._histogram(
            "http_server_request_duration_seconds",
            "Duration of requests, from arrival until the answer was made.",
            ("http_request_method", "http_route", "http_response_status_code", "error_type"),
        )
        self._active = self._gauge(
            "http_server_active_requests", "Requests being answered.", ("http_request_method",), "livesum"
        )
        self._attempts = self._histogram(
            "http_client_request_duration_seconds",
            "Duration of attempts at upstreams, until the body was read and checked.",
            ("upstream", "http_request_method", "http_response_status_code", "error_type", "kind"),
        )
        self._retries = self._counter("tributary_retries", "Attempts made again.", ("upstream", "reason"))
        self._hedges = self._counter("tributary_hedges", "Attempts made beside a slow one.", ("upstream",))
        self._skipped = self._counter("tributary_calls_skipped", "Calls not made for want of another.", ("upstream",))
        self._coalesced = self._counter("tributary_calls_coalesced", "Calls that shared an answer.", ("upstream",))
        self._partial = self._counter("tributary_partial_answers", "Answers with something missing.", ("http_route",))
        self._breaker = self._gauge(
            "tributary_breaker_state",
            "The breaker: 0 closed, 1 half open, 2 open; of several workers the worst.",
            ("upstream",),
            "livemax",
        )
        self._breaker_changes = self._counter("tributary_breaker_changes", "Changes of state.", ("upstream", "to"))
        self._ejections = self._counter(
            "tributary_hosts_ejected", "Times a host was left out.", ("upstream", "server_address")
        )
        self._shed = self._counter(
            "tributary_requests_shed", "Requests refused because they could not begin in time.", ("http_route",)
        )
        self._lines = self._counter("tributary_log_lines_dropped", "Log lines lost.", ("sink",))
        self._spans = self._counter("tributary_spans_dropped", "Spans that no collector took.", ())

    def _histogram(self, name: str, text: str, labels: tuple[str, ...]) -> Histogram:
        self._meters.append(meter := Histogram(name, text, labels, buckets=_BUCKETS))
        return meter

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        self._meters.append(meter := Counter(name, text, labels))
        return meter

    def _gauge(self, name: str, text: str, labels: tuple[str, ...], over_workers: Any) -> Gauge:
        self._meters.append(meter := Gauge(name, text, labels, multiprocess_mode=over_workers))
        return meter

    def hear(self, event: str, fields: Fields) -> None:
        """Count an event of the log."""
        count = self._hear.get(event)
        if count is not None:
            count(fields)

    def active(self, method: str) -> Gauge:
        """Return the gauge of requests of a method that are being answered."""
        return self._under_way[known_method(method)]

    def render(self, accept: str) -> tuple[str, bytes]:
        """Return the Content-Type and the text for an Accept header. Reads files: not for the event loop."""
        registry = REGISTRY
        if self._directory:
            bury(Path(self._directory))
            registry = CollectorRegistry()
            MultiProcessCollector(registry, self._directory)
        try:
            encode, content_type = choose_encoder(accept)
        except Exception:  # noqa: BLE001 - it takes some versions for numbers that are none
            encode, content_type = choose_encoder("")
        return content_type, encode(registry)

    def close(self) -> None:
        """Take this worker's gauges out of what all show; what it counted stays."""
        for meter in self._meters:
            REGISTRY.unregister(meter)
        if self._directory:
            mark_process_dead(os.getpid(), self._directory)

    def _child(self, meter: Counter | Gauge | Histogram, *labels: str) -> Any:
        """Return a meter's child; the library's own look-up takes three times as long."""
        key = (meter, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = meter.labels(*labels)
        return child

    def _request_finished(self, fields: Fields) -> None:
        status, route = fields["http.response.status_code"], fields["http.route"] or ""
        self._child(
            self._requests,
            known_method(fields["http.request.method"]),
            route,
            "" if status is None else str(status),
            server_error(fields) or _unanswered(fields),
        ).observe(fields["duration_ms"] / 1000)
        if fields["outcome"] == "partial":
            self._child(self._partial, route).inc()

    def _attempt_finished(self, fields: Fields) -> None:
        upstream, status, kind = fields["upstream"], fields["http.response.status_code"], fields["kind"]
        self._child(
            self._attempts,
            upstream,
            fields["http.request.method"],
            "" if status is None else str(status),
            fields.get("error.type") or _unanswered(fields),
            kind,
        ).observe(fields["duration_ms"] / 1000)
        if kind == "hedge":
            self._child(self._hedges, upstream).inc()

    def _retry_scheduled(self, fields: Fields) -> None:
        self._child(self._retries, fields["upstream"], fields["reason"] or "").inc()

    def _call_skipped(self, fields: Fields) -> None:
        self._child(self._skipped, fields["upstream"] or "").inc()

    def _flight_joined(self, fields: Fields) -> None:
        self._child(self._coalesced, fields["upstream"]).inc()

    def _breaker_changed(self, fields: Fields) -> None:
        self._child(self._breaker, fields["upstream"]).set(_STATES[fields["to"]])
        self._child(self._breaker_changes, fields["upstream"], fields["to"]).inc()

    def _host_ejected(self, fields: Fields) -> None:
        self._child(self._ejections, fields["upstream"], fields["server.address"]).inc()

    def _requests_shed(self, fields: Fields) -> None:
        self._child(self._shed, fields["http.route"] or "").inc(fields["count"])

    def _log_dropped(self, fields: Fields) -> None:
        self._child(self._lines, fields["sink"]).inc(fields["count"])

    def _spans_dropped(self, fields: Fields) -> None:
        self._spans.inc(fields["count"])


def _unanswered(fields: Fields) -> str:
    """Return the outcome that is no error and has no answer either, or nothing."""
    return fields["outcome"] if fields["outcome"] in {"cancelled", "disconnected"} else ""


def bury(directory: Path) -> None:
    """Take the gauges of workers that are no more out of what is shown; the library leaves that to their master."""
    for file in directory.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not _lives(int(pid)):
            mark_process_dead(int(pid), str(directory))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's, but there
    return True
