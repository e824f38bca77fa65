"""Clients that leave and servers that stop, in the midst of it: what is read ends, what is written does not."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

import msgspec
import pytest
import uvicorn
from django.http import HttpRequest, HttpResponse
from django.urls import path

from gateway import AggregateView, call, fan_out
from tests.logs import Log
from tests.serving import PatientPage, _Server, gateway, project
from tests.tap import Held, Tap, answer, ended, tapping, until
from upstreams import GET, JSON, POST, Request, Upstream


class Client:
    """A client of the gateway, as a socket."""

    def __init__(self, base: str) -> None:
        host, port = base.removeprefix("http://").split(":")
        self._address = (host, int(port))
        self._socket = socket.socket()
        self._socket.setblocking(False)  # noqa: FBT003 - it is the socket's own method
        self._loop = asyncio.get_running_loop()

    async def ask(self, path: str, *fields: str) -> None:
        await self._loop.sock_connect(self._socket, self._address)
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: gateway", *fields, "", ""])
        await self._loop.sock_sendall(self._socket, head.encode())

    async def send(self, more: bytes) -> None:
        await self._loop.sock_sendall(self._socket, more)

    async def answer(self) -> bytes:
        """Read until the gateway closes."""
        found = b""
        while data := await self._loop.sock_recv(self._socket, 65536):
            found += data
        return found

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def half_close(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


async def everything_before_is_seen(base: str) -> None:
    """Be a patient client: when it is answered, the gateway has seen whatever came and went before it."""
    with Client(base) as patient:
        await patient.ask("/nowhere", "Connection: close")
        assert b" 404 " in await patient.answer()


def table_of(taps: Mapping[str, Tap]) -> dict[str, Upstream]:
    return {name: Upstream(tap.url, timeout=30.0, max_body=30_000_000, breaker=None) for name, tap in taps.items()}


LEAVING = [Client.reset, Client.close, Client.half_close]


class User(msgspec.Struct):
    id: int


class Order(AggregateView):
    """A chain, then a write; and beside them an answer that never comes."""

    deadline = 30.0

    @call("users")
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("users")
    def orders(self, user: User) -> Request[list[User]]:
        return GET("/orders", customer=user.id)

    @call("users", optional=True)
    def reviews(self, user: User) -> Request[JSON]:
        return GET("/reviews", of=user.id)

    @call("ledger")
    def entry(self, user_id: int) -> Request[JSON]:
        return POST("/entries", json={"user": user_id})


async def view(request: HttpRequest, user_id: int) -> HttpResponse:
    """Do in a function view what Order does."""
    async with fan_out(request, deadline=30.0) as fan:
        user = await fan.call("users", GET("/users/{id}", id=user_id), User)
        reviews = fan.call("users", GET("/reviews", of=user.id), optional=True)
        orders = await fan.call("users", GET("/orders", customer=user.id), list[User])
        entry = fan.call("ledger", POST("/entries", json={"user": user_id}))
        return fan.answer({"orders": orders, "entry": await entry, "reviews": await reviews})


ORDER = [path("page/<int:user_id>", Order.as_view()), path("view/<int:user_id>", view)]
STAGES = ["/users/7", "/orders", "/entries"]  # each is asked when the one before it has been answered


@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize(
    ("target", "accept"), [("/page/7", "*/*"), ("/page/7", "application/jsonl"), ("/view/7", "*/*")]
)
async def test_a_departed_client_ends_its_reads_and_no_write_and_is_logged_once(
    log: Log, target: str, accept: str, leave: Callable[[Client], None]
) -> None:
    holds = {stage: Held(answer({"id": 7} if stage == "/users/7" else [])) for stage in (*STAGES, "/reviews")}
    async with tapping() as users, tapping() as ledger:
        for stage, hold in holds.items():
            users.on(stage, hold)
        ledger.on("/entries", holds["/entries"])
        async with gateway(ORDER, table_of({"users": users, "ledger": ledger})) as base:
            before = asyncio.all_tasks()
            for nth in range(24):
                await depart(Client(base), leave, STAGES[: nth % 3 + 1], holds, target, accept, nth)
                await ended(before)
        await users.drained()
        await ledger.drained()
        assert log.sent() == users.begun + ledger.begun
        assert ledger.begun == len(log.events("attempt.finished", upstream="ledger", outcome="ok")) == 8
    for nth in range(24):
        (finished,) = log.events("request.finished", request_id=str(nth))
        assert finished["outcome"] == "disconnected"
        assert len(log.events("client.disconnected", request_id=str(nth))) == 1
        assert finished["attempts"] == len(log.events("attempt.finished", request_id=str(nth))) == (1, 3, 4)[nth % 3]
    assert not log.events("log.recorded", level="error")


async def depart(
    client: Client,
    leave: Callable[[Client], None],
    stages: Sequence[str],
    holds: Mapping[str, Held],
    target: str,
    accept: str,
    nth: int,
) -> None:
    """Ask, let the request come as far as the last of the stages, and leave; see the reads end, and then the write."""
    with client:
        await client.ask(target, f"Accept: {accept}", f"X-Request-ID: {nth}")
        for stage in stages[:-1]:
            holds[stage].release(await holds[stage].arrive())
        reads = [await holds["/reviews"].arrive()] if len(stages) > 1 else []
        wire = await holds[stages[-1]].arrive()
        if wire.method == "GET":
            reads.append(wire)
        leave(client)
        async with asyncio.timeout(20):
            await asyncio.gather(*(read.left for read in reads))
        if wire.method == "POST":
            assert not wire.left.done()
            holds[stages[-1]].release(wire)


@pytest.mark.parametrize("leave", LEAVING)
async def test_a_client_that_departs_at_once_leaves_nothing_behind(log: Log, leave: Callable[[Client], None]) -> None:
    async with tapping() as users, tapping() as ledger:
        users.on("*", lambda wire: None)
        async with gateway(ORDER, table_of({"users": users, "ledger": ledger})) as base:
            before = asyncio.all_tasks()
            for nth in range(20):
                with Client(base) as hasty:
                    await hasty.ask("/page/7", f"X-Request-ID: {nth}")
                    leave(hasty)
                    await everything_before_is_seen(base)
                await ended(before)
        await users.drained()
        assert log.sent() == users.begun
        assert ledger.begun == 0
    for nth in range(20):
        lines = Counter(event["event"] for event in log.events(request_id=str(nth)))
        assert lines["request.started"] == lines["request.finished"] == lines["client.disconnected"] <= 1
        assert {event["outcome"] for event in log.events("request.finished", request_id=str(nth))} <= {"disconnected"}
    assert not log.events("log.recorded", level="error")


@pytest.mark.parametrize("leave", LEAVING)
async def test_a_client_that_departs_before_its_request_is_whole_has_asked_nothing(
    log: Log, leave: Callable[[Client], None]
) -> None:
    async with tapping() as users, gateway(ORDER, table_of({"users": users, "ledger": users})) as base:
        before = asyncio.all_tasks()
        with Client(base) as client:
            await client.ask("/page/7", "Content-Length: 10")
            leave(client)
            await everything_before_is_seen(base)
        await ended(before)
        assert users.begun == 0
    assert [event["url.path"] for event in log.events("request.started")] == ["/nowhere"]
    assert not log.events("log.recorded", level="error")


class Beating(PatientPage):
    """A page that lets a streaming client hear of it all the time."""

    heartbeat = 0.02

    @call("users")
    def user(self, user_id: int) -> Request[JSON]:
        return GET("/users/{id}", id=user_id)


@pytest.mark.parametrize(
    ("accept", "behind"),
    [("*/*", b"a" * 2_000_000), ("application/jsonl", b"GET /nowhere HTTP/1.1\r\n\r\n")],
    ids=["a body that nobody wants", "another request"],
)
async def test_a_client_that_departs_is_noticed_whatever_it_has_sent_behind_its_request(
    log: Log, accept: str, behind: bytes
) -> None:
    held = Held(answer({"id": 7}))
    length = 0 if accept == "application/jsonl" else 2 * len(behind)
    async with tapping() as users:
        users.on("/users/7", held)
        async with gateway([path("page/<int:user_id>", Beating.as_view())], table_of({"users": users})) as base:
            before = asyncio.all_tasks()
            with Client(base) as client:
                await client.ask("/page/7", f"Accept: {accept}", f"Content-Length: {length}")
                await client.send(behind)
                asked = await held.arrive()
                client.reset()
                await asked.left
                await ended(before)
    (finished,) = log.events("request.finished", **{"url.path": "/page/7"})
    assert finished["outcome"] == "disconnected"


class Merged(PatientPage):
    @call("users")
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("users")
    def reviews(self, user_id: int) -> Request[JSON]:
        return GET("/reviews", of=user_id)

    def merge(self, user: User) -> User:
        return user


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("accept", ["*/*", "application/jsonl"])
async def test_a_client_that_departs_as_its_answer_is_made_is_logged_once_whichever_comes_first(
    log: Log, status: int, accept: str
) -> None:
    held = Held(answer({"id": 7}, status))
    async with tapping() as users:
        users.on("/users/7", held).on("/reviews", answer([]))
        async with gateway([path("page/<int:user_id>", Merged.as_view())], table_of({"users": users})) as base:
            before = asyncio.all_tasks()
            for nth in range(40):
                with Client(base) as client:
                    await client.ask("/page/7", f"X-Request-ID: {nth}", f"Accept: {accept}")
                    asked = await held.arrive()
                    await until(lambda: any(task.get_name() == "lookout" for task in asyncio.all_tasks()))
                    held.release(asked)
                    for _ in range(nth // 2):
                        await asyncio.sleep(0)
                    client.reset()
                    await ended(before)
        await users.drained()
        assert log.sent() == users.begun
    outcomes: Counter[str] = Counter()
    for nth in range(40):
        (finished,) = log.events("request.finished", request_id=str(nth))
        outcomes[finished["outcome"]] += 1
        departures = log.events("client.disconnected", request_id=str(nth))
        assert len(departures) == (finished["outcome"] == "disconnected")
        assert len(log.events("attempt.finished", request_id=str(nth))) == finished["attempts"] == 2
        if finished["outcome"] == "ok":
            assert len(log.events("merge.finished", request_id=str(nth))) == 1
    assert outcomes.keys() == {"disconnected", "ok" if status == 200 else "failed"}
    assert not log.events("log.recorded", level="error")


async def test_two_required_calls_that_fail_in_the_same_moment_are_both_logged_and_one_decides(log: Log) -> None:
    held = Held(answer({}, 500))
    async with tapping() as users:
        users.on("*", held)
        async with gateway([path("page/<int:user_id>", Merged.as_view())], table_of({"users": users})) as base:
            for _ in range(10):
                with Client(base) as client:
                    await client.ask("/page/7", "Connection: close")
                    for wire in [await held.arrive(), await held.arrive()]:
                        held.release(wire)
                    assert (await client.answer()).startswith(b"HTTP/1.1 502 ")
    endings = [(event["outcome"], event["http.response.status_code"]) for event in log.events("attempt.finished")]
    assert endings == [("failed", 500)] * 20
    assert [event["outcome"] for event in log.events("call.finished")] == ["failed"] * 20
    for finished in log.events("request.finished"):
        assert (finished["attempts"], finished["error.type"]) == (2, "http_response_status")
        assert finished["calls_failed"] == ["user", "reviews"]
    assert not log.events("log.recorded", level="error")


class Large(AggregateView):
    deadline = 30.0

    @call("users")
    def large(self, user_id: int) -> Request[JSON]:
        return GET("/large", of=user_id)

    @call("users", optional=True)
    def reviews(self, user_id: int) -> Request[JSON]:
        return GET("/reviews", of=user_id)


LARGE = [path("page/<int:user_id>", Large.as_view())]
LARGE_ANSWER = answer(b'"%b"' % (b"x" * 20_000_000))


async def sending() -> set[asyncio.Task[Any]]:
    """Wait until some task has more to send than its client takes; return such tasks."""

    def stuck() -> set[asyncio.Task[Any]]:
        return {task for task in asyncio.all_tasks() if "drain" in coroutines(task)}

    await until(stuck)
    return stuck()


def coroutines(task: asyncio.Task[Any]) -> list[str]:
    """Name the coroutines of a task, from the outermost to the one it waits in."""
    names: list[str] = []
    inner: Any = task.get_coro()
    while inner is not None:
        names.append(getattr(inner, "__name__", ""))
        inner = getattr(inner, "cr_await", None)
    return names


async def test_a_client_that_departs_while_its_answer_is_sent_was_answered(log: Log) -> None:
    async with tapping() as users:
        users.on("/large", LARGE_ANSWER).on("/reviews", answer([]))
        async with gateway(LARGE, table_of({"users": users})) as base:
            before = asyncio.all_tasks()
            with Client(base) as client:
                await client.ask("/page/7")
                await until(lambda: log.events("request.finished"))
                await ended(before)  # the server has it all, and the client next to nothing
                client.reset()
                await everything_before_is_seen(base)
    (finished,) = log.events("request.finished", **{"url.path": "/page/7"})
    assert finished["outcome"] == "ok"
    assert not log.events("client.disconnected")
    assert not log.events("log.recorded", level="error")


async def test_a_client_that_departs_while_a_frame_is_sent_ends_its_stream_there_and_then(log: Log) -> None:
    held = Held(answer([]))
    async with tapping() as users:
        users.on("/large", LARGE_ANSWER).on("/reviews", held)
        async with gateway(LARGE, table_of({"users": users})) as base:
            before = asyncio.all_tasks()
            with Client(base) as client:
                await client.ask("/page/7", "Accept: application/jsonl")
                wire = await held.arrive()
                serving = await sending()
                client.reset()
                await asyncio.wait(serving)
                assert asyncio.all_tasks() - before == {asyncio.current_task()} - before
                await wire.left
    (finished,) = log.events("request.finished")
    assert (finished["outcome"], finished["attempts"]) == ("disconnected", 2)
    assert len(log.events("client.disconnected")) == 1
    assert not log.events("log.recorded", level="error")


class Stalled:
    """A server whose client takes nothing from a certain message on, and leaves when the test says so."""

    def __init__(self, message: str = "", accept: str = "*/*") -> None:
        self.reached = asyncio.Event()
        self.left = asyncio.Event()
        self._message = message
        self._asked = False
        headers = [(b"host", b"gateway"), (b"accept", accept.encode())]
        self._scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": "/page/7", "raw_path": b"/page/7", "query_string": b"", "headers": headers, "state": {},
        }  # fmt: skip

    def serve(self) -> asyncio.Task[None]:
        from gateway.asgi import Application  # noqa: PLC0415 - the handler reads its settings when it is made

        return asyncio.create_task(Application()(self._scope, self._receive, self._send))

    async def _receive(self) -> Mapping[str, Any]:
        if self._asked:
            await self.left.wait()
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == self._message:
            self.reached.set()
            await asyncio.Event().wait()


@pytest.mark.parametrize("message", ["http.response.start", "http.response.body"])
@pytest.mark.parametrize(("accept", "outcome"), [("*/*", "ok"), ("text/event-stream", "disconnected")])
async def test_a_client_that_departs_before_it_took_anything_is_logged_once(
    log: Log, message: str, accept: str, outcome: str
) -> None:
    async with tapping() as users:
        users.on("*", answer({"id": 7}))
        with project([path("page/<int:user_id>", Merged.as_view())], table_of({"users": users})):
            before = asyncio.all_tasks()
            stalled = Stalled(message, accept)
            serving = stalled.serve()
            await stalled.reached.wait()
            stalled.left.set()
            await serving
            assert asyncio.all_tasks() == before
    assert [event["outcome"] for event in log.events("request.finished")] == [outcome]
    assert len(log.events("client.disconnected")) == (outcome == "disconnected")


@pytest.mark.parametrize("first", ["the client", "the server"])
async def test_a_server_that_ends_a_request_whose_client_departs_in_the_same_moment_is_told_so(
    log: Log, first: str
) -> None:
    held = Held(answer({"id": 7}))
    async with tapping() as users:
        users.on("*", held)
        with project([path("page/<int:user_id>", Merged.as_view())], table_of({"users": users})):
            before = asyncio.all_tasks()
            stalled = Stalled()
            serving = stalled.serve()
            for _ in range(2):
                await held.arrive()
            stalled.left.set()
            if first == "the client":
                await until(serving.cancelling)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            await ended(before)
    assert len(log.events("request.finished")) == 1
    assert {event["outcome"] for event in log.events("attempt.finished")} == {"cancelled"}


class Impatient(_Server):
    """A server that waits for nobody when it stops."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await uvicorn.Server.shutdown(self, sockets)


