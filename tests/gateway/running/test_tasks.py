"""Nothing outlives what started it: tasks are cancelled, waited for, and named in the log when they resist."""

from __future__ import annotations

import asyncio

import pytest

from gateway.running.tasks import Overdue, reap, together, until
from tests.logs import Log


class Worker:
    """A coroutine to be run, which says how far it came: it waits until it is let go, and cleans up when cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.let_go = asyncio.Event()
        self.cleaning = asyncio.Event()
        self.clean = asyncio.Event()
        self.ending: str | None = None

    async def run(self) -> None:
        self.started.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cleaning.set()
            await self.clean.wait()
            self.ending = "cancelled"
            raise
        self.ending = "ran to its end"


async def refusing_to_end(let_go: asyncio.Event) -> None:
    while not let_go.is_set():
        try:
            await let_go.wait()
        except asyncio.CancelledError:
            continue


async def test_together_waits_for_all() -> None:
    first, second = Worker(), Worker()
    first.let_go.set()
    running = asyncio.create_task(together([first.run(), second.run()]))
    await second.started.wait()
    assert not running.done()

    second.let_go.set()
    await running

    assert [first.ending, second.ending] == ["ran to its end"] * 2


async def test_together_with_nothing_to_run_is_over_at_once() -> None:
    await together([])


async def test_the_first_to_raise_ends_the_others_and_they_have_ended_when_it_is_raised() -> None:
    async def fail() -> None:
        await worker.started.wait()
        raise LookupError

    worker = Worker()
    worker.clean.set()

    with pytest.raises(LookupError):
        await together([worker.run(), fail()])

    assert worker.ending == "cancelled"


async def test_together_cancelled_from_outside_waits_for_its_tasks_to_clean_up() -> None:
    worker = Worker()
    running = asyncio.create_task(together([worker.run()]))
    await worker.started.wait()

    running.cancel()
    await worker.cleaning.wait()
    assert not running.done()
    worker.clean.set()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert worker.ending == "cancelled"


async def test_reaping_is_not_cut_short_by_a_cancellation() -> None:
    worker = Worker()
    task = asyncio.create_task(worker.run())
    await worker.started.wait()
    reaping = asyncio.create_task(reap([task]))
    await worker.cleaning.wait()

    reaping.cancel()
    await asyncio.wait([reaping], timeout=0.01)
    assert not reaping.done()
    worker.clean.set()
    with pytest.raises(asyncio.CancelledError):
        await reaping

    assert worker.ending == "cancelled"


async def test_what_resists_is_named_in_the_log_and_holds_up_nobody(log: Log) -> None:
    let_go = asyncio.Event()
    task = asyncio.create_task(refusing_to_end(let_go), name="part feed")
    await asyncio.wait([task], timeout=0)

    await reap([task], 0.01)
    let_go.set()
    await task

    assert [event["message"] for event in log.events("log.recorded")] == [
        "part feed resists cancellation and is left to itself"
    ]


async def test_reaping_what_has_ended_does_nothing() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await asyncio.wait([task])

    await reap([task])

    assert task.cancelling() == 1


async def test_until_gives_what_the_coroutine_gives() -> None:
    async def seven() -> int:
        return 7

    assert await until(asyncio.get_running_loop().time() + 10, seven(), "part x", list) == 7


async def test_until_raises_what_the_coroutine_raises() -> None:
    async def fail() -> None:
        raise TimeoutError("the author's own")

    with pytest.raises(TimeoutError, match="the author's own"):
        await until(asyncio.get_running_loop().time() + 10, fail(), "part x", list)


@pytest.mark.parametrize("earlier", [0.01, 0.0, -5.0])
async def test_until_cancels_what_has_not_ended_by_then(earlier: float) -> None:
    worker = Worker()
    worker.clean.set()

    with pytest.raises(Overdue):
        await until(asyncio.get_running_loop().time() + earlier, worker.run(), "part x", list)

    assert worker.ending == "cancelled"


async def test_until_leaves_what_resists_when_its_time_is_up(log: Log) -> None:
    let_go = asyncio.Event()

    with pytest.raises(Overdue):
        await until(asyncio.get_running_loop().time(), refusing_to_end(let_go), "part x", list)
    let_go.set()

    assert [event["message"] for event in log.events("log.recorded")] == [
        "part x resists cancellation and is left to itself"
    ]


async def test_until_does_not_take_a_coroutine_cancelling_itself_for_its_own_cancellation() -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="part x raised CancelledError by itself"):
        await until(asyncio.get_running_loop().time() + 10, give_up(), "part x", list)


async def test_until_hands_its_cancellation_on() -> None:
    worker = Worker()
    worker.clean.set()
    running = asyncio.create_task(until(asyncio.get_running_loop().time() + 10, worker.run(), "part x", list))
    await worker.started.wait()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert worker.ending == "cancelled"
