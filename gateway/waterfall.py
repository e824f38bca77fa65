"""One request's log lines drawn as a waterfall: what was called when, what was tried again, what was waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

_BAR: Final = 32


def waterfall(lines: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the drawing of one request's events, in the order of their start; times are milliseconds."""
    events = list(lines)
    whole = next((line for line in events if line["event"] == "request.finished"), None)
    rows = sorted(_rows(events), key=lambda row: row["start"])
    span = max([row["start"] + row["took"] for row in rows] + [whole["duration_ms"] if whole else 0.0, 0.001])
    if whole is not None:
        yield _headline(whole)
    scale = f"0 ms{span:>{_BAR - 4}.0f} ms"
    yield f" {'call':<18} {'upstream':<16} {'try':>3}  {'outcome':<26} {'start':>8} {'took':>8}  {scale}"
    for row in rows:
        bar = _bar(row["start"], row["took"], span)
        yield (
            f" {row['call']:<18} {row['upstream']:<16} {row['attempt']:>3}  {row['outcome']:<26} "
            f"{row['start']:>8.1f} {row['took']:>8.1f}  {bar}{row['note']}"
        )


def _headline(whole: Mapping[str, Any]) -> str:
    status = whole.get("http.response.status_code")
    return (
        f"{whole['http.request.method']} {whole['url.path']}  {status} {whole['outcome']}  "
        f"{whole['duration_ms']:.1f} ms  request {whole.get('request_id')}"
    )


def _rows(events: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    waits = {
        (line["call"], line["attempt"] + 1): line["wait_ms"] for line in events if line["event"] == "retry.scheduled"
    }
    for line in events:
        if line["event"] == "attempt.finished":
            wait = waits.get((line["call"], line["attempt"]))
            yield {
                "call": line["call"],
                "upstream": line["upstream"],
                "attempt": line["attempt"],
                "outcome": _outcome(line),
                "start": line["start_offset_ms"],
                "took": line["duration_ms"],
                "note": f"  after a wait of {wait:.1f} ms" if wait is not None else "",
            }
        elif line["event"] == "call.skipped":
            yield {
                "call": line["call"],
                "upstream": line["upstream"] or "",
                "attempt": "-",
                "outcome": f"skipped: no {line['because']}",
                "start": 0.0,
                "took": 0.0,
                "note": "",
            }


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
