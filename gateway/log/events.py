"""The catalogue: every event Tributary logs about its work, one function each, and nothing else.

Names are `noun.verb` in the past tense. Keys are flat, OpenTelemetry's where it has one. Times are milliseconds. Fields
hold names, words, numbers and ids, never a header, a query or a body. `docs/log.md` lists them all.

This module is also the Journal that upstream clients report to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog

from upstreams import Attempt, Fault

_log: Final = structlog.get_logger()


def gateway_started(*, version: str, upstreams: list[str], pid: int) -> None:
    """A worker is ready to answer."""
    _log.info("gateway.started", upstreams=upstreams, **{"service.version": version, "process.pid": pid})


def gateway_stopped(*, pid: int) -> None:
    """A worker has closed its connections."""
    _log.info("gateway.stopped", **{"process.pid": pid})


def request_started(*, method: str, path: str) -> None:
    """A request has arrived."""
    _log.info("request.started", **{"http.request.method": method, "url.path": path})


def request_finished(*, level: str, fields: Mapping[str, Any]) -> None:
    """The one wide line: everything about a request, when it has been answered or given up."""
    getattr(_log, level)("request.finished", **fields)


def call_finished(
    *, call: str, upstream: str, outcome: str, fault: Fault | None, attempts: int, start: float, duration: float
) -> None:
    """A declared call has come to its end: `ok`, `absent`, `failed` or `cancelled`."""
    fields: dict[str, Any] = {
        "call": call,
        "upstream": upstream or None,
        "outcome": outcome,
        "attempts": attempts,
        "start_offset_ms": _ms(start),
        "duration_ms": _ms(duration),
    }
    if fault is not None:
        fields["error.type"] = fault.word
    (_log.warning if outcome == "failed" else _log.info)("call.finished", **fields)


def call_skipped(*, call: str, upstream: str, because: str) -> None:
    """A declared call was not made, for want of another's value."""
    _log.warning("call.skipped", call=call, upstream=upstream or None, because=because)


def attempt_finished(upstream: str, call: str, attempt: Attempt) -> None:
    """One try at an upstream has ended; `sent` says whether the upstream can have seen it."""
    fields: dict[str, Any] = {
        "upstream": upstream,
        "call": call,
        "attempt": attempt.number,
        "sent": attempt.sent,
        "outcome": _ending(attempt),
        "start_offset_ms": _ms(attempt.start),
        "duration_ms": _ms(attempt.duration),
        "conn": attempt.conn,
        "http.response.status_code": attempt.status,
        "body_bytes": attempt.body_bytes,
        "span_id": attempt.span_id,
    }
    if attempt.fault is not None:
        fields["error.type"] = attempt.fault.word
        fields["exception.message"] = attempt.detail
    (_log.warning if attempt.fault else _log.info)("attempt.finished", **fields)


def retry_scheduled(upstream: str, call: str, attempt: Attempt, wait: float) -> None:
    """A failed attempt will be made again after a wait."""
    _log.info(
        "retry.scheduled",
        upstream=upstream,
        call=call,
        attempt=attempt.number,
        wait_ms=_ms(wait),
        reason=attempt.fault.word if attempt.fault else None,
    )


def merge_finished(*, duration: float) -> None:
    """A page's `merge` has returned."""
    _log.info("merge.finished", duration_ms=_ms(duration))


def client_disconnected() -> None:
    """The client left before its answer was ready."""
    _log.info("client.disconnected")


def _ending(attempt: Attempt) -> str:
    if attempt.cancelled:
        return "cancelled"
    return "ok" if attempt.fault is None else "failed"


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
