"""`requests`: which there were, the latest first, and by what they can be divided."""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from inspection.durations import BUCKET, at
from inspection.fault import Unanswerable
from inspection.fields import CATALOGUE, literal, quoted
from inspection.question import Question, Verb
from inspection.showing.columns import columns
from inspection.showing.figures import milliseconds, number
from inspection.showing.lines import safe
from inspection.showing.paint import BOLD, DIM, GREEN, RED, YELLOW, Paint
from inspection.times import parsed, shown, stamp

OUTCOMES: Final = ("ok", "partial", "rejected", "failed", "disconnected")
_LIST: Final[Mapping[str, str]] = {
    "at": "timestamp",
    "method": "http.request.method",
    "path": "url.path",
    "route": "http.route",
    "status": "http.response.status_code",
    "outcome": "outcome",
    "error": "error.type",
    "duration_ms": "duration_ms",
    "calls": "calls",
    "attempts": "attempts",
    "calls_failed": "calls_failed",
    "page": "page",
    "request_id": "request_id",
    "trace_id": "trace_id",
    "span_id": "span_id",
    "instance": "service.instance.id",
}
_FACETS: Final = (
    "outcome",
    "http.response.status_code",
    "http.route",
    "error.type",
    "calls_failed",
    "page",
    "http.request.method",
    "service.instance.id",
)
_MOST_OWN: Final = 12
_MOST_VALUES: Final = 50
_LONGEST_VALUE: Final = 200
_MOST_LISTED: Final = 1000
_BARS: Final = 60
#: The seconds that are counted together where the window has no beginning or no end.
_FINEST: Final = 10
#: Beside the fields' names: all lines, by time and outcome, by duration.
_WHOLE, _BAR, _BUCKET = "", " bar", " bucket"
#: The year 2200: a later timestamp is none.
_LATEST: Final = 7_258_118_400
_OTHER: Final = "other"
_NONE: Final = "-"
#: Round lengths of a bar of the histogram, in seconds.
_LENGTHS: Final = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200),
    *(86_400 * days for days in (1, 2, 7, 14, 30, 90, 365)),
)
_COLOURS: Final = {"ok": GREEN, "partial": YELLOW, "rejected": YELLOW, "failed": RED, "disconnected": DIM}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="so many requests (default: 50)")
    parser.add_argument("--top", type=int, default=8, metavar="N", help="so many values of a field (default: 8)")
    parser.add_argument("--slowest", action="store_true", help="the slowest first")


def answer(question: Question) -> dict[str, Any] | None:
    """Return what was answered or given up in the window, None of nothing.

    `total`; `p50_ms`, `p95_ms`, `p99_ms`; `from` and `to`, the timestamps of the first and the last. `requests`, each
    with `at` (when it was finished), `method`, `path`, `route`, `status`, `outcome`, `error`, `duration_ms`, `calls`,
    `attempts`, `calls_failed` (as JSON), `page`, `request_id`, `trace_id`, `span_id` and `instance`. `facets`, each
    with its `field`, how many `distinct` values there are, and the most frequent as `values`: `value` (as a filter
    has it; None where the field is not there) and `count`. `histogram`: `seconds`, which a bar is long, and `bars`,
    in order and without gaps, each with `at`, `until` and a count by outcome. Raises Unanswerable for a limit that is
    none.
    """
    options = question.options
    if not (0 < options.limit <= _MOST_LISTED and 0 < options.top <= _MOST_VALUES):
        raise Unanswerable(f"--limit goes from 1 to {_MOST_LISTED}, and --top from 1 to {_MOST_VALUES}")
    own = [name for name in question.fields.types if name not in CATALOGUE][:_MOST_OWN]
    begin, end = _ends(question)
    seconds = _length(end - begin) if begin is not None and end is not None else _FINEST
    logs = question.logs()
    counted = defaultdict[str, list[dict[str, Any]]](list)
    for row in logs.rows(_counts([*_FACETS, *own], seconds, options.top)):
        counted[row["field"]].append(row)
    if not counted:
        return None
    (whole,) = counted[_WHOLE]
    return {
        "total": whole["lines"],
        "from": whole["first"],
        "to": whole["last"],
        **_percentiles(counted[_BUCKET]),
        "requests": logs.rows(_listed(options)),
        "facets": list(_facets(counted, own)),
        "histogram": _histogram(counted[_BAR], seconds, begin, end),
    }


def _counts(fields: Sequence[str], seconds: int, top: int) -> str:
    """Return the pass over the lines that counts the values of fields, and by time and duration, all at once."""
    names = ", ".join(map(literal, (*fields, _WHOLE, _BAR, _BUCKET)))
    values = ", ".join(f"CAST({quoted(field)} AS VARCHAR)" for field in fields)
    bar = (
        f"CASE WHEN finished BETWEEN 0 AND {_LATEST} "
        f"THEN CAST(floor(finished / {seconds}) AS BIGINT) || ' ' || coalesce(outcome, '') END"
    )
    bucket = f"CASE WHEN duration_ms IS NOT NULL THEN CAST({BUCKET} AS VARCHAR) END"
    return f"""
        WITH counted AS (
            SELECT field, value, count(*) AS lines, min(timestamp) AS "first", max(timestamp) AS "last",
                max(duration_ms) AS longest
            FROM (
                SELECT unnest([{names}]) AS field, unnest([{values}, NULL, {bar}, {bucket}]) AS value,
                    timestamp, duration_ms
                FROM (
                    SELECT *, epoch(try_cast(timestamp AS TIMESTAMP)) AS finished
                    FROM {{logs}} WHERE event = 'request.finished'
                )
            )
            WHERE value IS NULL OR length(value) <= {_LONGEST_VALUE} GROUP BY field, value
        )
        SELECT *, count(value) OVER (PARTITION BY field) AS "distinct" FROM counted
        QUALIFY field IN ({literal(_BAR)}, {literal(_BUCKET)})
            OR row_number() OVER (PARTITION BY field ORDER BY lines DESC, value) <= {top}
        ORDER BY lines DESC, value
    """


