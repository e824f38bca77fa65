"""The floor: a bare ASGI function and aiohttp. It asks, parses and joins, and does nothing else that a gateway does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import orjson

Message = dict[str, Any]

_UPSTREAMS = os.environ["BENCH_UPSTREAM"].split()
_held: dict[str, aiohttp.ClientSession] = {}


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Answer `/merged/SIZE` and `/wide/WIDTH/SIZE`."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    page, *rest = scope["path"][1:].split("/")
    data = await (_merged(*rest) if page == "merged" else _wide(*rest))
    body = orjson.dumps({"data": data, "complete": True, "errors": {}})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _merged(size: str) -> Message:
    users, orders, catalog = _UPSTREAMS
    user, ordered, products = await asyncio.gather(
        _ask(f"{users}/{size}/user.json"),
        _ask(f"{orders}/{size}/orders.json"),
        _ask(f"{catalog}/{size}/products.json"),
    )
    return {"user": user, "orders": ordered, "products": products}


async def _wide(width: str, size: str) -> Message:
    asked = (_ask(f"{_UPSTREAMS[part % 3]}/{size}/user.json?part={part}") for part in range(int(width)))
    return {f"part{part}": value for part, value in enumerate(await asyncio.gather(*asked))}


async def _ask(url: str) -> Any:
    async with _held["session"].get(url) as response:
        response.raise_for_status()
        return orjson.loads(await response.read())


async def _live(receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
    await receive()
    timeout, connector = aiohttp.ClientTimeout(total=5), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        _held["session"] = session
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
