"""`/metrics`: who may read them, and that rendering them holds up no request."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterator
from typing import Any, Final

from gateway.conf import conf
from gateway.serving.health import Scope, Short

PATH: Final = "/metrics"
_DENIED: Final = Short(401, headers=((b"www-authenticate", b"Bearer"),))
_CLOSED: Final = Short(503)


async def metrics(scope: Scope) -> Short:
    """Return what was counted, as the asker accepts it; 401 without the token, 503 where no worker is open."""
    token = conf().metrics_token
    if token is not None and not any(_is_bearer(value, token) for value in _values(scope, b"authorization")):
        return _DENIED
    found: Any = (scope.get("state") or {}).get("metrics")
    if found is None:
        return _CLOSED
    accept = b",".join(_values(scope, b"accept")).decode("latin-1")
    content_type, body = await asyncio.to_thread(found.render, accept)
    return Short(200, body, content_type, ((b"vary", b"Accept"),))


def _values(scope: Scope, name: bytes) -> Iterator[bytes]:
    return (value for key, value in scope["headers"] if key == name)


def _is_bearer(value: bytes, token: str) -> bool:
    """Tell whether a header holds the token, taking as long over a wrong one as over a nearly right one."""
    scheme, _, given = value.partition(b" ")
    return hmac.compare_digest(given.strip(), token.encode()) and scheme.lower() == b"bearer"
