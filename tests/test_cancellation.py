"""Whatever ends a page, and at whatever moment: nothing of it runs on, nothing is lost, nothing is kept back."""

from __future__ import annotations

import asyncio
import os
import random
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, Self

import msgspec
import pytest
import uvicorn
import uvloop
from django.http import HttpRequest, HttpResponse
from django.urls import path

from gateway import AggregateView, Fan, batch, call, fan_out, part
from gateway.answer import CallFailed
from gateway.fanout import FanOut
from gateway.visit import inbound_of
from tests.logs import Log
from tests.serving import _Server, gateway, project
from tests.tap import Held, Script, Tap, Wire, answer, tapping, written
from upstreams import GET, JSON, POST, Attempt, Deadline, Fault, Fleet, Request, Retry, Upstream, open_fleet


class User(msgspec.Struct):
    id: int


class Row(msgspec.Struct):
    id: int


class Everything(AggregateView):
    """A chain, a join, an optional call that is retried, a part, and a write."""

    @call("users")
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("users")
    def orders(self, user: User) -> Request[list[Row]]:
        return GET("/orders", customer=user.id)

    @batch("catalog", key="id", size=2, concurrency=1)
    def products(self, ids: list[int]) -> Request[list[Row]]:
        return GET("/products", id=ids)

    @products.keys
    def product_ids(self, orders: list[Row]) -> Iterable[int]:
        return (order.id for order in orders)

    @call("reviews", optional=True)
    def reviews(self, user: User) -> Request[JSON]:
        return POST("/search", json={"by": user.id}, safe=True)

    @part
    async def feed(self, fan: Fan, user: User) -> list[Any]:
        posts, likes = fan.call("posts", GET("/posts")), fan.call("reviews", GET("/likes"), optional=True)
        return [await posts, await likes]

    @call("ledger", optional=True)
    def entry(self, user_id: int) -> Request[JSON]:
        return POST("/entries", json={"user": user_id})


class Tally:
    """A journal that counts: attempts that were begun, those sent, and how far those that were cancelled had come."""

    def __init__(self) -> None:
        self.begun = 0
        self.sent = 0
        self.retries = 0
        self.cancelled: Counter[str] = Counter()

    def attempt_finished(self, upstream: str, call: str, attempt: Attempt) -> None:
        self.begun += 1
        self.sent += attempt.sent
        if attempt.cancelled:
            self.cancelled["connecting" if not attempt.sent else "waiting" if not attempt.status else "reading"] += 1

    def retry_scheduled(self, upstream: str, call: str, attempt: Attempt, wait: float) -> None:
        self.retries += 1


class Upstreams:
    """Real clients to real sockets, and what they told. `before` are the tasks there were before any page."""

    def __init__(self, fleet: Fleet, tally: Tally) -> None:
        self.fleet = fleet
        self.tally = tally
        self.before = asyncio.all_tasks()

    def fan_out(self, page: AggregateView, deadline: float = 5.0, **inputs: Any) -> FanOut:
        return FanOut(page.plan, page, self.fleet, inbound_of({}), Deadline.within(deadline), inputs)

    def run(self, page: AggregateView, **inputs: Any) -> asyncio.Task[None]:
        return asyncio.create_task(self.fan_out(page, **inputs).run())

    def writes(self) -> set[asyncio.Task[Attempt]]:
        """Return the writes that have outlived their pages so far."""
        return {task for client in self.fleet._clients.values() for task in client._outliving}

    def nothing_runs_on(self) -> None:
        """Nothing that pages started is still running, but writes that were sent."""
        assert asyncio.all_tasks() - self.before - self.writes() <= {asyncio.current_task()}

    def all_is_given_back(self) -> None:
        """Every permit is back, no connection is in use, and no more are kept open than permits allow."""
        for client in self.fleet._clients.values():
            permits = client.upstream.max_concurrency
            connector: Any = client._session.connector
            assert repr(client) == f"<Client {client.name} permits={permits} outliving=0>"
            assert not connector._acquired
            assert sum(map(len, connector._conns.values())) <= permits


@asynccontextmanager
async def asking(table: Mapping[str, Upstream], *taps: Tap) -> AsyncIterator[Upstreams]:
    """Open a fleet. In the end everything is given back, and what was said to be sent is what arrived at the taps."""
    tally = Tally()
    async with open_fleet(table, tally) as fleet:
        upstreams = Upstreams(fleet, tally)
        yield upstreams
        if writes := upstreams.writes():
            await asyncio.wait(writes)
        upstreams.all_is_given_back()
    for tap in taps:
        await tap.drained()
    assert tally.sent == sum(tap.begun for tap in taps)


@asynccontextmanager
async def tapped(names: Iterable[str], script: Script) -> AsyncIterator[dict[str, Tap]]:
    """Run one tap per upstream."""
    async with AsyncExitStack() as stack:
        yield {name: (await stack.enter_async_context(tapping())).on("*", script) for name in names}


async def cancelled(upstreams: Upstreams, run: asyncio.Task[None]) -> None:
    """Cancel a page, and look around the moment it has ended."""
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    upstreams.nothing_runs_on()


