"""What stands between a call and its upstream: breaker, bulkhead and the choice of a host, asked for every attempt."""

from __future__ import annotations

import asyncio

import msgspec

from upstreams.breaker import AlwaysClosed, Breaking, CircuitBreaker, State
from upstreams.budget import RetryBudget
from upstreams.bulkhead import Bulkhead
from upstreams.fault import Fault
from upstreams.hosts import Host, Hosts
from upstreams.journal import Journal
from upstreams.latency import Latencies
from upstreams.outcome import Attempt
from upstreams.upstream import Upstream

_SLOW: float = 0.8  # of the timeout: what takes that long is about to fail
#: Answers that are of no use to one call, and show that the service answers.
_ANSWERED = frozenset({Fault.BODY_MALFORMED, Fault.BODY_MISMATCH, Fault.HTTP_RESPONSE_BODY_SIZE})
_UNSUPPORTED = frozenset({501, 505})  # statuses of 500 and above that tell of one request, not of the service


class Pass(msgspec.Struct, eq=False):
    """What one attempt was let through with, given back once when it has ended."""

    guards: Guards
    permit: int
    host: Host
    ejections: int

    def give_back(self, attempt: Attempt | None) -> None:
        """Let the next one in, and count what came of the attempt; None if it was not begun."""
        guards, host = self.guards, self.host
        host.pending -= 1
        guards.bulkhead.leave()
        if attempt is None:
            guards.breaker.record(self.permit, failed=None, duration=0.0)
            return
        failed = guards.judge(attempt)
        guards.breaker.record(self.permit, failed=failed, duration=attempt.duration)
        if host.ejections == self.ejections:  # what began before the host was left out says nothing of it after
            guards.hosts.record(host, failed=failed)
        if failed is False:
            guards.learn(attempt)


class Guards:
    """The live protections of one upstream in this worker: prints their state. Made in the loop that uses it."""

    def __init__(self, name: str, upstream: Upstream, journal: Journal) -> None:
        clock = asyncio.get_running_loop().time
        given = upstream.breaker.slow_after if upstream.breaker is not None else None
        self.slow_after = given or _SLOW * upstream.timeout
        self.breaker = _breaker(name, upstream, self.slow_after, journal)
        self.bulkhead = Bulkhead(upstream.max_concurrency, upstream.max_waiting, upstream.max_wait)
        self.budget = RetryBudget(upstream.budget, clock) if upstream.budget is not None else None
        self.latencies = Latencies()
        self.hosts = Hosts(
            upstream.urls,
            upstream.ejection,
            clock,
            lambda address, reason, time: journal.host_ejected(name, address, reason, time),
        )

    def __repr__(self) -> str:
        """Show each protection's state."""
        return f"<Guards {self.breaker} {self.bulkhead} {self.budget} {self.latencies} {self.hosts}>"

    def admit(self, avoid: Host | None, link: str | None = None) -> Pass | Fault | None:
        """Let an attempt through, or say why not; None if it has to wait for its turn. A `link` may name its host."""
        if self.bulkhead.enter_at_once():
            return self._let_through(avoid, link)
        return Fault.DESTINATION_UNAVAILABLE if self.breaker.refuses() else None

    async def admit_in_turn(self, until: float, avoid: Host | None, link: str | None = None) -> Pass | Fault:
        """Let an attempt through once the bulkhead has room, by `until` (on the loop's clock), or say why not."""
        if await self.bulkhead.enter(until):
            return self._let_through(avoid, link)
        return Fault.CONNECTION_LIMIT_REACHED

    def _let_through(self, avoid: Host | None, link: str | None) -> Pass | Fault:
        """Choose the host of an attempt that has the bulkhead's permit, unless the breaker gives it none."""
        permit = self.breaker.permit()
        if permit is None:
            self.bulkhead.leave()
            return Fault.DESTINATION_UNAVAILABLE
        host = self.hosts.pick(avoid, link)
        host.pending += 1
        return Pass(self, permit, host, host.ejections)

    def judge(self, attempt: Attempt) -> bool | None:
        """Tell whether an attempt speaks against the upstream; so does one that was slow when the deadline cut it."""
        if attempt.duration > self.slow_after and attempt.fault is Fault.DEADLINE_EXCEEDED:
            return True
        return is_failure(attempt)

    def afford(self) -> bool:
        """Take from the budget what one more attempt costs; False if it is spent."""
        return self.budget is None or self.budget.spend()

    def may_hedge(self) -> bool:
        """Take from the budget what a hedge costs, if there is one, and the upstream has not troubles enough."""
        calm = self.breaker.state is State.CLOSED and self.bulkhead.is_free()
        return calm and self.budget is not None and self.budget.spend()

    def learn(self, attempt: Attempt) -> None:
        """Take note of an attempt that did not fail: it earns the right to repeat others, unless it is a repeat."""
        if self.budget is not None and attempt.kind != "retry":
            self.budget.earn()
        if attempt.kind != "hedge":
            self.latencies.add(attempt.duration)


def is_failure(attempt: Attempt) -> bool | None:
    """Tell whether an attempt speaks against the upstream (True), for it (False), or neither (None)."""
    fault = attempt.fault
    if attempt.cancelled or attempt.stale or attempt.status == 429:
        return None
    if fault is None or fault in _ANSWERED:
        return False
    if fault is Fault.HTTP_RESPONSE_STATUS and attempt.status is not None:
        return attempt.status >= 500 and attempt.status not in _UNSUPPORTED
    return True if fault.blames else None


def _breaker(name: str, upstream: Upstream, slow_after: float, journal: Journal) -> Breaking:
    def changed(former: State, state: State, reason: str, time: float | None) -> None:
        journal.breaker_changed(name, former.value, state.value, reason, time)

    if upstream.breaker is None:
        return AlwaysClosed(changed)
    return CircuitBreaker(upstream.breaker, slow_after, asyncio.get_running_loop().time, changed)
