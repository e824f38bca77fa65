"""So many attempts at once and so many waiting, first come first served; no permit is lost, whoever leaves and when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.upstreams.clock import Clock
from upstreams.bulkhead import Bulkhead

LONG = 3600.0


class Loop(asyncio.SelectorEventLoop):
    """An event loop that a test turns by hand, and on whose clock time stands until a test lets it go on."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__()

    def time(self) -> float:
        return self.clock.now

    def turn(self, times: int = 1) -> None:
        """Run what is ready now, so many times."""
        for _ in range(times):
            self.call_soon(self.stop)
            self.run_forever()

    def settle(self) -> None:
        """Run until nothing goes on by itself: more turns than anything here takes."""
        self.turn(8)


@contextmanager
def turned_by_hand() -> Iterator[Loop]:
    loop = Loop()
    try:
        yield loop
    finally:
        end(loop)


def end(loop: Loop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.settle()
    loop.close()


def entered(task: asyncio.Task[bool]) -> bool:
    return task.done() and not task.cancelled() and task.result()


def soon() -> float:
    return asyncio.get_running_loop().time() + LONG


async def turn() -> None:
    """Let others run as far as they get."""
    for _ in range(8):
        await asyncio.sleep(0)


async def waiters(bulkhead: Bulkhead, count: int) -> list[asyncio.Task[bool]]:
    """Let attempts come, one after another, and wait."""
    tasks = []
    for _ in range(count):
        tasks.append(asyncio.create_task(bulkhead.enter(soon())))
        await turn()
    return tasks


async def is_refused(bulkhead: Bulkhead, until: float | None = None) -> bool:
    """Let an attempt come; tell whether it is sent away without waiting."""
    task = asyncio.create_task(bulkhead.enter(soon() if until is None else until))
    await turn()
    at_once = task.done()
    task.cancel()
    return at_once and not await task


async def full(limit: int = 1, max_waiting: int = 9, max_wait: float = LONG) -> Bulkhead:
    """Return a bulkhead with no permit left."""
    bulkhead = Bulkhead(limit, max_waiting, max_wait)
    for _ in range(limit):
        assert await bulkhead.enter(soon())
    return bulkhead


class TestEnter:
    @pytest.mark.parametrize("limit", [1, 2, 64])
    async def test_so_many_are_let_in_at_once_and_the_next_waits(self, limit: int) -> None:
        bulkhead = await full(limit)
        (task,) = await waiters(bulkhead, 1)

        assert not task.done()
        assert (bulkhead.in_flight, bulkhead.waiting) == (limit, 1)
        bulkhead.leave()
        await turn()
        assert entered(task)
        assert (bulkhead.in_flight, bulkhead.waiting) == (limit, 0)

    async def test_first_come_first_served(self) -> None:
        bulkhead = await full()
        tasks = await waiters(bulkhead, 5)
        for nth in range(5):
            bulkhead.leave()
            await turn()

            assert [task.done() for task in tasks] == [True] * (nth + 1) + [False] * (4 - nth)

    async def test_who_comes_just_when_a_permit_is_free_does_not_overtake_who_waits(self) -> None:
        bulkhead = await full()
        (waiter,) = await waiters(bulkhead, 1)
        bulkhead.leave()
        late = asyncio.create_task(bulkhead.enter(soon()))
        await turn()

        assert (waiter.done(), late.done()) == (True, False)
        late.cancel()

    async def test_beyond_the_longest_queue_there_is_no_waiting(self) -> None:
        bulkhead = await full(max_waiting=2)
        tasks = await waiters(bulkhead, 2)

        assert await is_refused(bulkhead)
        assert (bulkhead.in_flight, bulkhead.waiting) == (1, 2)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()

    async def test_there_need_be_no_queue(self) -> None:
        bulkhead = await full(max_waiting=0)
        assert await is_refused(bulkhead)
        bulkhead.leave()

        assert await bulkhead.enter(soon())

    async def test_who_may_wait_no_longer_goes_and_leaves_the_queue(self) -> None:
        bulkhead = await full(max_wait=0.0)

        assert await is_refused(bulkhead)
        assert (bulkhead.in_flight, bulkhead.waiting) == (1, 0)

    async def test_nobody_waits_past_the_moment_that_it_has_until(self) -> None:
        bulkhead = await full()

        assert await is_refused(bulkhead, until=0.0)
        assert (bulkhead.in_flight, bulkhead.waiting) == (1, 0)

    async def test_who_is_cancelled_while_waiting_is_cancelled_and_takes_nothing_along(self) -> None:
        bulkhead = await full()
        first, second = await waiters(bulkhead, 2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        bulkhead.leave()
        await turn()

        assert entered(second)
        assert (bulkhead.in_flight, bulkhead.waiting) == (1, 0)

    async def test_who_is_cancelled_just_when_let_in_passes_the_permit_on(self) -> None:
        bulkhead = await full()
        first, second = await waiters(bulkhead, 2)
        bulkhead.leave()
        first.cancel()
        await turn()

        assert (first.cancelled(), entered(second)) == (True, True)
        assert (bulkhead.in_flight, bulkhead.waiting) == (1, 0)

    async def test_it_prints_how_full_it_is(self) -> None:
        bulkhead = await full(2)
        (task,) = await waiters(bulkhead, 1)

        assert repr(bulkhead) == "<Bulkhead in_flight=2 of 2 waiting=1>"
        task.cancel()


OPERATIONS = st.lists(
    st.sampled_from(["enter", "enter", "leave", "time passes"]) | st.integers(0, 9),  # a number is cancelled
    max_size=6,
)


@given(
    limit=st.integers(1, 3),
    max_waiting=st.integers(0, 4),
    moments=st.lists(st.tuples(OPERATIONS, st.integers(0, 4)), max_size=12),
)
def test_no_permit_is_lost_or_made_whatever_happens_between_two_turns_of_the_loop(
    limit: int, max_waiting: int, moments: list[tuple[list[str | int], int]]
) -> None:
    with turned_by_hand() as loop:
        bulkhead = Bulkhead(limit, max_waiting, max_wait=3.0)
        tasks: list[asyncio.Task[bool]] = []
        left: set[asyncio.Task[bool]] = set()
        for operations, turns in moments:
            for operation in operations:
                inside = [task for task in tasks if entered(task) and task not in left]
                if operation == "enter":
                    tasks.append(loop.create_task(bulkhead.enter(loop.time() + 5.0)))
                elif operation == "time passes":
                    loop.clock.advance(1.0)
                elif operation == "leave" and inside:
                    left.add(inside[0])
                    bulkhead.leave()
                elif isinstance(operation, int) and tasks:
                    tasks[operation % len(tasks)].cancel()
                assert 0 <= bulkhead.in_flight <= limit
                assert 0 <= bulkhead.waiting <= max_waiting
            loop.turn(turns)
            # A permit that is on its way to who has waited for it is taken already.
            assert sum(map(entered, tasks)) - len(left) <= bulkhead.in_flight <= limit

        loop.settle()
        assert bulkhead.in_flight == sum(map(entered, tasks)) - len(left)
        waiting = [nth for nth, task in enumerate(tasks) if not task.done()]
        assert bulkhead.waiting == len(waiting)
        assert bulkhead.in_flight == limit or not waiting
        assert not any(map(entered, tasks[min(waiting, default=len(tasks)) :]))
        for _ in range(bulkhead.in_flight):
            bulkhead.leave()
        loop.settle()
        free = limit - bulkhead.in_flight
        again = [loop.create_task(bulkhead.enter(loop.time() + 5.0)) for _ in range(free + 1)]
        loop.settle()
        assert [entered(task) for task in again] == [True] * free + [False]


class Entrant:
    """One that came, and what should have become of it: `waits`, `in`, `refused` or `cancelled`."""

    def __init__(self, task: asyncio.Task[bool], due: float) -> None:
        self.task = task
        self.due = due
        self.fate = "waits"

    @property
    def found(self) -> str:
        """What has become of it."""
        if not self.task.done():
            return "waits"
        return "cancelled" if self.task.cancelled() else "in" if self.task.result() else "refused"


class Comparison(RuleBasedStateMachine):
    """A bulkhead and two lists, of those inside and those in the queue, to which the same happens."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.inside: list[Entrant] = []
        self.queue: list[Entrant] = []
        self.gone: list[Entrant] = []

    def teardown(self) -> None:
        end(self.loop)

    @initialize(limit=st.integers(1, 3), max_waiting=st.integers(0, 3), max_wait=st.sampled_from([0.0, 1.0, 4.0]))
    def begin(self, limit: int, max_waiting: int, max_wait: float) -> None:
        self.bulkhead = Bulkhead(limit, max_waiting, max_wait)
        self.max_waiting = max_waiting
        self.max_wait = max_wait

    @rule(quarters=st.integers(-2, 20))
    def enter(self, quarters: int) -> None:
        now = self.loop.time()
        until = now + quarters / 4
        entrant = Entrant(self.loop.create_task(self.bulkhead.enter(until)), min(until, now + self.max_wait))
        if len(self.inside) < self.bulkhead.limit:
            self.admit(entrant)
        elif len(self.queue) < self.max_waiting:
            self.queue.append(entrant)
        else:
            self.let_go(entrant, "refused")
        self.refuse_who_waited_long_enough()

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.gone.append(self.inside.pop(data.draw(st.integers(0, len(self.inside) - 1))))
        self.bulkhead.leave()
        if self.queue:
            self.admit(self.queue.pop(0))

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        entrant = self.queue.pop(data.draw(st.integers(0, len(self.queue) - 1)))
        entrant.task.cancel()
        self.let_go(entrant, "cancelled")

    @rule(quarters=st.integers(1, 8))
    def advance(self, quarters: int) -> None:
        self.loop.clock.advance(quarters / 4)
        self.refuse_who_waited_long_enough()

    def refuse_who_waited_long_enough(self) -> None:
        for entrant in [one for one in self.queue if one.due <= self.loop.time()]:
            self.queue.remove(entrant)
            self.let_go(entrant, "refused")

    def admit(self, entrant: Entrant) -> None:
        entrant.fate = "in"
        self.inside.append(entrant)

    def let_go(self, entrant: Entrant, fate: str) -> None:
        entrant.fate = fate
        self.gone.append(entrant)

    @invariant()
    def they_do_not_differ(self) -> None:
        self.loop.settle()
        assert [one.found for one in self.everyone] == [one.fate for one in self.everyone]
        assert self.bulkhead.in_flight == len(self.inside) <= self.bulkhead.limit
        assert self.bulkhead.waiting == len(self.queue) <= self.max_waiting

    @property
    def everyone(self) -> list[Entrant]:
        return [*self.inside, *self.queue, *self.gone]


def test_whatever_happens_it_behaves_as_a_naive_one() -> None:
    run_state_machine_as_test(Comparison, settings=settings(max_examples=40, stateful_step_count=30))