class Running(NamedTuple):
    base: str
    stop: Callable[[], None]
    serving: asyncio.Task[None]


@asynccontextmanager
async def running(kind: type[_Server], taps: Mapping[str, Tap]) -> AsyncIterator[Running]:
    """Serve until the test says `stop`."""
    with project(ORDER, table_of(taps)), socket.create_server(("127.0.0.1", 0)) as listener:
        from gateway.asgi import Application  # noqa: PLC0415 - the handler reads its settings when it is made

        server = kind(uvicorn.Config(Application(), ws="none", log_config=None, timeout_graceful_shutdown=0))
        serving = asyncio.create_task(server.serve([listener]))
        await server.ready.wait()
        yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", server.stopping.set, serving)
        await serving


async def test_a_stopping_server_waits_for_a_write_whose_client_has_left(log: Log) -> None:
    held = Held(answer({"id": 1}))
    async with tapping() as users, tapping() as ledger:
        users.on("*", answer([])).on("/users/7", answer({"id": 7}))
        ledger.on("/entries", held)
        before = asyncio.all_tasks()
        async with running(_Server, {"users": users, "ledger": ledger}) as server:
            with Client(server.base) as client:
                await client.ask("/page/7")
                wire = await held.arrive()
                client.reset()
                await until(lambda: log.events("request.finished"))
                server.stop()
                await until(lambda: log.events("log.recorded", message="Waiting for application shutdown."))
                for _ in range(10):
                    await asyncio.sleep(0)
                assert not server.serving.done()
                held.release(wire)
        assert asyncio.all_tasks() == before
    assert [event["outcome"] for event in log.events("attempt.finished", call="entry")] == ["ok"]
    assert [event["outcome"] for event in log.events("request.finished")] == ["disconnected"]
    assert len(log.events("gateway.stopped")) == 1
    assert not log.events("log.recorded", level="error")


