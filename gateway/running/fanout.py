"""One page's calls under way: each starts the moment what it needs is there, and all end together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from gateway.answering.answer import CallFailed, Failure, denied, failure_of, passes_through, shown, skipped
from gateway.declaring.plan import Node, Plan
from gateway.log import events
from gateway.running.fan import Fan
from gateway.running.joins import make_join
from gateway.running.tasks import Overdue, is_cancelled, together, until
from upstreams import Call, Deadline, Fault, Inbound, InvalidParameter, Outcome, Request, Sender

_MOST_LOOKED_AT: Final = 1000


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
        self.inner_failures: dict[str, Mapping[str, Failure]] = {}
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
        return {name: shown(self.values[name]) for name in self.plan.public}

    def errors(self) -> dict[str, Failure]:
        """Return the failures in the order of declaration, those inside parts last."""
        if not self.failures and not self.inner_failures:
            return {}
        found = {name: self.failures[name] for name in self.plan.nodes if name in self.failures}
        for name in self.plan.nodes:
            found.update(self.inner_failures.get(name, {}))
        return found

    def arguments(self, names: Sequence[str]) -> dict[str, Any]:
        """Return values by name, for a method that takes them."""
        return {name: self.values[name] for name in names}

    async def _settle(self, node: Node) -> None:
        """Bring one call to its end: wait for what it needs, make it, keep its value or what stands for it."""
        if node.needs:
            await self._until(lambda: self._done.issuperset(node.needs))
        culprit = next((name for name in node.strict if name in self.lacking), None) if self.lacking else None
        if culprit is not None:
            self._skip(node, culprit)
        else:
            await self._make(node)
        self._done.add(node.name)
        if self._settled is not None:
            self._settled(node)
        if self._waiters:
            self._wake()

    async def _make(self, node: Node) -> None:
        name, started = node.name, time.perf_counter()
        ending = "failed"
        try:
            await _MAKERS[node.kind](self, node)
            if name not in self.failures:
                ending = "absent" if name in self.lacking else "ok"
        except asyncio.CancelledError as error:
            if not is_cancelled():
                raise RuntimeError(f"{node.name} raised CancelledError by itself") from error
            ending = "cancelled"
            raise
        finally:
            duration = self.durations[name] = time.perf_counter() - started
            events.call_finished(
                call=name,
                upstream=node.upstream,
                outcome=ending,
                fault=self.failures[name].error if name in self.failures else None,
                attempts=self.attempts.get(name, 0),
                start=started - self.inbound.started,
                duration=duration,
            )

    def keep(self, node: Node, value: Any) -> None:
        """Keep a call's value."""
        self.values[node.name] = value

    def lack(self, node: Node) -> None:
        """Keep that there is rightly no value, which leaves the answer complete: None, or a join without rows."""
        if node.join is not None:
            self.values[node.name] = {}
        else:
            self.values[node.name] = None
            self.lacking.add(node.name)

    def fail(self, node: Node, failed: CallFailed) -> None:
        """Take note of a failure, and put what stands for the value in its place.

        Raises it if the page cannot be answered without the value, or is to answer what the upstream did.
        """
        self.failures[node.name] = failed.failure
        if node.required or failed.passthrough:
            raise failed
        self.complete = False
        self._stand_in(node)

    def failed(self, node: Node, outcome: Outcome) -> CallFailed:
        """Return what a call without a value fails with."""
        passes = passes_through(outcome, node.policy.passthrough, required=node.required)
        return CallFailed(node.name, failure_of(outcome), passthrough=passes, retry_after=outcome.retry_after)

    def _skip(self, node: Node, culprit: str) -> None:
        """Leave a call out. That alone makes no answer incomplete: the culprit has, if it failed."""
        self.failures[node.name] = skipped(node.upstream, culprit)
        self._stand_in(node)
        events.call_skipped(call=node.name, upstream=node.upstream, because=culprit)

    def _stand_in(self, node: Node) -> None:
        self.values[node.name] = node.fallback()
        if not node.policy.has_fallback and node.join is None:
            self.lacking.add(node.name)

    async def send(self, node: Node, request: Request[Any], part: str = "") -> Outcome:
        """Send one of a call's requests; a write waits at the gate first."""
        if not request.safe:
            await self.gate(node)
        assert node.decoder is not None  # noqa: S101 - only parts have none, and they send through their fan
        policy = node.policy
        call = Call(
            node.name,
            request,
            node.decoder,
            self.inbound,
            self.deadline,
            policy.absent,
            part,
            hedge=policy.hedge,
            coalesce=policy.coalesce,
        )
        try:
            return await self.sender.send(node.upstream, call)
        finally:
            self.attempts[node.name] = self.attempts.get(node.name, 0) + call.attempts

    async def gate(self, node: Node) -> None:
        """Hold a write until every required read that does not depend on a write has succeeded."""
        self._writing |= {node.name, *self.plan.dependents[node.name]}
        self._wake()
        await self._until(lambda: (self._done | self._writing).issuperset(self.plan.required))

    def fan(self, node: Node) -> Fan:
        """Return what a part makes its calls through."""
        return Fan(
            self.sender,
            self.inbound,
            self.deadline,
            prefix=f"{node.name}.",
            gate=lambda: self.gate(node),
            required=node.required,
        )

    def account(self, node: Node, fan: Fan) -> None:
        """Add what a part's calls came to."""
        self.attempts[node.name] = fan.attempts
        self.inner_failures[node.name] = fan.failures
        self.complete = self.complete and not fan.failures

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
        field = self._client_field(node, error)
        if field is not None:
            raise Unusable(field, error) from error
        return denied(node.upstream, str(error))

    def _client_field(self, node: Node, error: InvalidParameter) -> str | None:
        """Name the URL kwarg, or the field of query or body, that a value came from; None if it is an upstream's."""
        taken = (*node.params, *(node.join.key_params if node.join is not None else ()))
        given = {name: self.inputs[name] for name in taken if name not in self.plan.nodes}
        field = _path_to(error.value, given)
        if field is None and node.kind != "part" and 0 < len(taken) == len(given):
            # The client gave all there was to make it from, though not in these words.
            return error.name if len(given) > 1 or "request" in given else taken[0]
        return field

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


