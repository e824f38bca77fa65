"""Whatever ends a page, and at whatever moment: nothing of it runs on, nothing is lost, nothing is kept back."""

from __future__ import annotations

import asyncio
import random
import select
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from gateway import AggregateView, Fan, batch, call, part
from gateway.answering.answer import CallFailed
from gateway.running.fanout import FanOut
from gateway.serving.visit import inbound_of
from tests.serving import SHORT, SLOW, PatientPage
from tests.tap import Held, Script, Tap, Wire, answer, ended, tapping, until, written
from tests.upstreams.asking import is_idle
from upstreams import GET, JSON, POST, Attempt, Deadline, Fault, Fleet, Journal, Request, Retry, Upstream, open_fleet


class Tally(Journal):
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

    def __init__(self, fleet: Fleet, tally: Tally, taps: Mapping[str, Tap]) -> None:
        self.fleet = fleet
        self.tally = tally
        self.taps = taps
        self.before = asyncio.all_tasks()

    def fan_out(self, page: AggregateView, deadline: float = SLOW, **inputs: Any) -> FanOut:
        return FanOut(page.plan, page, self.fleet, inbound_of({}), Deadline.within(deadline), inputs)

    def run(self, page: AggregateView, **inputs: Any) -> asyncio.Task[None]:
        return asyncio.create_task(self.fan_out(page, **inputs).run())

    def writes(self) -> set[asyncio.Task[Attempt]]:
        """Return the writes under way, whether their pages still wait for them or not."""
        return {task for client in self.fleet._clients.values() for task in client._outliving}

    def nothing_runs_on(self) -> None:
        """Nothing that pages started is still running, but writes that were begun."""
        assert asyncio.all_tasks() - self.before - self.writes() <= {asyncio.current_task()}

    def all_is_given_back(self) -> None:
        """Every permit is back, no connection is in use, and no more are kept open than permits allow."""
        for client in self.fleet._clients.values():
            permits = client.upstream.max_concurrency
            connector: Any = client._connector
            is_idle(client)
            assert connector.in_use == 0
            assert connector.idle <= permits


@asynccontextmanager
async def opened(table: Mapping[str, Upstream], taps: Mapping[str, Tap]) -> AsyncIterator[Upstreams]:
    """Open a fleet. In the end everything is given back, and what was said to be sent is what arrived at the taps."""
    tally = Tally()
    async with open_fleet(table, tally) as fleet:
        upstreams = Upstreams(fleet, tally, taps)
        yield upstreams
        if writes := upstreams.writes():
            await asyncio.wait(writes)
        upstreams.all_is_given_back()
    for tap in taps.values():
        await tap.drained()
    assert tally.sent == sum(tap.begun for tap in taps.values())


@asynccontextmanager
async def asking(*names: str, script: Script, **options: Any) -> AsyncIterator[Upstreams]:
    """Open a fleet whose upstreams are one tap each, all with one script unless a path gets its own."""
    async with AsyncExitStack() as stack:
        taps = {name: (await stack.enter_async_context(tapping())).on("*", script) for name in names}
        table = {
            name: Upstream(tap.url, **{"timeout": SLOW, "budget": None, "breaker": None, **options})
            for name, tap in taps.items()
        }
        yield await stack.enter_async_context(opened(table, taps))


async def cancelled(upstreams: Upstreams, run: asyncio.Task[None]) -> None:
    """Cancel a page, and look around the moment it has ended."""
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    upstreams.nothing_runs_on()


class User(msgspec.Struct):
    id: int


class Row(msgspec.Struct):
    id: int


class Everything(PatientPage):
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


EVERYTHING = ("users", "catalog", "reviews", "posts", "ledger")


def by_chance(chance: random.Random) -> Script:
    """Answer what is right, most of the time, at once or some turns of the loop later, in one piece or in two."""
    rows = [{"id": number} for number in range(3)]
    wrong = [written({}, 503), written({}, 503), b"garbage\r\n\r\n", written({"cut": "short"})[:-3]]

    def text_for(wire: Wire) -> bytes:
        if wire.path in {"/search", "/likes"} and chance.random() < 0.5:
            return chance.choice(wrong)
        if wire.path == "/orders":
            return written(rows)
        if wire.path == "/products":
            return written([{"id": int(key.removeprefix("id="))} for key in wire.query.split("&")])
        return written({"id": 7})

    def script(wire: Wire) -> None:
        text = text_for(wire)
        cut = chance.choice([len(text), len(text), len(text) - 2])
        turns = chance.choice([0, 0, 1, 4])
        later(turns, lambda: wire.write(text[:cut]))
        if cut < len(text):
            later(turns + 2, lambda: wire.write(text[cut:]))

    return script