async def until(condition: Callable[[], Any]) -> None:
    """Let the loop turn until something is so."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


def by_chance(chance: random.Random) -> Script:
    """Answer what is right, most of the time, at once or soon, in one piece or in two."""
    rows = [{"id": number} for number in range(3)]
    wrong = [written({}, 503), written({}, 503), b"garbage\r\n\r\n", written({"cut": "short"})[:-3]]

    def body(wire: Wire) -> bytes:
        if wire.path in {"/search", "/likes"} and chance.random() < 0.5:
            return chance.choice(wrong)
        if wire.path == "/orders":
            return written(rows)
        if wire.path == "/products":
            return written([{"id": int(key.removeprefix("id="))} for key in wire.query.split("&")])
        return written({"id": 7})

    def script(wire: Wire) -> None:
        text = body(wire)
        cut = chance.choice([len(text), len(text), len(text) - 2])
        steps = chance.choice([0, 0, 1, 4])
        later(steps, lambda: wire.write(text[:cut]))
        if cut < len(text):
            later(steps + 2, lambda: wire.write(text[cut:]))

    return script


def later(steps: int, action: Callable[[], None]) -> None:
    """Do something after so many turns of the loop: a delay that is the same on a slow machine."""
    if steps:
        asyncio.get_running_loop().call_soon(later, steps - 1, action)
    else:
        action()


async def cancel_at_random(total: int, seed: int) -> None:
    """Run pages side by side and cancel each at any moment of its life, until so many have been cancelled."""
    chance = random.Random(seed)
    before = asyncio.all_tasks()
    ends: Counter[str] = Counter()
    names = ("users", "catalog", "reviews", "posts", "ledger")
    retry = Retry(first_wait=0.002, longest_wait=0.008)
    async with tapped(names, by_chance(chance)) as taps:
        table = {name: Upstream(tap.url, max_concurrency=6, timeout=2.0, retry=retry) for name, tap in taps.items()}
        async with asking(table, *taps.values()) as upstreams:
            attempts = sum(await asyncio.gather(*(cancel_pages(upstreams, chance, total, ends) for _ in range(16))))
        tally = upstreams.tally
        assert attempts == tally.begun
        stages = [tally.cancelled[stage] for stage in ("connecting", "waiting", "reading")]
        assert min(*stages, tally.retries, taps["ledger"].begun) >= total // 50
    await until(lambda: asyncio.all_tasks() == before)


async def cancel_pages(upstreams: Upstreams, chance: random.Random, total: int, ends: Counter[str]) -> int:
    """Cancel one page after another; returns the attempts that the pages say they made."""
    attempts = 0
    while ends["cancelled"] < total:
        fan_out = upstreams.fan_out(Everything(), user_id=7)
        run = asyncio.create_task(fan_out.run())
        for _ in range(int(80 * chance.random() ** 3)):
            await asyncio.sleep(0)
        run.cancel()
        try:
            await run
            ends["answered"] += 1
        except asyncio.CancelledError:
            ends["cancelled"] += 1
        except CallFailed as failed:
            ends[failed.failure.error.word] += 1
        attempts += sum(fan_out.attempts.values())
    return attempts


@pytest.mark.parametrize(
    ("loop", "total", "seed"),
    [
        (asyncio.new_event_loop, 2_500, 1),
        (asyncio.new_event_loop, 2_500, 2),
        (asyncio.new_event_loop, 2_500, 3),
        (asyncio.new_event_loop, 2_500, 4),
        (uvloop.new_event_loop, 1_000, 5),
    ],
    ids=["asyncio-1", "asyncio-2", "asyncio-3", "asyncio-4", "uvloop"],
)
def test_random_cancellations_leak_no_task_no_connection_and_no_permit(
    loop: Callable[[], asyncio.AbstractEventLoop], total: int, seed: int
) -> None:
    with asyncio.Runner(debug=False, loop_factory=loop) as runner:
        runner.run(cancel_at_random(1, seed))  # a loop keeps some descriptors for itself
        descriptors = len(os.listdir("/proc/self/fd"))
        runner.run(cancel_at_random(total, seed))
        assert len(os.listdir("/proc/self/fd")) == descriptors


class Pair(AggregateView):
    @call("users")
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("users", optional=True)
    def reviews(self, user_id: int) -> Request[JSON]:
        return GET("/reviews")


async def test_a_page_cancelled_while_it_waits_for_a_permit_has_sent_nothing() -> None:
    async with tapped(["users"], held := Held(answer({"id": 7}))) as taps:
        async with asking({"users": Upstream(taps["users"].url, max_concurrency=1)}, *taps.values()) as upstreams:
            run = upstreams.run(Pair(), user_id=7)
            await held.arrive()
            await cancelled(upstreams, run)
            assert upstreams.tally.cancelled == {"waiting": 1}
            assert upstreams.tally.begun == 1


async def test_a_page_cancelled_while_a_name_is_looked_up_has_sent_nothing() -> None:
    # A thread of the loop's pool looks names up. There is one, and it is busy.
    pool, busy = ThreadPoolExecutor(1), threading.Event()
    asyncio.get_running_loop().set_default_executor(pool)
    pool.submit(busy.wait)
    try:
        async with tapped(["users"], answer({"id": 7})) as taps:
            url = taps["users"].url.replace("127.0.0.1", "localhost")
            async with asking({"users": Upstream(url)}, *taps.values()) as upstreams:
                run = upstreams.run(Pair(), user_id=7)
                await until(pool._work_queue.qsize)
                run.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await run
                assert upstreams.tally.cancelled == {"connecting": 2}
                busy.set()
            assert taps["users"].begun == 0
    finally:
        busy.set()


async def test_a_page_cancelled_while_it_connects_has_sent_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and never says hello
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        async with asking({"users": Upstream(url)}) as upstreams:
            run = upstreams.run(Pair(), user_id=7)
            await until(lambda: select.select([silent], [], [], 0)[0])
            await cancelled(upstreams, run)
            assert upstreams.tally.cancelled == {"connecting": 2}


async def test_a_page_cancelled_while_it_waits_for_answers_closes_their_connections() -> None:
    async with tapped(["users"], held := Held(answer({"id": 7}))) as taps:
        async with asking({"users": Upstream(taps["users"].url)}, *taps.values()) as upstreams:
            run = upstreams.run(Pair(), user_id=7)
            wires = [await held.arrive(), await held.arrive()]
            await cancelled(upstreams, run)
            await asyncio.wait([wire.left for wire in wires])
            assert upstreams.tally.cancelled == {"waiting": 2}


async def test_a_page_cancelled_while_it_reads_a_body_closes_the_connection() -> None:
    async with tapped(["users"], held := Held(lambda wire: wire.write(written({"id": 7})[:-1]))) as taps:
        async with asking({"users": Upstream(taps["users"].url)}, *taps.values()) as upstreams:
            run = upstreams.run(Pair(), user_id=7)
            for wire in [await held.arrive(), await held.arrive()]:
                held.release(wire)
            for _ in range(10):
                await asyncio.sleep(0)
            await cancelled(upstreams, run)
            await asyncio.wait([wire.left for wire in taps["users"].open])
            assert upstreams.tally.cancelled == {"reading": 2}


async def test_a_page_cancelled_between_two_attempts_makes_no_other() -> None:
    later = written({}, 503).replace(b"\r\n\r\n", b"\r\nRetry-After: 4\r\n\r\n")
    async with tapped(["users"], lambda wire: wire.write(later)) as taps:
        async with asking({"users": Upstream(taps["users"].url)}, *taps.values()) as upstreams:
            run = upstreams.run(Pair(), user_id=7)
            await until(lambda: upstreams.tally.retries == 2)
            await cancelled(upstreams, run)
            assert upstreams.tally.begun == 2


async def test_a_page_cancelled_while_a_write_waits_for_its_reads_does_not_write() -> None:
    async with tapped(["users", "catalog", "reviews", "posts", "ledger"], answer({"id": 7})) as taps:
        taps["users"].on("/orders", held := Held(answer([])))
        async with asking({name: Upstream(tap.url) for name, tap in taps.items()}, *taps.values()) as upstreams:
            run = upstreams.run(Everything(), user_id=7)
            await held.arrive()
            await cancelled(upstreams, run)
        assert taps["ledger"].begun == 0


async def test_a_page_cancelled_in_the_midst_of_a_join_asks_for_no_further_chunk() -> None:
    async with tapped(["users", "catalog", "reviews", "posts", "ledger"], answer({"id": 7})) as taps:
        taps["users"].on("/orders", answer([{"id": number} for number in range(9)]))
        taps["catalog"].on("*", held := Held(answer([])))
        async with asking({name: Upstream(tap.url) for name, tap in taps.items()}, *taps.values()) as upstreams:
            run = upstreams.run(Everything(), user_id=7)
            await held.arrive()
            await cancelled(upstreams, run)
        assert taps["catalog"].begun == 1


async def test_a_page_cancelled_in_the_midst_of_a_part_ends_the_part_and_its_calls() -> None:
    ended = asyncio.Event()

    class Author(AggregateView):
        @part
        async def feed(self, fan: Fan) -> list[Any]:
            fan.call("posts", GET("/posts"))
            try:
                return [await fan.call("posts", GET("/likes"))]
            finally:
                for _ in range(10):  # what an author may have to put in order takes its turns
                    await asyncio.sleep(0)
                ended.set()

    async with tapped(["posts"], held := Held(answer([]))) as taps:
        async with asking({"posts": Upstream(taps["posts"].url)}, *taps.values()) as upstreams:
            run = upstreams.run(Author())
            wires = [await held.arrive(), await held.arrive()]
            await cancelled(upstreams, run)
            assert ended.is_set()
            await asyncio.wait([wire.left for wire in wires])
            assert upstreams.tally.cancelled == {"waiting": 2}


class Write(AggregateView):
    @call("ledger")
    def entry(self, user_id: int) -> Request[JSON]:
        return POST("/entries", json={"user": user_id})


async def test_a_page_cancelled_while_it_writes_ends_at_once_and_the_write_goes_on() -> None:
    async with tapped(["ledger"], held := Held(answer({"id": 1}))) as taps:
        async with asking({"ledger": Upstream(taps["ledger"].url)}, *taps.values()) as upstreams:
            run = upstreams.run(Write(), user_id=7)
            wire = await held.arrive()
            await cancelled(upstreams, run)
            assert len(upstreams.writes()) == 1
            held.release(wire)
            await asyncio.wait(upstreams.writes())
            assert (upstreams.tally.begun, upstreams.tally.cancelled) == (1, {})


async def test_a_page_cancelled_while_its_write_waits_for_a_permit_does_not_write() -> None:
    async with tapped(["ledger"], held := Held(answer({"id": 1}))) as taps:
        async with asking({"ledger": Upstream(taps["ledger"].url, max_concurrency=1)}, *taps.values()) as upstreams:
            first = upstreams.run(Write(), user_id=7)
            wire = await held.arrive()
            second = upstreams.run(Write(), user_id=8)
            await until(lambda: upstreams.fleet._clients["ledger"]._permits._waiters)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            held.release(wire)
            await first
        assert taps["ledger"].begun == 1


async def test_a_write_that_no_page_waits_for_any_more_ends_by_its_own_timeout() -> None:
    async with tapped(["ledger"], held := Held(answer({"id": 1}))) as taps:
        async with asking({"ledger": Upstream(taps["ledger"].url, timeout=0.05)}, *taps.values()) as upstreams:
            run = upstreams.run(Write(), user_id=7)
            wire = await held.arrive()
            await cancelled(upstreams, run)
            await asyncio.wait([wire.left])
            assert (upstreams.tally.begun, upstreams.tally.cancelled) == (1, {})


async def test_a_fleet_whose_closing_is_cancelled_closes_its_connections_all_the_same() -> None:
    async with tapped(["ledger"], held := Held(answer({"id": 1}))) as taps:
        tally, closing = Tally(), asyncio.Event()

        async def worker() -> None:
            async with open_fleet({"ledger": Upstream(taps["ledger"].url, timeout=30.0)}, tally) as fleet:
                run = Upstreams(fleet, tally).run(Write(), user_id=7)
                await held.arrive()
                run.cancel()
                closing.set()

        before = asyncio.all_tasks()
        working = asyncio.create_task(worker())
        await closing.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        await taps["ledger"].drained()
        await ended(before)
        assert (tally.sent, taps["ledger"].begun) == (1, 1)


async def test_a_write_that_no_page_waits_for_any_more_is_not_made_again() -> None:
    async with tapped(["ledger"], held := Held(answer({}, 503))) as taps:
        upstream = Upstream(taps["ledger"].url, idempotency_header="Idempotency-Key", retry=Retry(first_wait=0.0))
        async with asking({"ledger": upstream}, *taps.values()) as upstreams:
            run = upstreams.run(Write(), user_id=7)
            wire = await held.arrive()
            await cancelled(upstreams, run)
            held.release(wire)
        assert upstreams.tally.begun == 1


class Order(AggregateView):
    """A chain, then a write; and an answer that never comes while the test does not want it to."""

    deadline = 30.0

    @call("users")
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("users")
    def orders(self, user: User) -> Request[list[Row]]:
        return GET("/orders", customer=user.id)

    @call("users", optional=True)
    def reviews(self, user: User) -> Request[JSON]:
        return GET("/reviews")

    @call("ledger")
    def entry(self, user_id: int) -> Request[JSON]:
        return POST("/entries", json={"user": user_id})


async def view(request: HttpRequest, user_id: int) -> HttpResponse:
    """Do what Order does, in a function view."""
    async with fan_out(request, deadline=30.0) as fan:
        user = await fan.call("users", GET("/users/{id}", id=user_id), User)
        reviews = fan.call("users", GET("/reviews"), optional=True)
        orders = await fan.call("users", GET("/orders", customer=user.id), list[Row])
        entry = fan.call("ledger", POST("/entries", json={"user": user_id}))
        return fan.answer({"orders": orders, "entry": await entry, "reviews": await reviews})


class Client:
    """A client of the gateway, as a socket."""

    def __init__(self, base: str) -> None:
        self._address = base.removeprefix("http://").split(":")
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()

    async def ask(self, path: str, *fields: str) -> None:
        await self._loop.sock_connect(self._socket, (self._address[0], int(self._address[1])))
        await self.ask_again(path, *fields)

    async def ask_again(self, path: str, *fields: str) -> None:
        """Ask on the same connection, without waiting for the answer."""
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: gateway", *fields, "", ""])
        await self._loop.sock_sendall(self._socket, head.encode())

    async def answer(self) -> bytes:
        """Read until the gateway closes."""
        found = b""
        with self._socket:
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


async def ended(before: set[asyncio.Task[Any]]) -> None:
    """Wait until every task has ended that was not there before."""
    while tasks := asyncio.all_tasks() - before - {asyncio.current_task()}:
        assert (await asyncio.wait(tasks, timeout=5))[0]


STAGES = ["/users/7", "/orders", "/entries"]


@pytest.mark.parametrize("leave", [Client.reset, Client.close, Client.half_close])
@pytest.mark.parametrize("path_", ["page/7", "stream/7", "view/7"])
async def test_a_departed_client_ends_its_reads_and_no_write_and_is_logged_once(
    log: Log, path_: str, leave: Callable[[Client], None]
) -> None:
    routes = [
        path("page/<int:user_id>", Order.as_view()),
        path("stream/<int:user_id>", Order.as_view()),
        path("view/<int:user_id>", view),
    ]
    accept = "Accept: application/jsonl" if path_ == "stream/7" else "Accept: */*"
    async with tapped(["users", "ledger"], answer([])) as taps:
        holds = {stage: Held(answer({"id": 7} if stage == "/users/7" else [])) for stage in (*STAGES, "/reviews")}
        for tap in taps.values():
            for stage, hold in holds.items():
                tap.on(stage, hold)
        async with gateway(routes, {name: Upstream(tap.url, timeout=30.0) for name, tap in taps.items()}) as base:
            before = asyncio.all_tasks()
            for nth in range(24):
                stage = STAGES[nth % 3]
                with Client(base) as client:
                    await client.ask(f"/{path_}", accept, f"X-Request-ID: {nth}")
                    for earlier in STAGES[: nth % 3]:
                        holds[earlier].release(await holds[earlier].arrive())
                    wire = await holds[stage].arrive()
                    reads = [wire] if stage != "/entries" else []
                    if stage != "/users/7":
                        reads.append(await holds["/reviews"].arrive())
                    leave(client)
                    async with asyncio.timeout(5):
                        await asyncio.gather(*(read.left for read in reads))
                    if stage == "/entries":
                        assert wire in taps["ledger"].open
                        holds[stage].release(wire)
                    await ended(before)
        for tap in taps.values():
            await tap.drained()
        assert log.sent() == sum(tap.begun for tap in taps.values())
        assert taps["ledger"].begun == len(log.events("attempt.finished", upstream="ledger", outcome="ok")) == 8
    for nth in range(24):
        finished = log.events("request.finished", request_id=str(nth))
        assert [event["outcome"] for event in finished] == ["disconnected"]
        assert len(log.events("client.disconnected", request_id=str(nth))) == 1
        attempts = log.events("attempt.finished", request_id=str(nth))
        assert finished[0]["attempts"] == len(attempts) == (1, 3, 4)[nth % 3]
    assert not log.events("log.recorded", level="error")


@pytest.mark.parametrize("leave", [Client.reset, Client.close, Client.half_close])
async def test_a_client_that_departs_at_once_leaves_nothing_behind(log: Log, leave: Callable[[Client], None]) -> None:
    routes = [path("page/<int:user_id>", Order.as_view())]
    async with tapped(["users", "ledger"], lambda wire: None) as taps:
        table = {name: Upstream(tap.url, timeout=30.0) for name, tap in taps.items()}
        async with gateway(routes, table) as base:
            before = asyncio.all_tasks()
            for nth in range(20):
                with Client(base) as hasty:
                    await hasty.ask("/page/7", f"X-Request-ID: {nth}")
                    leave(hasty)
                with Client(base) as patient:  # what came before this client's request has been seen when it is answered
                    await patient.ask("/nowhere", "Connection: close")
                    assert b" 404 " in await patient.answer()
                await ended(before)
        for tap in taps.values():
            await tap.drained()
        assert log.sent() == sum(tap.begun for tap in taps.values())
    for nth in range(20):
        lines = [event["event"] for event in log.events(request_id=str(nth))]
        assert lines.count("request.started") == lines.count("request.finished") == lines.count("client.disconnected") <= 1
        assert {event["outcome"] for event in log.events("request.finished", request_id=str(nth))} <= {"disconnected"}
    assert not log.events("log.recorded", level="error")


async def test_a_client_that_departs_before_its_request_is_whole_has_asked_nothing(log: Log) -> None:
    routes = [path("page/<int:user_id>", Order.as_view())]
    async with gateway(routes, {name: Upstream("http://127.0.0.1:9") for name in ("users", "ledger")}) as base:
        before = asyncio.all_tasks()
        for leave in (Client.reset, Client.close, Client.half_close):
            with Client(base) as client:
                await client.ask("/page/7", "Content-Length: 10")
                leave(client)
            with Client(base) as patient:
                await patient.ask("/nowhere", "Connection: close")
                await patient.answer()
            await ended(before)
    assert not log.events("attempt.finished")
    assert {event["url.path"] for event in log.events("request.started")} == {"/nowhere"}
    assert not log.events("log.recorded", level="error")


class Merged(AggregateView):
    @call("users")
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("users")
    def reviews(self, user_id: int) -> Request[JSON]:
        return GET("/reviews")

    def merge(self, user: User) -> User:
        return user


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("accept", ["*/*", "application/jsonl"])
async def test_a_client_that_departs_as_its_answer_is_made_is_logged_once_whichever_comes_first(
    log: Log, status: int, accept: str
) -> None:
    routes = [path("page/<int:user_id>", Merged.as_view())]
    async with tapped(["users"], answer([])) as taps:
        taps["users"].on("/users/7", held := Held(answer({"id": 7}, status)))
        async with gateway(routes, {"users": Upstream(taps["users"].url)}) as base:
            before = asyncio.all_tasks()
            for nth in range(40):
                with Client(base) as client:
                    await client.ask("/page/7", f"X-Request-ID: {nth}", f"Accept: {accept}")
                    held.release(await held.arrive())
                    for _ in range(nth // 2):
                        await asyncio.sleep(0)
                    client.reset()
                    await ended(before)
        await taps["users"].drained()
        assert log.sent() == taps["users"].begun
    outcomes = Counter[str]()
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


class Large(AggregateView):
    deadline = 30.0

    @call("users")
    def user(self, user_id: int) -> Request[JSON]:
        return GET("/large")

    @call("users", optional=True)
    def reviews(self, user_id: int) -> Request[JSON]:
        return GET("/reviews")


async def test_a_client_that_departs_while_its_answer_is_sent_was_answered(log: Log) -> None:
    routes = [path("page/<int:user_id>", Large.as_view())]
    async with tapped(["users"], answer([])) as taps:
        taps["users"].on("/large", answer(b'"%b"' % (b"x" * 20_000_000)))
        async with gateway(routes, {"users": Upstream(taps["users"].url, max_body=30_000_000)}) as base:
            before = asyncio.all_tasks()
            with Client(base) as client:
                await client.ask("/page/7")
                await until(lambda: log.events("request.finished"))
                await sending()
                client.reset()
                await ended(before)
    assert [event["outcome"] for event in log.events("request.finished")] == ["ok"]
    assert not log.events("client.disconnected")
    assert not log.events("log.recorded", level="error")


async def sending() -> None:
    """Wait until some task has more to send than its client takes."""
    await until(lambda: any("drain" in _frames(task) for task in asyncio.all_tasks()))


def _frames(task: asyncio.Task[Any]) -> list[str]:
    """Name the coroutines of a task, from the outermost to the one it waits in."""
    names, inner = [], task.get_coro()
    while inner is not None:
        names.append(getattr(inner, "__name__", ""))
        inner = getattr(inner, "cr_await", None) or getattr(inner, "ag_await", None)
    return names


async def test_a_client_that_departs_while_a_frame_is_sent_ends_its_stream_there_and_then(log: Log) -> None:
    routes = [path("page/<int:user_id>", Large.as_view())]
    async with tapped(["users"], answer(b'"%b"' % (b"x" * 20_000_000))) as taps:
        taps["users"].on("/reviews", held := Held(answer([])))
        async with gateway(routes, {"users": Upstream(taps["users"].url, max_body=30_000_000)}) as base:
            before = asyncio.all_tasks()
            with Client(base) as client:
                await client.ask("/page/7", "Accept: application/jsonl")
                wire = await held.arrive()
                await sending()
                serving = {task for task in asyncio.all_tasks() if "run_asgi" in _frames(task)}
                client.reset()
                await asyncio.wait(serving)
                assert not asyncio.all_tasks() - before - {asyncio.current_task()}
                await wire.left
    (finished,) = log.events("request.finished")
    assert (finished["outcome"], finished["attempts"]) == ("disconnected", 2)
    assert len(log.events("client.disconnected")) == 1
    assert not log.events("log.recorded", level="error")


class Stalled:
    """A server whose client takes nothing from a certain message on, and leaves when the test says so."""

    def __init__(self, message: str, accept: str) -> None:
        self.reached = asyncio.Event()
        self.left = asyncio.Event()
        self._message = message
        self._asked = False
        headers = [(b"host", b"gateway"), (b"accept", accept.encode()), (b"x-request-id", b"stalled")]
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
    async with tapped(["users"], answer({"id": 7})) as taps:
        with project([path("page/<int:user_id>", Merged.as_view())], {"users": Upstream(taps["users"].url)}):
            before = asyncio.all_tasks()
            stalled = Stalled(message, accept)
            serving = stalled.serve()
            await stalled.reached.wait()
            stalled.left.set()
            await serving
            assert asyncio.all_tasks() == before
    assert [event["outcome"] for event in log.events("request.finished")] == [outcome]
    assert len(log.events("client.disconnected")) == (outcome == "disconnected")


@pytest.mark.parametrize("order", ["the client first", "the server first"])
async def test_a_server_that_ends_a_request_whose_client_departs_in_the_same_moment_is_told_so(
    log: Log, order: str
) -> None:
    async with tapped(["users"], held := Held(answer({"id": 7}))) as taps:
        with project([path("page/<int:user_id>", Merged.as_view())], {"users": Upstream(taps["users"].url)}):
            before = asyncio.all_tasks()
            stalled = Stalled("", "*/*")
            serving = stalled.serve()
            for _ in range(2):
                await held.arrive()
            stalled.left.set()
            if order == "the client first":
                await until(lambda: serving.cancelling())
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            await until(lambda: asyncio.all_tasks() == before)
    assert [event["outcome"] for event in log.events("request.finished")] == ["disconnected"]
    assert len(log.events("client.disconnected")) == 1


class Impatient(_Server):
    """A server that waits for nobody when it stops."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await uvicorn.Server.shutdown(self, sockets)


