"""The peer on FastAPI: an httpx client for each upstream, orjson at both ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import orjson
from fastapi import FastAPI, Request, Response

_UPSTREAMS = os.environ["BENCH_UPSTREAM"].split()
# A request that ends looks through all connections of its client: few of them, and few in each client, is fastest.
_LIMITS = httpx.Limits(max_connections=10, max_keepalive_connections=10)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep the clients for as long as the application lives."""
    async with AsyncExitStack() as stack:
        app.state.clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=url, limits=_LIMITS, timeout=5, trust_env=False))
            for url in _UPSTREAMS
        ]
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/merged/{size}")
async def merged(size: str, request: Request) -> Response:
    """Ask three upstreams, answer one document."""
    users, orders, catalog = request.app.state.clients
    user, ordered, products = await asyncio.gather(
        _ask(users, f"/{size}/user.json"),
        _ask(orders, f"/{size}/orders.json"),
        _ask(catalog, f"/{size}/products.json"),
    )
    return _answer({"user": user, "orders": ordered, "products": products})


@app.get("/wide/{width}/{size}")
async def wide(width: int, size: str, request: Request) -> Response:
    """Ask as many times as wished."""
    clients = request.app.state.clients
    asked = (_ask(clients[part % 3], f"/{size}/user.json?part={part}") for part in range(width))
    return _answer({f"part{part}": value for part, value in enumerate(await asyncio.gather(*asked))})


async def _ask(client: httpx.AsyncClient, path: str) -> Any:
    response = await client.get(path)
    response.raise_for_status()
    return orjson.loads(response.content)


def _answer(data: dict[str, Any]) -> Response:
    """Return the document as bytes: ORJSONResponse is deprecated, and what is advised instead checks every value."""
    body = orjson.dumps({"data": data, "complete": True, "errors": {}})
    return Response(body, media_type="application/json")
