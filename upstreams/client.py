"""The whole life of a call to one upstream: attempts within a deadline, retries, hedges, and one outcome at the end."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Collection, Coroutine, Hashable
from typing import Any, Final

import msgspec
from multidict import CIMultiDict

from upstreams.call import Call, Reading
from upstreams.connections import Connector, Trip
from upstreams.fault import Fault
from upstreams.flights import Flight, Flights
from upstreams.guards import Guards, Pass
from upstreams.hosts import Host
from upstreams.inbound import new_span_id
from upstreams.journal import Journal
from upstreams.outcome import Attempt, Kind, Outcome
from upstreams.policy import Hedge, Retry
from upstreams.request import header_value
from upstreams.retry import LEAST_TIME, retry, retry_after, worth_retrying
from upstreams.upstream import Upstream
from upstreams.values import JSON
from upstreams.wire import Answer, exchange, fault_of, timeout_fault

_OUTLIVING: Final = "the write goes on until its own timeout"
_LEAST_HEDGE_DELAY: Final = 0.05
_CANCELLED: Final = Reading()  # what there is to read as long as nothing has come of an attempt
logger = logging.getLogger(__name__)


class Client:
    """Speaks to one upstream: `send` is all there is to it. Live: prints what it is busy with.

    A call goes down through `_share` if it is a read, `_run` for its retries, `_turn` for a hedge, `_try` for the free
    repeat, `_admitted` for the guards, and `_attempt` for the wire; `_outlive` stands between the last two for a write.
    """

    def __init__(self, name: str, upstream: Upstream, connector: Connector, journal: Journal, via: str) -> None:
        self.name = name
        self.upstream = upstream
        self.guards = Guards(name, upstream, journal)
        self._connector = connector
        self._journal = journal
        self._flights: Flights[Call, Attempt] = Flights()
        self._forward = tuple(name.lower() for name in upstream.forward_headers)
        self._headers = {host: _headers(host, upstream, via) for host in self.guards.hosts.all}
        self._outliving: set[asyncio.Task[Attempt]] = set()
        self._writes = 0  # how often one has ended, or its page: no read shares an answer from before the latest

    def __repr__(self) -> str:
        """Show the live state: the protections, calls under way, and writes that outlived their page."""
        return f"<Client {self.name} {self.guards} {self._flights} outliving={len(self._outliving)}>"

    async def send(self, call: Call) -> Outcome:
        """Make a call and return its outcome: whatever an upstream does is in it, and only cancellation is raised."""
        attempt = await (self._share(call) if call.request.safe else self._run(call))
        fault, status = attempt.fault, attempt.status
        return Outcome(
            upstream=self.name,
            value=attempt.value,
            absent=attempt.absent,
            fault=fault,
            status=status,
            detail=attempt.detail,
            attempts=max(call.attempts, attempt.number),
            retry_after=self.guards.breaker.wait() if fault is Fault.DESTINATION_UNAVAILABLE else attempt.retry_after,
            passthrough=fault is Fault.HTTP_RESPONSE_STATUS and status in self.upstream.passthrough,
        )

    async def close(self) -> None:
        """Let writes that were sent come to their end, then close the connections."""
        try:
            if self._outliving:
                await asyncio.wait(self._outliving)
        finally:
            await self._connector.close()

    async def _share(self, call: Call) -> Attempt:
        """Take the answer of an identical call that is under way, or make the call so that others can."""
        key = self._key(call)
        while (flight := self._flights.of(key)) is not None:
            attempt = await self._follow(call, flight)
            if attempt is not None:
                return attempt
        self._flights.begin(key, call)
        ending = None
        try:
            ending = await self._run(call)
            return ending
        finally:
            self._flights.end(key, ending)

    async def _follow(self, call: Call, flight: Flight[Call, Attempt]) -> Attempt | None:
        """Wait for another call's answer and read it; None if that call was cancelled, or gave up for want of time."""
        leader = flight.leader
        self._journal.flight_joined(self.name, call.name, leader.name, leader.inbound.trace_id)
        try:
            attempt = await flight.landed(call.deadline if call.deadline < leader.deadline else None)
        except TimeoutError:
            return self._unsent(call, Fault.DEADLINE_EXCEEDED)
        if attempt is None:
            return None
        if attempt.fault is not None and leader.deadline < call.deadline and self._lacked_time(leader, attempt):
            return None
        return attempt if attempt.answer is None or _reads_alike(call, leader, attempt) else _read_again(call, attempt)

    def _lacked_time(self, leader: Call, attempt: Attempt) -> bool:
        """Tell whether a call might have ended better with more time: to be let through, to end, or to be retried."""
        if attempt.fault in {Fault.DEADLINE_EXCEEDED, Fault.CONNECTION_LIMIT_REACHED}:
            return True
        policy = self.upstream.retry
        if policy is None or leader.attempts >= policy.attempts or not worth_retrying(policy, attempt):
            return False
        return leader.deadline.remaining() <= max(attempt.retry_after or 0.0, policy.longest_wait) + LEAST_TIME

    def _key(self, call: Call) -> Hashable:
        """Return what makes two calls the same: all that is sent but the ids; of other clients only where allowed."""
        shared = self.upstream.coalesce if call.coalesce is None else call.coalesce
        whose = tuple(map(call.inbound.headers.get, self._forward)) if shared else id(call.inbound)
        request = call.request
        return (
            whose,
            self._writes,
            request.method,
            request.target,
            request.link,
            frozenset(request.headers.items()) if request.headers else None,
            (request.body.type, request.body.content) if request.body is not None else None,
        )

    async def _run(self, call: Call) -> Attempt:
        """Make a call's first attempt, and others as the retry policy and the budget allow; return the last."""
        policy = self.upstream.retry
        attempt = await self._turn(call, "first")
        if attempt.fault is None or policy is None:
            return attempt
        if not self._may_repeat(call) or not worth_retrying(policy, attempt):
            return attempt
        return await retry(
            policy,
            attempt,
            lambda: self._turn(call, "retry"),
            call.deadline,
            self.guards.afford,
            lambda failed, wait: self._journal.retry_scheduled(self.name, call.name, failed, wait),
        )

    def _may_repeat(self, call: Call) -> bool:
        return call.request.safe or self.upstream.idempotency_header is not None

    def _turn(self, call: Call, kind: Kind) -> Coroutine[Any, Any, Attempt]:
        """Make one attempt, with a hedge beside it where that is wanted."""
        hedge = self.upstream.hedge if call.hedge is None else call.hedge
        delay = self._hedge_delay(hedge) if hedge and call.request.safe else None
        return self._try(call, kind) if delay is None else self._hedged(call, kind, delay)

    def _hedge_delay(self, hedge: Hedge) -> float | None:
        """Return for how long an attempt is waited for alone; None for ever."""
        if hedge.after is not None:
            return hedge.after
        p95 = self.guards.latencies.p95
        return None if p95 is None else max(p95, _LEAST_HEDGE_DELAY)

    async def _hedged(self, call: Call, kind: Kind, delay: float) -> Attempt:
        """Make an attempt and, when it is slow, one more: the first final answer counts, the other is cancelled."""
        started = time.perf_counter()
        first = asyncio.create_task(self._try(call, kind))
        running = {first}
        try:
            ended, _ = await asyncio.wait(running, timeout=delay)
            if not ended and call.deadline.remaining() > LEAST_TIME and self.guards.may_hedge():
                running.add(asyncio.create_task(self._try(call, "hedge")))
            final = await _first_final(running, self.upstream.retry or Retry())
            if not first.done():  # it would have taken longer than this, which a percentile must not forget
                self.guards.latencies.add(time.perf_counter() - started)
            return final
        finally:
            await _reap(running)

    async def _try(self, call: Call, kind: Kind) -> Attempt:
        """Make one attempt; again, at no cost, if it met a connection that had been closed meanwhile."""
        attempt = await self._admitted(call, kind)
        if attempt.stale and self._may_repeat(call):
            attempt = await self._admitted(call, "transparent")
        return attempt

    async def _admitted(self, call: Call, kind: Kind) -> Attempt:
        """Make an attempt once it is let through. A write, once it has been sent, is not cancelled."""
        if call.deadline.remaining() < LEAST_TIME:
            return self._unsent(call, Fault.DEADLINE_EXCEEDED)
        if call.request.link is not None and not self.guards.hosts.lead_to(call.request.link):
            return self._unsent(call, Fault.HTTP_REQUEST_DENIED, "the link does not lead to this upstream")
        admitted = self.guards.admit(call.host, call.request.link)
        if admitted is None:
            admitted = await self.guards.admit_in_turn(call.deadline.at - LEAST_TIME, call.host, call.request.link)
        if isinstance(admitted, Fault):
            return self._unsent(call, admitted)
        trip = Trip()
        if not call.request.safe:
            return await self._outlive(call, admitted, trip, kind)
        attempt = None
        try:
            attempt = await self._attempt(call, admitted, trip, kind)
            return attempt
        finally:
            admitted.give_back(attempt)

    async def _attempt(self, call: Call, admitted: Pass, trip: Trip, kind: Kind) -> Attempt:
        """One exchange, timed, judged and told to the journal, however it ends."""
        call.host = admitted.host
        call.attempts += kind != "transparent"
        number, span_id, until = call.attempts, new_span_id(), self._until(call)
        started = time.perf_counter()
        answer: Answer | None = None
        reading = _CANCELLED
        try:
            answer = await self._exchange(call, admitted.host, span_id, trip, until)
            reading = call.read(answer)
        except TimeoutError:
            reading = Reading(fault=Fault.DEADLINE_EXCEEDED if until == call.deadline.at else timeout_fault(trip))
        except Exception as error:  # noqa: BLE001 - the table of faults names every one of them
            reading = self._blame(error)
        finally:
            attempt = Attempt(
                number=number,
                span_id=span_id,
                method=call.request.method,
                start=started - call.inbound.started,
                duration=time.perf_counter() - started,
                kind=kind,
                host=admitted.host.address if len(self.guards.hosts.all) > 1 else None,
                sent=trip.sent,
                conn=trip.conn,
                status=trip.status,
                answer=answer,
                value=reading.value,
                absent=reading.absent,
                fault=reading.fault,
                detail=reading.detail,
                retry_after=retry_after(answer.headers.get("Retry-After")) if answer and reading.fault else None,
                stale=_is_stale(trip, reading.fault),
                cancelled=reading is _CANCELLED,
            )
            self._journal.attempt_finished(self.name, call.name, attempt)
        return attempt

    def _until(self, call: Call) -> float:
        """Return when an attempt is given up, on the deadline's clock. A write goes on after the page's deadline."""
        until = call.deadline.clock() + self.upstream.timeout
        return min(until, call.deadline.at) if call.request.safe else until

    def _exchange(self, call: Call, host: Host, span_id: str, trip: Trip, until: float) -> Coroutine[Any, Any, Answer]:
        body = call.request.body
        return exchange(
            self._connector,
            host.base,
            call.request.method,
            host.target(call.request),
            self._request_headers(call, host, span_id, until),
            body.content if body else None,
            self.upstream.max_body,
            trip,
            until,
        )

    def _request_headers(self, call: Call, host: Host, span_id: str, until: float) -> CIMultiDict[str]:
        """Build the headers from nothing: what is not allowed here is not sent."""
        inbound, request, upstream = call.inbound, call.request, self.upstream
        headers = self._headers[host].copy()
        for name in self._forward:
            if name in inbound.headers:
                headers[name] = _as_it_came(header_value(name, inbound.headers[name]))
        if request.body is not None:
            headers["content-type"] = request.body.type
        if request.headers:
            headers.update(request.headers)
        headers["x-request-id"] = inbound.request_id
        headers["traceparent"] = f"00-{inbound.trace_id}-{span_id}-{inbound.trace_flags}"
        if not request.safe and upstream.idempotency_header is not None:
            headers[upstream.idempotency_header.lower()] = _derived_key(call)
        if upstream.deadline_header is not None:
            left = until - call.deadline.clock()
            headers[upstream.deadline_header.lower()] = str(max(1, int(left * 1000)))
        return headers

    def _blame(self, error: Exception) -> Reading:
        fault = fault_of(error)
        if fault is Fault.PROXY_INTERNAL_ERROR:
            logger.error("an attempt ended in a mistake of ours", exc_info=error)
        return Reading(fault=fault, detail=type(error).__name__)

    def _unsent(self, call: Call, fault: Fault, detail: str | None = None) -> Attempt:
        """Record an attempt that was not begun: it is in the call's outcome, and on no wire."""
        start = time.perf_counter() - call.inbound.started
        return Attempt(number=call.attempts, span_id="", start=start, duration=0.0, fault=fault, detail=detail)

    async def _outlive(self, call: Call, admitted: Pass, trip: Trip, kind: Kind) -> Attempt:
        """Wait for a write until the deadline; past that, or past cancellation, one that was sent runs on."""
        task = asyncio.create_task(self._attempt(call, admitted, trip, kind))
        self._outliving.add(task)
        task.add_done_callback(lambda ended: self._end_write(ended, admitted))
        try:
            async with asyncio.timeout_at(call.deadline.at):
                return await asyncio.shield(task)
        except TimeoutError:
            if task.done():
                return task.result()
            return self._unsent(call, Fault.DEADLINE_EXCEEDED, _OUTLIVING if trip.sent else None)
        finally:
            self._writes += 1
            if not trip.sent:
                task.cancel()

    def _end_write(self, task: asyncio.Task[Attempt], admitted: Pass) -> None:
        """Take note that an attempt at a write has ended, which may be long after its page."""
        self._outliving.discard(task)
        self._writes += 1
        admitted.give_back(None if task.cancelled() else task.result())


