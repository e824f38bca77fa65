"""A gateway before services that fail as they are told, and someone who asks it for pages."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiohttp
import msgspec

from bench.failing.services import Addresses, Knobs
from bench.running import free_port, running, until_answering

_SERVICES = 5


@dataclass(frozen=True, slots=True)
class Page:
    """One page as its client saw it: when it was asked for on the clock of the machine, seconds it took, wholeness."""

    at: float
    took: float
    complete: bool


class Scene:
    """The gateway, the services' knobs and counts, and a client."""

    def __init__(self, session: aiohttp.ClientSession, control: str, gateway: str, pid: int) -> None:
        self.pid = pid
        self._session = session
        self._control = control
        self._gateway = gateway

    async def page(self, name: str, accept: str = "application/json") -> Page:
        """Ask for a page. Raises aiohttp's error for any answer that is none. A stream does not begin with its end."""
        at, started = time.time(), time.perf_counter()
        async with self._session.get(f"{self._gateway}/{name}", headers={"Accept": accept}) as response:
            await response.read()
            response.raise_for_status()
            return Page(at, time.perf_counter() - started, response.headers.get("X-Complete") == "true")

    async def leave(self, name: str, after: float) -> None:
        """Ask for a page and go away before it can be there."""
        with suppress(TimeoutError):
            async with asyncio.timeout(after):
                await self.page(name)

    async def tasks(self) -> int:
        """Ask how many tasks the gateway has."""
        async with self._session.get(f"{self._gateway}/tasks") as response:
            return int(await response.read())

    async def turn(self, service: int, knobs: Knobs) -> None:
        """Set the knobs of one service, the first being 0."""
        async with self._session.put(f"{self._control}/{service}", data=msgspec.json.encode(knobs)) as response:
            response.raise_for_status()

    async def counts(self) -> list[int]:
        """Return how many requests each service has had."""
        async with self._session.get(self._control) as response:
            return msgspec.json.decode(await response.read(), type=list[int])


@asynccontextmanager
async def scene(log: str = "", dead: int | None = None, *, reuse: bool = True) -> AsyncIterator[Scene]:
    """Start services and the gateway, its log in a folder if there is one; nothing listens where the dead one was.

    Without `reuse` the client opens a connection for each page, and keeps none.
    """
    with running([sys.executable, "-m", "bench.failing.services", str(_SERVICES)]) as services:
        assert services.stdout is not None
        found = msgspec.json.decode(services.stdout.readline(), type=Addresses)
        if dead is not None:
            found.services[dead] = f"http://127.0.0.1:{free_port()}"
        port = free_port()
        environment = {
            "DJANGO_SETTINGS_MODULE": "bench.failing.settings",
            "BENCH_SERVICES": " ".join(found.services),
            "LOG_DIR": log,
        }
        serve = [sys.executable, "manage.py", "serve", "--port", str(port)]
        with running(serve, **environment) as gateway:
            url = f"http://127.0.0.1:{port}"
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=not reuse)) as session:
                await until_answering(session, f"{url}/tasks")
                yield Scene(session, found.control, url, gateway.pid)


async def steadily(rate: float, ask: Callable[[int], Awaitable[None]], ended: asyncio.Event) -> None:
    """Ask so many times a second, by the clock: what is slow to be answered keeps nothing else from being asked."""
    clock = asyncio.get_running_loop().time
    began = clock()
    number = 0
    async with asyncio.TaskGroup() as group:
        while not ended.is_set():
            group.create_task(_awaited(ask, number))
            number += 1
            await asyncio.sleep(max(0.0, began + number / rate - clock()))


async def side_by_side(clients: int, count: int, ask: Callable[[int], Awaitable[None]]) -> None:
    """Ask `count` times in all, from so many clients that each wait for one answer before the next."""
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            await ask(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())


async def _awaited(ask: Callable[[int], Awaitable[None]], number: int) -> None:
    await ask(number)
