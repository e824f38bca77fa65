"""Whatever state an upstream is in, it is asked as often as does it good, and its callers are told at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.chaos import Raw, answer, rst
from tests.conftest import StartStub
from tests.ports import free_port
from tests.serving import SHORT
from tests.stub import Answered, Gate, Turns
from tests.upstreams.asking import asking, until
from upstreams import FOLLOW, GET, JSON, POST, Attempt, Breaker, Budget, Ejection, Fault, Request, Retry, Upstream
from upstreams.breaker import State
from upstreams.guards import is_failure

AT_ONCE = Retry(attempts=3, first_wait=0.0, longest_wait=0.0)
BROKEN = Answered({"error": "broken"}, 500)
BUSY = Answered({"error": "busy"}, 503)


def attempt(fault: Fault | None = None, status: int | None = None, **fields: Any) -> Attempt:
    return Attempt(number=1, span_id="", start=0.0, duration=0.1, fault=fault, status=status, **fields)


class TestIsFailure:
    @pytest.mark.parametrize(
        ("status", "failed"),
        [(301, False), (400, False), (404, False), (409, False), (429, None), (500, True), (501, False), (502, True),
         (503, True), (504, True), (505, False), (599, True)],
    )  # fmt: skip
    def test_a_status_speaks_against_a_service_that_cannot_do_its_work(self, status: int, failed: bool | None) -> None:  # noqa: FBT001
        assert is_failure(attempt(Fault.HTTP_RESPONSE_STATUS, status)) is failed

    @pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.HTTP_RESPONSE_STATUS])
    def test_a_fault_does_if_its_row_blames_and_not_if_it_is_an_answer_all_the_same(self, fault: Fault) -> None:
        of_one_call = {Fault.BODY_MALFORMED, Fault.BODY_MISMATCH, Fault.HTTP_RESPONSE_BODY_SIZE}
        assert is_failure(attempt(fault)) is (True if fault.blames else False if fault in of_one_call else None)

    def test_a_useful_answer_speaks_for_it(self) -> None:
        assert is_failure(attempt(status=200)) is False
        assert is_failure(attempt(status=404, absent=True)) is False

    def test_what_was_cancelled_or_met_a_closed_connection_says_nothing(self) -> None:
        assert is_failure(attempt(cancelled=True)) is None
        assert is_failure(attempt(Fault.CONNECTION_TERMINATED, stale=True)) is None


class TestBreaker:
    POLICY = Breaker(minimum_calls=5, open_time=30.0)

    async def test_an_upstream_that_fails_is_left_alone(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", BROKEN)
        async with asking(Upstream(server.url, breaker=self.POLICY)) as one:
            for _ in range(5):
                assert (await one.ask(GET("/"))).fault is Fault.HTTP_RESPONSE_STATUS
            refused = await one.ask(GET("/"))

        assert (refused.fault, refused.status, refused.attempts) == (Fault.DESTINATION_UNAVAILABLE, None, 0)
        assert refused.retryable
        assert refused.retry_after is not None
        assert 20.0 < refused.retry_after <= 36.0
        assert len(server.received) == 5
        assert [change[:3] for change in one.notes.changes] == [("service", "closed", "open")]

    async def test_a_write_is_refused_as_a_read_is(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", BROKEN)
        async with asking(Upstream(server.url, breaker=self.POLICY)) as one:
            for _ in range(5):
                await one.ask(GET("/"))
            assert (await one.ask(POST("/"))).fault is Fault.DESTINATION_UNAVAILABLE

        assert len(server.received) == 5

    async def test_attempts_count_and_no_retry_is_made_once_it_is_open(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", BUSY)
        async with asking(Upstream(server.url, breaker=self.POLICY, retry=AT_ONCE)) as one:
            outcomes = [await one.ask(GET("/")) for _ in range(3)]

        assert [(outcome.fault, outcome.attempts) for outcome in outcomes] == [
            (Fault.HTTP_RESPONSE_STATUS, 3),
            (Fault.HTTP_RESPONSE_STATUS, 2),
            (Fault.DESTINATION_UNAVAILABLE, 0),
        ]
        assert len(server.received) == 5

    async def test_what_the_upstream_said_stands_when_its_retry_is_not_let_through(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", BUSY)
        breaker = Breaker(minimum_calls=1)
        async with asking(Upstream(server.url, breaker=breaker, passthrough=(503,), retry=AT_ONCE)) as one:
            outcome = await one.ask(GET("/"))

        assert (outcome.fault, outcome.status, outcome.passthrough) == (Fault.HTTP_RESPONSE_STATUS, 503, True)
        assert len(server.received) == 1

    async def test_who_waited_while_it_opened_is_not_let_through(self, stub: StartStub) -> None:
        server, gate = await stub("service"), Gate(BROKEN)
        server.on("/", gate)
        breaker = Breaker(minimum_calls=2)
        upstream = Upstream(server.url, max_concurrency=2, breaker=breaker, retry=None)
        async with asking(upstream) as one:
            asked = [asyncio.create_task(one.ask(GET("/"), within=60.0)) for _ in range(20)]
            await until(lambda: one.client.guards.bulkhead.waiting == 18)
            gate.open.set()
            outcomes = await asyncio.gather(*asked)

        assert len(server.received) == 2
        assert Counter(outcome.fault for outcome in outcomes) == {
            Fault.HTTP_RESPONSE_STATUS: 2,
            Fault.DESTINATION_UNAVAILABLE: 18,
        }

    async def test_an_attempt_that_was_slow_when_the_deadline_cut_it_speaks_against_the_upstream(
        self, stub: StartStub
    ) -> None:
        server = (await stub("service")).on("*", Gate({}))
        upstream = Upstream(server.url, timeout=30.0, breaker=Breaker(minimum_calls=5, slow_after=0.05))
        async with asking(upstream) as one:
            asked = [one.ask(GET("/{n}", n=n), within=SHORT) for n in range(5)]
            outcomes = await asyncio.gather(*asked)
            assert one.client.guards.breaker.state is State.OPEN

        assert {outcome.fault for outcome in outcomes} == {Fault.DEADLINE_EXCEEDED}

    async def test_it_closes_when_its_probes_succeed(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", Turns([BROKEN] * 5 + [{}]))
        policy = Breaker(minimum_calls=5, open_time=0.02, longest_open_time=0.02)
        async with asking(Upstream(server.url, breaker=policy, retry=None)) as one:
            for _ in range(5):
                await one.ask(GET("/"))
            await until(lambda: not one.client.guards.breaker.wait())
            outcomes = [await one.ask(GET("/")) for _ in range(3)]

        assert all(outcome.ok for outcome in outcomes)
        changes = [change[1:3] for change in one.notes.changes]
        assert changes == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]

    async def test_only_so_many_probes_are_sent_at_once(self, stub: StartStub) -> None:
        server, gate = await stub("service"), Gate({})
        server.on("/", BROKEN).on("/probe", gate)
        policy = Breaker(minimum_calls=5, open_time=0.02, longest_open_time=0.02, probes=2)
        async with asking(Upstream(server.url, breaker=policy, retry=None)) as one:
            for _ in range(5):
                await one.ask(GET("/"))
            await until(lambda: not one.client.guards.breaker.wait())
            asked = [asyncio.create_task(one.ask(GET("/probe", n=n))) for n in range(9)]
            await until(lambda: sum(task.done() for task in asked) == 7)
            await until(lambda: len(server.asked("/probe")) == 2)
            gate.open.set()
            outcomes = await asyncio.gather(*asked)

        faults = Counter(outcome.fault for outcome in outcomes)
        assert faults == {None: 2, Fault.DESTINATION_UNAVAILABLE: 7}

    async def test_callers_who_leave_neither_open_it_nor_keep_its_probes(self, stub: StartStub) -> None:
        server, gate = await stub("service"), Gate({})
        server.on("*", gate)
        async with asking(Upstream(server.url, breaker=self.POLICY, timeout=30.0)) as one:
            for asked_for in range(1, 21):
                asked = asyncio.create_task(one.ask(GET("/{n}", n=asked_for)))
                await until(lambda: len(server.received) == asked_for)  # noqa: B023 - awaited before it changes
                asked.cancel()
                await asyncio.wait([asked])
            assert one.client.guards.breaker.state is State.CLOSED

        assert one.notes.changes == []

    async def test_a_body_that_one_call_cannot_use_leaves_it_closed(self, raw: Raw) -> None:
        raw.on("/", answer(b"[]"))
        async with asking(Upstream(raw.url, breaker=self.POLICY)) as one:
            outcomes = [await one.ask(GET("/"), dict[str, int]) for _ in range(9)]

        assert {outcome.fault for outcome in outcomes} == {Fault.BODY_MISMATCH}
        assert len(raw.requests) == 9

    async def test_answers_of_no_use_to_one_call_close_it_again(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", Turns([BROKEN] * 5 + [[]]))
        policy = Breaker(minimum_calls=5, open_time=0.02, longest_open_time=0.02)
        async with asking(Upstream(server.url, breaker=policy, retry=None)) as one:
            for _ in range(5):
                await one.ask(GET("/"))
            await until(lambda: not one.client.guards.breaker.wait())
            outcomes = [await one.ask(GET("/"), dict[str, int]) for _ in range(3)]
            assert one.client.guards.breaker.state is State.CLOSED

        assert {outcome.fault for outcome in outcomes} == {Fault.BODY_MISMATCH}

    async def test_forced_open_it_lets_nothing_through_until_it_is_left_to_itself(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", {})
        async with asking(Upstream(server.url)) as one:
            one.client.guards.breaker.force(State.OPEN)
            assert (await one.ask(GET("/"))).fault is Fault.DESTINATION_UNAVAILABLE
            one.client.guards.breaker.force(None)
            assert (await one.ask(GET("/"))).ok

        assert len(server.received) == 1

    @pytest.mark.parametrize("breaker", [Breaker(), None])
    async def test_held_open_it_has_nobody_wait_for_a_permit(self, stub: StartStub, breaker: Breaker | None) -> None:
        server, gate = await stub("service"), Gate({})
        server.on("/", gate)
        async with asking(Upstream(server.url, max_concurrency=1, breaker=breaker)) as one:
            first = asyncio.create_task(one.ask(GET("/")))
            await gate.arrived.wait()
            one.client.guards.breaker.force(State.OPEN)
            assert (await one.ask(GET("/"))).fault is Fault.DESTINATION_UNAVAILABLE
            gate.open.set()
            assert (await first).ok

    async def test_an_upstream_without_one_is_asked_for_ever_but_can_be_forced_open(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", BROKEN)
        async with asking(Upstream(server.url, breaker=None)) as one:
            outcomes = [await one.ask(GET("/")) for _ in range(30)]
            one.client.guards.breaker.force(State.OPEN)
            refused = await one.ask(GET("/"))

        assert {outcome.fault for outcome in outcomes} == {Fault.HTTP_RESPONSE_STATUS}
        assert refused.fault is Fault.DESTINATION_UNAVAILABLE


class TestBudget:
    async def test_retries_end_when_it_is_spent(self, stub: StartStub) -> None:
        server = (await stub("service")).on("*", BUSY)
        upstream = Upstream(server.url, retry=AT_ONCE, breaker=None, budget=Budget(share=0.2, floor=0.0, burst=10))
        async with asking(upstream) as one:
            outcomes = [await one.ask(GET("/")) for _ in range(100)]

        assert len(server.received) == 100 + 10
        assert [outcome.attempts for outcome in outcomes[:5]] == [3] * 5
        assert {outcome.attempts for outcome in outcomes[5:]} == {1}

    async def test_calls_that_succeed_earn_it_back(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/well", {}).on("/", BUSY)
        upstream = Upstream(server.url, retry=AT_ONCE, breaker=None, budget=Budget(share=0.5, floor=0.0, burst=2))
        async with asking(upstream) as one:
            spent = [(await one.ask(GET("/"))).attempts for _ in range(3)]
            for _ in range(4):
                await one.ask(GET("/well"))
            earned = [(await one.ask(GET("/"))).attempts for _ in range(2)]

        assert (spent, earned) == ([3, 1, 1], [3, 1])

    async def test_a_page_that_is_not_there_is_no_failure_and_earns_as_well(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/none", Answered({}, 404)).on("/", BUSY)
        upstream = Upstream(server.url, retry=AT_ONCE, breaker=None, budget=Budget(share=1.0, floor=0.0, burst=2))
        async with asking(upstream) as one:
            attempts = [(await one.ask(GET("/"))).attempts for _ in range(2)]
            await one.ask(GET("/none"))
            attempts.append((await one.ask(GET("/"))).attempts)

        assert attempts == [3, 1, 2]


class TestBulkhead:
    async def test_beyond_those_that_may_wait_all_are_refused_at_once(self, stub: StartStub) -> None:
        server, gate = await stub("service"), Gate({})
        server.on("*", gate)
        async with asking(Upstream(server.url, max_concurrency=2, max_waiting=3, max_wait=30.0, timeout=30.0)) as one:
            asked = [asyncio.create_task(one.ask(GET("/{n}", n=n), within=60.0)) for n in range(9)]
            await until(lambda: sum(task.done() for task in asked) == 4)
            assert {task.result().fault for task in asked if task.done()} == {Fault.CONNECTION_LIMIT_REACHED}
            gate.open.set()
            outcomes = await asyncio.gather(*asked)

        assert sum(outcome.ok for outcome in outcomes) == 5
        assert len(server.received) == 5

    async def test_who_has_waited_long_enough_is_refused_before_the_deadline(self, stub: StartStub) -> None:
        server, gate = await stub("service"), Gate({})
        server.on("*", gate)
        async with asking(Upstream(server.url, max_concurrency=1, max_wait=0.01, timeout=30.0)) as one:
            first = asyncio.create_task(one.ask(GET("/first"), within=60.0))
            await gate.arrived.wait()
            assert (await one.ask(GET("/second"), within=60.0)).fault is Fault.CONNECTION_LIMIT_REACHED
            gate.open.set()
            assert (await first).ok

    async def test_nobody_waits_for_so_long_that_an_attempt_could_not_end(self, stub: StartStub) -> None:
        server, gate = await stub("service"), Gate({})
        server.on("*", gate)
        async with asking(Upstream(server.url, max_concurrency=1, max_wait=30.0, timeout=30.0)) as one:
            first = asyncio.create_task(one.ask(GET("/first"), within=60.0))
            await gate.arrived.wait()
            until_ = asyncio.get_running_loop().time() + 0.05
            refused = await one.client.guards.admit_in_turn(until_, None)
            assert refused is Fault.CONNECTION_LIMIT_REACHED
            assert asyncio.get_running_loop().time() >= until_
            gate.open.set()
            assert (await first).ok


class TestHosts:
    async def test_a_host_that_fails_is_left_out(self, stub: StartStub) -> None:
        well, ill = (await stub("well")).on("/", {}), (await stub("ill")).on("/", BROKEN)
        upstream = Upstream([well.url, ill.url], breaker=None, ejection=Ejection(failures=3))
        async with asking(upstream) as one:
            for _ in range(60):
                await one.ask(GET("/"))

        assert (len(ill.received), len(well.received)) == (3, 57)
        ((name, host, _, time),) = one.notes.ejections
        assert (name, host, time) == ("service", ill.url.removeprefix("http://"), 30.0)

    async def test_never_all_of_them_are(self, stub: StartStub) -> None:
        servers = [(await stub(name)).on("/", BROKEN) for name in ("a", "b")]
        upstream = Upstream([server.url for server in servers], breaker=None, ejection=Ejection(failures=2))
        async with asking(upstream) as one:
            for _ in range(40):
                await one.ask(GET("/"))

        assert sum(len(server.received) for server in servers) == 40
        assert len(one.notes.ejections) == 1

    async def test_a_link_goes_to_the_host_that_it_names(self, stub: StartStub) -> None:
        servers = [(await stub(name)).on("/next", {}) for name in ("a", "b", "c")]
        async with asking(Upstream([server.url for server in servers])) as one:
            for _ in range(9):
                assert (await one.ask(FOLLOW(f"{servers[1].url}/next"))).ok

        assert [len(server.received) for server in servers] == [0, 9, 0]
        assert {attempt.host for attempt in one.notes.attempts} == {servers[1].url.removeprefix("http://")}

    @pytest.mark.parametrize("request_", [GET("/"), POST("/", json={})], ids=repr)
    async def test_a_retry_goes_elsewhere(self, stub: StartStub, request_: Request[JSON]) -> None:
        well = (await stub("well")).on("/", {})
        upstream = Upstream(
            [f"http://127.0.0.1:{free_port()}", well.url], retry=AT_ONCE, idempotency_header="Idempotency-Key"
        )
        async with asking(upstream) as one:
            outcomes = [await one.ask(request_) for _ in range(20)]

        assert all(outcome.ok for outcome in outcomes)
        assert {outcome.attempts for outcome in outcomes} <= {1, 2}

    async def test_the_log_says_which_host_an_attempt_went_to(self, stub: StartStub) -> None:
        servers = [(await stub(name)).on("/", {}) for name in ("a", "b")]
        async with asking(Upstream([server.url for server in servers])) as one:
            for _ in range(30):
                await one.ask(GET("/"))

        went = Counter(attempt.host for attempt in one.notes.attempts)
        assert went == {server.url.removeprefix("http://"): len(server.received) for server in servers}

    async def test_slow_hosts_get_less(self, stub: StartStub) -> None:
        quick, slow, gate = (await stub("quick")).on("*", {}), await stub("slow"), Gate({})
        slow.on("*", gate)
        async with asking(Upstream([quick.url, slow.url], timeout=30.0)) as one:
            asked = [asyncio.create_task(one.ask(GET("/{n}", n=n), within=60.0)) for n in range(20)]
            await until(lambda: sum(task.done() for task in asked) + len(slow.received) == 20)
            held = len(slow.received)
            later = [await one.ask(GET("/later/{n}", n=n)) for n in range(20)]
            gate.open.set()
            await asyncio.gather(*asked)

        assert held == 10  # spread evenly at first; then only those that are free get more
        assert all(outcome.ok for outcome in later)
        assert len(slow.received) == held


class TestStaleConnections:
    """A kept connection that turns out to be closed costs nothing: RFC 9112 section 9.3.1."""

    async def test_a_read_is_sent_once_more_and_that_is_no_second_attempt(self, raw: Raw) -> None:
        raw.on("/first", answer()).on("/second", rst).on("/second", answer(b'{"id":2}'))
        async with asking(Upstream(raw.url, retry=None)) as one:
            assert (await one.ask(GET("/first"))).ok
            outcome = await one.ask(GET("/second"))
            assert one.client.guards.budget is not None

        assert (outcome.ok, outcome.attempts) == (True, 1)
        assert [(a.number, a.kind, a.conn, a.stale) for a in one.notes.attempts] == [
            (1, "first", "new", False),
            (1, "first", "reused", True),
            (1, "transparent", "new", False),
        ]
        assert one.notes.waits == []

    async def test_a_write_is_not(self, raw: Raw) -> None:
        raw.on("/first", answer()).on("/second", rst)
        async with asking(Upstream(raw.url)) as one:
            assert (await one.ask(GET("/first"))).ok
            outcome = await one.ask(POST("/second"))

        assert (outcome.fault, outcome.attempts) == (Fault.CONNECTION_TERMINATED, 1)
        assert len(raw.requests) == 2

    async def test_unless_the_upstream_recognises_repeats(self, raw: Raw) -> None:
        raw.on("/first", answer()).on("/second", rst).on("/second", answer())
        async with asking(Upstream(raw.url, retry=None, idempotency_header="Idempotency-Key")) as one:
            assert (await one.ask(GET("/first"))).ok
            assert (await one.ask(POST("/second"))).ok

    async def test_once_and_no_more(self, raw: Raw) -> None:
        raw.on("/first", answer()).on("/second", rst)
        async with asking(Upstream(raw.url, retry=None)) as one:
            assert (await one.ask(GET("/first"))).ok
            outcome = await one.ask(GET("/second"))

        assert (outcome.fault, outcome.attempts, len(raw.requests)) == (Fault.CONNECTION_TERMINATED, 1, 3)

    async def test_not_when_an_answer_had_begun(self, raw: Raw) -> None:
        raw.on("/first", answer()).on("/second", b"HTTP/1.1 20", rst)
        async with asking(Upstream(raw.url, retry=None)) as one:
            assert (await one.ask(GET("/first"))).ok
            outcome = await one.ask(GET("/second"))

        assert (outcome.fault, len(raw.requests)) == (Fault.CONNECTION_TERMINATED, 2)

    async def test_a_new_connection_that_is_closed_is_an_attempt_like_any_other(self, raw: Raw) -> None:
        raw.on("/", rst)
        async with asking(Upstream(raw.url, retry=AT_ONCE)) as one:
            outcome = await one.ask(GET("/"))

        assert (outcome.fault, outcome.attempts, len(raw.requests)) == (Fault.CONNECTION_TERMINATED, 3, 3)
