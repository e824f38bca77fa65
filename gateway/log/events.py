"""The catalogue: every event Tributary logs about its work, one function each, and nothing else.

Names are `noun.verb` in the past tense. Keys are flat, OpenTelemetry's where it has one. Times are milliseconds. Fields
hold names, words, numbers and ids, never a header, a query or a body. `docs/log.md` lists them all.

This module is also the Journal that upstream clients report to. Observers are told what is logged, before its level is
looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from gateway.log.lines import LEVELS, Apart, Lines, lines
from gateway.log.observers import observers
from gateway.log.render import HEAD, line, mask, render
from upstreams import Attempt, Fault

_LONGEST_PATH: Final = 2048


class _Catalogue(structlog.BoundLoggerBase):
    """structlog's logger for this module: takes an event's fields as one dict, for keywords are copied three times."""

    _logger: Lines | Apart

    def step(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if observers.all:
            observers.tell(event, fields)
        if LEVELS[level] >= self._logger.level:
            self._logger.put(level, self._rendered(level, event, fields))

    #: No processor has anything to do with them.
    _rendered: Callable[[str, str, dict[str, Any]], bytes] = staticmethod(line)


class _Others(_Catalogue):
    """Logs events with texts and fields of other people's: processed, and so masked, as those of their loggers are."""

    def _rendered(self, level: str, event: str, fields: dict[str, Any]) -> bytes:
        (processed,), _ = self._process_event(level, event, fields)
        rendered: bytes = processed
        return rendered


class _Wide(_Catalogue):
    """Logs what others have put fields on, without those that stand in front of every line, or would pass for them."""

    @staticmethod
    def _rendered(level: str, event: str, fields: dict[str, Any]) -> bytes:
        for name in HEAD.intersection(fields):  # they are this line's own, and there are few to take out
            del fields[name]
        return line(level, event, fields)


_log: Final = _Catalogue(lines, [], {})
_apart: Final = _Catalogue(Apart(), [], {})
_wide: Final = _Wide(lines, [], {})
_others: Final = _Others(lines, [structlog.contextvars.merge_contextvars, mask, render], {})


def gateway_started(*, version: str, upstreams: list[str], pid: int) -> None:
    """A worker is ready to answer."""
    _log.step("info", "gateway.started", {"service.version": version, "process.pid": pid, "upstreams": upstreams})


def gateway_stopped(*, pid: int) -> None:
    """A worker has closed its connections."""
    _log.step("info", "gateway.stopped", {"process.pid": pid})


def request_started(*, method: str, path: str, queued_ms: float | None = None) -> None:
    """A request has arrived, and waited for so long before it began."""
    fields: dict[str, Any] = {"http.request.method": method, "url.path": path[:_LONGEST_PATH]}
    if queued_ms is not None:
        fields["queued_ms"] = queued_ms
    _log.step("info", "request.started", fields)


def request_finished(*, level: str, fields: dict[str, Any], duration: float) -> None:
    """The one wide line: everything about a request, when it has been answered or given up. Takes the fields over."""
    fields["url.path"] = fields["url.path"][:_LONGEST_PATH]
    fields["duration_ms"] = _ms(duration)
    _wide.step(level, "request.finished", fields)


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
    _log.step("warning" if outcome == "failed" else "info", "call.finished", fields)


def call_skipped(*, call: str, upstream: str, because: str) -> None:
    """A declared call was not made, for want of another's value."""
    _log.step("warning", "call.skipped", {"call": call, "upstream": upstream or None, "because": because})


