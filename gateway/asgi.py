"""The ASGI application: HTTP goes to Django, the lifespan opens and closes what a worker holds."""

from __future__ import annotations

from typing import Any

import django

django.setup(set_prefix=False)

from gateway.conf import conf  # noqa: E402 - Django must be set up first
from gateway.serving.handler import Handler, Receive, Send  # noqa: E402 - the same
from gateway.serving.health import PROBES, respond  # noqa: E402 - the same
from gateway.serving.lifespan import lifespan  # noqa: E402 - the same
from gateway.telemetry import scraping  # noqa: E402 - the same


class Application:
    """Answers `http` and `lifespan`, and refuses WebSockets (the client sees a 403).

    Probes, and metrics where they are on, are answered here: Django sees nothing of them.
    """

    def __init__(self) -> None:
        self._handler = Handler()
        self._front = {**PROBES, scraping.PATH: scraping.metrics} if conf().metrics else PROBES

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one scope. Raises ValueError for a kind that ASGI did not have when this was written."""
        if scope["type"] != "http":
            await _speak(scope, receive, send)
            return
        reading = self._front.get(scope["path"].removeprefix(scope.get("root_path", "")))
        metrics = (scope.get("state") or {}).get("metrics")
        if reading is not None:
            await respond(reading, scope, send)
        elif metrics is None:
            await self._handler(scope, receive, send)
        else:
            active = metrics.active(scope["method"])
            active.inc()
            try:
                await self._handler(scope, receive, send)
            finally:
                active.dec()


async def _speak(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Serve a scope that is no HTTP request."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000, "reason": "this gateway speaks HTTP"})
    else:
        raise ValueError(f"this gateway speaks HTTP, not {scope['type']}")


application = Application()