class Stopping(NamedTuple):
    base: str
    stop: Callable[[], None]
    serving: asyncio.Task[None]


@asynccontextmanager
async def stopping(server: type[_Server], routes: Sequence[Any], taps: Mapping[str, Tap]) -> AsyncIterator[Stopping]:
    """Serve until the test says `stop`."""
    with project(routes, {name: Upstream(tap.url, timeout=30.0) for name, tap in taps.items()}):
        from gateway.asgi import Application  # noqa: PLC0415 - the handler reads its settings when it is made

        config = uvicorn.Config(Application(), ws="none", log_config=None, timeout_graceful_shutdown=0)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            one = server(config)
            serving = asyncio.create_task(one.serve([listener]))
            await one.ready.wait()
            yield Stopping(f"http://127.0.0.1:{listener.getsockname()[1]}", one.stopping.set, serving)
            await serving


async def test_a_stopping_server_waits_for_a_write_whose_client_has_left(log: Log) -> None:
    routes = [path("<int:user_id>", Write.as_view())]
    async with tapped(["ledger"], held := Held(answer({"id": 1}))) as taps:
        before = asyncio.all_tasks()
        async with stopping(_Server, routes, taps) as server:
            running = asyncio.all_tasks()
            with Client(server.base) as client:
                await client.ask("/7")
                wire = await held.arrive()
                client.reset()
                await until(lambda: log.events("request.finished"))
                server.stop()
                await until(lambda: log.events("log.recorded", message="Waiting for application shutdown."))
                (write,) = asyncio.all_tasks() - running - {asyncio.current_task()}
                for _ in range(10):
                    await asyncio.sleep(0)
                assert not server.serving.done()
                held.release(wire)
                await server.serving
                assert write.done()
        assert asyncio.all_tasks() == before
    assert [event["outcome"] for event in log.events("attempt.finished")] == ["ok"]
    assert [event["outcome"] for event in log.events("request.finished")] == ["disconnected"]
    assert log.events()[-1]["event"] != "attempt.finished"
    assert not log.events("log.recorded", level="error")


