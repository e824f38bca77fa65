"""Where a request finds the fleet: the worker's own, opened by the lifespan, or one opened for this request alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from django.http import HttpRequest

from gateway.conf import conf
from gateway.log import events
from upstreams import Fleet, open_fleet


def borrowed_fleet(request: HttpRequest) -> AbstractAsyncContextManager[Fleet]:
    """Return a context with the fleet this request may use.

    Under the ASGI application that is the worker's. Under WSGI and Django's test clients there is a new event loop for
    every request, so its connections are made for it and closed after it.
    """
    state = getattr(request, "scope", {}).get("state") or {}
    fleet: Fleet | None = state.get("fleet")
    return opened_fleet() if fleet is None else nullcontext(fleet)


@asynccontextmanager
async def opened_fleet() -> AsyncIterator[Fleet]:
    """Open a fleet on the settings' upstreams, reporting to the log."""
    async with open_fleet(conf().upstreams, events, via=conf().name) as fleet:
        yield fleet
