"""`python -m tests.counting URL`: the gateway and the floor, served by one uvicorn that counts the calls they make.

The floor is what no gateway of Python does without: a bare ASGI function, aiohttp's client, and JSON taken apart and
put together. A count of calls does not depend on how busy a machine is, as times do; but it is another one on another
version of Python, and of the libraries below, so that only the ratio to the floor's means something.

URL is an upstream that answers whatever it is asked with JSON of `ROWS`. What is asked for `REQUESTS` times one after
another is counted, and `/counts` tells the counts so far: each a `Count`, by path and accepted form.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from types import CodeType, FrameType
from typing import Any, Final

import aiohttp
import msgspec
import uvicorn
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponseBase
from django.urls import path

from gateway import AggregateView, Fan, call, part
from gateway.asgi import Application
from gateway.management.commands.serve import UVICORN
from tests.serving import SLOW, PatientPage, project
from tests.tap import until
from upstreams import GET, JSON, Request, Upstream

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

SERVICES: Final = ("users", "orders", "catalog")
WARM_UP: Final = 10
COUNTED: Final = 40
REQUESTS: Final = WARM_UP + COUNTED + 1  # the last one to arrive ends the count of the one before
#: What gives work to another thread, or starts one.
_HOPS: Final[frozenset[CodeType]] = frozenset({ThreadPoolExecutor.submit.__code__, threading.Thread.start.__code__})


class Item(msgspec.Struct):
    """A row with all it has."""

    id: int
    name: str
    price: float
    tags: list[str]
    stock: bool
    text: str


#: 1.7 KB: three of these are a page of 5 KB.
ROWS: Final = [Item(id_, f"row {id_}", id_ * 1.25, ["a", "b"], id_ % 2 == 0, "lorem ipsum " * 4) for id_ in range(13)]


def page_of(parts: Iterable[int], returns: Any = Request[JSON], *, coalesce: bool = False) -> type[PatientPage]:
    """Return a page with a call for each of these parts, which take turns at the upstreams."""

    def asking(part: int) -> Callable[[AggregateView], Request[Any]]:
        def ask(_: AggregateView) -> Request[Any]:
            return GET("/rows/{part}", part=part)

        ask.__annotations__["return"] = returns
        return ask

    calls = {
        f"call{number}": call(SERVICES[part % len(SERVICES)], coalesce=coalesce)(asking(part))
        for number, part in enumerate(parts)
    }
    return type("Page", (PatientPage,), calls)


def hopping(page: type[PatientPage]) -> type[PatientPage]:
    """Return a page that does one thing in another thread before all else."""
    return type("Page", (_Hops, page), {})


class _Hops(AggregateView):
    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        await sync_to_async(str)()
        return await super().dispatch(request, *args, **kwargs)


class Lasting(AggregateView):
    """A page that takes so long that its client's leaving is looked out for."""

    deadline = SLOW

    @part
    async def lasting(self, fan: Fan) -> bool:
        await until(lambda: any(task.get_name() == "lookout" for task in asyncio.all_tasks()))
        return True


PATHS: Final = [
    *(path(f"spliced/{width}", page_of(range(width)).as_view()) for width in (1, 3, 10)),
    path("typed/3", page_of(range(3), Request[list[Item]]).as_view()),
    path("shared/3", page_of([0, 0, 0], coalesce=True).as_view()),
    path("lasting", Lasting.as_view()),
    path("hopping/3", hopping(page_of(range(3))).as_view()),
]


class Count(msgspec.Struct):
    """What one path costs: `calls` of Python functions a request; of all that is counted, the `hops` to other threads,
    and the objects in `circles` that only the garbage collector could let go of.

    `calls` is the median, which a clock's tick in some of the requests does not move.
    """

    calls: float
    hops: int
    circles: int


class Meter:
    """Counts the calls made on the loop's thread from the arrival of one request to the arrival of the next."""

    def __init__(self) -> None:
        self.counts: dict[str, Count] = {}
        self._asked = ""
        self._arrived = 0
        self._calls: list[int] = []
        self._hops = 0

    def arrived(self, asked: str) -> None:
        """Be told of a request to count, when it is the turn of its path."""
        sys.setprofile(None)
        if asked != self._asked:
            self._asked, self._arrived, self._calls, self._hops = asked, 0, [], 0
        self._arrived += 1
        if self._arrived == REQUESTS:
            self.counts[asked] = Count(median(self._calls), self._hops, gc.collect())
            gc.enable()
        elif self._arrived > WARM_UP:
            if self._arrived == WARM_UP + 1:
                gc.collect()
                gc.disable()
            self._calls.append(0)
            sys.setprofile(self._see)

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self._calls[-1] += 1
            self._hops += frame.f_code in _HOPS


class Counted:
    """The application: `/counts`, the floor of any width at `/floor/3`, and the gateway for all else."""

    def __init__(self, upstream: str) -> None:
        self._gateway = Application()
        self._meter = Meter()
        self._upstream = upstream
        self._session: aiohttp.ClientSession

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(SLOW)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as self._session:
                await self._gateway(scope, receive, send)
        elif scope["path"] == "/counts":
            sys.setprofile(None)
            await _respond(self._meter.counts, send)
        else:
            self._meter.arrived(_asked(scope))
            if scope["path"].startswith("/floor/"):
                await self._floor(int(scope["path"].removeprefix("/floor/")), send)
            else:
                await self._gateway(scope, receive, send)

    async def _floor(self, width: int, send: Send) -> None:
        values = await asyncio.gather(*(self._ask(f"{self._upstream}/rows/{part}") for part in range(width)))
        data = {f"part{part}": value for part, value in enumerate(values)}
        await _respond({"data": data, "complete": True, "errors": {}}, send)

    async def _ask(self, url: str) -> Any:
        async with self._session.get(url) as response:
            response.raise_for_status()
            return msgspec.json.decode(await response.read())


async def _respond(value: Any, send: Send) -> None:
    body = msgspec.json.encode(value)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _asked(scope: Scope) -> str:
    """Name what is asked: a path, and the form of its answer if that is not JSON."""
    accepted = dict(scope["headers"]).get(b"accept", b"*/*").decode()
    path_: str = scope["path"]
    return path_ if accepted == "*/*" else f"{path_} {accepted}"


def main() -> None:
    """Serve as `manage.py serve` does, on a free port, until killed."""
    upstream = sys.argv[1]
    with project(PATHS, {name: Upstream(upstream) for name in SERVICES}):
        uvicorn.run(
            Counted(upstream),
            port=0,
            loop="uvloop",
            **UVICORN,
            timeout_keep_alive=int(SLOW),
        )


if __name__ == "__main__":
    main()
