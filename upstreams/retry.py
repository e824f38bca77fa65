"""Whether, when and how often a failed attempt is made again: tenacity, given our table of faults and our deadline."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
from collections.abc import Awaitable, Callable

import tenacity

from upstreams.deadline import Deadline
from upstreams.fault import Fault
from upstreams.outcome import Attempt
from upstreams.policy import Retry

_TOO_MANY = 429
_LONGEST_ASKED = 86400.0
#: An attempt with less time than this left, in seconds, is not begun: it would be load on the upstream and no more.
LEAST_TIME = 0.01

Turn = Callable[[], Awaitable[Attempt]]
Scheduled = Callable[[Attempt, float], None]


def worth_retrying(policy: Retry, attempt: Attempt) -> bool:
    """Decide from the fault alone whether a repeat may end better."""
    if attempt.fault is Fault.HTTP_RESPONSE_STATUS:
        asked = attempt.status != _TOO_MANY or attempt.retry_after is not None
        return attempt.status in policy.statuses and asked
    return attempt.fault is not None and attempt.fault.retryable


async def retry(
    policy: Retry, first: Attempt, turn: Turn, deadline: Deadline, afford: Callable[[], bool], scheduled: Scheduled
) -> Attempt:
    """Go on from a failed first attempt until one succeeds, or none is left, or the next would miss the deadline.

    Returns the last attempt that was begun: what the upstream said counts, not that it was left alone after that.
    `turn` makes an attempt; `afford` takes what it costs from the budget, or says no; `scheduled` is told of each wait,
    in seconds. tenacity costs more than a whole attempt's bookkeeping, so it is entered only here, and is handed the
    first attempt as its own.
    """
    replay, begun = [first], first

    async def next_turn() -> Attempt:
        nonlocal begun
        attempt = replay.pop() if replay else await turn()
        begun = attempt if attempt.begun else begun
        return attempt

    # One controller a call: tenacity keeps the state of a run on it.
    controller = tenacity.AsyncRetrying(
        sleep=asyncio.sleep,
        retry=tenacity.retry_if_result(lambda attempt: worth_retrying(policy, attempt)),
        wait=_wait(policy),
        stop=_stop(policy, deadline, afford),
        before_sleep=lambda state: scheduled(_last(state), state.upcoming_sleep),
        retry_error_callback=_last,
    )
    await controller(next_turn)
    return begun


def retry_after(value: str | None) -> float | None:
    """Read a Retry-After header (RFC 9110 section 10.2.3) as seconds from now; None if it is no number and no date."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_ASKED)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    seconds = (when - datetime.datetime.now(datetime.UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_ASKED)


def _last(state: tenacity.RetryCallState) -> Attempt:
    assert state.outcome is not None  # noqa: S101 - tenacity calls back only after an attempt
    attempt: Attempt = state.outcome.result()
    return attempt


def _wait(policy: Retry) -> Callable[[tenacity.RetryCallState], float]:
    """Full jitter, unless the upstream asked for a longer wait."""
    jitter = tenacity.wait_random_exponential(multiplier=policy.first_wait, max=policy.longest_wait)

    def wait(state: tenacity.RetryCallState) -> float:
        return max(jitter(state), _last(state).retry_after or 0.0)

    return wait


def _stop(policy: Retry, deadline: Deadline, afford: Callable[[], bool]) -> Callable[[tenacity.RetryCallState], bool]:
    """Stop when no attempt is left, or the next could not end in time, or the budget is spent."""

    def stop(state: tenacity.RetryCallState) -> bool:
        ends = state.attempt_number >= policy.attempts or state.upcoming_sleep + LEAST_TIME >= deadline.remaining()
        return ends or not afford()

    return stop
