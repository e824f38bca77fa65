"""A failed attempt is made again when that may help, after a fair wait, never past the deadline, and never for ever."""

from __future__ import annotations

import asyncio
import datetime
import email.utils

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.upstreams.asking import until
from upstreams import Attempt, Deadline, Fault, Retry
from upstreams.retry import retry, retry_after, worth_retrying

DAY = 86400.0


def failed(
    fault: Fault = Fault.CONNECTION_TERMINATED, status: int | None = None, asked: float | None = None
) -> Attempt:
    return Attempt(
        number=1, span_id="00f067aa0ba902b7", start=0.0, duration=0.0, fault=fault, status=status, retry_after=asked
    )


FINE = Attempt(number=1, span_id="00f067aa0ba902b7", start=0.0, duration=0.0, status=200)


class Turns:
    """Attempts made one after another, their waits noted; `afford` says no when the budget is spent."""

    def __init__(self, *attempts: Attempt, budget: int = 99) -> None:
        self.budget = budget
        self.attempts = list(attempts)
        self.made = 0
        self.waits: list[float] = []

    async def __call__(self) -> Attempt:
        self.made += 1
        return self.attempts.pop(0) if len(self.attempts) > 1 else self.attempts[0]

    def afford(self) -> bool:
        self.budget -= 1
        return self.budget >= 0

    async def after(self, first: Attempt, policy: Retry, within: float = 60.0) -> Attempt:
        """Go on from a first failed attempt."""
        deadline = Deadline.within(within)
        return await retry(policy, first, self, deadline, self.afford, lambda _, wait: self.waits.append(wait))


class TestWorthRetrying:
    @pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.HTTP_RESPONSE_STATUS])
    def test_a_fault_is_as_its_row_in_the_table_says(self, fault: Fault) -> None:
        assert worth_retrying(Retry(), failed(fault)) is fault.retryable

    def test_the_faults_that_may_pass_are_these(self) -> None:
        assert {fault.word for fault in Fault if fault.retryable} == {
            "dns_timeout", "connection_refused", "connection_timeout", "connection_terminated",
            "http_response_timeout", "http_response_incomplete", "http_response_status",
        }  # fmt: skip

    def test_success_is_not(self) -> None:
        assert not worth_retrying(Retry(), FINE)

    @pytest.mark.parametrize(
        ("status", "asked", "worth"),
        [
            (400, None, False), (401, None, False), (404, None, False), (404, 1.0, False), (408, None, False),
            (429, None, False), (429, 0.0, True), (429, 9.0, True),
            (500, None, False), (501, None, False), (502, None, True), (503, None, True), (503, 3.0, True),
            (504, None, True),
            (301, None, False), (304, None, False), (206, None, False),
        ],
    )  # fmt: skip
    def test_a_status_is_when_the_policy_names_it_and_429_says_when(
        self,
        status: int,
        asked: float | None,
        worth: bool,  # noqa: FBT001 - a table's column
    ) -> None:
        assert worth_retrying(Retry(), failed(Fault.HTTP_RESPONSE_STATUS, status, asked)) is worth

    def test_a_policy_names_its_own(self) -> None:
        policy = Retry(statuses=(500,))

        assert worth_retrying(policy, failed(Fault.HTTP_RESPONSE_STATUS, 500))
        assert not worth_retrying(policy, failed(Fault.HTTP_RESPONSE_STATUS, 503))


