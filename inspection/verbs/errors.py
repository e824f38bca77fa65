"""`errors`: what goes wrong, each thing once: how often, since when, where, and a request to look at."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, Final

from inspection.fault import Unanswerable
from inspection.fields import literal
from inspection.question import Question, Verb
from inspection.showing.columns import clipped
from inspection.showing.figures import number
from inspection.showing.lines import safe
from inspection.showing.paint import BOLD, DIM, RED, Paint
from inspection.times import moment, parsed, shown, stamp

_LISTED_AT_MOST: Final = 8
_MESSAGE: Final = """coalesce("exception.message", CASE WHEN "exception.type" IS NULL THEN message END)"""
_LISTED: Final = {
    "calls": "call",
    "hosts": '"server.address"',
    "routes": '"http.route"',
    "instances": '"service.instance.id"',
}
#: What differs from one occurrence to the next, by what stands in its place: quoted parts, ids, numbers.
_VARYING: Final = (
    (r"'[^']*'|\"[^\"]*\"|`[^`]*`", "'...'"),
    (r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|\b[0-9a-fA-F]{16,}\b", "<id>"),
    (r"[0-9]+([.,:][0-9]+)*", "<n>"),
)
_COUNTS: Final = """
    (event = 'attempt.finished' AND outcome = 'failed')
    OR (event = 'call.finished' AND outcome = 'failed' AND attempts = 0)
    OR (event = 'request.finished' AND outcome = 'failed' AND coalesce(calls_failed, '[]') = '[]'
        AND "error.type" IS DISTINCT FROM 'proxy_internal_error')
    OR (event NOT IN ('attempt.finished', 'call.finished', 'request.finished')
        AND (level IN ('error', 'critical') OR "exception.type" IS NOT NULL))
"""
#: What of the log is steps that went well, as the gateway writes them: nearly all of it. Of these texts an underscore
#: is any character, and to compare a line's head takes a third of what seeking a text in all of it does.
_WELL: Final = [
    f'{{"timestamp":"{"_" * len("2026-01-31T12:00:00.000000Z")}","level":"info","event":"{event}",%'
    for event in ("attempt.finished", "call.finished", "request.started", "request.finished")
]
_PICKED: Final = " AND ".join(f"text NOT LIKE {literal(head)}" for head in _WELL)
#: How many failures a line tells of: one, but for that of the requests that were shed.
_MANY: Final = """CASE event WHEN 'requests.shed' THEN least(coalesce("count", 1), 1000000) ELSE 1 END"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--new-since", metavar="TIME", help="only those that were not there before: -1h, 14:05, ISO 8601"
    )
    parser.add_argument("--top", type=int, default=20, metavar="N", help="so many (default: 20)")


def answer(question: Question) -> dict[str, Any] | None:
    """Return what went wrong, grouped by whom, what, and the message without what varies. None without any.

    - `total`: how many failures there are in all; `left_out`: how many kinds there are beside those in `errors`
    - `errors`: the most frequent first. Each has `source` (the upstream, or the logger, or the event), `error` (an
      `error.type` with the status, or an exception's class), `message` (numbers, ids and quoted parts taken out; or
      null), `count`, `first` and `last` (timestamps), `request_id` and `trace_id` of the last that has them, and as
      lists, sorted, at most eight of each: `calls`, `hosts`, `routes`, `instances`

    One failure counts once, where it is nearest to its cause: each failed attempt; a failed call if it made no attempt
    (refused, out of time); a failed request if none of its calls failed; any other line of level error or critical, or
    with an exception, which is how a mistake in the gateway or in a page counts. A retry that fails is another failure,
    and so is each request that was shed.
    """
    if question.options.top < 1:
        raise Unanswerable("--top is a number of rows, 1 at least")
    found = question.logs().rows(_select(question), _PICKED)
    if not found:
        return None
    return {
        "total": found[0]["total"],
        "errors": [{name: value for name, value in row.items() if name not in {"total", "kinds"}} for row in found],
        "left_out": found[0]["kinds"] - len(found),
    }


def _select(question: Question) -> str:
    message = _MESSAGE
    for pattern, place in _VARYING:
        message = f"regexp_replace({message}, {literal(pattern)}, {literal(place)}, 'g')"
    lists = ", ".join(
        f"list_slice(list_sort(list(DISTINCT {field}) FILTER ({field} IS NOT NULL)), 1, {_LISTED_AT_MOST}) AS {name}"
        for name, field in _LISTED.items()
    )
    new = f"HAVING min(timestamp) >= '{_new_since(question)}'" if question.options.new_since else ""
    return f"""
        WITH failures AS (
            SELECT *, coalesce(upstream, logger, CASE WHEN event LIKE '%.finished' THEN call END, event) AS source,
                coalesce("exception.type", "error.type" || CASE "error.type"
                    WHEN 'http_response_status' THEN coalesce(' ' || "http.response.status_code", '') ELSE '' END, '-')
                AS error,
                nullif({message}, '') AS said, {_MANY} AS many
            FROM {{logs}} WHERE {_COUNTS}
        ), kinds AS (
            SELECT source, error, said AS message, CAST(sum(many) AS BIGINT) AS count,
                min(timestamp) AS "first", max(timestamp) AS "last",
                arg_max(request_id, timestamp) AS request_id, arg_max(trace_id, timestamp) AS trace_id, {lists}
            FROM failures GROUP BY source, error, said {new}
        )
        SELECT *, CAST(sum(count) OVER () AS BIGINT) AS total, count(*) OVER () AS kinds
        FROM kinds ORDER BY count DESC, "last" DESC, source, error, message LIMIT {question.options.top}
    """


def _new_since(question: Question) -> str:
    return stamp(moment(question.options.new_since, question.now))


def _show(answer: Any, _: Question, paint: Paint) -> Iterator[str]:
    for row in answer["errors"]:
        yield from lines_of(row, paint)
        yield ""
    kinds = len(answer["errors"]) + answer["left_out"]
    yield f"{number(answer['total'])} failure{'s' * (answer['total'] != 1)} of {kinds} kind{'s' * (kinds != 1)}" + (
        f", {number(answer['left_out'])} of them not shown (--top)" if answer["left_out"] else ""
    )


def lines_of(row: Mapping[str, Any], paint: Paint) -> Iterator[str]:
    """Yield the lines about one kind of failure."""
    yield f"{number(row['count']):>8}  {paint(BOLD, safe(row['source']))}  {paint(RED, safe(row['error']))}"
    if row["message"]:
        yield f"{'':10}{clipped(safe(row['message']), _WIDTH)}"
    yield f"{'':10}{_when(row)}"
    for name in ("calls", "hosts", "routes"):
        if row[name] and row[name] != [row["source"]]:
            yield f"{'':10}{clipped(f'{name}: ' + ', '.join(map(safe, row[name])), _WIDTH)}"
    if id_ := row["trace_id"] or row["request_id"]:
        yield f"{'':10}{paint(DIM, f'such as: trace {safe(id_)}')}"


_WIDTH: Final = 88


def _when(row: Mapping[str, Any]) -> str:
    first, last = parsed(row["first"]), parsed(row["last"])
    if not first or not last:
        return "at a time that its lines do not tell"
    return shown(first) if first == last else f"{shown(first)} .. {shown(last)}"


ERRORS: Final = Verb(
    "errors",
    "What goes wrong, each thing once: how often, since when, where, and a request to trace.",
    _arguments,
    answer,
    _show,
)
