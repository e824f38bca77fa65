"""Calls made from ordinary async code: inside a `@part`, and in function views through `fan_out`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from functools import lru_cache
from typing import Any, Generic, Literal, Self, TypedDict, TypeVar, Unpack, overload

from gateway.answering.answer import CallFailed, Failure, Problem, failure_of, passes_through
from gateway.log import events
from gateway.running.tasks import reap
from upstreams import JSON, Call, Deadline, Decoder, Hedge, Inbound, Outcome, Request, Sender
from upstreams.policy import status_faults

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Options(TypedDict, total=False):
    """What may be said of a call beside its request and type, as on a page."""

    passthrough: tuple[int, ...]
    hedge: Hedge | Literal[False]
    coalesce: bool
    name: str | None


class Pending(Generic[T_co]):
    """A call under way; `await` it, once or often, for its value."""

    def __init__(self, call: Call, task: asyncio.Task[T_co]) -> None:
        self.call = call
        self.task = task
        self._told = False

    def __await__(self) -> Generator[Any, None, T_co]:
        """Wait for the value; raises CallFailed when a required call has none."""
        yield from asyncio.wait([self.task]).__await__()
        if self.task.cancelled():
            raise RuntimeError(f"{self.call.name} was cancelled at the end of its fan's block: await it inside")
        self._told = True
        return self.task.result()

    def untold(self) -> BaseException | None:
        """Return what the call failed with, unless whoever awaited it has been told."""
        if self._told or not self.task.done() or self.task.cancelled():
            return None
        return self.task.exception()


class Fan:
    """Makes calls under one deadline, and sees to it that none outlives the block it is used in.

    `prefix` goes before the calls' names, and writes wait at the `gate`. Unless what the calls are for is `required`,
    a status decides the page only where a call itself passes it through.
    """

    def __init__(
        self,
        sender: Sender,
        inbound: Inbound,
        deadline: Deadline,
        *,
        prefix: str = "",
        gate: Callable[[], Awaitable[None]] | None = None,
        required: bool = True,
    ) -> None:
        self._sender = sender
        self._inbound = inbound
        self._deadline = deadline
        self._prefix = prefix
        self._gate = gate
        self._required = required
        self._calls: dict[str, Pending[Any]] = {}
        self._numbers: dict[str, int] = {}  # the latest by name
        self._failures: dict[str, Failure] = {}
        self._left = False

    def __repr__(self) -> str:
        """Show the calls still under way."""
        return f"<Fan running={[task.get_name() for task in self.running()]} of {len(self._calls)}>"

    @property
    def names(self) -> list[str]:
        """The calls' names, in the order they were made."""
        return list(self._calls)

    @property
    def failures(self) -> dict[str, Failure]:
        """The calls without their value, in the order they were made, whichever failed first."""
        return {name: self._failures[name] for name in self._calls if name in self._failures}

    @property
    def attempts(self) -> int:
        """The attempts made so far."""
        return sum(pending.call.attempts for pending in self._calls.values())

    def running(self) -> list[asyncio.Task[Any]]:
        """Return the calls under way."""
        return [pending.task for pending in self._calls.values() if not pending.task.done()]

    async def __aenter__(self) -> Self:
        """Enter the block whose end is every call's end."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel and reap what still runs."""
        self._left = True
        await reap(self.running())

    @overload
    def call(
        self, upstream: str, request: Request[Any], type_: type[T], *, optional: Literal[True],
        absent: tuple[int, ...] = ..., **options: Unpack[Options],
    ) -> Pending[T | None]: ...  # fmt: skip
    @overload
    def call(
        self, upstream: str, request: Request[Any], type_: type[T], *, absent: tuple[int, ...],
        optional: Literal[False] = ..., **options: Unpack[Options],
    ) -> Pending[T | None]: ...  # fmt: skip
    @overload
    def call(
        self, upstream: str, request: Request[Any], type_: type[T], *, optional: Literal[False] = ...,
        **options: Unpack[Options],
    ) -> Pending[T]: ...  # fmt: skip
    @overload
    def call(
        self, upstream: str, request: Request[Any], *, optional: Literal[True], absent: tuple[int, ...] = ...,
        **options: Unpack[Options],
    ) -> Pending[JSON | None]: ...  # fmt: skip
    @overload
    def call(
        self, upstream: str, request: Request[Any], *, absent: tuple[int, ...], optional: Literal[False] = ...,
        **options: Unpack[Options],
    ) -> Pending[JSON | None]: ...  # fmt: skip
    @overload
    def call(
        self, upstream: str, request: Request[Any], *, optional: Literal[False] = ..., **options: Unpack[Options]
    ) -> Pending[JSON]: ...
    def call(
        self,
        upstream: str,
        request: Request[Any],
        type_: Any = JSON,
        *,
        optional: bool = False,
        absent: tuple[int, ...] = (),
        **options: Unpack[Options],
    ) -> Pending[Any]:
        """Start a call at once and return what to await for its value, decoded as `type_` (opaque JSON by default).

        `optional` and `absent` are as on a page, and so are the `options` but for `name`: that is the call's in
        `errors` and in the log; else it is the upstream's, numbered from the second on.
        """
        label = self._label(options.get("name") or upstream)
        if self._left:
            raise RuntimeError(f"{label} was called after the end of its fan's block")
        for fault in status_faults("passthrough", options.get("passthrough", ())):
            raise ValueError(f"{label}: {fault}")
        call = Call(
            label,
            request,
            _decoder(type_),
            self._inbound,
            self._deadline,
            absent,
            hedge=options.get("hedge"),
            coalesce=options.get("coalesce"),
        )
        value = self._value(upstream, call, optional=optional, passthrough=options.get("passthrough", ()))
        task = asyncio.create_task(value, name=label)
        task.add_done_callback(_seen)
        self._calls[label] = Pending(call, task)
        return self._calls[label]

    def raise_untold(self) -> None:
        """Raise what the first call failed with that nobody awaited; a write still under way is an author's mistake."""
        for pending in self._calls.values():
            if (error := pending.untold()) is not None:
                raise error
            if not pending.call.request.safe and not pending.task.done():
                raise RuntimeError(f"{pending.call.name} is a write that nobody awaited: it may not have been sent")

    async def _value(self, upstream: str, call: Call, *, optional: bool, passthrough: tuple[int, ...]) -> Any:
        outcome = await self._outcome(upstream, call)
        if outcome.ok:
            return outcome.value
        self._failures[call.name] = failure_of(outcome)
        passes = passes_through(outcome, passthrough, required=self._required and not optional)
        if optional and not passes:
            return None
        raise _Failed(self, call, outcome, passthrough=passes)

    async def _outcome(self, upstream: str, call: Call) -> Outcome:
        """Send a call, a write when the gate lets it, and log its end, whatever that is."""
        started = time.perf_counter()
        ending, fault = "failed", None
        try:
            if not call.request.safe and self._gate is not None:
                await self._gate()
            outcome = await self._sender.send(upstream, call)
            if outcome.ok:
                ending = "absent" if outcome.absent else "ok"
            fault = outcome.fault
        except asyncio.CancelledError:
            ending = "cancelled"
            raise
        finally:
            events.call_finished(
                call=call.name,
                upstream=upstream,
                outcome=ending,
                fault=fault,
                attempts=call.attempts,
                start=started - self._inbound.started,
                duration=time.perf_counter() - started,
            )
        return outcome

    def _label(self, name: str) -> str:
        label = f"{self._prefix}{name}"
        while label in self._calls:
            self._numbers[name] = self._numbers.get(name, 1) + 1
            label = f"{self._prefix}{name}-{self._numbers[name]}"
        return label


class _Failed(CallFailed):
    """A required call of a fan failed; the problem this makes tells what else the fan lacks, as a page's does."""

    def __init__(self, fan: Fan, call: Call, outcome: Outcome, *, passthrough: bool) -> None:
        super().__init__(call.name, failure_of(outcome), passthrough=passthrough, retry_after=outcome.retry_after)
        self._fan = fan

    def problem(self, errors: Mapping[str, Failure]) -> Problem:
        """Return the problem, this failure the last of its errors."""
        others = {name: failure for name, failure in self._fan.failures.items() if name != self.call}
        return super().problem({**others, **errors})


def _seen(task: asyncio.Task[Any]) -> None:
    """Look at a task's exception, as asyncio complains of those that nobody awaited."""
    if not task.cancelled():
        task.exception()


@lru_cache(maxsize=1024)
def _decoder(type_: Any) -> Decoder:
    """Return the type's decoder, made once."""
    return Decoder(type_)