@pytest.mark.parametrize("leave", [True, False], ids=["and the client leaves", "and the client waits"])
async def test_a_server_that_stops_at_once_ends_the_reads_and_no_write(log: Log, leave: bool) -> None:
    async with tapped(["users", "ledger"], held := Held(answer({"id": 7}))) as taps:
        taps["users"].on("/orders", answer([])).on("/users/7", answer({"id": 7}))
        before = asyncio.all_tasks()
        async with stopping(Impatient, [path("<int:user_id>", Order.as_view())], taps) as server:
            with Client(server.base) as client:
                await client.ask("/7")
                wires = {wire.path: wire for wire in (await held.arrive(), await held.arrive())}
                server.stop()
                await until(lambda: log.events("log.recorded", message="Shutting down"))
                if leave:
                    client.reset()
                await wires["/reviews"].left
                held.release(wires["/entries"])
                await server.serving
        assert asyncio.all_tasks() == before
    endings = {event["call"]: event["outcome"] for event in log.events("attempt.finished")}
    assert endings == {"user": "ok", "orders": "ok", "reviews": "cancelled", "entry": "ok"}
    assert len(log.events("request.finished")) == 1
    assert log.events("gateway.stopped")


async def test_two_required_calls_that_fail_in_the_same_moment_are_both_logged_and_one_decides(log: Log) -> None:
    class Both(AggregateView):
        @call("users")
        def user(self) -> Request[User]:
            return GET("/users")

        @call("users")
        def orders(self) -> Request[JSON]:
            return GET("/orders")

    async with tapped(["users"], held := Held(answer({}, 500))) as taps:
        async with gateway([path("both", Both.as_view())], {"users": Upstream(taps["users"].url)}) as base:
            for _ in range(10):
                with Client(base) as client:
                    await client.ask("/both", "Connection: close")
                    wires = [await held.arrive(), await held.arrive()]
                    for wire in wires:
                        held.release(wire)
                    assert (await client.answer()).startswith(b"HTTP/1.1 502 ")
    endings = [(event["outcome"], event["http.response.status_code"]) for event in log.events("attempt.finished")]
    assert endings == [("failed", 500)] * 20
    assert [event["outcome"] for event in log.events("call.finished")] == ["failed"] * 20
    for finished in log.events("request.finished"):
        assert (finished["attempts"], finished["error.type"]) == (2, "http_response_status")
        assert finished["calls_failed"] == ["user", "orders"]
    assert not log.events("log.recorded", level="error")


