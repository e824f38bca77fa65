"""A join under way: every distinct key is asked for once, in chunks, a few at once, and rows are matched by key."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.answering.answer import CallFailed, Failure
from gateway.declaring.plan import Join, Node
from gateway.running.keys import distinct
from gateway.running.tasks import together
from upstreams import Fault, InvalidParameter, Outcome
from upstreams.values import Unreadable

if TYPE_CHECKING:
    from gateway.running.fanout import FanOut


async def make_join(fan_out: FanOut, node: Node) -> None:
    """Ask for every distinct key, in chunks, a few at once, and match the rows by key."""
    join = node.join
    assert join is not None  # noqa: S101 - the plan gives every batch and each one
    keys = getattr(fan_out.page, join.keys)(**fan_out.arguments(join.key_params))
    if keys is None:
        fan_out.lack(node)
        return
    try:
        wanted = distinct(keys)
    except InvalidParameter as error:
        fan_out.fail(node, CallFailed(node.name, fan_out.refusal(node, error)))
        return
    chunks = [wanted[start : start + join.size] for start in range(0, len(wanted), join.size)]
    found: list[Mapping[Any, Any]] = [{}] * len(chunks)
    lost: list[tuple[int, Failure]] = []
    waiting = enumerate(chunks)

    async def ask() -> None:
        for nth, chunk in waiting:
            rows = await _chunk(fan_out, node, join, chunk)
            if isinstance(rows, Failure):
                lost.append((nth, rows))
            else:
                found[nth] = rows

    await together(ask() for _ in chunks[: join.concurrency])
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
        lost.sort(key=_first)
        fan_out.failures[node.name] = msgspec.structs.replace(
            lost[0][1],
            attempts=sum(failure.attempts for _, failure in lost),
            keys=[key for nth, _ in lost for key in chunks[nth]],
        )
    if lost and len(lost) == len(chunks) and node.policy.has_fallback:
        fan_out.keep(node, node.fallback())
    else:
        fan_out.keep(node, rows)


async def _chunk(fan_out: FanOut, node: Node, join: Join, chunk: list[Any]) -> Mapping[Any, Any] | Failure:
    """Ask for one chunk of keys; its rows by key, or why there are none."""
    request = fan_out.request(node, chunk if node.kind == "batch" else chunk[0])
    if request is None:
        return {}
    if isinstance(request, Failure):
        return _lose(fan_out, node, chunk, CallFailed(node.name, request))
    outcome = await fan_out.send(node, request, part=repr(chunk))  # by its keys: their order is not the same each time
    try:
        if outcome.ok:
            return _rows(node, join, outcome, chunk)
    except Unreadable as error:
        outcome = msgspec.structs.replace(outcome, fault=error.fault, detail=str(error))
    return _lose(fan_out, node, chunk, fan_out.failed(node, outcome))


def _lose(fan_out: FanOut, node: Node, chunk: list[Any], failed: CallFailed) -> Failure:
    """Return a chunk's failure with its keys. A required join's first fails the page from here."""
    failed.failure = msgspec.structs.replace(failed.failure, keys=chunk)
    if node.required or failed.passthrough:
        fan_out.fail(node, failed)
    return failed.failure


def _rows(node: Node, join: Join, outcome: Outcome, chunk: list[Any]) -> Mapping[Any, Any]:
    """Match rows by key, never by position; rows nobody asked for are left out. Raises Unreadable."""
    if outcome.absent:
        return {}
    if node.kind == "each":
        return {chunk[0]: outcome.value}
    assert join.row_key is not None  # noqa: S101 - every batch has one
    try:
        by_key = {join.row_key(row): row for row in join.rows(outcome.value)}
    except (KeyError, TypeError):
        if not isinstance(join.row_key, (operator.itemgetter, operator.attrgetter)):
            raise
        raise Unreadable(Fault.BODY_MISMATCH, "a row is without the key it is to be matched by") from None
    return {key: by_key[key] for key in chunk if key in by_key}


def _first(lost: tuple[int, Failure]) -> int:
    return lost[0]
