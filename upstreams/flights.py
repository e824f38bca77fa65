"""Coalescing: identical safe calls that are under way at once share one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Hashable
from typing import Generic, TypeVar

import msgspec

from upstreams.deadline import Deadline

L = TypeVar("L")
T = TypeVar("T")


class Flight(msgspec.Struct, Generic[L, T], eq=False):
    """One call under way, and whoever waits for what comes of it."""

    leader: L
    followers: list[asyncio.Future[T | None]] = msgspec.field(default_factory=list)

    def land(self, ending: T | None) -> None:
        """Let the followers go on, with what came of it or, the leader cancelled, with nothing."""
        for follower in self.followers:
            if not follower.done():
                follower.set_result(ending)

    def landed(self, deadline: Deadline | None) -> Awaitable[T | None]:
        """Return what to await for the ending; None if the leader was cancelled.

        That raises TimeoutError at the follower's deadline; None stands for one that is no sooner than the leader's, by
        which there is an ending.
        """
        follower: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        self.followers.append(follower)
        return follower if deadline is None else _by(deadline, follower)


async def _by(deadline: Deadline, follower: asyncio.Future[T]) -> T:
    async with asyncio.timeout_at(deadline.at):
        return await follower


class Flights(Generic[L, T]):
    """The calls under way by what they send. Nothing is kept past a call's end. Live: prints how many there are."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, Flight[L, T]] = {}

    def __repr__(self) -> str:
        """Show how many there are."""
        return f"<Flights {len(self._flying)}>"

    def of(self, key: Hashable) -> Flight[L, T] | None:
        """Return the flight that sends the same, if there is one."""
        return self._flying.get(key)

    def begin(self, key: Hashable, leader: L) -> None:
        """Take note of a call that others may join until it ends."""
        self._flying[key] = Flight(leader)  # to name its types in a call would cost as much as all the rest

    def end(self, key: Hashable, ending: T | None) -> None:
        """Let nobody join any more, and tell the followers what came of it; None if the leader was cancelled."""
        self._flying.pop(key).land(ending)
