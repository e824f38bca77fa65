"""A collector that takes OTLP over HTTP on a free port, and keeps the spans it was sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Span(NamedTuple):
    """One span as it was sent: ids in hex, times in nanoseconds, attributes by name."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    failed: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """`spans` are what has come; `status` is what it answers with, when `open` is set."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.spans: list[Span] = []
        self.asked: list[dict[str, str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self._more = asyncio.Condition()

    async def sent(self, count: int) -> list[Span]:
        """Wait until that many spans have come; the first is the one that began first."""
        async with asyncio.timeout(60), self._more:
            await self._more.wait_for(lambda: len(self.spans) >= count)
        return self.sorted()

    async def tried(self, count: int) -> None:
        """Wait until that many batches have been brought, taken or not."""
        async with asyncio.timeout(60), self._more:
            await self._more.wait_for(lambda: len(self.asked) >= count)

    def sorted(self) -> list[Span]:
        return sorted(self.spans, key=lambda span: (span.start, span.kind != "SERVER"))

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._more:
            self.asked.append(dict(request.headers))
            self._more.notify_all()
        await self.open.wait()
        if self.status == 200:
            async with self._more:
                self.spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
                self._more.notify_all()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, status=self.status, content_type="application/x-protobuf")


def _spans(request: Any) -> list[Span]:
    return [
        Span(
            name=span.name,
            kind=type(span).SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            start=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            failed=span.status.code == span.status.STATUS_CODE_ERROR,
            attributes=_values(span.attributes),
            resource=_values(group.resource.attributes),
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector on a free port of this machine."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()
