"""The ASGI application: HTTP goes to Django, the lifespan opens and closes what a worker holds."""

from __future__ import annotations

from typing import Any

import django

django.setup(set_prefix=False)

from gateway.handler import Handler, Receive, Send  # noqa: E402 - Django must be set up first
from gateway.lifespan import lifespan  # noqa: E402


class Application:
    """Answers the ASGI scopes there are: `http`, `lifespan`, and a polite refusal of WebSockets."""

    def __init__(self) -> None:
        self._handler = Handler()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] == "http":
            await self._handler(scope, receive, send)
        elif scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000, "reason": "this gateway speaks HTTP"})


application = Application()