def attempt_finished(upstream: str, call: str, attempt: Attempt) -> None:
    """One try at an upstream has ended; `sent` says whether the upstream can have seen it."""
    fields: dict[str, Any] = {
        "upstream": upstream,
        "call": call,
        "http.request.method": attempt.method,
        "attempt": attempt.number,
        "kind": attempt.kind,
        "sent": attempt.sent,
        "outcome": _ending(attempt),
        "start_offset_ms": _ms(attempt.start),
        "duration_ms": _ms(attempt.duration),
        "conn": attempt.conn,
        "http.response.status_code": attempt.status,
        "body_bytes": attempt.body_bytes,
        "span_id": attempt.span_id,
    }
    if attempt.host is not None:
        fields["server.address"] = attempt.host
    if attempt.fault is not None:
        fields["error.type"] = attempt.fault.word
        fields["exception.message"] = attempt.detail
    _log.step("warning" if attempt.fault else "info", "attempt.finished", fields)


def retry_scheduled(upstream: str, call: str, attempt: Attempt, wait: float) -> None:
    """A failed attempt will be made again after a wait."""
    fields = {
        "upstream": upstream,
        "call": call,
        "attempt": attempt.number,
        "wait_ms": _ms(wait),
        "reason": attempt.fault.word if attempt.fault else None,
    }
    _log.step("info", "retry.scheduled", fields)


def breaker_changed(upstream: str, former: str, state: str, reason: str, time: float | None) -> None:
    """An upstream's breaker has gone from one state to another: `closed`, `open`, `half_open`."""
    fields: dict[str, Any] = {"upstream": upstream, "from": former, "to": state, "reason": reason}
    if time is not None:
        fields["open_ms"] = _ms(time)
    _apart.step("warning" if state == "open" else "info", "breaker.changed", fields)


def host_ejected(upstream: str, host: str, reason: str, time: float) -> None:
    """One of an upstream's hosts is left out for a while."""
    _apart.step(
        "warning",
        "host.ejected",
        {"upstream": upstream, "server.address": host, "reason": reason, "out_ms": _ms(time)},
    )


def flight_joined(upstream: str, call: str, leader: str, trace_id: str) -> None:
    """A call shares the answer of an identical one that is under way: `leader.trace_id` has its attempts."""
    _log.step(
        "info", "flight.joined", {"upstream": upstream, "call": call, "leader": leader, "leader.trace_id": trace_id}
    )


def merge_finished(*, duration: float) -> None:
    """A page's `merge` has returned."""
    _log.step("info", "merge.finished", {"duration_ms": _ms(duration)})


def client_disconnected() -> None:
    """The client left before its answer was ready."""
    _log.step("info", "client.disconnected", {})


def requests_shed(*, route: str | None, count: int, waiting: int) -> None:
    """Pages were asked for faster than this worker makes them, and these had waited too long to begin."""
    fields = {"http.route": route, "error.type": "overloaded", "count": count, "waiting": waiting}
    _log.step("error", "requests.shed", fields)


def spans_dropped(*, count: int, waiting: int, reason: str) -> None:
    """Spans were not exported: the queue was full, or the collector did not take them."""
    _log.step("warning", "spans.dropped", {"count": count, "waiting": waiting, "reason": reason})


def console_acted(*, level: str, action: str, address: str, upstream: str | None = None, to: str | None = None) -> None:
    """Somebody came to the console, or held an upstream's breaker there."""
    fields = {"action": action, "client.address": address}
    if upstream is not None:
        fields |= {"upstream": upstream, "to": to or "auto"}
    _apart.step(level, "console.acted", fields)


def log_recorded(*, level: str, fields: Mapping[str, Any]) -> None:
    """Other code, Django's or uvicorn's or a project's own, has logged a record through the standard library."""
    _others.step(level, "log.recorded", dict(fields))


def log_dropped(count: int, sink: str) -> bytes:
    """Return the line that says how many were lost; it goes to the sink that lost them, past its queue."""
    return line("warning", "log.dropped", {"count": count, "sink": sink})


def _ending(attempt: Attempt) -> str:
    if attempt.cancelled:
        return "cancelled"
    return "ok" if attempt.fault is None else "failed"


def _ms(seconds: float) -> float:
    """Return milliseconds to the microsecond; `round` would take three times as long."""
    return int(seconds * 1_000_000 + 0.5) / 1000
