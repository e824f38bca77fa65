"""One page's calls under way: each starts the moment what it needs is there, and all end together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from gateway.answer import CallFailed, Failure, denied, failure_of, skipped
from gateway.fan import Fan
from gateway.log import events
from gateway.plan import Join, Node, Plan
from gateway.tasks import together
from upstreams import Call, Deadline, Fault, Inbound, InvalidParameter, Outcome, Request, Sender


class Unusable(Exception):
    """A value of the client's that fits into no request. `field` is where the client gave it."""

    def __init__(self, field: str, error: InvalidParameter) -> None:
        super().__init__(str(error))
        self.field = field
        self.reason = error.reason


class FanOut:
    """The live state of one page's calls: the values so far, and what is missing.

    `inputs` are the URL kwargs, `query`, `body` and `request` by name. `settled` is told of each call as it ends.
    """

    def __init__(
        self,
        plan: Plan,
        page: object,
        sender: Sender,
        inbound: Inbound,
        deadline: Deadline,
        inputs: Mapping[str, Any],
        settled: Callable[[Node], None] | None = None,
    ) -> None:
        self.plan = plan
        self.page = page
        self.sender = sender
        self.inbound = inbound
        self.deadline = deadline
        self.inputs = inputs
        self.values: dict[str, Any] = dict(inputs)
        self.lacking: set[str] = set()
        self.failures: dict[str, Failure] = {}
        self.attempts: dict[str, int] = {}
        self.durations: dict[str, float] = {}
        self.complete = True
        self._done: set[str] = set()
        self._writing: set[str] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self._settled = settled

    def __repr__(self) -> str:
        """Show how far it has come."""
        return f"<FanOut {self.plan.page} done={sorted(self._done)} of {len(self.plan.nodes)}>"

    async def run(self) -> None:
        """Run every call to its end. Raises CallFailed for the first required one without a value."""
        await together(self._settle(node) for node in self.plan.nodes.values())

    def data(self) -> dict[str, Any]:
        """Return the public values in the order of declaration."""
        return {name: self.values[name] for name in self.plan.public()}

    def errors(self) -> dict[str, Failure]:
        """Return the failures in the order of declaration, those inside parts last."""
        declared = {name: self.failures[name] for name in self.plan.nodes if name in self.failures}
        return {**declared, **self.failures}

    def arguments(self, names: Sequence[str]) -> dict[str, Any]:
        """Return values by name, for a method that takes them."""
        return {name: self.values[name] for name in names}

    async def _settle(self, node: Node) -> None:
        """Bring one call to its end: wait for what it needs, make it, keep its value or what stands for it."""
        if node.needs:
            await self._until(lambda: self._done.issuperset(node.needs))
        culprit = next((name for name in node.strict if name in self.lacking), None)
        if culprit is not None:
            self._skip(node, culprit)
        else:
            await self._make(node)
        self._done.add(node.name)
        if self._settled is not None:
            self._settled(node)
        self._wake()

    async def _make(self, node: Node) -> None:
        started = time.perf_counter()
        try:
            await _MAKERS[node.kind](self, node)
        finally:
            self.durations[node.name] = time.perf_counter() - started
            events.call_finished(
                call=node.name,
                upstream=node.upstream,
                outcome=self._ending(node),
                fault=self.failures[node.name].error if node.name in self.failures else None,
                attempts=self.attempts.get(node.name, 0),
                start=started - self.inbound.started,
                duration=self.durations[node.name],
            )

    def _ending(self, node: Node) -> str:
        if node.name in self.failures:
            return "failed"
        if node.name not in self.values:
            return "cancelled"
        return "absent" if node.name in self.lacking else "ok"

    def keep(self, node: Node, value: Any) -> None:
        """Keep a call's value."""
        self.values[node.name] = value

    def lack(self, node: Node, failure: Failure | None = None, outcome: Outcome | None = None) -> None:
        """Put what stands for a missing value in its place, or fail the page if nothing may.

        Without a failure the value is rightly absent, and the answer stays complete.
        """
        if failure is not None:
            self._fail(node, failure, outcome)
        self.values[node.name] = node.fallback()
        if not node.policy.has_fallback and node.join is None:
            self.lacking.add(node.name)

    def _fail(self, node: Node, failure: Failure, outcome: Outcome | None) -> None:
        """Take note of a failure; raise CallFailed if the page cannot be answered without the value."""
        self.failures[node.name] = failure
        passes = outcome is not None and passes_through(node, outcome)
        if node.required or passes:
            retry_after = outcome.retry_after if outcome is not None else None
            raise CallFailed(node.name, failure, passthrough=passes, retry_after=retry_after)
        self.complete = False

    def _skip(self, node: Node, culprit: str) -> None:
        self.failures[node.name] = skipped(node.upstream, culprit)
        self.complete = self.complete and culprit not in self.failures
        self.values[node.name] = node.fallback()
        if not node.policy.has_fallback and node.join is None:
            self.lacking.add(node.name)
        events.call_skipped(call=node.name, upstream=node.upstream, because=culprit)

    async def send(self, node: Node, request: Request[Any], nth: int = 0) -> Outcome:
        """Send one of a call's requests; a write waits at the gate first."""
        if not request.safe:
            await self.gate(node)
        assert node.decoder is not None  # noqa: S101 - only parts have none, and they send through their fan
        call = Call(node.name, request, node.decoder, self.inbound, self.deadline, node.policy.absent, nth)
        try:
            return await self.sender.send(node.upstream, call)
        finally:
            self.attempts[node.name] = self.attempts.get(node.name, 0) + call.attempts

    async def gate(self, node: Node) -> None:
        """Hold a write until every required read that does not depend on a write has succeeded."""
        self._writing |= {node.name, *self.plan.dependents[node.name]}
        self._wake()
        await self._until(lambda: (self._done | self._writing).issuperset(self.plan.required))

    def request(self, node: Node, *keys: Any) -> Request[Any] | Failure | None:
        """Ask a declaration for its request; a value that fits into none is the client's mistake or a failure."""
        method = getattr(self.page, node.attribute)
        try:
            request: Request[Any] | None = method(*keys, **self.arguments(node.params))
        except InvalidParameter as error:
            return self.refusal(node, error)
        return request

    def refusal(self, node: Node, error: InvalidParameter) -> Failure:
        """Return the failure of a request that cannot be made; raise Unusable where the client gave the value."""
        field = self._client_field(error.value)
        if field is not None:
            raise Unusable(field, error) from error
        return denied(node.upstream, str(error))

    def _client_field(self, value: object) -> str | None:
        """Name the URL kwarg, or the field of query or body, that a value came from; None if it is an upstream's."""
        for name, given in self.inputs.items():
            fields = getattr(given, "__struct_fields__", None)
            if fields is None and name != "request" and _is_in(value, given):
                return name
            for field in fields or ():
                if _is_in(value, getattr(given, field)):
                    return f"{name}.{field}"
        return None

    async def _until(self, ready: Callable[[], bool]) -> None:
        """Wait for other calls of this page until a condition on them holds."""
        while not ready():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def passes_through(node: Node, outcome: Outcome) -> bool:
    """Tell whether an error status is to be the page's: the call says so, or its upstream does for required calls."""
    if outcome.fault is not Fault.HTTP_RESPONSE_STATUS:
        return False
    return outcome.status in node.policy.passthrough or (outcome.passthrough and node.required)


