"""The peer on stock Django: async views, aiohttp, tenacity's retries, a line of structlog's for each step."""

from __future__ import annotations

import asyncio
import functools
import os
import time
import uuid
from typing import Any

import aiohttp
import orjson
import structlog
from django.http import HttpRequest, HttpResponse
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

_UPSTREAMS = os.environ["BENCH_UPSTREAM"].split()
_log = structlog.get_logger()


@functools.cache
def _session() -> aiohttp.ClientSession:
    """Return the one session; made by the first request, since Django has no lifespan."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=5), raise_for_status=True
    )


async def merged(request: HttpRequest, size: str) -> HttpResponse:
    """Ask three upstreams, answer one document."""
    started = _begin(request)
    users, orders, catalog = _UPSTREAMS
    user, ordered, products = await asyncio.gather(
        _call("user", f"{users}/{size}/user.json"),
        _call("orders", f"{orders}/{size}/orders.json"),
        _call("products", f"{catalog}/{size}/products.json"),
    )
    return _answer({"user": user, "orders": ordered, "products": products}, started)


async def wide(request: HttpRequest, width: int, size: str) -> HttpResponse:
    """Ask as many times as wished."""
    started = _begin(request)
    urls = (f"{_UPSTREAMS[part % 3]}/{size}/user.json?part={part}" for part in range(width))
    values = await asyncio.gather(*(_call(f"part{part}", url) for part, url in enumerate(urls)))
    return _answer({f"part{part}": value for part, value in enumerate(values)}, started)


async def _call(name: str, url: str) -> Any:
    started = time.perf_counter()
    value = await _attempt(name, url)
    _log.info("call.finished", call=name, duration_ms=_since(started))
    return value


@retry(
    retry=retry_if_exception_type((aiohttp.ClientError, TimeoutError)),
    stop=stop_after_attempt(3),
    wait=wait_random_exponential(multiplier=0.05, max=1),
    reraise=True,
)
async def _attempt(name: str, url: str) -> Any:
    started = time.perf_counter()
    async with _session().get(url) as response:
        body = await response.read()
    _log.info("attempt.finished", call=name, status=response.status, body_bytes=len(body), duration_ms=_since(started))
    return orjson.loads(body)


def _begin(request: HttpRequest) -> float:
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=uuid.uuid4().hex)
    _log.info("request.started", method=request.method, path=request.path)
    return time.perf_counter()


def _answer(data: dict[str, Any], started: float) -> HttpResponse:
    body = orjson.dumps({"data": data, "complete": True, "errors": {}})
    _log.info("request.finished", status=200, body_bytes=len(body), duration_ms=_since(started))
    return HttpResponse(body, content_type="application/json")


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