class TestRetry:
    @pytest.mark.parametrize("attempts", [1, 2, 3, 7])
    async def test_attempts_count_the_first(self, attempts: int) -> None:
        turns = Turns(failed())

        last = await turns.after(failed(), Retry(attempts=attempts, first_wait=0.0, longest_wait=0.0))

        assert 1 + turns.made == attempts
        assert len(turns.waits) == attempts - 1
        assert last.fault is Fault.CONNECTION_TERMINATED

    async def test_the_first_success_ends_it(self) -> None:
        turns = Turns(failed(), FINE, failed())

        assert await turns.after(failed(), Retry(attempts=9, first_wait=0.0, longest_wait=0.0)) is FINE
        assert turns.made == 2

    async def test_so_does_a_fault_that_will_not_pass(self) -> None:
        wrong = failed(Fault.BODY_MISMATCH)
        turns = Turns(wrong)

        assert await turns.after(failed(), Retry(attempts=9, first_wait=0.0, longest_wait=0.0)) is wrong
        assert turns.made == 1

    async def test_waits_are_drawn_from_all_of_a_bound_that_doubles_up_to_the_longest(self) -> None:
        policy = Retry(attempts=6, first_wait=0.001, longest_wait=0.004)
        calls = [Turns(failed()) for _ in range(200)]

        await asyncio.gather(*(turns.after(failed(), policy) for turns in calls))

        for nth, bound in enumerate([0.001, 0.002, 0.004, 0.004, 0.004]):
            waits = [turns.waits[nth] for turns in calls]
            assert 0 <= min(waits) < 0.2 * bound
            assert 0.8 * bound < max(waits) <= bound

    async def test_no_wait_is_shorter_than_the_upstream_asked_for(self) -> None:
        turns = Turns(failed(asked=0.03), failed())

        await turns.after(failed(asked=0.02), Retry(first_wait=0.0, longest_wait=0.001))

        assert turns.waits[0] >= 0.02
        assert turns.waits[1] >= 0.03

    @pytest.mark.parametrize(("asked", "within"), [(1.0, 0.5), (DAY, 60.0), (0.0, -1.0)])
    async def test_nothing_is_tried_again_that_would_miss_the_deadline(self, asked: float, within: float) -> None:
        turns = Turns(FINE)
        first = failed(asked=asked)

        assert await turns.after(first, Retry(), within) is first
        assert (turns.made, turns.waits) == (0, [])

    @pytest.mark.parametrize("budget", [0, 1, 3])
    async def test_nothing_is_tried_again_that_the_budget_does_not_pay(self, budget: int) -> None:
        turns = Turns(failed(), budget=budget)

        last = await turns.after(failed(), Retry(attempts=9, first_wait=0.0, longest_wait=0.0))

        assert (turns.made, len(turns.waits)) == (budget, budget)
        assert last.fault is Fault.CONNECTION_TERMINATED

    async def test_an_attempt_that_was_not_let_through_leaves_the_one_before_it(self) -> None:
        refused = Attempt(number=1, span_id="", start=0.0, duration=0.0, fault=Fault.DESTINATION_UNAVAILABLE)
        busy, turns = failed(Fault.HTTP_RESPONSE_STATUS, 503), Turns(refused)

        assert await turns.after(busy, Retry(attempts=9, first_wait=0.0, longest_wait=0.0)) is busy
        assert turns.made == 1

    async def test_what_is_not_tried_again_for_want_of_time_costs_nothing(self) -> None:
        turns = Turns(FINE, budget=5)

        await turns.after(failed(asked=30.0), Retry(), within=1.0)
        await turns.after(failed(), Retry(attempts=1))

        assert turns.budget == 5

    async def test_a_wait_can_be_cancelled(self) -> None:
        turns = Turns(FINE)
        waiting = asyncio.create_task(turns.after(failed(asked=30.0), Retry()))
        await until(lambda: turns.waits)
        waiting.cancel()

        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert turns.made == 0

    @pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyError("ours")], ids=["cancelled", "our mistake"])
    async def test_what_an_attempt_raises_is_neither_swallowed_nor_tried_again(self, error: BaseException) -> None:
        made = []

        async def turn() -> Attempt:
            made.append(1)
            raise error

        policy = Retry(attempts=5, first_wait=0.0)
        with pytest.raises(type(error)):
            await retry(policy, failed(), turn, Deadline.within(9), lambda: True, lambda *_: None)
        assert len(made) == 1

    async def test_calls_under_way_at_once_count_for_themselves(self) -> None:
        calls = [Turns(failed(), *([failed()] * (n % 4)), FINE) for n in range(200)]
        policy = Retry(attempts=4, first_wait=0.0005, longest_wait=0.001)

        lasts = await asyncio.gather(*(turns.after(failed(), policy) for turns in calls))

        for n, (turns, last) in enumerate(zip(calls, lasts, strict=True)):
            assert turns.made == min(n % 4 + 2, 3)
            assert (last is FINE) == (n % 4 < 2)


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (None, None), ("", None), (" ", None), ("soon", None), ("-1", None), ("1.5", None), ("1e3", None),
            ("+5", None), ("0x10", None), ("٣", None), ("²", None), ("120, 60", None), ("1 2", None),
            ("0", 0.0), ("007", 7.0), ("120", 120.0), (" 120 ", 120.0), ("86401", DAY), ("9" * 5000, DAY),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0), ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
            ("Sun Nov  6 08:49:37 1994", 0.0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", DAY), ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
            ("Mon, 01 Jan 99999 00:00:00 GMT", None), ("Mon, 99 Jan 2024 00:00:00 GMT", None),
            ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None),
            ("Mon, 01 Jan 99999999999999999999999 00:00:00", None),
            ("1 Jan 2024 99999999999999999999:00 GMT", None),
        ],
    )  # fmt: skip
    def test_it_is_read_as(self, value: str | None, seconds: float | None) -> None:
        assert retry_after(value) == seconds

    @pytest.mark.parametrize("zone", ["GMT", "-0000"])
    def test_a_date_is_seconds_from_now(self, zone: str) -> None:
        now = datetime.datetime.now(datetime.UTC)
        value = email.utils.format_datetime(now + datetime.timedelta(hours=1)).replace("+0000", zone)

        seconds = retry_after(value)

        assert seconds is not None
        assert 3500 < seconds <= 3600

    @given(
        st.text(max_size=30)
        | st.from_regex(r"[A-Z][a-z]{2},? \d{1,9} (Jan|Feb|x)[a-z]? -?\d{1,25} \d{1,22}(:\d{1,5}){0,3} [+-]?\w{0,22}")
    )
    @example("\udcff")
    def test_no_text_makes_it_fail(self, value: str) -> None:
        seconds = retry_after(value)

        assert seconds is None or 0.0 <= seconds <= DAY