class Writes(AggregateView):
    """Two writes at once, and what is read after one of them."""

    @call("ledger")
    def entry(self, user_id: int) -> Request[JSON]:
        return POST("/entries", json={"user": user_id})

    @call("ledger")
    def receipt(self, user_id: int) -> Request[JSON]:
        return POST("/receipts", json={"user": user_id})

    @call("users", after=("entry",), optional=True)
    def reviews(self, user_id: int) -> Request[JSON]:
        return GET("/reviews")

    @call("users", after=("entry",))
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)


async def test_a_required_failure_ends_the_reads_in_flight_and_no_write() -> None:
    async with tapped(["users", "ledger"], answer({"id": 1})) as taps:
        taps["ledger"].on("/receipts", receipts := Held(answer({"id": 2})))
        taps["users"].on("/reviews", reviews := Held(answer([]))).on("/users/7", users := Held(answer({}, 404)))
        async with asking({name: Upstream(tap.url) for name, tap in taps.items()}, *taps.values()) as upstreams:
            run = upstreams.run(Writes(), user_id=7)
            receipt, review = await receipts.arrive(), await reviews.arrive()
            users.release(await users.arrive())
            with pytest.raises(CallFailed, match="user: http_response_status"):
                await run
            upstreams.nothing_runs_on()
            assert len(upstreams.writes()) == 1
            await review.left
            receipts.release(receipt)
            await asyncio.wait(upstreams.writes())
            assert upstreams.tally.cancelled == {"waiting": 1}


