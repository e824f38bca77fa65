"""A slow read is asked once more; the first useful answer counts, and the other leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import StartStub
from tests.serving import SHORT
from tests.stub import Answered, Gate, Received, Stub, Turns
from tests.upstreams.asking import asking, until
from upstreams import GET, POST, Breaker, Budget, Fault, Hedge, Outcome, Retry, Upstream
from upstreams.breaker import State

SOON = Hedge(after=0.02)


async def slow_then(stub: StartStub, *others: object) -> tuple[Stub, Gate]:
    """A server that keeps the first request waiting until its asker leaves, and answers the next as told."""
    server, gate = await stub("service"), Gate({"from": "first"})
    server.on("/", Turns([gate, *others]))
    return server, gate


async def answered_unhedged(asked: asyncio.Task[Outcome], gate: Gate) -> Outcome:
    """Answer a first attempt when a hedge beside it would long have been sent."""
    await gate.arrived.wait()
    later = asyncio.get_running_loop().time() + 0.06  # three times as long as a hedge waits
    await until(lambda: asyncio.get_running_loop().time() > later)
    gate.open.set()
    return await asked


async def test_the_quicker_answer_counts_and_the_other_is_cancelled(stub: StartStub) -> None:
    server, gate = await slow_then(stub, {"from": "hedge"})
    async with asking(Upstream(server.url, hedge=SOON, timeout=30.0)) as one:
        outcome = await one.ask(GET("/"), dict[str, str])
        await gate.left.wait()

    assert (outcome.value, outcome.attempts) == ({"from": "hedge"}, 2)
    assert [(a.number, a.kind, a.cancelled) for a in one.notes.attempts] == [(2, "hedge", False), (1, "first", True)]


async def test_the_first_may_yet_win(stub: StartStub) -> None:
    server, gate = await slow_then(stub, second := Gate({"from": "hedge"}))
    async with asking(Upstream(server.url, hedge=SOON, timeout=30.0)) as one:
        asked = asyncio.create_task(one.ask(GET("/"), dict[str, str]))
        await second.arrived.wait()
        gate.open.set()
        assert (await asked).value == {"from": "first"}
        await second.left.wait()

    assert len(server.received) == 2


async def test_an_answer_in_time_is_asked_for_once(stub: StartStub) -> None:
    server = (await stub("service")).on("/", {})
    async with asking(Upstream(server.url, hedge=Hedge(after=20.0), timeout=30.0)) as one:
        assert (await one.ask(GET("/"))).ok

    assert [attempt.kind for attempt in one.notes.attempts] == ["first"]


@pytest.mark.parametrize("status", [404, 409, 500])
async def test_an_error_that_will_not_pass_is_an_answer_like_any_other(stub: StartStub, status: int) -> None:
    server, gate = await slow_then(stub, Answered({}, status))
    async with asking(Upstream(server.url, hedge=SOON, timeout=30.0)) as one:
        outcome = await one.ask(GET("/"), within=60.0)
        await gate.left.wait()

    assert (outcome.fault, outcome.status, outcome.attempts) == (Fault.HTTP_RESPONSE_STATUS, status, 2)


async def test_there_is_none_while_all_permits_are_taken(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({"from": "first"})
    server.on("/", gate)
    async with asking(Upstream(server.url, hedge=SOON, max_concurrency=1, max_waiting=0, timeout=30.0)) as one:
        asked = asyncio.create_task(one.ask(GET("/"), within=60.0))
        assert (await answered_unhedged(asked, gate)).ok
        assert repr(one.client.guards.budget) == "<RetryBudget 10.0 of 10>"

    assert len(server.received) == 1


async def test_callers_who_leave_are_no_measure_of_an_upstream(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({})
    server.on("*", gate)
    async with asking(Upstream(server.url, hedge=Hedge(after=20.0), timeout=30.0)) as one:
        asked = [asyncio.create_task(one.ask(GET("/{n}", n=n), within=60.0)) for n in range(9)]
        await until(lambda: len(server.received) == 9)
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        assert repr(one.client.guards.latencies) == "<Latencies of 0 p95=None>"


async def test_a_hedge_that_fails_leaves_the_first_its_time(stub: StartStub) -> None:
    server, gate = await slow_then(stub, Answered({}, 503))
    async with asking(Upstream(server.url, hedge=SOON, timeout=30.0)) as one:
        asked = asyncio.create_task(one.ask(GET("/"), dict[str, str]))
        await until(lambda: len(one.notes.attempts) == 1)
        gate.open.set()
        assert (await asked).value == {"from": "first"}


async def test_when_both_fail_the_call_goes_on_as_after_any_failed_attempt(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate(Answered({}, 503))
    server.on("/", Turns([gate, Answered({}, 503), {}]))
    retry = Retry(attempts=2, first_wait=0.0, longest_wait=0.0)
    async with asking(Upstream(server.url, hedge=SOON, retry=retry, timeout=30.0)) as one:
        asked = asyncio.create_task(one.ask(GET("/")))
        await until(lambda: len(one.notes.attempts) == 1)
        gate.open.set()
        outcome = await asked

    assert (outcome.ok, outcome.attempts) == (True, 3)
    assert [attempt.kind for attempt in one.notes.attempts] == ["hedge", "first", "retry"]


@pytest.mark.parametrize("upstream_hedges", [True, False])
async def test_a_write_is_never_hedged(stub: StartStub, upstream_hedges: bool) -> None:  # noqa: FBT001
    server, gate = await slow_then(stub, {})
    hedge = SOON if upstream_hedges else None
    async with asking(Upstream(server.url, hedge=hedge, idempotency_header="Key")) as one:
        asked = asyncio.create_task(one.ask(POST("/"), hedge=None if upstream_hedges else SOON))
        assert (await answered_unhedged(asked, gate)).ok

    assert len(server.received) == 1


async def test_a_call_may_say_otherwise_than_its_upstream(stub: StartStub) -> None:
    server, plain = await stub("service"), Gate({})
    server.on("/hedged", Turns([Gate({}), {}])).on("/plain", plain)
    async with asking(Upstream(server.url)) as one:
        assert (await one.ask(GET("/hedged"), hedge=SOON)).ok
    async with asking(Upstream(server.url, hedge=SOON)) as one:
        asked = asyncio.create_task(one.ask(GET("/plain"), hedge=False))
        assert (await answered_unhedged(asked, plain)).ok

    assert (len(server.asked("/hedged")), len(server.asked("/plain"))) == (2, 1)


async def test_without_a_token_there_is_none(stub: StartStub) -> None:
    server, gate = await slow_then(stub, {})
    budget = Budget(share=0.0, floor=0.0, burst=1)
    async with asking(Upstream(server.url, hedge=SOON, budget=budget)) as one:
        assert one.client.guards.afford()  # which is the last one
        assert (await answered_unhedged(asyncio.create_task(one.ask(GET("/"))), gate)).ok

    assert len(server.received) == 1


async def test_without_a_budget_there_is_none_either(stub: StartStub) -> None:
    server, gate = await slow_then(stub, {})
    async with asking(Upstream(server.url, budget=None)) as one:
        assert (await answered_unhedged(asyncio.create_task(one.ask(GET("/"), hedge=SOON)), gate)).ok

    assert len(server.received) == 1


async def test_a_breaker_that_is_half_open_is_not_asked_twice(stub: StartStub) -> None:
    server, gate = await slow_then(stub, {})
    server.on("/bad", Answered({}, 500))
    breaker = Breaker(minimum_calls=1, open_time=0.01, longest_open_time=0.01)
    async with asking(Upstream(server.url, hedge=SOON, breaker=breaker)) as one:
        await one.ask(GET("/bad"))
        await until(lambda: not one.client.guards.breaker.wait())
        assert (await answered_unhedged(asyncio.create_task(one.ask(GET("/"))), gate)).ok
        assert one.client.guards.breaker.state is State.HALF_OPEN

    assert len(server.asked("/")) == 1


async def test_without_a_delay_given_it_waits_as_long_as_nearly_all_answers_took(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({})
    server.on("*", {}).on("/slow", Turns([gate, {}]))
    async with asking(Upstream(server.url, hedge=Hedge(), timeout=30.0)) as one:
        for n in range(100):
            await one.ask(GET("/{n}", n=n))
        assert (await one.ask(GET("/slow"))).ok

    assert [attempt.kind for attempt in one.notes.attempts].count("hedge") == 1


async def test_it_goes_to_another_host(stub: StartStub) -> None:
    servers = [await stub("a"), await stub("b")]
    held: list[Received] = []

    async def keep_the_first(asked: Received) -> object:
        held.append(asked)
        if len(held) == 1:
            await asyncio.Event().wait()
        return {}

    for server in servers:
        server.on("/", keep_the_first)
    async with asking(Upstream([server.url for server in servers], hedge=SOON, timeout=30.0)) as one:
        assert (await one.ask(GET("/"))).ok

    assert [len(server.received) for server in servers] == [1, 1]


async def test_a_caller_who_leaves_takes_both_attempts_along(stub: StartStub) -> None:
    server, first = await stub("service"), Gate({})
    server.on("/", Turns([first, second := Gate({})]))
    async with asking(Upstream(server.url, hedge=SOON, timeout=30.0)) as one:
        asked = asyncio.create_task(one.ask(GET("/")))
        await second.arrived.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        one.gave_everything_back()
        await first.left.wait()
        await second.left.wait()

    assert [attempt.cancelled for attempt in one.notes.attempts] == [True, True]


async def test_the_deadline_ends_both(stub: StartStub) -> None:
    server = (await stub("service")).on("/", Gate({}))
    async with asking(Upstream(server.url, hedge=SOON, timeout=30.0, retry=None)) as one:
        outcome = await one.ask(GET("/"), within=SHORT)

    assert (outcome.fault, outcome.attempts) == (Fault.DEADLINE_EXCEEDED, 2)
