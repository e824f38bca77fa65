"""The gateway as a test runs it: its pages and upstreams in, a real uvicorn on a free port out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import ModuleType
from typing import Any

import uvicorn
from django.test import override_settings
from django.urls import clear_url_caches

from tests.stub import Stub
from upstreams import Upstream

Table = Mapping[str, Upstream | Stub]


@contextmanager
def project(urlpatterns: Sequence[Any], upstreams: Table, **settings: Any) -> Iterator[None]:
    """Make Django's settings those of a project with these routes and upstreams (a stub counts as its plain Upstream)."""
    urlconf = ModuleType("tests.project_urls")
    urlconf.urlpatterns = list(urlpatterns)  # type: ignore[attr-defined]
    for code, name in ((400, "bad_request"), (403, "permission_denied"), (404, "not_found"), (500, "server_error")):
        setattr(urlconf, f"handler{code}", f"gateway.problems.{name}")
    table = {name: Upstream(entry.url) if isinstance(entry, Stub) else entry for name, entry in upstreams.items()}
    with override_settings(ROOT_URLCONF=urlconf, UPSTREAMS=table, **settings):
        clear_url_caches()
        try:
            yield
        finally:
            clear_url_caches()


@asynccontextmanager
async def gateway(urlpatterns: Sequence[Any], upstreams: Table, **settings: Any) -> AsyncIterator[str]:
    """Serve a project with uvicorn in this loop, lifespan and all; yields its base URL."""
    with project(urlpatterns, upstreams, **settings):
        from gateway.asgi import Application  # noqa: PLC0415 - the handler reads its settings when it is made

        server = _Server(
            uvicorn.Config(Application(), lifespan="on", ws="none", log_config=None, timeout_keep_alive=60)
        )
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            serving = asyncio.create_task(server.serve([listener]))
            await server.ready.wait()
            if serving.done():
                await serving
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                await serving


class _Server(uvicorn.Server):
    """uvicorn, saying when it is ready and leaving the process's signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.ready.set()
