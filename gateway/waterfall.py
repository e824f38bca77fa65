"""One request's log lines drawn as a waterfall: what was called when, what was tried again, what was waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from gateway.columns import columns

_BAR: Final = 32
_RIGHT: Final = frozenset({2, 4, 5})


class Row(NamedTuple):
    """One attempt, or a call that made none; `start` and `took` are milliseconds."""

    call: str
    upstream: str
    attempt: str
    outcome: str
    start: float
    took: float
    note: str = ""


def waterfall(lines: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the drawing of one request's events, in the order of their start; times are milliseconds."""
    events = list(lines)
    whole = next((line for line in events if line["event"] == "request.finished"), None)
    if whole is not None:
        yield _headline(whole)
    rows = sorted(_rows(events), key=lambda row: row.start)
    if rows:
        span = max([row.start + row.took for row in rows] + [whole["duration_ms"] if whole else 0.0, 0.001])
        yield from (f"  {line}" for line in columns([_head(span), *(_cells(row, span) for row in rows)], _RIGHT))


def _headline(whole: Mapping[str, Any]) -> str:
    status = whole.get("http.response.status_code")
    return (
        f"{whole['http.request.method']} {whole['url.path']}  {status} {whole['outcome']}  "
        f"{whole['duration_ms']:.1f} ms  request {whole.get('request_id')}"
    )


def _head(span: float) -> tuple[str, ...]:
    return "call", "upstream", "try", "outcome", "start", "took", f"0{f'{span:.0f} ms':>{_BAR - 1}}"


def _cells(row: Row, span: float) -> tuple[str, ...]:
    bar = _bar(row.start, row.took, span)
    return row.call, row.upstream, row.attempt, row.outcome, f"{row.start:.1f}", f"{row.took:.1f}", f"{bar}{row.note}"


def _rows(events: list[Mapping[str, Any]]) -> Iterator[Row]:
    waits = {
        (line["call"], line["attempt"] + 1): line["wait_ms"] for line in events if line["event"] == "retry.scheduled"
    }
    for line in events:
        match line["event"]:
            case "attempt.finished":
                yield _attempt(line, waits.get((line["call"], line["attempt"])))
            case "call.skipped":
                yield _unmade(line, f"skipped: no {line['because']}", 0.0, 0.0)
            case "call.finished" if line["outcome"] == "failed" and not line["attempts"]:
                yield _unmade(line, line["error.type"], line["start_offset_ms"], line["duration_ms"])


def _attempt(line: Mapping[str, Any], wait: float | None) -> Row:
    return Row(
        line["call"],
        line["upstream"],
        str(line["attempt"]),
        _outcome(line),
        line["start_offset_ms"],
        line["duration_ms"],
        f"  after a wait of {wait:.1f} ms" if wait is not None else "",
    )


def _unmade(line: Mapping[str, Any], outcome: str, start: float, took: float) -> Row:
    return Row(line["call"], line["upstream"] or "-", "-", outcome, start, took)


def _outcome(line: Mapping[str, Any]) -> str:
    status = line.get("http.response.status_code")
    error = line.get("error.type")
    if line["outcome"] == "cancelled":
        return "cancelled"
    if error in {None, "http_response_status"}:
        return str(status)
    return f"{error} ({status})" if status else str(error)


def _bar(start: float, took: float, span: float) -> str:
    """Draw a stretch of time; what is too short to be seen is drawn as a tick."""
    before = int(start / span * _BAR)
    length = round(took / span * _BAR)
    return " " * before + ("\u2588" * length if length else "\u258f")
