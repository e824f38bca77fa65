"""The four ways to ask one project: its ASGI and WSGI applications on real sockets, and Django's two test clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple, Protocol

import aiohttp
import msgspec
from django.core import signals
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.http import HttpResponseBase
from django.test import AsyncClient, Client
from yarl import URL

from gateway.asgi import Application
from tests.serving import Table, gateway, project

WAYS = ("asgi", "wsgi", "client", "async client")


class Got(NamedTuple):
    """An answer as its reader sees it; header names are in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def header(self, name: str) -> str | None:
        """Return the one header of a name, or None."""
        return next(iter(self.all(name)), None)

    def all(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found == name.lower()]


class Ask(Protocol):
    """Sends one request and returns its answer."""

    def __call__(
        self, method: str, path: str, /, headers: Mapping[str, str] = ..., body: bytes = ...
    ) -> Awaitable[Got]: ...


@asynccontextmanager
async def asking(way: str, urlpatterns: Sequence[Any], upstreams: Table, **settings: Any) -> AsyncIterator[Ask]:
    """Yield what sends requests to a project in one of the WAYS."""
    if way == "asgi":
        async with gateway(urlpatterns, upstreams, **settings) as base, _over_http(base) as ask:
            yield ask
        return
    with project(urlpatterns, upstreams, **settings):
        if way == "wsgi":
            async with _wsgi_server() as base, _over_http(base) as ask:
                yield ask
        else:
            yield _ask_client if way == "client" else _ask_async_client


@asynccontextmanager
async def _over_http(base: str) -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:

        async def ask(method: str, path: str, /, headers: Mapping[str, str] = {}, body: bytes = b"") -> Got:
            async with session.request(
                method, URL(base + path, encoded=True), headers=headers, data=body or None, allow_redirects=False
            ) as answer:
                found = [(name.lower(), value) for name, value in answer.headers.items()]
                return Got(answer.status, found, await answer.read())

        yield ask


@asynccontextmanager
async def _wsgi_server() -> AsyncIterator[str]:
    """Serve the WSGI application as `runserver` of stock Django would, in a thread."""
    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.set_app(WSGIHandler())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        await asyncio.to_thread(server.shutdown)
        await asyncio.to_thread(thread.join)
        await asyncio.to_thread(server.server_close)


async def _ask_client(method: str, path: str, /, headers: Mapping[str, str] = {}, body: bytes = b"") -> Got:
    return await asyncio.to_thread(_got_by_client, method, path, headers, body)


def _got_by_client(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Got:
    client = Client(raise_request_exception=False)
    response: Any = client.generic(method, path, body, **_sent(headers))
    return _got(response, b"".join(response))


async def _ask_async_client(method: str, path: str, /, headers: Mapping[str, str] = {}, body: bytes = b"") -> Got:
    client = AsyncClient(raise_request_exception=False)
    response: Any = await client.generic(method, path, body, **_sent(headers))
    return _got(response, b"".join([part async for part in response]) if response.streaming else response.content)


def _sent(headers: Mapping[str, str]) -> dict[str, Any]:
    """Split headers as Django's clients take them."""
    others = {name: value for name, value in headers.items() if name != "Content-Type"}
    return {"content_type": headers.get("Content-Type", "application/octet-stream"), "headers": others}


def _got(response: HttpResponseBase, body: bytes) -> Got:
    cookies = [("set-cookie", cookie.OutputString()) for cookie in response.cookies.values()]
    return Got(response.status_code, [*((name.lower(), value) for name, value in response.items()), *cookies], body)


async def spoken(method: str, where: str, query: bytes = b"", **more: Any) -> Got:
    """Ask the ASGI application in its own terms, for what uvicorn would not let through; `more` goes into the scope."""
    headers = [(b"host", b"gateway"), (b"x-request-id", b"asked-1")]
    scope = {"type": "http", "method": method, "path": where, "query_string": query, "headers": headers, **more}
    asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    asked.put_nowait({"type": "http.request", "body": b""})
    sent: list[Mapping[str, Any]] = []

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    await Application()(scope, asked.get, send)
    return Got(
        sent[0]["status"],
        [(name.decode().lower(), value.decode()) for name, value in sent[0]["headers"]],
        b"".join(message["body"] for message in sent[1:]),
    )


SIGNALS = {"started": signals.request_started, "finished": signals.request_finished}


@contextmanager
def listening(kind: str) -> Iterator[dict[str, list[Any]]]:
    """Connect receivers of a kind to the signals around a request; yields the senders each signal had, by name."""
    heard: dict[str, list[Any]] = {"started": [], "finished": []}

    def synchronous(name: str) -> Callable[..., Any]:
        return lambda sender, **_: heard[name].append(sender)

    def asynchronous(name: str) -> Callable[..., Any]:
        async def hear(sender: Any, **_: Any) -> None:
            await asyncio.sleep(0)
            heard[name].append(sender)

        return hear

    makers = {"synchronous": [synchronous], "asynchronous": [asynchronous], "both": [synchronous, asynchronous]}[kind]
    receivers = [(SIGNALS[name], make(name)) for name in SIGNALS for make in makers]
    for signal, receiver in receivers:
        signal.connect(receiver, weak=False)
    try:
        yield heard
    finally:
        for signal, receiver in receivers:
            signal.disconnect(receiver)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what it waits for may come from threads, which set no event
            await asyncio.sleep(0)
