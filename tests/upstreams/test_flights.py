"""Identical calls under way at once share one ending; a leader that leaves takes nobody along, and nothing is kept."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.upstreams.asking import until
from upstreams import Deadline
from upstreams.flights import Flights


class Ending:
    """What comes of a call."""


class Airport:
    """Callers as a client drives them: each follows who asks the same, or leads. A test lands the calls."""

    def __init__(self) -> None:
        self.flights: Flights[str, Ending] = Flights()
        self.flying: dict[str, asyncio.Future[Ending]] = {}  # by leader
        self.led: list[str] = []

    async def share(self, name: str, key: object = "same", within: float = 5.0) -> Ending:
        deadline = Deadline.within(within)
        while (flight := self.flights.of(key)) is not None:
            ending = await flight.landed(deadline)
            if ending is not None:
                return ending
        self.flights.begin(key, name)
        ending = None
        try:
            ending = await self.call(name)
            return ending
        finally:
            self.flights.end(key, ending)

    async def call(self, name: str) -> Ending:
        self.led.append(name)
        self.flying[name] = asyncio.get_running_loop().create_future()
        try:
            return await self.flying[name]
        finally:
            del self.flying[name]

    async def callers(self, *names: str) -> list[asyncio.Task[Ending]]:
        """Let callers come, one after another."""
        tasks = []
        for name in names:
            tasks.append(asyncio.create_task(self.share(name)))
            await turn()
        return tasks

    def land(self, leader: str) -> Ending:
        ending = Ending()
        self.flying[leader].set_result(ending)
        return ending

    def is_empty(self) -> bool:
        return self.flights.of("same") is None and repr(self.flights) == "<Flights 0>"


@pytest.fixture
def airport() -> Airport:
    return Airport()


async def turn() -> None:
    """Let others run as far as they get."""
    for _ in range(8):
        await asyncio.sleep(0)


class TestFollowers:
    async def test_get_the_leaders_ending(self, airport: Airport) -> None:
        tasks = await airport.callers("a", "b", "c")
        ending = airport.land("a")

        assert await asyncio.gather(*tasks) == [ending] * 3
        assert airport.led == ["a"]
        assert airport.is_empty()

    async def test_see_whom_they_follow(self, airport: Airport) -> None:
        (task,) = await airport.callers("a")
        flight = airport.flights.of("same")

        assert flight is not None
        assert flight.leader == "a"
        assert airport.flights.of("another") is None
        assert repr(airport.flights) == "<Flights 1>"
        airport.land("a")
        await task

    async def test_follow_nobody_who_asks_something_else(self, airport: Airport) -> None:
        one = asyncio.create_task(airport.share("a", key="one"))
        other = asyncio.create_task(airport.share("b", key="other"))
        await turn()
        assert airport.led == ["a", "b"]
        second, first = airport.land("b"), airport.land("a")

        assert (await one, await other) == (first, second)

    async def test_a_call_that_ended_is_not_followed(self, airport: Airport) -> None:
        for name in ("a", "b"):
            (task,) = await airport.callers(name)
            ending = airport.land(name)
            assert await task is ending

        assert airport.led == ["a", "b"]

    async def test_wait_no_longer_than_their_own_deadline(self, airport: Airport) -> None:
        (leader,) = await airport.callers("a")
        hurried = asyncio.create_task(airport.share("b", within=-1.0))
        patient = asyncio.create_task(airport.share("c"))
        await turn()
        assert (leader.done(), hurried.done(), patient.done()) == (False, True, False)
        with pytest.raises(TimeoutError):
            await hurried
        ending = airport.land("a")

        assert (await leader, await patient) == (ending, ending)
        assert airport.led == ["a"]

    async def test_can_be_cancelled_without_the_others(self, airport: Airport) -> None:
        leader, leaving, staying = await airport.callers("a", "b", "c")
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        ending = airport.land("a")

        assert (await leader, await staying) == (ending, ending)

    async def test_can_be_cancelled_in_the_moment_that_the_call_ends(self, airport: Airport) -> None:
        leader, leaving, staying = await airport.callers("a", "b", "c")
        ending = airport.land("a")
        await until(leader.done)
        leaving.cancel()
        await turn()

        assert leaving.cancelled()
        assert staying.result() is ending


class TestLeader:
    async def test_one_that_is_cancelled_leaves_its_followers_without_an_ending(self, airport: Airport) -> None:
        (leader,) = await airport.callers("a")
        flight = airport.flights.of("same")
        assert flight is not None
        followers = [asyncio.ensure_future(flight.landed(Deadline.within(5.0))) for _ in range(3)]
        await turn()
        leader.cancel()

        assert await asyncio.gather(*followers) == [None] * 3
        assert leader.cancelled()
        assert airport.is_empty()

    async def test_exactly_one_of_them_leads_next_and_the_others_follow_it(self, airport: Airport) -> None:
        leader, *followers = await airport.callers("a", "b", "c", "d")
        leader.cancel()
        await turn()
        assert airport.led == ["a", "b"]
        ending = airport.land("b")

        assert await asyncio.gather(*followers) == [ending] * 3
        assert airport.led == ["a", "b"]
        assert airport.is_empty()

    async def test_a_mistake_of_the_leaders_is_its_own(self, airport: Airport) -> None:
        leader, follower = await airport.callers("a", "b")
        airport.flying["a"].set_exception(KeyError("ours"))
        with pytest.raises(KeyError):
            await leader
        await turn()
        ending = airport.land("b")

        assert await follower is ending

    async def test_of_a_call_that_ended_nothing_is_kept(self, airport: Airport) -> None:
        tasks = await airport.callers("a", "b")
        ending = weakref.ref(airport.land("a"))
        while tasks:
            await tasks.pop()
        await turn()  # the loop itself lets go of what woke this
        gc.collect()

        assert ending() is None
        assert airport.is_empty()


HAPPENINGS = st.lists(st.sampled_from(["come", "come", "land", "leader leaves", "turn"]) | st.integers(0, 9))


@given(HAPPENINGS)
def test_whoever_comes_and_leaves_one_leads_at_a_time_and_who_stays_gets_an_ending(happenings: list[str | int]) -> None:
    asyncio.run(see(happenings))


async def see(happenings: list[str | int]) -> None:
    airport = Airport()
    tasks: dict[str, asyncio.Task[Ending]] = {}
    endings: list[Ending] = []

    def land() -> None:
        endings.extend(airport.land(name) for name, call in airport.flying.items() if not call.done())

    def leave(chosen: Callable[[str], bool]) -> None:
        for name in filter(chosen, tasks):
            tasks[name].cancel()

    for happening in happenings:
        if happening == "come":
            tasks[f"{len(tasks)}"] = asyncio.create_task(airport.share(f"{len(tasks)}"))
        elif happening == "turn":
            await asyncio.sleep(0)
        elif happening == "land":
            land()
        elif happening == "leader leaves":
            leave(lambda name: name in airport.flying)
        else:
            leave(lambda name, chosen=str(happening): name == chosen)  # type: ignore[misc] # bound now
        assert len(airport.flying) <= 1

    await turn()
    staying = [task for task in tasks.values() if not task.done()]
    assert len(airport.flying) == (1 if staying else 0)
    land()
    await turn()
    assert all(task.cancelled() or task.result() in endings for task in tasks.values())
    assert airport.is_empty()
