"""What is answered in front of Django: short answers to the machines around the gateway, without a log line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.core.checks import CheckMessage, Warning, register  # noqa: A004 - Django's own name
from django.urls import Resolver404, get_resolver

Scope = Mapping[str, Any]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class Short(NamedTuple):
    """A short answer; it is never kept by a cache."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


Reading = Callable[[Scope], Awaitable[Short]]
_PASS: Final = Short(200, b'{"status":"pass"}')
_FAIL: Final = Short(503, b'{"status":"fail"}')
_REFUSED: Final = Short(405, headers=((b"allow", b"GET, HEAD"),))


async def healthz(_: Scope) -> Short:
    """Say that the process answers."""
    return _PASS


async def readyz(scope: Scope) -> Short:
    """Say whether this worker is open: its lifespan has begun, and what requests need is there."""
    return _PASS if "fleet" in (scope.get("state") or {}) else _FAIL


#: By path. A project's URLconf is not asked for these.
PROBES: Final[Mapping[str, Reading]] = {"/healthz": healthz, "/readyz": readyz}


async def respond(reading: Reading, scope: Scope, send: Send) -> None:
    """Answer a GET or HEAD as `reading` says, and refuse any other method."""
    await deliver(await reading(scope) if scope["method"] in {"GET", "HEAD"} else _REFUSED, scope, send)


async def deliver(short: Short, scope: Scope, send: Send) -> None:
    """Send a short answer; to HEAD, without its body."""
    headers = [
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(short.body)).encode()),
        (b"content-type", short.content_type.encode()),
        *short.headers,
    ]
    await send({"type": "http.response.start", "status": short.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else short.body})


@register("gateway")
def check_own_paths(**_: object) -> list[CheckMessage]:
    """Warn of routes that no request will reach."""
    return [
        Warning(
            f"The URLconf routes {path}, which the gateway answers itself.",
            hint="Under the ASGI application no request gets to that route: give it another path.",
            id="gateway.W004",
        )
        for path in _routed((*PROBES, "/metrics") if getattr(settings, "GATEWAY_METRICS", False) else PROBES)
    ]


def _routed(paths: Mapping[str, Reading] | tuple[str, ...]) -> Iterator[str]:
    if not getattr(settings, "ROOT_URLCONF", None):
        return
    for path in paths:
        try:
            get_resolver().resolve(path)
        except Resolver404:
            continue
        yield path
