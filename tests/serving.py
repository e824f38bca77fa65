"""The gateway as a test runs it: its pages and upstreams in, a real uvicorn on a free port out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any, Final, NamedTuple

import uvicorn
from django.test import AsyncClient, override_settings
from django.urls import clear_url_caches

from gateway import AggregateView
from gateway.serving.protocol import Protocol
from tests.stub import Stub
from upstreams import Fleet, Upstream

Table = Mapping[str, Upstream | Stub]

SLOW: Final = 60.0  # seconds that nothing takes, however busy the machine is
SHORT: Final = 2.0  # seconds of what is to run out, and not before what a test does first is done
_PLAIN: Final = Upstream("http://127.0.0.1")


class PatientPage(AggregateView):
    """A page whose deadline is no test's subject."""

    deadline = SLOW


def patient(upstream: Upstream) -> Upstream:
    """Return an upstream that waits as long as it takes where it has the default times.

    A test that is about a time names another than the default, which cannot be told from none.
    """
    timeout = SLOW if upstream.timeout == _PLAIN.timeout else upstream.timeout
    max_wait = SLOW if upstream.max_wait == _PLAIN.max_wait else upstream.max_wait
    return replace(upstream, timeout=timeout, max_wait=max_wait)


@contextmanager
def project(urlpatterns: Sequence[Any], upstreams: Table, **settings: Any) -> Iterator[None]:
    """Make Django's settings those of a project with these routes and (patient) upstreams; a stub is a plain one."""
    urlconf = ModuleType("tests.project_urls")
    urlconf.urlpatterns = list(urlpatterns)  # type: ignore[attr-defined]
    for code, name in ((400, "bad_request"), (403, "permission_denied"), (404, "not_found"), (500, "server_error")):
        setattr(urlconf, f"handler{code}", f"gateway.answering.problems.{name}")
    plain = {name: Upstream(entry.url) if isinstance(entry, Stub) else entry for name, entry in upstreams.items()}
    table = {name: patient(upstream) for name, upstream in plain.items()}
    with override_settings(ROOT_URLCONF=urlconf, UPSTREAMS=table, **settings):
        clear_url_caches()
        try:
            yield
        finally:
            clear_url_caches()


@contextmanager
def asking(urlpatterns: Sequence[Any], upstreams: Table, **settings: Any) -> Iterator[AsyncClient]:
    """Ask a project's pages through Django's own test client: real upstreams, and no server of ours between."""
    with project(urlpatterns, upstreams, MIDDLEWARE=["gateway.middleware.Edge"], **settings):
        yield AsyncClient(raise_request_exception=False)


class Served(NamedTuple):
    """A gateway that is being served: its base URL, and the fleet behind it."""

    url: str
    fleet: Fleet


@asynccontextmanager
async def gateway(
    urlpatterns: Sequence[Any], upstreams: Table, keep_alive: float = 60, **settings: Any
) -> AsyncIterator[str]:
    """Serve a project with uvicorn in this loop, lifespan and all; yields its base URL."""
    async with served(urlpatterns, upstreams, keep_alive, **settings) as found:
        yield found.url


@asynccontextmanager
async def served(
    urlpatterns: Sequence[Any], upstreams: Table, keep_alive: float = 60, **settings: Any
) -> AsyncIterator[Served]:
    """Do as `gateway` does, for a test that also looks at the fleet."""
    with project(urlpatterns, upstreams, **settings):
        from gateway.asgi import Application  # noqa: PLC0415 - the handler reads its settings when it is made

        config = uvicorn.Config(Application(), lifespan="on", http=Protocol, ws="none", log_config=None)
        config.timeout_keep_alive = keep_alive  # type: ignore[assignment] # which uvicorn wants in whole seconds
        server = _Server(config)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            serving = asyncio.create_task(server.serve([listener]))
            await server.ready.wait()
            if serving.done():
                await serving
            try:
                yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", server.lifespan.state["fleet"])
            finally:
                server.stopping.set()
                await serving


class _Server(uvicorn.Server):
    """uvicorn, saying when it is ready, stopping when it is told, and leaving the process's signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop as uvicorn does, without the tenth of a second that it always sleeps."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0)
        await self._wait_tasks_to_complete()
        await self.lifespan.shutdown()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.ready.set()