def _is_in(value: object, given: object) -> bool:
    return given == value or (isinstance(given, (list, tuple, set, frozenset)) and value in given)


async def _make_call(fan_out: FanOut, node: Node) -> None:
    request = fan_out.request(node)
    if request is None:
        fan_out.lack(node)
    elif isinstance(request, Failure):
        fan_out.lack(node, request)
    else:
        outcome = await fan_out.send(node, request)
        _take(fan_out, node, outcome)


def _take(fan_out: FanOut, node: Node, outcome: Outcome) -> None:
    if not outcome.ok:
        fan_out.lack(node, failure_of(outcome), outcome)
    elif outcome.absent:
        fan_out.lack(node)
    else:
        fan_out.keep(node, outcome.value)


async def _make_join(fan_out: FanOut, node: Node) -> None:
    """Ask for every distinct key, in chunks, a few at once, and match the rows by key."""
    join = node.join
    assert join is not None  # noqa: S101 - the plan gives every batch and each one
    keys = getattr(fan_out.page, join.keys)(**fan_out.arguments(join.key_params))
    if keys is None:
        fan_out.lack(node)
        return
    distinct = list(dict.fromkeys(keys))
    chunks = [distinct[start : start + join.size] for start in range(0, len(distinct), join.size)]
    found: list[Mapping[Any, Any]] = [{}] * len(chunks)
    lost: list[tuple[int, Failure]] = []
    permits = asyncio.Semaphore(join.concurrency)

    async def ask(nth: int, chunk: list[Any]) -> None:
        async with permits:
            rows = await _chunk(fan_out, node, join, nth, chunk)
        if isinstance(rows, Failure):
            lost.append((nth, rows))
        else:
            found[nth] = rows

    await together(ask(nth, chunk) for nth, chunk in enumerate(chunks))
    _gather_rows(fan_out, node, chunks, found, lost)


