"""The whole life of a call to one upstream: attempts within a deadline, retries, and one outcome at the end."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp

from upstreams.deadline import Deadline
from upstreams.fault import Fault
from upstreams.inbound import Inbound, new_span_id
from upstreams.journal import Journal
from upstreams.outcome import Attempt, Outcome
from upstreams.request import Request, header_value
from upstreams.retry import retry, retry_after, worth_retrying
from upstreams.upstream import Upstream
from upstreams.values import Decoder, Unreadable
from upstreams.wire import Answer, Trip, exchange, fault_of, timeout_fault

T = TypeVar("T")
_OUTLIVING: Final = "the write goes on until its own timeout"
logger = logging.getLogger(__name__)


class Call:
    """One call while it is under way: what was asked, and what the attempts have brought so far."""

    __slots__ = ("absent", "attempts", "deadline", "decoder", "inbound", "missing", "name", "part", "request", "value")

    def __init__(
        self,
        name: str,
        request: Request[Any],
        decoder: Decoder,
        inbound: Inbound,
        deadline: Deadline,
        absent: Collection[int] = (),
        part: str = "",
    ) -> None:
        self.name = name
        self.request = request
        self.decoder = decoder
        self.inbound = inbound
        self.deadline = deadline
        self.absent = absent
        self.part = part
        self.attempts = 0
        self.value: Any = None
        self.missing = False

    def read(self, answer: Answer) -> tuple[Fault | None, str | None]:
        """Take the value out of an answer, or say why there is none in it."""
        if answer.status in self.absent:
            self.missing = True
            return None, None
        if not 200 <= answer.status < 300 or answer.status == 206:
            return Fault.HTTP_RESPONSE_STATUS, None
        if answer.body and self.decoder.wants_json and (fault := not_json(answer)):
            return Fault.BODY_MALFORMED, fault
        self.value = self.decoder.read(answer.body, answer.status, answer.headers)
        return None, None


class Client:
    """Speaks to one upstream: `send` is all there is to it. Live: prints what it is busy with."""

    def __init__(
        self, name: str, upstream: Upstream, session: aiohttp.ClientSession, journal: Journal, via: str
    ) -> None:
        self.name = name
        self.upstream = upstream
        self._session = session
        self._journal = journal
        self._bases = itertools.cycle(upstream.urls)
        self._origins = {_origin(url) for url in upstream.urls}
        self._permits = asyncio.Semaphore(upstream.max_concurrency)
        self._forward = tuple(name.lower() for name in upstream.forward_headers)
        self._headers = {
            "accept": "application/json",
            "accept-encoding": "gzip",
            "user-agent": via,
            "via": f"1.1 {via}",
            **{name.lower(): value for name, value in upstream.headers.items()},
        }
        self._outliving: set[asyncio.Task[Attempt]] = set()

    def __repr__(self) -> str:
        """Show the live state: permits left, and writes that outlived their page."""
        return f"<Client {self.name} permits={self._permits._value} outliving={len(self._outliving)}>"  # noqa: SLF001

    async def send(self, call: Call) -> Outcome:
        """Make a call and return its outcome: whatever an upstream does is in it, and only cancellation is raised."""
        policy = self.upstream.retry
        attempt = await self._turn(call)
        if policy is not None and self._may_repeat(call.request) and worth_retrying(policy, attempt):
            attempt = await retry(policy, attempt, lambda: self._turn(call), call.deadline, self._scheduled(call))
        return Outcome(
            upstream=self.name,
            value=call.value,
            absent=call.missing,
            fault=attempt.fault,
            status=attempt.status,
            detail=attempt.detail,
            attempts=call.attempts,
            retry_after=attempt.retry_after,
            passthrough=attempt.fault is Fault.HTTP_RESPONSE_STATUS and attempt.status in self.upstream.passthrough,
        )

    async def close(self) -> None:
        """Let writes that were sent come to their end, then close the connections."""
        try:
            if self._outliving:
                await asyncio.wait(self._outliving)
        finally:
            await self._session.close()

    def _may_repeat(self, request: Request[Any]) -> bool:
        return request.safe or self.upstream.idempotency_header is not None

    def _scheduled(self, call: Call) -> Callable[[Attempt, float], None]:
        return lambda attempt, wait: self._journal.retry_scheduled(self.name, call.name, attempt, wait)

    async def _turn(self, call: Call) -> Attempt:
        """Make one attempt, once there is a permit for it. A write, once it has been sent, is not cancelled."""
        now = asyncio.get_running_loop().time()
        until = now + self.upstream.timeout
        if until > call.deadline.at and call.request.safe:
            until = call.deadline.at
        url = self._url(call.request)
        if url is None:
            return self._unsent(call, Fault.HTTP_REQUEST_DENIED, "the link does not lead to this upstream")
        if call.deadline.at <= now:
            return self._unsent(call, Fault.DEADLINE_EXCEEDED)
        if not await self._permit(min(until, call.deadline.at)):
            return self._unsent(call, Fault.CONNECTION_LIMIT_REACHED)
        call.attempts += 1
        trip = Trip()
        attempt = self._attempt(call, url, until, trip)
        return await attempt if call.request.safe else await self._outlive(attempt, call, trip)

    async def _permit(self, until: float) -> bool:
        if not self._permits.locked():
            return await self._permits.acquire()
        try:
            async with asyncio.timeout_at(until):
                return await self._permits.acquire()
        except TimeoutError:
            return False

    async def _attempt(self, call: Call, url: str, until: float, trip: Trip) -> Attempt:
        """One exchange, timed, judged and told to the journal, however it ends; gives its permit back."""
        span_id = new_span_id()
        started = time.perf_counter()
        answer: Answer | None = None
        fault: Fault | None = None
        detail: str | None = None
        cancelled = True
        try:
            async with asyncio.timeout_at(until):
                answer = await self._exchange(call, url, span_id, trip)
            fault, detail = call.read(answer)
            cancelled = False
        except TimeoutError:
            cancelled = False
            fault = Fault.DEADLINE_EXCEEDED if until == call.deadline.at else timeout_fault(trip)
        except Exception as error:  # noqa: BLE001 - the table below names every one of them
            cancelled = False
            fault, detail = self._blame(error)
        finally:
            self._permits.release()
            attempt = Attempt(
                number=call.attempts,
                span_id=span_id,
                start=started - call.inbound.started,
                duration=time.perf_counter() - started,
                sent=trip.sent,
                conn=trip.conn,
                status=trip.status,
                fault=fault,
                detail=detail,
                body_bytes=len(answer.body) if answer else 0,
                retry_after=retry_after(answer.headers.get("Retry-After")) if answer and fault else None,
                cancelled=cancelled,
            )
            self._journal.attempt_finished(self.name, call.name, attempt)
        return attempt

    def _exchange(self, call: Call, url: str, span_id: str, trip: Trip) -> Coroutine[Any, Any, Answer]:
        body = call.request.body
        return exchange(
            self._session,
            call.request.method,
            url,
            self._request_headers(call, span_id),
            body.content if body else None,
            self.upstream.max_body,
            trip,
        )

    def _request_headers(self, call: Call, span_id: str) -> dict[str, str]:
        """Build the headers from nothing: what is not allowed here is not sent."""
        inbound, request = call.inbound, call.request
        headers = self._headers.copy()
        for name in self._forward:
            if name in inbound.headers:
                headers[name] = header_value(name, inbound.headers[name])
        if request.body is not None:
            headers["content-type"] = request.body.type
        if request.headers:
            headers.update(request.headers)
        headers["x-request-id"] = inbound.request_id
        headers["traceparent"] = f"00-{inbound.trace_id}-{span_id}-{inbound.trace_flags}"
        if not request.safe and self.upstream.idempotency_header is not None:
            headers[self.upstream.idempotency_header.lower()] = _derived_key(call)
        return headers

    def _url(self, request: Request[Any]) -> str | None:
        """Return the URL to ask, or None for a link that leads anywhere but to this upstream."""
        base = next(self._bases)
        if request.link is None:
            return base + request.target
        try:
            url = urljoin(base + "/", request.link)
            return url if _origin(url) in self._origins else None
        except ValueError:
            return None

    def _blame(self, error: Exception) -> tuple[Fault, str]:
        fault = fault_of(error)
        if fault is Fault.PROXY_INTERNAL_ERROR:
            logger.error("an attempt ended in a mistake of ours", exc_info=error)
        return fault, str(error) if isinstance(error, Unreadable) else type(error).__name__

    def _unsent(self, call: Call, fault: Fault, detail: str | None = None) -> Attempt:
        """Record an attempt that was not begun: it is in the call's outcome, and on no wire."""
        start = time.perf_counter() - call.inbound.started
        return Attempt(number=call.attempts, span_id="", start=start, duration=0.0, fault=fault, detail=detail)

    async def _outlive(self, attempt: Coroutine[Any, Any, Attempt], call: Call, trip: Trip) -> Attempt:
        """Wait for a write until the deadline; past that, or past cancellation, one that was sent runs on."""
        task = asyncio.create_task(attempt)
        self._outliving.add(task)
        task.add_done_callback(self._outliving.discard)
        try:
            async with asyncio.timeout_at(call.deadline.at):
                return await asyncio.shield(task)
        except TimeoutError:
            return self._unsent(call, Fault.DEADLINE_EXCEEDED, _OUTLIVING if trip.sent else None)
        finally:
            if not trip.sent:
                task.cancel()


def not_json(answer: Answer) -> str | None:
    """Say why an answer's Content-Type is not UTF-8 JSON's, or None if it is (RFC 8259, RFC 6839)."""
    kind = answer.content_type
    if kind != "application/json" and not kind.endswith("+json"):
        return "Content-Type is not JSON's" if kind else "there is no Content-Type"
    if answer.charset is not None and answer.charset.replace("-", "") not in {"utf8", "usascii"}:
        return "charset is not UTF-8"
    return None


def _derived_key(call: Call) -> str:
    """Derive the key of one write from the client's, so that a client's repeat is an upstream's repeat."""
    source = f"{call.inbound.idempotency_key}:{call.name}:{call.part}"
    return hashlib.sha256(source.encode()).hexdigest()[:32]


def _origin(url: str) -> tuple[str, str, int] | None:
    """Return a URL's scheme, host and port; None when it holds a user name or password."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        return None
    default = 443 if parts.scheme == "https" else 80
    return parts.scheme, (parts.hostname or "").lower(), default if parts.port is None else parts.port
