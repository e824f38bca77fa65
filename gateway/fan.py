"""Calls made from ordinary async code: inside a `@part`, and in function views through `fan_out`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, Literal, Self, TypeVar, overload

from gateway.answer import CallFailed, Failure, failure_of
from gateway.tasks import reap
from upstreams import JSON, Call, Deadline, Decoder, Fault, Inbound, Outcome, Request, Sender

T = TypeVar("T")


class Pending(Generic[T]):
    """A call under way; `await` it, once or often, for its value."""

    def __init__(self, task: asyncio.Task[T]) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the value; raises CallFailed when a required call has none."""
        return asyncio.shield(self._task).__await__()


class Fan:
    """Makes calls under one deadline, and sees to it that none outlives the block it is used in."""

    def __init__(
        self,
        sender: Sender,
        inbound: Inbound,
        deadline: Deadline,
        *,
        prefix: str = "",
        gate: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._sender = sender
        self._inbound = inbound
        self._deadline = deadline
        self._prefix = prefix
        self._gate = gate
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self.failures: dict[str, Failure] = {}

    async def __aenter__(self) -> Self:
        """Enter the block whose end is every call's end."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel and reap what still runs."""
        await reap(self._tasks.values())

    @overload
    def call(
        self, upstream: str, request: Request[Any], type_: type[T], *, optional: Literal[True],
        absent: tuple[int, ...] = ..., passthrough: tuple[int, ...] = ..., name: str | None = ...,
    ) -> Pending[T | None]: ...  # fmt: skip
    @overload
    def call(
        self, upstream: str, request: Request[Any], type_: type[T], *, optional: Literal[False] = ...,
        absent: tuple[int, ...] = ..., passthrough: tuple[int, ...] = ..., name: str | None = ...,
    ) -> Pending[T]: ...  # fmt: skip
    @overload
    def call(
        self, upstream: str, request: Request[Any], *, optional: Literal[True],
        absent: tuple[int, ...] = ..., passthrough: tuple[int, ...] = ..., name: str | None = ...,
    ) -> Pending[JSON | None]: ...  # fmt: skip
    @overload
    def call(
        self, upstream: str, request: Request[Any], *, optional: Literal[False] = ...,
        absent: tuple[int, ...] = ..., passthrough: tuple[int, ...] = ..., name: str | None = ...,
    ) -> Pending[JSON]: ...  # fmt: skip
    def call(
        self,
        upstream: str,
        request: Request[Any],
        type_: Any = JSON,
        *,
        optional: bool = False,
        absent: tuple[int, ...] = (),
        passthrough: tuple[int, ...] = (),
        name: str | None = None,
    ) -> Pending[Any]:
        """Start a call at once and return what to await for its value, decoded as `type_` (opaque JSON by default).

        `optional`, `absent` and `passthrough` are as on a page. `name` is the call's in `errors` and in the log; else
        it is the upstream's, numbered from the second on.
        """
        label = self._label(name or upstream)
        call = Call(label, request, _decoder(type_), self._inbound, self._deadline, absent)
        task = asyncio.create_task(self._value(upstream, call, optional=optional, passthrough=passthrough))
        task.add_done_callback(_seen)
        self._tasks[label] = task
        return Pending(task)

    def failed(self) -> CallFailed | None:
        """Return the first required failure that nobody has awaited or caught."""
        for task in self._tasks.values():
            if task.done() and not task.cancelled() and isinstance(error := task.exception(), CallFailed):
                return error
        return None

    async def _value(self, upstream: str, call: Call, *, optional: bool, passthrough: tuple[int, ...]) -> Any:
        if not call.request.safe and self._gate is not None:
            await self._gate()
        outcome = await self._sender.send(upstream, call)
        if outcome.ok:
            return outcome.value
        self.failures[call.name] = failure_of(outcome)
        if optional and outcome.status not in passthrough:
            return None
        raise _failed(call, outcome, passthrough)

    def _label(self, name: str) -> str:
        label, count = f"{self._prefix}{name}", 1
        while label in self._tasks:
            count += 1
            label = f"{self._prefix}{name}-{count}"
        return label


def _failed(call: Call, outcome: Outcome, passthrough: tuple[int, ...]) -> CallFailed:
    passes = outcome.fault is Fault.HTTP_RESPONSE_STATUS and (outcome.status in passthrough or outcome.passthrough)
    return CallFailed(call.name, failure_of(outcome), passthrough=passes, retry_after=outcome.retry_after)


def _seen(task: asyncio.Task[Any]) -> None:
    """Look at a task's exception, as asyncio complains of those that nobody awaited."""
    if not task.cancelled():
        task.exception()


_DECODERS: dict[Any, Decoder] = {}


def _decoder(type_: Any) -> Decoder:
    """Return the type's decoder, made once."""
    decoder = _DECODERS.get(type_)
    if decoder is None:
        decoder = _DECODERS[type_] = Decoder(type_)
    return decoder
