"""Trace: one request as a waterfall, and ready to be handed to somebody else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import msgspec
from django.http import HttpRequest, HttpResponse

from gateway.console.entry import guarded
from gateway.console.questions import Found, asked
from gateway.console.rendering import rendered
from inspection.showing.waterfall import markdown
from inspection.story import Story
from inspection.times import parsed, stamp

_WIDTH: Final = 1000.0
_LEAST: Final = 2.5
_TICKS: Final = 5
_MOMENT: Final = timedelta(milliseconds=1)
_MEANINGS: Final = {
    "refused": "refused",
    "skipped": "skipped",
    "shared": "shares another's answer",
    "absent": "nothing to ask",
    "merge": "merge",
}
_FIELDS: Final = {
    "upstream": "upstream",
    "host": "server.address",
    "method": "http.request.method",
    "attempt": "attempt",
    "kind": "kind",
    "outcome": "outcome",
    "status": "http.response.status_code",
    "error": "error.type",
    "detail": "exception.message",
    "sent": "sent",
    "conn": "conn",
    "body_bytes": "body_bytes",
    "start_ms": "start_offset_ms",
    "took_ms": "duration_ms",
    "wait_ms": "waited before it, ms",
    "span_id": "span_id",
    "of": "attempt of trace",
    "note": "note",
}


class Drawn(NamedTuple):
    """A row of the waterfall as it is drawn; the drawing is 1000 units wide."""

    row: Mapping[str, Any]
    what: str
    said: str
    tone: str
    x: float
    width: float
    wait_x: float
    wait_width: float
    fields: list[tuple[str, Any]]


class Tick(NamedTuple):
    """A line of the scale."""

    x: float
    ms: float


@guarded
async def trace(request: HttpRequest) -> HttpResponse:
    """Show the request that `?id=` names; of several, within `?since=` and `?until=` if given, let one be chosen."""
    wanted = request.GET.get("id", "").strip()
    window = [f"--{name}={value}" for name in ("since", "until") if (value := request.GET.get(name, "").strip())]
    found = await asked("trace", *window, words=[wanted]) if wanted else Found()
    context: dict[str, Any] = {"fault": found.fault, "found_id": wanted}
    if found.answer and "matches" in found.answer:
        matches = [{**match, "link": _link(wanted, match)} for match in reversed(found.answer["matches"])]
        context |= {"matched": found.answer["matched"], "matches": matches}
    elif found.answer:
        context |= _shown(found.answer)
    return rendered(request, "trace.html", context)


def _shown(answer: Mapping[str, Any]) -> dict[str, Any]:
    story = msgspec.convert(answer, Story)
    return {
        "story": answer,
        "head": answer["request"],
        "route_query": urlencode({"f": f"http.route={answer['request']['route']}"}),
        "rows": list(_drawn(answer)),
        "ticks": list(_ticks(answer["span_ms"])),
        "critical": [row for row in sorted(answer["rows"], key=lambda row: row["start_ms"]) if row["critical"]],
        "copies": [
            ("Markdown", "\n".join(markdown(story))),
            ("JSON", msgspec.json.format(msgspec.json.encode(story)).decode()),
            ("curl", "\n".join(answer["curl"])),
        ],
    }


def _link(wanted: str, match: Mapping[str, Any]) -> str:
    """Return the query that finds one of several requests of the same id: by the moment of its first line."""
    at = parsed(match["at"] or "")
    window = {"since": stamp(at), "until": stamp(at + _MOMENT)} if at else {}
    return f"?{urlencode({'id': match['trace_id'] or wanted, **window})}"


def _drawn(story: Mapping[str, Any]) -> Iterator[Drawn]:
    scale = _WIDTH / (story["span_ms"] or 1.0)
    for row in story["rows"]:
        x = min(max(row["start_ms"] * scale, 0.0), _WIDTH - _LEAST)
        width = min(max(row["took_ms"] * scale, _LEAST), _WIDTH - x)
        waited = min((row["wait_ms"] or 0.0) * scale, x)
        yield Drawn(
            row=row,
            what=_what(row),
            said=_said(row),
            tone=_tone(row),
            x=round(x, 2),
            width=round(width, 2),
            wait_x=round(x - waited, 2),
            wait_width=round(waited, 2),
            fields=[(name, row[key]) for key, name in _FIELDS.items() if row[key] is not None],
        )


def _what(row: Mapping[str, Any]) -> str:
    """Say which try it is, or what it is instead of one."""
    if row["what"] != "attempt":
        retry = f" (try {row['attempt']})" if row["attempt"] is not None else ""
        return f"{_MEANINGS.get(row['what'], row['what'])}{retry}"
    numbered = f"try {row['attempt']}" if row["attempt"] is not None else "try"
    named = f", {row['kind']}" if row["kind"] in {"hedge", "transparent"} else ""
    return f"{numbered}{named}{', of another request' if row['of'] else ''}"


def _said(row: Mapping[str, Any]) -> str:
    """Say how it ended: the status, or the fault."""
    if row["what"] == "merge":
        return ""
    if row["outcome"] != "cancelled" and row["error"] not in {None, "http_response_status"}:
        return str(row["error"]) + (f" ({row['status']})" if row["status"] is not None else "")
    return str(row["outcome"] if row["status"] is None or row["outcome"] == "cancelled" else row["status"])


def _tone(row: Mapping[str, Any]) -> str:
    if row["what"] in {"merge", "shared"} and row["outcome"] in {"ok", None}:
        return "neutral"
    return "failed" if row["what"] == "refused" else row["outcome"] or "gone"


def _ticks(span: float) -> Iterator[Tick]:
    """Yield round times, about as many as are read with ease."""
    step = next(step for step in _steps() if step * _TICKS >= span)
    for nth in range(int(span / step) + 1):
        yield Tick(round(nth * step / (span or 1.0) * _WIDTH, 2), nth * step)


def _steps() -> Iterator[float]:
    power = 0.01
    while True:
        yield from (power, power * 2, power * 5)
        power *= 10