def later(turns: int, action: Callable[[], None]) -> None:
    """Do something after so many turns of the loop: a delay that is the same on a slow machine."""
    if turns:
        asyncio.get_running_loop().call_soon(later, turns - 1, action)
    else:
        action()


async def cancel_at_random(total: int, seed: int) -> None:
    """Run pages side by side and cancel each at any moment of its life, until so many have been cancelled."""
    chance = random.Random(seed)
    before = asyncio.all_tasks()
    ends: Counter[str] = Counter()
    retry = Retry(first_wait=0.002, longest_wait=0.008)
    script = by_chance(chance)
    async with asking(*EVERYTHING, script=script, max_concurrency=6, timeout=2.0, retry=retry) as upstreams:
        attempts = sum(await asyncio.gather(*(cancel_pages(upstreams, chance, total, ends) for _ in range(16))))
    tally = upstreams.tally
    assert attempts == tally.begun
    stages = [tally.cancelled[stage] for stage in ("connecting", "waiting", "reading")]
    assert min(*stages, tally.retries, upstreams.taps["ledger"].begun) >= total // 50
    await until(lambda: asyncio.all_tasks() == before)


async def cancel_pages(upstreams: Upstreams, chance: random.Random, total: int, ends: Counter[str]) -> int:
    """Cancel one page after another; returns the attempts that the pages say they made."""
    attempts = 0
    while ends["cancelled"] < total:
        fan_out = upstreams.fan_out(Everything(), user_id=7)
        run = asyncio.create_task(fan_out.run())
        for _ in range(int(64 * chance.random() ** 3)):
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


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


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
        before = descriptors()
        runner.run(cancel_at_random(total, seed))
        assert descriptors() == before


class Pair(PatientPage):
    @call("users")
    def user(self, user_id: int) -> Request[User]:
        return GET("/users/{id}", id=user_id)

    @call("users", optional=True)
    def reviews(self, user_id: int) -> Request[JSON]:
        return GET("/reviews")


async def test_a_page_cancelled_while_it_waits_for_a_permit_has_not_asked() -> None:
    held = Held(answer({"id": 7}))
    async with asking("users", script=held, max_concurrency=1) as upstreams:
        run = upstreams.run(Pair(), user_id=7)
        await held.arrive()
        await cancelled(upstreams, run)
        assert (upstreams.tally.begun, upstreams.tally.cancelled) == (1, {"waiting": 1})


async def test_a_page_cancelled_while_a_name_is_looked_up_has_not_asked() -> None:
    # A thread of the loop's pool looks names up. There is one, and it is busy.
    pool, busy = ThreadPoolExecutor(1), threading.Event()
    asyncio.get_running_loop().set_default_executor(pool)
    pool.submit(busy.wait)
    try:
        async with tapping() as tap:
            url = tap.url.replace("127.0.0.1", "localhost")
            async with opened({"users": Upstream(url, timeout=SLOW)}, {"users": tap}) as upstreams:
                run = upstreams.run(Pair(), user_id=7)
                await until(pool._work_queue.qsize)
                run.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await run
                assert upstreams.tally.cancelled == {"connecting": 2}
                busy.set()
            assert tap.begun == 0
    finally:
        busy.set()


async def test_a_page_cancelled_while_it_connects_has_not_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and never says hello
        upstream = Upstream(f"https://127.0.0.1:{silent.getsockname()[1]}", timeout=SLOW)
        async with opened({"users": upstream}, {}) as upstreams:
            run = upstreams.run(Pair(), user_id=7)
            await until(lambda: select.select([silent], [], [], 0)[0])
            await cancelled(upstreams, run)
            assert upstreams.tally.cancelled == {"connecting": 2}


async def test_a_page_cancelled_while_it_waits_for_answers_closes_their_connections() -> None:
    held = Held(answer({"id": 7}))
    async with asking("users", script=held) as upstreams:
        run = upstreams.run(Pair(), user_id=7)
        wires = [await held.arrive(), await held.arrive()]
        await cancelled(upstreams, run)
        await asyncio.wait([wire.left for wire in wires])
        assert upstreams.tally.cancelled == {"waiting": 2}


async def test_a_page_cancelled_while_it_reads_a_body_closes_the_connection() -> None:
    held = Held(lambda wire: wire.write(written({"id": 7})[:-1]))
    async with asking("users", script=held) as upstreams:
        run = upstreams.run(Pair(), user_id=7)
        wires = [await held.arrive(), await held.arrive()]
        for wire in wires:
            held.release(wire)
        for _ in range(10):
            await asyncio.sleep(0)
        await cancelled(upstreams, run)
        await asyncio.wait([wire.left for wire in wires])
        assert upstreams.tally.cancelled == {"reading": 2}


