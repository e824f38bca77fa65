"""A deadline is one moment, the same for everybody it is handed to."""

from __future__ import annotations

import asyncio

from tests.upstreams.clock import Clock
from upstreams import Deadline


async def test_it_is_a_moment_from_now() -> None:
    now = asyncio.get_running_loop().time()

    deadline = Deadline.within(5.0)

    assert now + 5.0 <= deadline.at <= asyncio.get_running_loop().time() + 5.0
    assert 4.0 < deadline.remaining() <= 5.0


async def test_time_that_is_over_is_negative() -> None:
    assert Deadline.within(-1.0).remaining() <= -1.0


def test_the_earlier_of_two_is_the_lesser() -> None:
    late, early = (Deadline(moment, Clock()) for moment in (2.0, 1.0))

    assert min(late, early) is early
