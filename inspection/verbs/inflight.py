"""`inflight`: the requests that have not finished: those that are being answered, and those that were lost."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from inspection.database import Logs
from inspection.fields import quoted
from inspection.files import within
from inspection.processes import state
from inspection.question import Question, Verb
from inspection.showing.columns import columns
from inspection.showing.figures import number
from inspection.showing.lines import safe
from inspection.showing.paint import BOLD, DIM, YELLOW, Paint
from inspection.story import Line, arrival, divided, text, told
from inspection.times import parsed, seconds, shown

_MOST: Final = 500
#: A request that is older is worth a look, in seconds.
_OLD: Final = 5.0
_LONGEST: Final = 40
_UNITS: Final = (("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000))
_FIELDS: Final = (
    *("timestamp", "event", "trace_id", "request_id", "service.instance.id", "seq", "http.route", "url.path"),
    *("http.request.method", "upstream", "call", "attempt", "kind", "sent", "outcome", "error.type", "duration_ms"),
    *("start_offset_ms", "http.response.status_code", "server.address", "attempts", "wait_ms", "because", "conn"),
)
_ID: Final = 'hash("service.instance.id", trace_id, request_id)'
_OPEN: Final = f"""
    SELECT CASE WHEN event IN ('request.started', 'request.finished') THEN {_ID} END AS id,
        "service.instance.id" AS process,
        grouping("service.instance.id") = 0 AS is_process,
        count(*) FILTER (event = 'request.started') AS begun,
        count(*) FILTER (event = 'request.finished') AS finished,
        max(timestamp) FILTER (event = 'request.started') AS "at",
        max(timestamp) FILTER (event = 'gateway.started') AS started,
        max(timestamp) FILTER (event = 'gateway.stopped') AS stopped,
        max(file) AS file
    FROM {{logs}}
    GROUP BY GROUPING SETS ((1), (process))
    HAVING is_process OR (id IS NOT NULL AND begun > finished)
"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--older", metavar="TIME", help="only those that are older, such as 5s")


class _Process(NamedTuple):
    """When a process started and stopped last, by its lines, and what it does now: running, ended or unknown."""

    started: str
    stopped: str
    state: str

    def has_lost(self, at: str) -> bool:
        """Tell whether a request of that timestamp can never finish: its process has ended, or been started anew."""
        return self.state == "ended" or at < self.started or at < self.stopped


def answer(question: Question) -> dict[str, Any] | None:
    """Return what has not finished, as of now or of --until; None if there is nothing of the kind.

    - `in_flight` and `lost` (their process has ended): the oldest first, each with `at` (its arrival), `age_ms`,
      `method`, `path`, `route`, `request_id`, `trace_id`, `instance`, `process` (running, ended or unknown), `calls`
      (the names of those that ended) and `attempts` (`call`, `upstream`, `attempt`, `outcome`, `error`, `took_ms`)
    - `left_out`: how many there are beside the latest 500
    - `unseen`: whether the log has no arrivals at all (LOG_STEPS=problems), so that this says nothing
    """
    least = seconds(question.options.older) * 1000 if question.options.older else 0.0
    logs = Logs(within(question.files, question.window), question.fields, question.window)
    rows = logs.rows(_OPEN)
    processes = {row["process"]: _process(row) for row in rows if row["is_process"]}
    waiting = sorted((row for row in rows if not row["is_process"]), key=lambda row: str(row["at"]))
    unseen = any(row["finished"] for row in rows) and not any(row["begun"] for row in rows)
    found: dict[str, list[dict[str, Any]]] = {"in_flight": [], "lost": []}
    for request in _requests(logs, waiting[-_MOST:]):
        if _asked_for(request, question, least):
            brief = _brief(request, processes, _now(question))
            found["lost" if _is_lost(brief, processes) else "in_flight"].append(brief)
    if not any(found.values()) and not unseen:
        return None
    return {**found, "left_out": max(len(waiting) - _MOST, 0), "unseen": unseen}


def _now(question: Question) -> datetime:
    """Return the moment that the answer is of."""
    return question.window.until or question.now


def _process(row: Mapping[str, Any]) -> _Process:
    now = state(Path(row["file"]).parent, row["process"]) if row["process"] and row["file"] else "unknown"
    return _Process(row["started"] or "", row["stopped"] or "", now)


def _is_lost(brief: Mapping[str, Any], processes: Mapping[str, _Process]) -> bool:
    process = processes.get(brief["instance"])
    return process is not None and process.has_lost(brief["at"] or "")