async def test_a_page_cancelled_between_two_attempts_makes_no_other() -> None:
    busy = written({}, 503).replace(b"\r\n\r\n", b"\r\nRetry-After: 9\r\n\r\n")
    async with asking("users", script=lambda wire: wire.write(busy)) as upstreams:
        run = upstreams.run(Pair(), user_id=7)
        await until(lambda: upstreams.tally.retries == 2)
        await cancelled(upstreams, run)
        assert (upstreams.tally.begun, upstreams.tally.cancelled) == (2, {})


async def test_a_page_cancelled_while_a_write_waits_for_its_reads_does_not_write() -> None:
    held = Held(answer([]))
    async with asking(*EVERYTHING, script=answer({"id": 7})) as upstreams:
        upstreams.taps["users"].on("/orders", held)
        run = upstreams.run(Everything(), user_id=7)
        await held.arrive()
        await cancelled(upstreams, run)
    assert upstreams.taps["ledger"].begun == 0


async def test_a_page_cancelled_in_the_midst_of_a_join_asks_for_no_further_chunk() -> None:
    held = Held(answer([]))
    async with asking(*EVERYTHING, script=answer({"id": 7})) as upstreams:
        upstreams.taps["users"].on("/orders", answer([{"id": number} for number in range(9)]))
        upstreams.taps["catalog"].on("/products", held)
        run = upstreams.run(Everything(), user_id=7)
        await held.arrive()
        await cancelled(upstreams, run)
    assert upstreams.taps["catalog"].begun == 1


async def test_a_page_cancelled_in_the_midst_of_a_part_lets_it_clean_up_and_ends_its_calls() -> None:
    clean = asyncio.Event()

    class Author(PatientPage):
        @part
        async def feed(self, fan: Fan) -> list[Any]:
            likes = fan.call("posts", GET("/likes"))
            try:
                return [await fan.call("posts", GET("/posts")), await likes]
            finally:
                for _ in range(10):  # what an author has to put in order takes its turns
                    await asyncio.sleep(0)
                clean.set()

    held = Held(answer([]))
    async with asking("posts", script=held) as upstreams:
        run = upstreams.run(Author())
        wires = [await held.arrive(), await held.arrive()]
        await cancelled(upstreams, run)
        assert clean.is_set()
        await asyncio.wait([wire.left for wire in wires])
        assert upstreams.tally.cancelled == {"waiting": 2}


async def test_a_part_that_gathers_its_calls_leaves_none_behind_when_one_fails() -> None:
    class Gathering(PatientPage):
        @part
        async def feed(self, fan: Fan) -> list[Any]:
            return list(await asyncio.gather(*(fan.call("posts", GET("/posts", page=page)) for page in range(4))))

    held = Held(answer({}, 404))
    async with asking("posts", script=held) as upstreams:
        run = upstreams.run(Gathering())
        *others, last = [await held.arrive() for _ in range(4)]
        held.release(last)
        with pytest.raises(CallFailed):
            await run
        upstreams.nothing_runs_on()
        await asyncio.wait([wire.left for wire in others])
        assert upstreams.tally.cancelled == {"waiting": 3}


async def test_who_stops_waiting_for_a_call_of_a_fan_takes_it_from_nobody_else() -> None:
    held = Held(answer({"id": 7}))
    async with asking("posts", script=held) as upstreams:
        async with Fan(upstreams.fleet, inbound_of({}), Deadline.within(SLOW)) as fan:
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


class Write(PatientPage):
    @call("ledger")
    def entry(self, user_id: int) -> Request[JSON]:
        return POST("/entries", json={"user": user_id})


async def test_a_page_cancelled_while_it_writes_ends_at_once_and_the_write_goes_on() -> None:
    held = Held(answer({"id": 1}))
    async with asking("ledger", script=held) as upstreams:
        run = upstreams.run(Write(), user_id=7)
        wire = await held.arrive()
        await cancelled(upstreams, run)
        (write,) = upstreams.writes()
        held.release(wire)
        await asyncio.wait([write])
        assert (upstreams.tally.begun, upstreams.tally.cancelled) == (1, {})


async def test_a_page_cancelled_while_its_write_waits_for_a_permit_does_not_write() -> None:
    held = Held(answer({"id": 1}))
    async with asking("ledger", script=held, max_concurrency=1) as upstreams:
        first = upstreams.run(Write(), user_id=7)
        wire = await held.arrive()
        second = upstreams.run(Write(), user_id=8)
        await until(lambda: upstreams.fleet._clients["ledger"].guards.bulkhead.waiting)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        held.release(wire)
        await first
    assert upstreams.taps["ledger"].begun == 1


async def test_a_write_that_no_page_waits_for_any_more_ends_by_its_own_timeout() -> None:
    held = Held(answer({"id": 1}))
    async with asking("ledger", script=held, timeout=SHORT) as upstreams:
        run = upstreams.run(Write(), user_id=7)
        wire = await held.arrive()
        await cancelled(upstreams, run)
        await wire.left
        assert (upstreams.tally.begun, upstreams.tally.cancelled) == (1, {})


