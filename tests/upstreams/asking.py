"""A client as a test uses it: one upstream, calls made one by one, and everything it told its journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Literal

from gateway.log import events
from tests.logs import CANARY
from tests.serving import SLOW, patient
from upstreams import (
    JSON,
    Attempt,
    Call,
    Client,
    Deadline,
    Decoder,
    Fleet,
    Hedge,
    Inbound,
    Journal,
    Outcome,
    Request,
    Upstream,
    open_fleet,
)
from upstreams.inbound import new_span_id, new_trace_id

#: What a client might send: nothing of it may be logged, and nothing of it is forwarded unless an upstream allows it.
SECRET_HEADERS = {"authorization": f"Bearer {CANARY}", "cookie": f"sid={CANARY}", "x-api-key": CANARY}


async def until(true: Callable[[], object]) -> None:
    """Let others run until something is so that nothing tells of."""
    while not true():  # noqa: ASYNC110 - it is seen from outside, in places that have no event
        await asyncio.sleep(0)


class Notes(Journal):
    """A journal that keeps what it is told, and tells the log, where the canary is looked for."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.waits: list[float] = []
        self.changes: list[tuple[str, str, str, str, float | None]] = []
        self.ejections: list[tuple[str, str, str, float]] = []
        self.joined: list[tuple[str, str, str, str]] = []

    def attempt_finished(self, upstream: str, call: str, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        events.attempt_finished(upstream, call, attempt)

    def retry_scheduled(self, upstream: str, call: str, attempt: Attempt, wait: float) -> None:
        self.waits.append(wait)
        events.retry_scheduled(upstream, call, attempt, wait)

    def breaker_changed(self, upstream: str, former: str, state: str, reason: str, time: float | None) -> None:
        self.changes.append((upstream, former, state, reason, time))
        events.breaker_changed(upstream, former, state, reason, time)

    def host_ejected(self, upstream: str, host: str, reason: str, time: float) -> None:
        self.ejections.append((upstream, host, reason, time))
        events.host_ejected(upstream, host, reason, time)

    def flight_joined(self, upstream: str, call: str, leader: str, trace_id: str) -> None:
        self.joined.append((upstream, call, leader, trace_id))
        events.flight_joined(upstream, call, leader, trace_id)

    @property
    def sent(self) -> int:
        """How many attempts are said to have gone out."""
        return sum(attempt.sent for attempt in self.attempts)


def inbound(
    headers: Mapping[str, str] = SECRET_HEADERS, *, key: str = "client-key", request_id: str = "r-1"
) -> Inbound:
    """Return a client's request."""
    return Inbound(
        request_id=request_id,
        trace_id=new_trace_id(),
        span_id=new_span_id(),
        trace_flags="01",
        headers=headers,
        idempotency_key=key,
        started=time.perf_counter(),
    )


class Asking:
    """`ask` makes a call; `notes` are what its attempts were."""

    def __init__(self, fleet: Fleet, upstream: Upstream, notes: Notes) -> None:
        self.fleet = fleet
        self.notes = notes
        self.upstream = upstream
        self.client: Client = fleet._clients["service"]
        self.connector = self.client._connector

    async def ask(
        self,
        request: Request[Any],
        type_: Any = JSON,
        *,
        decode: Callable[[bytes], Any] | None = None,
        within: float = SLOW,
        absent: Collection[int] = (),
        of: Inbound | None = None,
        name: str = "it",
        part: str = "",
        hedge: Hedge | Literal[False] | None = None,
        coalesce: bool | None = None,
    ) -> Outcome:
        """Make one call with `within` seconds for all of it."""
        call = Call(
            name,
            request,
            _decoder(type_, decode),
            of or inbound(),
            Deadline.within(within),
            absent,
            part,
            hedge=hedge,
            coalesce=coalesce,
        )
        return await self.fleet.send("service", call)

    def gave_everything_back(self) -> None:
        """No permit is taken, no connection in use."""
        is_idle(self.client)
        assert self.connector is not None
        assert self.connector.in_use == 0


@cache
def _decoder(type_: Any, decode: Callable[[bytes], Any] | None) -> Decoder:
    """Return what a page's declaration would have made once."""
    return Decoder(type_, decode)


def is_idle(client: Client) -> None:
    """Nothing of a client's is under way, and every permit has been given back."""
    bulkhead, breaker = client.guards.bulkhead, client.guards.breaker
    assert (bulkhead.in_flight, bulkhead.waiting) == (0, 0)
    assert not any(host.pending for host in client.guards.hosts.all)
    assert (client._outliving, client._flights._flying) == (set(), {})
    assert getattr(breaker, "_probing", 0) == 0


@asynccontextmanager
async def asking(upstream: Upstream) -> AsyncIterator[Asking]:
    """Open a fleet of one upstream, a patient one. When it closes, every permit and connection has been given back."""
    notes = Notes()
    async with open_fleet({"service": patient(upstream)}, notes) as fleet:
        one = Asking(fleet, upstream, notes)
        yield one
    one.gave_everything_back()
