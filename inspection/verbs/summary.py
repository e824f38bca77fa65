"""`summary`, which is `logs` without a verb: the last quarter of an hour on one page, and what to ask next."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from inspection.question import Question, Verb
from inspection.showing.columns import columns
from inspection.showing.figures import number
from inspection.showing.lines import safe
from inspection.showing.paint import BOLD, DIM, RED, Paint
from inspection.times import Window, parsed, shown
from inspection.verbs import errors, stats

_SPAN: Final = timedelta(minutes=15)
_RECENT: Final = timedelta(minutes=1)
_LONGEST_FLIGHT: Final = timedelta(minutes=5)
_ERRORS: Final = 5
_UPSTREAMS: Final = 12
_IN_TROUBLE: Final = 0.01
#: A request is one process's; one that repeats its id is another.
_IN_FLIGHT: Final = """
    SELECT CAST(coalesce(sum(begun), 0) AS BIGINT) AS requests FROM (
        SELECT greatest(sum(CASE event WHEN 'request.started' THEN 1 ELSE -1 END), 0) AS begun
        FROM {logs} WHERE event IN ('request.started', 'request.finished')
        GROUP BY trace_id, request_id, "service.instance.id"
    )
"""


def _arguments(_: argparse.ArgumentParser) -> None:
    """It has none of its own."""


def answer(question: Question) -> dict[str, Any] | None:
    """Return how it went of late: of the 15 minutes before now, or before the log's end if it ended longer ago.

    - `from`, `to`: the window; `ended`: the log's last timestamp if that is more than a minute ago, else null
    - `stats`: what `stats` answers (by upstream), `errors`: what `errors` does (the first five), or null
    - `not_closed`: upstreams whose breaker is not closed: `upstream`, `breaker`
    - `in_flight`: requests that began in the last five minutes of the window and have not ended in it
    - `next`: what to ask next: `command` (after `logs`), `because`

    None when the log has no lines in the window.
    """
    if question.extent is None:
        return None
    window, ended = _window(question, question.extent[1])
    told = stats.answer(question.asking(window, by="upstream", top=_UPSTREAMS))
    wrong = errors.answer(question.asking(window, top=_ERRORS, new_since=None))
    begun = question.asking(_last_part(window, question)).logs().rows(_IN_FLIGHT)
    if told is None and wrong is None and not begun[0]["requests"]:
        return None
    since, until = window.texts
    not_closed = [
        {"upstream": row["key"], "breaker": row["breaker"]}
        for row in (told["rows"] if told else ())
        if row["breaker"] not in {None, "closed"}
    ]
    return {
        "from": since,
        "to": until or question.extent[1],
        "ended": ended,
        "stats": told,
        "errors": wrong,
        "not_closed": not_closed,
        "in_flight": begun[0]["requests"],
        "next": list(_next(told, wrong, not_closed, begun[0]["requests"], window)),
    }


def _window(question: Question, last: str) -> tuple[Window, str | None]:
    """Return the window that was asked for, or the last 15 minutes; and where the log ended, if not just now."""
    end = parsed(last) or question.now
    ended = last if question.now - end > _RECENT else None
    if question.window.since is not None:
        return question.window, ended
    until = question.window.until
    end = min(until or question.now, end) if ended else until or question.now
    return Window(end - _SPAN, until), ended


def _last_part(window: Window, question: Question) -> Window:
    """Return the end of a window, where requests began that can be in flight yet."""
    begin = (window.until or question.now) - _LONGEST_FLIGHT
    if window.until is None and question.extent and (end := parsed(question.extent[1])):
        begin = min(begin, end - _LONGEST_FLIGHT)
    return Window(max(begin, window.since) if window.since else begin, window.until)


def _next(
    told: Mapping[str, Any] | None,
    wrong: Mapping[str, Any] | None,
    not_closed: Sequence[Mapping[str, Any]],
    in_flight: int,
    window: Window,
) -> Iterator[dict[str, str]]:
    """Yield what to ask next, given what was found."""
    since = f"--since {_typed(window.since)}" if window.since else ""
    if wrong:
        sample = next((row["trace_id"] for row in wrong["errors"] if row["trace_id"]), None)
        if sample:
            yield {"command": f"trace {sample}", "because": "one of the failures, step by step"}
        yield {"command": f"errors {since}".strip(), "because": "all that goes wrong"}
    if told and (told["total"]["failed_share"] or 0) + (told["total"]["partial_share"] or 0) > _IN_TROUBLE:
        yield {"command": f"stats --by minute {since}".strip(), "because": "since when"}
        if window.since:
            yield {
                "command": f"compare --bad {_typed(window.since)}..{_typed(window.until) if window.until else ''}",
                "because": "what is different from before",
            }
    if not_closed:
        yield {"command": "breakers", "because": "what opened them, and when"}
    if in_flight:
        yield {"command": "inflight", "because": "which requests have not ended"}
    if told and not wrong:
        yield {"command": f"stats --by route {since}".strip(), "because": "nothing failed; how the routes are doing"}


def _typed(when: datetime) -> str:
    """Return a moment as it can be typed."""
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


def _show(answer: Any, _: Question, paint: Paint) -> Iterator[str]:
    begin, end = parsed(answer["from"]), parsed(answer["to"])
    if begin and end:
        yield f"{shown(begin)} .. {shown(end)}"
    if answer["ended"] and (ended := parsed(answer["ended"])):
        yield paint(BOLD, f"The log ends at {shown(ended)}; this is the time before that.")
    if answer["stats"]:
        yield stats.headline(answer["stats"]["total"], paint)
        yield f"{number(answer['in_flight'])} in flight"
        yield ""
        yield from stats.table_of(answer["stats"], paint)
    for row in answer["not_closed"]:
        yield paint(RED, f"The breaker of {safe(row['upstream'])} is {row['breaker'].replace('_', ' ')}.")
    if answer["errors"]:
        yield ""
        for row in answer["errors"]["errors"]:
            yield from errors.lines_of(row, paint)
    if answer["next"]:
        yield ""
        commands = [(f"  logs {step['command']}", step["because"]) for step in answer["next"]]
        yield from (paint(DIM, line) for line in columns(commands))


SUMMARY: Final = Verb(
    "summary",
    "The last 15 minutes on one page (also without a verb).",
    _arguments,
    answer,
    _show,
)