async def test_a_failed_write_does_not_end_another_that_was_sent() -> None:
    async with tapped(["users", "ledger"], answer({"id": 1})) as taps:
        taps["ledger"].on("/receipts", receipts := Held(answer({"id": 2})))
        taps["ledger"].on("/entries", entries := Held(lambda wire: wire.reset()))
        async with asking({name: Upstream(tap.url) for name, tap in taps.items()}, *taps.values()) as upstreams:
            run = upstreams.run(Writes(), user_id=7)
            receipt = await receipts.arrive()
            entries.release(await entries.arrive())
            with pytest.raises(CallFailed, match="entry: connection_terminated"):
                await run
            upstreams.nothing_runs_on()
            receipts.release(receipt)
            await asyncio.wait(upstreams.writes())
            assert (upstreams.tally.begun, upstreams.tally.cancelled) == (2, {})


@pytest.mark.parametrize("turns", range(16))
async def test_a_page_cancelled_as_a_required_call_fails_leaves_nothing_behind(turns: int) -> None:
    async with tapped(["users", "catalog", "reviews", "posts", "ledger"], held := Held(answer({}, 404))) as taps:
        taps["users"].on("/users/7", answer({"id": 7})).on("/orders", answer([{"id": key} for key in range(4)]))
        async with asking({name: Upstream(tap.url) for name, tap in taps.items()}, *taps.values()) as upstreams:
            run = upstreams.run(Everything(), user_id=7)
            wires = {wire.path: wire for wire in [await held.arrive() for _ in range(4)]}
            held.release(wires["/products"])
            for _ in range(turns):
                await asyncio.sleep(0)
            run.cancel()
            with pytest.raises((CallFailed, asyncio.CancelledError)):
                await run
            upstreams.nothing_runs_on()