def _gather_rows(
    fan_out: FanOut,
    node: Node,
    chunks: list[list[Any]],
    found: list[Mapping[Any, Any]],
    lost: list[tuple[int, Failure]],
) -> None:
    """Keep the rows in the order of their keys; with a fallback, losing every chunk means the fallback."""
    rows = {key: row for part in found for key, row in part.items()}
    if lost:
        fan_out.complete = False
        keys = [key for nth, _ in sorted(lost, key=_first) for key in chunks[nth]]
        fan_out.failures[node.name] = _with_keys(min(lost, key=_first)[1], keys)
    if lost and len(lost) == len(chunks) and node.policy.has_fallback:
        fan_out.keep(node, node.fallback())
    else:
        fan_out.keep(node, rows)


async def _chunk(fan_out: FanOut, node: Node, join: Join, nth: int, chunk: list[Any]) -> Mapping[Any, Any] | Failure:
    """Ask for one chunk of keys. A required join's first failure fails the page from here."""
    request = fan_out.request(node, chunk if node.kind == "batch" else chunk[0])
    if request is None:
        return {}
    if isinstance(request, Failure):
        failure, outcome = request, None
    else:
        outcome = await fan_out.send(node, request, nth)
        if outcome.ok:
            return _rows(node, join, outcome, chunk)
        failure = failure_of(outcome)
    if node.required or (outcome is not None and passes_through(node, outcome)):
        fan_out.lack(node, _with_keys(failure, chunk), outcome)
    return failure


def _rows(node: Node, join: Join, outcome: Outcome, chunk: list[Any]) -> Mapping[Any, Any]:
    """Match rows by key, never by position; rows nobody asked for are left out."""
    if outcome.absent:
        return {}
    if node.kind == "each":
        return {chunk[0]: outcome.value}
    assert join.row_key is not None  # noqa: S101 - every batch has one
    by_key = {join.row_key(row): row for row in join.rows(outcome.value)}
    return {key: by_key[key] for key in chunk if key in by_key}


def _with_keys(failure: Failure, keys: list[Any]) -> Failure:
    return Failure(
        upstream=failure.upstream,
        error=failure.error,
        status=failure.status,
        attempts=failure.attempts,
        retryable=failure.retryable,
        detail=failure.detail,
        keys=keys,
    )


def _first(lost: tuple[int, Failure]) -> int:
    return lost[0]


async def _make_part(fan_out: FanOut, node: Node) -> None:
    """Run a part's coroutine with a fan of its own, within the page's deadline."""
    method = getattr(fan_out.page, node.attribute)
    fan = Fan(
        fan_out.sender, fan_out.inbound, fan_out.deadline, prefix=f"{node.name}.", gate=lambda: fan_out.gate(node)
    )
    timer = asyncio.timeout_at(fan_out.deadline.at)
    try:
        async with timer, fan:
            value = await method(fan, **fan_out.arguments(node.params))
    except TimeoutError:
        if not timer.expired():
            raise
        fan_out.lack(node, _late(node))
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) is not None and not task.cancelling():
            message = f"part {node.name} raised CancelledError by itself"
            raise RuntimeError(message) from error
        raise
    except InvalidParameter as error:
        fan_out.lack(node, fan_out.refusal(node, error))
    except CallFailed as failed:
        fan_out.lack(node, failed.failure)
    else:
        fan_out.failures.update(fan.failures)
        fan_out.complete = fan_out.complete and not fan.failures
        fan_out.keep(node, value)


def _late(node: Node) -> Failure:
    return Failure(
        upstream=node.upstream or None, error=Fault.DEADLINE_EXCEEDED, status=None, attempts=0, retryable=True
    )


_MAKERS: Final[Mapping[str, Callable[[FanOut, Node], Awaitable[None]]]] = {
    "call": _make_call,
    "batch": _make_join,
    "each": _make_join,
    "part": _make_part,
}