def _requests(logs: Logs, waiting: Sequence[Mapping[str, Any]]) -> list[list[Line]]:
    """Return the lines of the requests that have not finished."""
    if not waiting:
        return []
    ids = ", ".join(str(row["id"]) for row in waiting)
    names = ", ".join(map(quoted, _FIELDS))
    lines = logs.rows(f"SELECT {names} FROM {{logs}} WHERE {_ID} IN ({ids})")
    known = [{name: value for name, value in line.items() if value is not None} for line in lines]
    return [
        request for request in divided(known) if not any(line.get("event") == "request.finished" for line in request)
    ]


def _asked_for(request: Sequence[Line], question: Question, least: float) -> bool:
    """Tell whether a request meets every filter by one of its lines, and is at least so many milliseconds old."""
    age = _age(request, _now(question))
    return (not least or (age is not None and age >= least)) and all(
        any(condition.holds(line) for line in request) for condition in question.filters
    )


def _age(request: Sequence[Line], now: datetime) -> float | None:
    """Return the milliseconds since a request arrived; None if its lines do not tell when."""
    arrived = arrival(request)
    return round(max(now.timestamp() * 1000 - arrived, 0.0), 3) if arrived else None


def _brief(request: Sequence[Line], processes: Mapping[str, _Process], now: datetime) -> dict[str, Any]:
    story = told(request)
    head = story.request
    process = processes.get(head.instance or "")
    return {
        "at": head.started or text(request[0], "timestamp"),
        "age_ms": _age(request, now),
        "method": head.method,
        "path": head.path,
        "route": head.route,
        "request_id": head.request_id,
        "trace_id": head.trace_id,
        "instance": head.instance,
        "process": process.state if process else "unknown",
        "calls": [call for line in request if line.get("event") == "call.finished" and (call := text(line, "call"))],
        "attempts": [
            {
                "call": row.call,
                "upstream": row.upstream,
                "attempt": row.attempt,
                "outcome": row.outcome,
                "error": row.error,
                "took_ms": row.took_ms,
            }
            for row in story.rows
            if row.what == "attempt"
        ],
    }


def _show(answer: Any, question: Question, paint: Paint) -> Iterator[str]:
    if answer["unseen"]:
        yield paint(YELLOW, "The log has no arrivals (LOG_STEPS=problems keeps none): what is in flight is not seen.")
    if answer["in_flight"]:
        yield paint(BOLD, f"{_counted(answer['in_flight'])} in flight at {shown(_now(question))}")
        yield from _table(answer["in_flight"], paint)
    if answer["in_flight"] and answer["lost"]:
        yield ""
    if answer["lost"]:
        yield paint(BOLD, f"{_counted(answer['lost'])} lost: their process has ended")
        yield from _table(answer["lost"], paint)
    if answer["left_out"]:
        yield paint(DIM, f"and {number(answer['left_out'])} before these")


def _counted(requests: Sequence[object]) -> str:
    return f"{number(len(requests))} request{'s' * (len(requests) != 1)}"


def _table(requests: Sequence[Mapping[str, Any]], paint: Paint) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("since", "age", "request", "id", "process", "so far")]
    for request in requests:
        when = parsed(request["at"] or "")
        asked = " ".join(safe(part) for part in (request["method"], request["path"]) if part is not None)
        unknown = "?" * (request["process"] == "unknown")
        rows.append(
            (
                f"{when.astimezone():%H:%M:%S}" if when else "-",
                _span(request["age_ms"]),
                asked[:_LONGEST] or "-",
                safe(request["request_id"] or "-")[:_LONGEST],
                safe(request["instance"] or "-") + unknown,
                _so_far(request),
            )
        )
    first, *others = columns(rows, {1})
    yield paint(DIM, first)
    for request, line in zip(requests, others, strict=True):
        yield paint(YELLOW, line) if (request["age_ms"] or 0.0) >= _OLD * 1000 else line


def _span(milliseconds: float | None) -> str:
    """Return a length of time as people say it."""
    if milliseconds is None:
        return "-"
    name, unit = next((name, unit) for name, unit in _UNITS if milliseconds < unit * 120 or name == "d")
    return f"{milliseconds / unit:.{int(name == 's' and milliseconds < 10 * unit)}f} {name}"


def _so_far(request: Mapping[str, Any]) -> str:
    """Say what a request has behind it: the calls that ended, and the attempts of those that did not."""
    done = request["calls"]
    tried = [
        f"{safe(attempt['call'])} #{attempt['attempt']} {safe(attempt['error'] or attempt['outcome'] or '')}"
        for attempt in request["attempts"]
        if attempt["call"] not in done
    ]
    parts = [f"done: {', '.join(map(safe, done))}" if done else "", f"tried: {', '.join(tried)}" if tried else ""]
    return "; ".join(part for part in parts if part) or "nothing yet"


INFLIGHT: Final = Verb(
    "inflight",
    "Requests that arrived and have not finished, and those that a process took along.",
    _arguments,
    answer,
    _show,
)