def _headers(host: Host, upstream: Upstream, via: str) -> CIMultiDict[str]:
    """Return what every request to a host says."""
    headers = {
        "Host": host.authority,
        "accept": "application/json",
        "accept-encoding": "gzip",
        "user-agent": via,
        "via": f"1.1 {via}",
    }
    return CIMultiDict(headers | {name.lower(): value for name, value in upstream.headers.items()})


def _as_it_came(value: str) -> str:
    """Return a client's header so that its bytes go on as they came: it was read as Latin-1, and UTF-8 is sent.

    What was no UTF-8 goes on as UTF-8 of the same characters.
    """
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _is_stale(trip: Trip, fault: Fault | None) -> bool:
    """Tell whether an attempt met a connection that had been closed before it (RFC 9112 section 9.3.1)."""
    return fault is Fault.CONNECTION_TERMINATED and trip.conn == "reused" and not trip.answered


def _reads_alike(call: Call, leader: Call, attempt: Attempt) -> bool:
    """Tell whether a call makes of an answer what its leader has made: opaque JSON, which both may have."""
    return isinstance(attempt.value, JSON) and call.decoder is leader.decoder and call.absent == leader.absent


def _read_again(call: Call, attempt: Attempt) -> Attempt:
    """Return a shared attempt as another call reads its answer: it may want another type, and values are its own."""
    assert attempt.answer is not None  # noqa: S101 - only answers are read again
    return msgspec.structs.replace(attempt, **msgspec.structs.asdict(call.read(attempt.answer)))


async def _first_final(running: Collection[asyncio.Task[Attempt]], policy: Retry) -> Attempt:
    """Return the first attempt whose end another would not better, or the last to end of those that were begun."""
    pending = set(running)
    others: list[Attempt] = []
    while pending:
        ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for attempt in [task.result() for task in ended]:
            if attempt.begun and not worth_retrying(policy, attempt):
                return attempt
            others.append(attempt)
    return next((attempt for attempt in reversed(others) if attempt.begun), others[-1])


async def _reap(tasks: Collection[asyncio.Task[Attempt]]) -> None:
    """Cancel what still runs and wait for it to end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _derived_key(call: Call) -> str:
    """Derive the key of one write from the client's, so that a client's repeat is an upstream's repeat."""
    source = f"{call.inbound.idempotency_key}:{call.name}:{call.part}"
    return hashlib.sha256(source.encode()).hexdigest()[:32]
