"""One page on a real gateway, before an upstream that fails and one that does not; and what holds whatever happens."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, Protocol

import aiohttp
from django.urls import path

from gateway import AggregateView, call
from tests.chaos import Proxy, Raw, answer, serving_raw
from tests.logs import CANARY, Log
from tests.serving import Served, served
from upstreams import GET, JSON, Client, Request, Retry, Upstream

#: Seconds of one attempt and of the page; the short ones are for what is to run into them, on a busy machine too.
ATTEMPT: Final = 20.0
DEADLINE: Final = 40.0
SHORT_ATTEMPT: Final = 0.8
SHORT_DEADLINE: Final = 1.5
PATIENCE: Final = 60.0  # seconds after which what a test waits for will not come
STATUSES: Final = {
    200,
    400,
    401,
    403,
    404,
    405,
    408,
    409,
    410,
    411,
    413,
    414,
    415,
    417,
    421,
    422,
    429,
    431,
    502,
    503,
    504,
}
THRICE: Final = Retry(attempts=3, first_wait=0.005, longest_wait=0.01)
HEALTHY: Final = answer(b'{"healthy":true}')


class Place(Protocol):
    """Where an upstream is, and what has been seen of it there."""

    @property
    def url(self) -> str:
        """Its base URL."""

    @property
    def begun(self) -> int:
        """How many requests began to arrive."""

    async def drained(self) -> None:
        """Wait until whoever came here has left."""


class Nowhere:
    """An upstream that no request can get to."""

    begun = 0

    def __init__(self, url: str) -> None:
        self.url = url

    async def drained(self) -> None:
        """Nobody has come."""


class Through:
    """An upstream behind a proxy, which counts what comes to it below TLS; `lost` requests were sent to nobody."""

    def __init__(self, proxy: Proxy) -> None:
        self.url = f"http://127.0.0.1:{proxy.port}"
        self.lost = 0
        self._proxy = proxy

    @property
    def begun(self) -> int:
        return self._proxy.begun + self.lost

    async def drained(self) -> None:
        """Wait until nothing is open."""
        await until(lambda: not self._proxy.open)


class Answer(NamedTuple):
    """What the gateway answered, and after how many seconds."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """What `errors` says of the failing call."""
        error: dict[str, Any] = self.json.get("errors", {}).get("it", {})
        return error

    def __str__(self) -> str:
        """The status, and the word or that nothing is missing."""
        return f"{self.status} {self.error.get('error') or ('complete' if self.json.get('complete') else 'problem')}"


def page_of(
    asked: Request[Any], *, required: bool = True, type_: Any = JSON, deadline: float = DEADLINE, **policy: Any
) -> type[AggregateView]:
    """Return a page that asks the failing upstream for `it`, and the healthy one for `sibling`."""
    within, writes = deadline, not asked.safe

    def ask(self: object) -> Any:
        return asked

    ask.__annotations__["return"] = Request[type_]

    class Page(AggregateView):
        deadline = within
        methods = ("POST",) if writes else ("GET",)
        it = call("failing", optional=not required, **policy)(ask)

        @call("healthy")
        def sibling(self) -> Request[JSON]:
            return GET("/sibling")

    return Page


class Scene:
    """`ask` asks for the page and looks at what every answer must be; `row` is the line it makes in the table."""

    def __init__(self, base: Served, method: str, log: Log, place: Place, sibling: Raw) -> None:
        self.base = base
        self.place = place
        self.sibling = sibling
        self.answers: list[Answer] = []
        self.log = log
        self._method = method
        self._ids = itertools.count(1)

    @property
    def client(self) -> Client:
        """The gateway's client of the failing upstream."""
        return self.base.fleet._clients["failing"]

    async def ask(self, **headers: str) -> Answer:
        """Ask for the page once; whatever happens, the answer is whole, in time, ours, and keeps secrets."""
        headers["x-request-id"] = f"asked-{next(self._ids)}"
        started = time.perf_counter()
        async with (
            asyncio.timeout(PATIENCE),
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.request(self._method, f"{self.base.url}/page", headers=headers, allow_redirects=False) as response,
        ):
            found = Answer(response.status, response.headers, await response.read(), time.perf_counter() - started)
        self.answers.append(found)
        check_answer(found, headers["x-request-id"])
        return found


def check_answer(found: Answer, request_id: str) -> None:
    """See that an answer is one of ours: JSON, its status one we give, nothing in it that is an upstream's."""
    assert found.status in STATUSES, found
    assert found.headers["x-request-id"] == request_id
    document = found.json
    if found.status == 200:
        assert found.headers["content-type"] == "application/json"
        assert found.headers["x-complete"] == ("true" if document["complete"] else "false")
        assert document["complete"] is not bool(document["errors"])
        assert document["data"]["sibling"] == {"healthy": True}
    else:
        assert found.headers["content-type"] == "application/problem+json"
        assert document["status"] == found.status
        assert document["request_id"] == request_id
        assert document["type"].startswith("urn:tributary:problem:")
    assert document["errors"].keys() <= {"it"}
    assert CANARY.encode() not in found.body
    assert CANARY not in str(found.headers)
    assert "Traceback" not in found.body.decode()


def check_log(log: Log, place: Place, sibling: Raw, answers: int) -> None:
    """See that the log tells of every request, call and attempt once, and of as many attempts as were on the wire."""
    assert len(log.events("request.finished")) == answers
    for name in ("it", "sibling"):
        assert len(log.events("call.finished", call=name)) + len(log.events("call.skipped", call=name)) == answers
    assert len(log.events("attempt.finished", upstream="failing", sent=True)) == place.begun
    assert len(log.events("attempt.finished", upstream="healthy", sent=True)) == sibling.begun
    assert not log.events("call.finished", call="sibling", outcome="failed")
    assert not log.events("log.recorded", level="error")


def is_idle(client: Client) -> bool:
    """Tell whether a client holds nothing: no permit, no place in the queue, no connection, no call."""
    guards, connector = client.guards, client._connector
    held = guards.bulkhead.in_flight or guards.bulkhead.waiting or any(host.pending for host in guards.hosts.all)
    return not held and not client._outliving and not connector.in_use


@asynccontextmanager
async def scene(
    log: Log, place: Place, asked: Request[Any], *, required: bool = True, options: Mapping[str, Any] = {}, **page: Any
) -> AsyncIterator[Scene]:
    """Serve the page. At the end nothing is left of it: no task, no connection, no permit; and the log adds up."""
    before = asyncio.all_tasks()
    async with serving_raw() as sibling:
        sibling.on("*", HEALTHY)
        table = {
            "failing": Upstream(place.url, **{"timeout": ATTEMPT, "retry": THRICE, **options}),
            "healthy": Upstream(sibling.url, timeout=DEADLINE, max_concurrency=1000),
        }
        async with served([path("page", page_of(asked, required=required, **page).as_view())], table) as base:
            playing = Scene(base, "GET" if asked.safe else "POST", log, place, sibling)
            yield playing
            await until(lambda: all(map(is_idle, base.fleet._clients.values())))
        await sibling.drained()
        await place.drained()
        check_log(log, place, sibling, len(playing.answers))
    await until(lambda: asyncio.all_tasks() <= before)


async def until(true: Callable[[], object]) -> None:
    """Let others run until something is so that nothing tells of."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - it is seen from outside, in places that have no event
            await asyncio.sleep(0)
