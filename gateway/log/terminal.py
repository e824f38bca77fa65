"""A line of the log as a person at a terminal reads it: when, how grave, what, at whom, how it ended, how long it took.

Nothing in a value reaches the terminal as a control character.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_LEVELS: Final = {"debug": "debug", "info": "info ", "warning": "warn ", "error": "error", "critical": "crit "}
_LEVEL_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "1;31", "critical": "1;31"}
_OUTCOME_COLOURS: Final = {"ok": "32", "absent": "32", "partial": "33", "failed": "31"}
_DIM: Final = "2"
_BOLD: Final = "1"
#: Told in the columns, or of use only to programs.
_TOLD: Final = frozenset(
    {
        *("timestamp", "level", "event", "schema", "trace_id", "span_id", "request_id", "http.route"),
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
_EXPECTED: Final = (("sent", True), ("conn", "reused"), ("kind", "first"), ("kind", "retry"))

Paint = Callable[[str, str], str]


def terminal() -> Callable[[bytes], bytes]:
    """Return what renders a line for the terminal: in colour unless NO_COLOR is set or the terminal has none."""
    coloured = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    paint = _coloured if coloured else _plain

    def render(line: bytes) -> bytes:
        fields: dict[str, Any] = msgspec.json.decode(line)
        text = " ".join(part for part in _columns(fields, paint) if part).rstrip()
        return "\n".join([text, *_trace(fields, paint)]).encode()

    return render


def _columns(fields: Mapping[str, Any], paint: Paint) -> Iterator[str]:
    level, outcome = fields["level"], fields.get("outcome")
    yield paint(_DIM, fields["timestamp"][11:23])
    yield paint(_LEVEL_COLOURS[level], _LEVELS[level])
    yield paint(_BOLD, f"{_safe(fields['event']):<17}")
    yield _record(fields, paint)
    ended = _ending(fields) or "duration_ms" in fields
    if _subject(fields) or ended:
        yield f"{_subject(fields):<30}"
    if ended:
        yield paint(_OUTCOME_COLOURS.get(str(outcome), "0"), f"{_ending(fields):<28}")
        yield f"{_duration(fields):>11}"
    yield from (f"{paint(_DIM, name + '=')}{text}" for name, text in _others(fields))
    if "request_id" in fields:
        yield paint(_DIM, f"request={_safe(fields['request_id'])[:8]}")


def _record(fields: Mapping[str, Any], paint: Paint) -> str:
    """Say what other code had to say."""
    said = {name: _safe(fields[name]) for name in ("logger", "message") if fields.get(name) is not None}
    return ": ".join(paint(_DIM, text) if name == "logger" else text for name, text in said.items())


def _subject(fields: Mapping[str, Any]) -> str:
    """Say what a line is about: the client's request, or an upstream and the call made there."""
    upstream, call = fields.get("upstream"), fields.get("call")
    number = f"#{_safe(fields['attempt'])}" if "attempt" in fields else None
    asked = (fields.get("http.request.method"), fields.get("url.path"), upstream if upstream != call else None, call)
    return " ".join(_safe(part) for part in (*asked, number) if part is not None)


def _ending(fields: Mapping[str, Any]) -> str:
    """Say how it ended: the outcome, the status, and the error unless that only repeats the status."""
    parts = (fields.get("outcome"), fields.get("http.response.status_code"), fields.get("error.type"))
    return " ".join(_safe(part) for part in parts if part is not None and part != "http_response_status")


def _duration(fields: Mapping[str, Any]) -> str:
    duration = fields.get("duration_ms")
    return f"{duration:.1f} ms" if isinstance(duration, (int, float)) else ""


def _others(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the remaining fields, those that say something the reader would not expect."""
    for name, value in fields.items():
        if name in _TOLD or value in (None, [], "") or (name, value) in _EXPECTED:
            continue
        if name == "exception.message" and "exception.stacktrace" in fields:
            continue
        text = ",".join(map(_safe, value)) if isinstance(value, list) else _safe(value)
        yield _safe(_SHORT.get(name, name)), text


def _trace(fields: Mapping[str, Any], paint: Paint) -> Iterator[str]:
    """Yield a traceback's lines, below what it belongs to."""
    for line in str(fields.get("exception.stacktrace", "")).splitlines():
        yield paint(_DIM, f"    {_safe(line)}")


def _safe(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _CONTROLS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return repr(match[0])[1:-1]


def _coloured(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def _plain(_: str, text: str) -> str:
    return text
