"""The ASGI application: HTTP goes to Django, the lifespan opens and closes what a worker holds."""

from __future__ import annotations

from typing import Any

import django

django.setup(set_prefix=False)

from gateway.serving.handler import Handler, Receive, Send  # noqa: E402 - Django must be set up first
from gateway.serving.lifespan import lifespan  # noqa: E402


class Application:
    """Answers `http` and `lifespan`, and refuses WebSockets (the client sees a 403)."""

    def __init__(self) -> None:
        self._handler = Handler()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one scope. Raises ValueError for a kind that ASGI did not have when this was written."""
        if scope["type"] == "http":
            await self._handler(scope, receive, send)
        elif scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": "this gateway speaks HTTP"})
        else:
            raise ValueError(f"this gateway speaks HTTP, not {scope['type']}")


application = Application()