async def test_a_write_that_no_page_waits_for_any_more_is_not_made_again() -> None:
    held = Held(answer({}, 503))
    again = Retry(first_wait=0.0)
    async with asking("ledger", script=held, idempotency_header="Idempotency-Key", retry=again) as upstreams:
        run = upstreams.run(Write(), user_id=7)
        wire = await held.arrive()
        await cancelled(upstreams, run)
        held.release(wire)
    assert upstreams.tally.begun == 1


async def test_a_fleet_whose_closing_is_cancelled_closes_its_connections_all_the_same() -> None:
    held, tally, closing = Held(answer({"id": 1})), Tally(), asyncio.Event()
    async with tapping() as tap:
        tap.on("*", held)

        async def work() -> None:
            async with open_fleet({"ledger": Upstream(tap.url, timeout=SLOW)}, tally) as fleet:
                run = Upstreams(fleet, tally, {}).run(Write(), user_id=7)
                await held.arrive()
                run.cancel()
                closing.set()

        before = asyncio.all_tasks()
        working = asyncio.create_task(work())
        await closing.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        await tap.drained()
        await ended(before)
        assert tally.sent == tap.begun == 1


class Writes(PatientPage):
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
    receipts, reviews, users = Held(answer({"id": 2})), Held(answer([])), Held(answer({}, 404))
    async with asking("users", "ledger", script=answer({"id": 1})) as upstreams:
        upstreams.taps["ledger"].on("/receipts", receipts)
        upstreams.taps["users"].on("/reviews", reviews).on("/users/7", users)
        run = upstreams.run(Writes(), user_id=7)
        receipt, review = await receipts.arrive(), await reviews.arrive()
        users.release(await users.arrive())
        with pytest.raises(CallFailed, match="user: http_response_status"):
            await run
        upstreams.nothing_runs_on()
        await review.left
        (write,) = upstreams.writes()
        receipts.release(receipt)
        await asyncio.wait([write])
        assert (upstreams.tally.begun, upstreams.tally.cancelled) == (4, {"waiting": 1})


async def test_a_failed_write_does_not_end_another() -> None:
    receipts, entries = Held(answer({"id": 2})), Held(Wire.reset)
    async with asking("users", "ledger", script=answer({"id": 1})) as upstreams:
        upstreams.taps["ledger"].on("/receipts", receipts).on("/entries", entries)
        run = upstreams.run(Writes(), user_id=7)
        receipt = await receipts.arrive()
        entries.release(await entries.arrive())
        with pytest.raises(CallFailed, match="entry: connection_terminated"):
            await run
        upstreams.nothing_runs_on()
        (write,) = upstreams.writes()
        receipts.release(receipt)
        await asyncio.wait([write])
        assert (upstreams.tally.begun, upstreams.tally.cancelled) == (2, {})


@pytest.mark.parametrize("turns", range(16))
async def test_a_page_cancelled_as_a_required_call_fails_leaves_nothing_behind(turns: int) -> None:
    held = Held(answer({}, 404))
    async with asking(*EVERYTHING, script=held) as upstreams:
        upstreams.taps["users"].on("/users/7", answer({"id": 7})).on("/orders", answer([{"id": 1}, {"id": 2}]))
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
    held = Held(answer({"id": 7}))
    async with asking("users", script=held) as upstreams:
        pages = [upstreams.fan_out(Pair(), deadline=SHORT, user_id=7) for _ in range(8)]
        runs = [asyncio.create_task(page.run()) for page in pages]
        for nth in range(16):
            wire = await held.arrive()
            asyncio.get_running_loop().call_at(pages[0].deadline.at + (nth - 8) * 0.001, held.release, wire)
        endings = await asyncio.gather(*runs, return_exceptions=True)
        upstreams.nothing_runs_on()
    for page, ending in zip(pages, endings, strict=True):
        assert ending is None or (isinstance(ending, CallFailed) and ending.failure.error is Fault.DEADLINE_EXCEEDED)
        assert {failure.error for failure in page.failures.values()} <= {Fault.DEADLINE_EXCEEDED}
        assert page.attempts == {"user": 1, "reviews": 1}


async def test_gather_loses_a_cancellation_to_a_failure_of_the_same_moment() -> None:
    """Why a page that fails as its client leaves may be logged as failed: the trap is asyncio's."""
    failing, waiting = asyncio.get_running_loop().create_future(), asyncio.get_running_loop().create_future()

    async def both() -> None:
        await asyncio.gather(failing, waiting)

    running = asyncio.create_task(both())
    await asyncio.sleep(0)
    failing.set_exception(LookupError())
    running.cancel()
    with pytest.raises(LookupError):
        await running
    assert (running.cancelling(), waiting.cancelled()) == (1, True)