def _listed(options: argparse.Namespace) -> str:
    """Return the pass over the lines that finds those to be listed."""
    listed = ", ".join(f"{quoted(field)} AS {quoted(name)}" for name, field in _LIST.items())
    order = "duration_ms DESC NULLS LAST, timestamp DESC" if options.slowest else "timestamp DESC, seq DESC"
    return f"""
        SELECT {listed} FROM {{logs}} WHERE event = 'request.finished' ORDER BY {order} LIMIT {options.limit}
    """


def _percentiles(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    buckets = sorted((int(row["value"]), row["lines"]) for row in rows if row["value"] is not None)
    longest = max((row["longest"] for row in rows if row["value"] is not None), default=None)
    return {f"p{percent}_ms": at(_ranked(buckets, percent), longest) for percent in (50, 95, 99)}


def _ranked(buckets: Sequence[tuple[int, int]], percent: int) -> int | None:
    """Return the bucket below which, or in which, so many per cent of the durations are; None without any."""
    rank = math.ceil(sum(lines for _, lines in buckets) * percent / 100)
    for bucket, lines in buckets:
        rank -= lines
        if rank <= 0:
            return bucket
    return None


def _ends(question: Question) -> tuple[float | None, float | None]:
    """Return when the histogram begins and ends, in seconds since 1970; None is where the requests do."""
    since, until = question.window
    if since is None:
        return None, until.timestamp() if until else None
    return since.timestamp(), (until or question.now).timestamp()


def _facets(counted: Mapping[str, Sequence[Mapping[str, Any]]], own: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the fields that divide the requests; of a project's own, those with few values."""
    for field in (*_FACETS, *own):
        rows = counted.get(field, ())
        distinct = rows[0]["distinct"] if rows else 0
        if distinct and (field not in own or distinct <= _MOST_VALUES):
            values = [{"value": row["value"], "count": row["lines"]} for row in rows]
            yield {"field": field, "distinct": distinct, "values": values}


def _length(seconds: float, fine: int = 1) -> int:
    """Return how long a bar is where all of them take so many seconds: a round length that `fine` ones add up to."""
    least = math.ceil(seconds / _BARS / fine) * fine
    return next((length for length in _LENGTHS if length >= least and length % fine == 0), least)


def _histogram(rows: Sequence[Mapping[str, Any]], fine: int, begin: float | None, end: float | None) -> dict[str, Any]:
    """Put counts by bars of `fine` seconds together to bars of a round length, from the beginning to the end."""
    found = [(int(nth) * fine, outcome, row["lines"]) for row in rows for nth, _, outcome in [_parts(row)] if nth]
    if not found:
        return {"seconds": fine, "bars": []}
    first = min(when for when, _, _ in found) if begin is None else begin
    last = max(when for when, _, _ in found) + fine if end is None else end
    seconds = _length(last - first, fine)
    counts = defaultdict[int, Counter[str]](Counter)
    for when, outcome, lines in found:
        counts[when // seconds][outcome if outcome in OUTCOMES else _OTHER] += lines
    bars = []
    for nth in range(int(first // seconds), max(math.ceil(last / seconds), max(counts) + 1)):
        begins, ends = (stamp(datetime.fromtimestamp(bar * seconds, UTC)) for bar in (nth, nth + 1))
        bars.append({"at": begins, "until": ends, **{name: counts[nth][name] for name in (*OUTCOMES, _OTHER)}})
    return {"seconds": seconds, "bars": bars}


def _parts(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return a bar's number and outcome; no number where there is no time."""
    return (row["value"] or "").partition(" ")


def _show(answer: Any, _: Question, paint: Paint) -> Iterator[str]:
    """Yield the requests as a table, and what they can be divided by."""
    times = "  ".join(f"{name} {milliseconds(answer[f'{name}_ms'])}" for name in ("p50", "p95", "p99"))
    yield f"{paint(BOLD, number(answer['total']) + ' requests')}  {times} ms"
    yield ""
    head = ("finished", "method", "path", "status", "outcome", "ms", "tries", "request")
    lines = columns([head, *map(_row, answer["requests"])], {5, 6})
    yield paint(BOLD, next(lines))
    for request, line in zip(answer["requests"], lines, strict=True):
        yield paint(_COLOURS.get(request["outcome"], "0"), line) if request["outcome"] != "ok" else line
    yield ""
    for facet in answer["facets"]:
        values = "  ".join(
            f"{safe(_NONE if value['value'] is None else value['value'])} {paint(DIM, number(value['count']))}"
            for value in facet["values"]
        )
        yield f"{paint(BOLD, safe(facet['field']))}  {values}"


def _row(request: Mapping[str, Any]) -> tuple[str, ...]:
    when = parsed(request["at"] or "")
    return (
        shown(when)[:19] if when else _NONE,
        *(safe(_NONE if request[name] is None else request[name])[:60] for name in ("method", "path", "status")),
        safe(request["outcome"] or _NONE) + (f" {safe(request['error'])}" if request["error"] else ""),
        milliseconds(request["duration_ms"]),
        _NONE if request["attempts"] is None else str(request["attempts"]),
        safe(request["request_id"] or _NONE)[:32],
    )


REQUESTS: Final = Verb(
    "requests",
    "Which there were, the latest or the slowest first, and what they can be divided by.",
    _arguments,
    answer,
    _show,
)
