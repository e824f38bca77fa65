"""A service as a running server: its routes, and what all five have in common."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from demo.services.answers import answer, refusals
from demo.services.catalog import Catalog
from demo.services.faults import FAILED_ONCE, STANDING, faults, put_faults
from demo.services.orders import Orders
from demo.services.recommendations import Recommendations
from demo.services.reviews import Reviews
from demo.services.users import Users

RECEIVED = web.AppKey("RECEIVED", Counter[str])
UNCOUNTED = ("/health", "/_counters", "/_faults")
SPREAD = 0.35  # of the logarithm of the latency: one answer in forty takes twice the median or more
LAST_ANSWERS = 1.0  # seconds that requests under way are given when the service stops


class Service(Protocol):
    """What a service module provides."""

    @property
    def latency(self) -> float:
        """The median time to answer, in milliseconds."""

    @property
    def routes(self) -> Sequence[web.RouteDef]:
        """What it answers."""


SERVICES: Mapping[str, Callable[[], Service]] = {
    "users": Users,
    "orders": Orders,
    "catalog": Catalog,
    "reviews": Reviews,
    "recommendations": Recommendations,
}


@asynccontextmanager
async def serving(
    name: str, *, host: str = "127.0.0.1", port: int = 0, latency: float | None = None
) -> AsyncIterator[URL]:
    """Serves one service, yields its URL, and lets requests under way finish before it ends.

    Port 0 takes any free one. `latency` is the median in milliseconds, the service's own when None, 0 for none.
    Raises OSError when the address cannot be had.
    """
    # Without cancellation a handler would outlive its client, and a request that is never answered the service.
    runner = web.AppRunner(
        application(name, latency), handler_cancellation=True, access_log=None, shutdown_timeout=LAST_ANSWERS
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield URL.build(scheme="http", host=host, port=runner.addresses[0][1])
    finally:
        await runner.cleanup()


def application(name: str, latency: float | None) -> web.Application:
    """The service's routes behind what is common to all: counting, faults on demand, errors as JSON, latency."""
    service = SERVICES[name]()
    median = service.latency if latency is None else latency
    app = web.Application(middlewares=[count, faults(name), refusals, delayed(median, seed=name)])
    app[RECEIVED] = Counter()
    app[FAILED_ONCE] = set()
    app[STANDING] = []

    async def health(_request: web.Request) -> web.Response:
        return answer({"service": name, "status": "ok"})

    own = [web.get("/health", health), web.get("/_counters", counters), web.put("/_faults", put_faults)]
    app.add_routes([*service.routes, *own])
    return app


async def counters(request: web.Request) -> web.Response:
    """How many requests of each method and path were received: `{"GET /users/7": 2}`."""
    return answer(request.app[RECEIVED])


@web.middleware
async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts what arrives, whatever becomes of it."""
    if request.path not in UNCOUNTED:
        request.app[RECEIVED][f"{request.method} {request.path}"] += 1
    return await handler(request)


def delayed(median: float, seed: str) -> Middleware:
    """The middleware that takes its time: log-normal around `median` milliseconds, the same sequence every run."""
    draw = random.Random(seed)

    @web.middleware
    async def delay(request: web.Request, handler: Handler) -> web.StreamResponse:
        if median and request.path not in UNCOUNTED:
            await asyncio.sleep(draw.lognormvariate(math.log(median), SPREAD) / 1000)
        return await handler(request)

    return delay
