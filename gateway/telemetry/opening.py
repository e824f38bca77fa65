"""A worker's telemetry, switched on by the settings and closed with the worker; off, its libraries are not imported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from gateway.conf import conf
from gateway.log.observers import observers


@asynccontextmanager
async def opened_telemetry() -> AsyncIterator[dict[str, Any]]:
    """Begin to count and to export, as wanted; yields what requests find of it in their state: `metrics` if counted.

    The libraries take a while to import, and open files: not on the loop.
    """
    async with AsyncExitStack() as stack:
        state: dict[str, Any] = {}
        if conf().metrics:
            state["metrics"] = metrics = await asyncio.to_thread(_metrics)
            stack.push_async_callback(asyncio.to_thread, metrics.close)
            stack.enter_context(observers.telling(metrics.hear))
        if (endpoint := conf().otlp_endpoint) is not None:
            spans = await asyncio.to_thread(_spans, endpoint)
            stack.push_async_callback(spans.close)
            stack.enter_context(observers.telling(spans.hear))
        yield state


def _metrics() -> Any:
    from gateway.telemetry.metrics import Metrics  # noqa: PLC0415 - imports the library of an extra

    return Metrics(conf().upstreams)


def _spans(endpoint: str) -> Any:
    from gateway.telemetry.spans import Spans  # noqa: PLC0415 - the same

    return Spans(endpoint, conf().name, conf().upstreams)
