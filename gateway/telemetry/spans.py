"""Spans for a collector, made from the log's own events: one of the server for a request, one of a client per attempt.

They have the ids that went into `traceparent` and stand in the log. No tracer is in the way of a request: what ended is
written down and queued, and a thread of the SDK's encodes and sends it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway import __version__
from gateway.log import events
from gateway.serving.visit import Visit, current_visit
from gateway.telemetry.words import OTHER_METHOD, known_method, server_error
from upstreams import Upstream

_QUEUE_SPANS: Final = 8192
_BATCH_SPANS: Final = 512
_GATHERING_MS: Final = 1000.0
_FLUSH_TIME: Final = 2.0
_REPORT_EVERY: Final = 30.0
_LONGEST_REASON: Final = 300
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_ERROR: Final = Status(StatusCode.ERROR)
_UNSET: Final = Status(StatusCode.UNSET)
_SCOPE: Final = InstrumentationScope("tributary", __version__)

Fields = Mapping[str, Any]


class Spans:
    """What one worker exports to the collector at a base URL. Live: prints what waits and what is lost.

    `name` is the service's, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say otherwise.
    """

    def __init__(self, endpoint: str, name: str, upstreams: Mapping[str, Upstream]) -> None:
        self._resource = _resource(name)
        self._addresses = {name: _address(upstream.urls[0]) for name, upstream in upstreams.items()}
        self._exporter = _Exporter(f"{endpoint}/v1/traces")
        self._processor = BatchSpanProcessor(self._exporter, _QUEUE_SPANS, _GATHERING_MS, _BATCH_SPANS)

    def __repr__(self) -> str:
        """Show the exporter."""
        return f"<Spans {self._exporter}>"

    def hear(self, event: str, fields: Fields) -> None:
        """Write down what ended, if its trace is sampled."""
        if event == "attempt.finished":
            read = self._attempt
        elif event == "request.finished":
            read = self._request
        else:
            return
        visit = current_visit.get()
        if visit is not None and int(visit.inbound.trace_flags, 16) & TraceFlags.SAMPLED:
            span = read(visit, fields)
            if self._exporter.admits():
                self._processor.on_end(span)

    async def close(self) -> None:
        """Send what waits, for two seconds at most; what a collector has not taken by then is lost, and counted."""
        flushed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def flush() -> None:
            self._processor.shutdown()
            with suppress(RuntimeError):  # the loop was not waited for
                loop.call_soon_threadsafe(flushed.set)

        # A thread that no executor waits for at the process's end.
        threading.Thread(target=flush, name="spans-flush", daemon=True).start()
        try:
            async with asyncio.timeout(_FLUSH_TIME):
                await flushed.wait()
        except TimeoutError:
            self._exporter.give_up()
        self._exporter.report()

    def _request(self, visit: Visit, fields: Fields) -> ReadableSpan:
        known, route = known_method(fields["http.request.method"]), fields["http.route"]
        attributes = {
            "http.request.method": known,
            "http.route": route,
            "url.path": fields["url.path"],
            "http.response.status_code": fields["http.response.status_code"],
            "error.type": server_error(fields),
            "tributary.outcome": fields["outcome"],
            "tributary.page": fields.get("page"),
            "tributary.request_id": visit.inbound.request_id,
        }
        client = visit.inbound.parent_span_id
        called = "HTTP" if known == OTHER_METHOD else known
        return self._span(
            visit,
            f"{called} {route}" if route else called,
            SpanKind.SERVER,
            fields["span_id"],
            None if client is None else _context(visit, client, remote=True),
            attributes,
            0.0,
            fields["duration_ms"],
        )

    def _attempt(self, visit: Visit, fields: Fields) -> ReadableSpan:
        upstream, kind = fields["upstream"], fields["kind"]
        resent = fields["attempt"] - 1 + (kind == "transparent")
        address = fields.get("server.address")
        server, port = self._addresses[upstream] if address is None else _address(f"//{address}")
        attributes = {
            "http.request.method": fields["http.request.method"],
            "server.address": server,
            "server.port": port,
            "http.response.status_code": fields["http.response.status_code"],
            "http.request.resend_count": resent or None,
            "error.type": fields.get("error.type"),
            "tributary.upstream": upstream,
            "tributary.call": fields["call"],
            "tributary.connection": fields["conn"],
            # To encode an attribute takes as long as to make the span: these only where they say something.
            "tributary.kind": None if kind == "first" else kind,
            "tributary.sent": None if fields["sent"] else False,
            "tributary.outcome": None if fields["outcome"] == "ok" else fields["outcome"],
        }
        return self._span(
            visit,
            f"{upstream} {fields['call']}",
            SpanKind.CLIENT,
            fields["span_id"],
            _context(visit, visit.inbound.span_id, remote=False),
            attributes,
            fields["start_offset_ms"],
            fields["duration_ms"],
        )

    def _span(
        self,
        visit: Visit,
        name: str,
        kind: SpanKind,
        span_id: str,
        parent: SpanContext | None,
        attributes: dict[str, Any],
        start: float,
        duration: float,
    ) -> ReadableSpan:
        """Make a span; `start` and `duration` are milliseconds, from the request's arrival. None is no attribute."""
        begun = visit.arrived_ns + round(start * 1_000_000)
        return ReadableSpan(
            name,
            _context(visit, span_id, remote=False),
            parent,
            self._resource,
            {key: value for key, value in attributes.items() if value is not None},
            kind=kind,
            status=_UNSET if attributes["error.type"] is None else _ERROR,
            start_time=begun,
            end_time=begun + round(duration * 1_000_000),
            instrumentation_scope=_SCOPE,
        )