def _path_to(value: object, inputs: Mapping[str, Any]) -> str | None:
    """Find where a value stands in what the client gave: `user_id`, `query.tag`, `body.items[0].sku`.

    It is looked for on the loop, and so not in all of what a client may send.
    """
    pending = deque(inputs.items())
    for left in range(_MOST_LOOKED_AT, 0, -1):
        if not pending:
            break
        path, given = pending.popleft()
        if value is given or value == given:  # NaN is only itself
            return path
        pending.extend(islice(_inside(path, given), max(left - len(pending), 0)))
    return None


def _inside(path: str, given: object) -> Iterator[tuple[str, Any]]:
    """Yield what an input is made of, each with its path."""
    if isinstance(given, msgspec.Struct):
        names = zip(given.__struct_encode_fields__, given.__struct_fields__, strict=True)
        yield from ((f"{path}.{field}", getattr(given, name)) for field, name in names)
    elif isinstance(given, Mapping):
        yield from ((f"{path}.{key}", value) for key, value in given.items())
    elif isinstance(given, (list, tuple, set, frozenset)):
        yield from ((f"{path}[{nth}]", value) for nth, value in enumerate(given))


async def _make_call(fan_out: FanOut, node: Node) -> None:
    request = fan_out.request(node)
    if request is None:
        fan_out.lack(node)
    elif isinstance(request, Failure):
        fan_out.fail(node, CallFailed(node.name, request))
    else:
        _take(fan_out, node, await fan_out.send(node, request))


def _take(fan_out: FanOut, node: Node, outcome: Outcome) -> None:
    if not outcome.ok:
        fan_out.fail(node, fan_out.failed(node, outcome))
    elif outcome.absent:
        fan_out.lack(node)
    else:
        fan_out.keep(node, outcome.value)


async def _make_part(fan_out: FanOut, node: Node) -> None:
    """Run a part's coroutine with a fan of its own, within the page's deadline."""
    method = getattr(fan_out.page, node.attribute)
    async with fan_out.fan(node) as fan:
        try:
            part = method(fan, **fan_out.arguments(node.params))
            value = await until(fan_out.deadline.at, part, f"part {node.name}", fan.running)
            fan.raise_untold()
        except Overdue:
            fan_out.fail(node, CallFailed(node.name, _late(fan)))
        except InvalidParameter as error:
            fan_out.fail(node, CallFailed(node.name, fan_out.refusal(node, error)))
        except CallFailed as failed:
            own = CallFailed(node.name, failed.failure, passthrough=failed.passthrough, retry_after=failed.retry_after)
            fan_out.fail(node, own)
        else:
            fan_out.keep(node, value)
        finally:
            fan_out.account(node, fan)


def _late(fan: Fan) -> Failure:
    return Failure(upstream=None, error=Fault.DEADLINE_EXCEEDED, status=None, attempts=fan.attempts, retryable=True)


_MAKERS: Final[Mapping[str, Callable[[FanOut, Node], Awaitable[None]]]] = {
    "call": _make_call,
    "batch": make_join,
    "each": make_join,
    "part": _make_part,
}