async def test_an_answer_that_comes_as_the_deadline_passes_is_there_or_late_and_nothing_else() -> None:
    async with tapped(["users"], held := Held(answer({"id": 7}))) as taps:
        async with asking({"users": Upstream(taps["users"].url)}, *taps.values()) as upstreams:
            loop = asyncio.get_running_loop()
            pages = [upstreams.fan_out(Pair(), deadline=0.3, user_id=7) for _ in range(8)]
            runs = [asyncio.create_task(page.run()) for page in pages]
            for nth in range(16):
                wire = await held.arrive()
                loop.call_at(pages[0].deadline.at + (nth - 8) * 0.001, held.release, wire)
            endings = await asyncio.gather(*runs, return_exceptions=True)
            upstreams.nothing_runs_on()
    for page, ending in zip(pages, endings, strict=True):
        assert ending is None or (isinstance(ending, CallFailed) and ending.failure.error is Fault.DEADLINE_EXCEEDED)
        assert {failure.error for failure in page.failures.values()} <= {Fault.DEADLINE_EXCEEDED}
        assert page.attempts == {"user": 1, "reviews": 1}


async def test_a_part_that_gathers_its_calls_leaves_none_behind_when_one_fails() -> None:
    class Gathering(AggregateView):
        @part
        async def feed(self, fan: Fan) -> list[Any]:
            return list(await asyncio.gather(*(fan.call("posts", GET("/posts")) for _ in range(4))))

    async with tapped(["posts"], held := Held(answer({}, 404))) as taps:
        async with asking({"posts": Upstream(taps["posts"].url)}, *taps.values()) as upstreams:
            run = upstreams.run(Gathering())
            wires = [await held.arrive() for _ in range(4)]
            held.release(wires[2])
            with pytest.raises(CallFailed):
                await run
            upstreams.nothing_runs_on()
            await asyncio.wait([wire.left for wire in wires[:2]])
            assert upstreams.tally.cancelled == {"waiting": 3}