class _Exporter(SpanExporter):
    """OTLP over HTTP, with an account of what waits for it and what it lost; the SDK's own queue never overflows.

    The SDK logs every try at a collector that is away; here it is one event for all that was lost in half a minute.
    """

    def __init__(self, url: str) -> None:
        self._inner = trace_exporter.OTLPSpanExporter(url)
        self._counting = threading.Lock()
        self._waiting = 0
        self._lost = 0
        self._reason = ""
        self._reported = -_REPORT_EVERY
        self._closed = False
        self._thread: int | None = None
        self._logger = logging.getLogger(trace_exporter.__name__)
        self._logger.addFilter(self._note)

    def __repr__(self) -> str:
        """Show what waits, and what was lost and is not reported yet."""
        return f"<Exporter waiting={self._waiting} lost={self._lost}>"

    def admits(self) -> bool:
        """Count one more span as waiting, or as lost where too many are."""
        with self._counting:
            if self._waiting < _QUEUE_SPANS:
                self._waiting += 1
                return True
            self._lost += 1
            self._reason = self._reason or "the queue is full"
            return False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, for ten seconds at most if the collector is away, and report a loss. In the SDK's thread."""
        self._thread = threading.get_ident()
        try:
            result = self._inner.export(spans)
        except Exception as error:  # noqa: BLE001 - whatever it is, the spans are lost and the thread goes on
            self._reason = type(error).__name__
            result = SpanExportResult.FAILURE
        finally:
            self._thread = None
        with self._counting:
            if not self._closed:
                self._waiting -= len(spans)
                self._lost += 0 if result is SpanExportResult.SUCCESS else len(spans)
        if time.monotonic() - self._reported >= _REPORT_EVERY:
            self.report()
        return result

    def report(self) -> None:
        """Log how many spans were lost since the last report, if any were."""
        with self._counting:
            lost, reason, self._lost, self._reason = self._lost, self._reason, 0, ""
        if lost:
            self._reported = time.monotonic()
            events.spans_dropped(count=lost, waiting=self._waiting, reason=reason)

    def give_up(self) -> None:
        """Count all that waits as lost, and let the SDK's thread come to its end."""
        with self._counting:
            self._closed = True
            self._lost, self._waiting = self._lost + self._waiting, 0
            self._reason = self._reason or "the collector did not take them in time"
        self._inner.shutdown()

    def shutdown(self) -> None:
        """Let go of connections; the SDK calls it when all was sent."""
        self._logger.removeFilter(self._note)
        if not self._closed:
            self._closed = True
            self._inner.shutdown()

    def _note(self, record: logging.LogRecord) -> bool:
        """Keep the first that the SDK says of a batch of ours, and let through what it says of anybody else's."""
        if record.thread != self._thread:
            return True
        self._reason = self._reason or record.getMessage()[:_LONGEST_REASON]
        return False


def _context(visit: Visit, span_id: str, *, remote: bool) -> SpanContext:
    return SpanContext(int(visit.inbound.trace_id, 16), int(span_id, 16), is_remote=remote, trace_flags=_SAMPLED)


def _address(url: str) -> tuple[str | None, int | None]:
    """Return the host and the port of a URL, or of what stands between its slashes."""
    parts = urlsplit(url)
    return parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _resource(name: str) -> Resource:
    own = {
        "service.name": name,
        "service.version": __version__,
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
    }
    return Resource(own).merge(OTELResourceDetector().detect())
