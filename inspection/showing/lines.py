"""A line of the log as a person at a terminal reads it: when, how grave, what, at whom, how it ended, how long it took.

Nothing in a value reaches the terminal as a control character. A line that others wrote is shown as far as it goes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from inspection.showing.paint import BOLD, DIM, GREEN, RED, YELLOW, Paint, coloured, plain, wanted

_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_LEVELS: Final = {"debug": "debug", "info": "info ", "warning": "warn ", "error": "error", "critical": "crit "}
_LEVEL_COLOURS: Final = {"debug": DIM, "info": GREEN, "warning": YELLOW, "error": f"1;{RED}", "critical": f"1;{RED}"}
_OUTCOME_COLOURS: Final = {"ok": GREEN, "absent": GREEN, "partial": YELLOW, "failed": RED}
#: Told in the columns, or of use only to programs.
_TOLD: Final = frozenset(
    {
        *("timestamp", "level", "event", "schema", "trace_id", "span_id", "parent_span_id", "request_id", "http.route"),
        *("service.instance.id", "seq"),
        *("http.request.method", "url.path", "upstream", "call", "attempt", "http.response.status_code"),
        *("outcome", "complete", "error.type", "duration_ms", "logger", "message"),
        *("exception.type", "exception.stacktrace"),
    }
)
_SHORT: Final = {
    "exception.message": "detail",
    "start_offset_ms": "start",
    "body_bytes": "bytes",
    "bytes_out": "bytes",
    "process.pid": "pid",
    "service.version": "version",
}
#: Of a whole number that can be shown as a duration.
_MOST_BITS: Final = 64
_EXPECTED: Final = (("sent", True), ("conn", "reused"), ("kind", "first"), ("kind", "retry"))


def terminal() -> Callable[[bytes], bytes]:
    """Return what renders a line for the terminal: in colour unless NO_COLOR is set or the terminal has none."""
    paint = coloured if wanted() else plain

    def render(line: bytes) -> bytes:
        return shown(msgspec.json.decode(line), paint).encode()

    return render


def shown(fields: Mapping[str, Any], paint: Paint) -> str:
    """Return a line as it is read; a traceback goes below it."""
    text = " ".join(part for part in _columns(fields, paint) if part).rstrip()
    return "\n".join([text, *_trace(fields, paint)])


def _columns(fields: Mapping[str, Any], paint: Paint) -> Iterator[str]:
    level, outcome = safe(fields.get("level") or ""), fields.get("outcome")
    yield paint(DIM, _clock(fields.get("timestamp")))
    yield paint(_LEVEL_COLOURS.get(level, "0"), _LEVELS.get(level, f"{level[:5]:<5}"))
    yield paint(BOLD, f"{safe(fields.get('event')):<17}")
    yield _record(fields, paint)
    ended = _ending(fields) or "duration_ms" in fields
    if _subject(fields) or ended:
        yield f"{_subject(fields):<30}"
    if ended:
        yield paint(_OUTCOME_COLOURS.get(str(outcome), "0"), f"{_ending(fields):<28}")
        yield f"{_duration(fields):>11}"
    yield from (f"{paint(DIM, name + '=')}{text}" for name, text in _others(fields))
    if "request_id" in fields:
        yield paint(DIM, f"request={safe(fields['request_id'])[:8]}")


def _clock(timestamp: object) -> str:
    """Return the time of day in a line's timestamp, which is UTC; of something else, as much."""
    text = safe(timestamp)
    return f"{text[11:23] if len(text) > 23 else text[:12]:<12}"


def _record(fields: Mapping[str, Any], paint: Paint) -> str:
    """Say what other code had to say."""
    said = {name: safe(fields[name]) for name in ("logger", "message") if fields.get(name) is not None}
    return ": ".join(paint(DIM, text) if name == "logger" else text for name, text in said.items())


def _subject(fields: Mapping[str, Any]) -> str:
    """Say what a line is about: the client's request, or an upstream and the call made there."""
    upstream, call = fields.get("upstream"), fields.get("call")
    number = f"#{safe(fields['attempt'])}" if "attempt" in fields else None
    method = fields.get("http.request.method")
    if number and method == "GET":  # as nearly all attempts are
        method = None
    what = fields.get("url.path") or (None if "request_id" in fields else fields.get("http.route"))
    asked = (method, what, upstream if upstream != call else None, call)
    return " ".join(safe(part) for part in (*asked, number) if part is not None)


def _ending(fields: Mapping[str, Any]) -> str:
    """Say how it ended: the outcome, the status, and the error unless that only repeats the status."""
    parts = (fields.get("outcome"), fields.get("http.response.status_code"), fields.get("error.type"))
    return " ".join(safe(part) for part in parts if part is not None and part != "http_response_status")


def _duration(fields: Mapping[str, Any]) -> str:
    duration = fields.get("duration_ms")
    fits = isinstance(duration, float) or (isinstance(duration, int) and duration.bit_length() < _MOST_BITS)
    return f"{duration:.1f} ms" if fits else ""


def _others(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the remaining fields, those that say something the reader would not expect."""
    for name, value in fields.items():
        if name in _TOLD or value in (None, [], "") or (name, value) in _EXPECTED:
            continue
        if name == "exception.message" and fields.get("exception.stacktrace"):
            continue
        text = ",".join(map(safe, value)) if isinstance(value, list) else safe(value)
        yield safe(_SHORT.get(name, name)), text


def _trace(fields: Mapping[str, Any], paint: Paint) -> Iterator[str]:
    """Yield a traceback's lines, below what it belongs to."""
    for line in str(fields.get("exception.stacktrace") or "").splitlines():
        yield paint(DIM, f"    {safe(line)}")


def safe(value: object) -> str:
    """Return a value as text in which nothing controls a terminal: a text as it is but for that, all else as JSON."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _CONTROLS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return repr(match[0])[1:-1]