async def test_who_stops_waiting_for_a_call_of_a_fan_takes_it_from_nobody_else() -> None:
    async with tapped(["posts"], held := Held(answer({"id": 7}))) as taps:
        async with asking({"posts": Upstream(taps["posts"].url)}, *taps.values()) as upstreams:
            async with Fan(upstreams.fleet, inbound_of({}), Deadline.within(5.0)) as fan:
                pending = fan.call("posts", GET("/posts"), User)

                async def wait() -> User:
                    return await pending

                patient, hasty = asyncio.create_task(wait()), asyncio.create_task(wait())
                wire = await held.arrive()
                hasty.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await hasty
                held.release(wire)
                assert await patient == await pending == User(7)
            upstreams.nothing_runs_on()
            assert upstreams.tally.begun == 1


async def test_gather_loses_a_cancellation_to_a_failure_of_the_same_moment() -> None:
    """Why a page that failed as its client left may be logged as failed: the trap is asyncio's."""
    failing, waiting = asyncio.get_running_loop().create_future(), asyncio.get_running_loop().create_future()
    both = asyncio.create_task(asyncio.wait_for(asyncio.gather(failing, waiting), None))
    await asyncio.sleep(0)
    failing.set_exception(LookupError())
    both.cancel()
    with pytest.raises(LookupError):
        await both
    assert both.cancelling()
    assert waiting.cancelled()
