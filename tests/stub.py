"""A real HTTP server that a test scripts and that keeps account of what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from aiohttp import web


class Received(NamedTuple):
    """One request as it arrived. `query` keeps repeated names; header names are in lower case."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Answered(NamedTuple):
    """An answer to give: JSON of `body`, or the bytes it is."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = {}
    content_type: str = "application/json"


Script = Any  # a value to answer as JSON, an Answered, Turns of those, or an async function of Received


class Stub:
    """`on(path, script)` says what to answer; `received` is what was asked, `cancelled` how many askers left early."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.url = ""
        self.received: list[Received] = []
        self.cancelled = 0
        self._scripts: dict[str, Script] = {}

    def __repr__(self) -> str:
        return f"<Stub {self.name} received={[f'{asked.method} {asked.path}' for asked in self.received]}>"

    def on(self, path: str, script: Script) -> Stub:
        """Script one path, whatever the method; `*` is every other path. `Turns` are answered one by one."""
        self._scripts[path] = Turns(script) if isinstance(script, Turns) else script
        return self

    def asked(self, path: str) -> list[Received]:
        """Return the requests for one path."""
        return [received for received in self.received if received.path == path]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        received = Received(
            request.method,
            request.path,
            list(request.query.items()),
            {name.lower(): value for name, value in request.headers.items()},
            await request.read(),
        )
        self.received.append(received)
        try:
            return _response(await self._answer(received))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _answer(self, received: Received) -> Any:
        script = self._scripts.get(received.path, self._scripts.get("*", Answered({"error": "not scripted"}, 404)))
        if isinstance(script, Turns):
            script = script.pop(0) if len(script) > 1 else script[0]
        if callable(script):
            script = await script(received)
        return script


class Turns(list[Any]):
    """Answers to give one after another, the last one again and again."""


Handler = Callable[[Received], Awaitable[Any]]


@asynccontextmanager
async def serving_stub(name: str) -> AsyncIterator[Stub]:
    """Run a stub on a free port of this machine."""
    stub = Stub(name)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", stub.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield stub
    finally:
        await runner.cleanup()


class Barrier:
    """A script that answers nobody until `parties` requests are in flight at once."""

    def __init__(self, parties: int, answer: Any) -> None:
        self._barrier = asyncio.Barrier(parties)
        self._answer = answer

    async def __call__(self, _: Received) -> Any:
        await self._barrier.wait()
        return self._answer


class Gate:
    """A script that lets a test see a request arrive or its asker leave, and answers it when the test says so."""

    def __init__(self, answer: Any) -> None:
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        self.left = asyncio.Event()
        self._answer = answer

    async def __call__(self, _: Received) -> Any:
        self.arrived.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        return self._answer


def _response(answer: Any) -> web.StreamResponse:
    if not isinstance(answer, Answered):
        answer = Answered(answer)
    body = (
        answer.body
        if isinstance(answer.body, bytes)
        else b""
        if answer.body is None
        else msgspec.json.encode(answer.body)
    )
    headers = {"Content-Type": answer.content_type, **answer.headers}
    return web.Response(body=body, status=answer.status, headers=headers)