@pytest.mark.parametrize("leave", [*LEAVING[:2], None])
async def test_a_server_that_stops_at_once_ends_the_reads_and_no_write(
    log: Log, leave: Callable[[Client], None] | None
) -> None:
    reviews, entries = Held(answer([])), Held(answer({"id": 1}))
    async with tapping() as users, tapping() as ledger:
        users.on("/users/7", answer({"id": 7})).on("/orders", answer([])).on("/reviews", reviews)
        ledger.on("/entries", entries)
        before = asyncio.all_tasks()
        async with running(Impatient, {"users": users, "ledger": ledger}) as server:
            with Client(server.base) as client:
                await client.ask("/page/7")
                review, entry = await reviews.arrive(), await entries.arrive()
                server.stop()
                await until(lambda: log.events("log.recorded", message="Shutting down"))
                if leave is not None:
                    leave(client)
                await review.left
                entries.release(entry)
                await server.serving
        await ended(before)  # a server that stops at once does not wait for what it cancels
    endings = {event["call"]: event["outcome"] for event in log.events("attempt.finished")}
    assert endings == {"user": "ok", "orders": "ok", "reviews": "cancelled", "entry": "ok"}
    assert len(log.events("request.finished")) == 1
    assert len(log.events("gateway.stopped")) == 1
