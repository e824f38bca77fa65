"""`compare`: what is different about a bad time: the host, upstream, route or version where the trouble gathers."""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from inspection.contrast import Side, Value, slowness, surely_shifted, trouble
from inspection.durations import DURATION
from inspection.fault import Unanswerable
from inspection.fields import CATALOGUE, literal, quoted
from inspection.files import sample
from inspection.question import Question, Verb
from inspection.showing.columns import clipped, table
from inspection.showing.figures import milliseconds, number, rate, share
from inspection.showing.lines import safe
from inspection.showing.paint import BOLD, RED, Paint
from inspection.times import Window, between, parsed

_REQUEST, _ATTEMPT, _START = 1, 2, 3
_UNITS: Final = {_REQUEST: "request", _ATTEMPT: "attempt"}
#: Where trouble can be; of two that tell the same, the one that stands first is told first.
_PLACES: Final = (
    "server.address", "upstream", "call", "service.version", "service.instance.id", "http.route", "page",
    "http.request.method", "conn",
)  # fmt: skip
#: How trouble shows.
_SYMPTOMS: Final = ("error.type", "http.response.status_code", "outcome", "kind", "calls_failed", "complete")
_EARLIER: Final = "started earlier"
#: What an attempt met is nearer to the cause than how its request ended.
_WEIGHTS: Final = {_REQUEST: 0.8, _ATTEMPT: 1.0}
_NEARLY_ALL: Final = 0.999
_PER_E: Final = 40
_LEAST_BASE: Final = timedelta(hours=1)
_FEW_VALUES: Final = 20
_LEAST_SCORE: Final = 0.05
_SHOWN: Final = 8
_VALUE_WIDTH: Final = 36


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bad", required=True, metavar="A..B", help="when it was bad: 14:05..14:12, or -10m..")
    parser.add_argument(
        "--base",
        metavar="C..D",
        help="when it was good (default: the hour before A; as long as A..B if that is longer)",
    )


def answer(question: Question) -> dict[str, Any] | None:
    """Return in what a bad time differs from another. None when nothing was asked of the gateway in the bad time.

    A line (of a finished request, or of an attempt) is in trouble when it failed, or, for a request, was partial, or
    took longer than 95 % of the same upstream's attempts, or the same route's requests, in the base.

    - `bad`, `base`: `from`, `to`, `requests`, `rate` (a second), `attempts`, `troubled_requests_share`,
      `troubled_attempts_share`, `p95_ms` (of requests)
    - `places`: values at which more is in trouble than in the base, the likeliest cause first: how much of the new
      trouble is there, and how much of what is there is in new trouble, both (`score`, 0 to 1, is their harmonic mean,
      of requests four fifths of it). A value that has about as much of it as all lines together is none
    - `slow`: the same for time: values at which lines take longer
    - `symptoms`: how it shows: errors, statuses, outcomes that are more, or less, of all than in the base; `score` is
      the difference of the shares, and what there is more of comes first
    - `shifts`: the same for other values: what is asked for rather than how it ends

    Each is a list of: `field`, `value`, `unit` (`request` or `attempt`: what is counted), `score`, `lift` (of the
    share; null for what the base has not), and for `bad` and `base` each `count`, `share` (of all lines of the unit),
    `troubled_share`, `mean_ms`, `p95_ms`. Shares are 0 to 1; a p95 is exact to 1.5 %. `service.version` is known of
    processes that started within the two windows.
    """
    bad, base = _windows(question)
    values, totals = _values(question, bad, base)
    if not any(total.bad.lines for total in totals.values()):
        return None
    found = [_row(value, totals[value.unit]) for value in values]
    places = [row for row in found if row["field"] not in _SYMPTOMS and not _is_everywhere(row)]
    return {
        "bad": _whole(bad, totals, "bad"),
        "base": _whole(base, totals, "base"),
        "places": _ranked(places, "score"),
        "slow": _ranked(places, "slow_score"),
        "symptoms": _shifted(row for row in found if row["field"] in _SYMPTOMS),
        "shifts": _shifted(places),
    }


def _windows(question: Question) -> tuple[Window, Window]:
    bad = between(question.options.bad, question.now)
    if question.options.base:
        base = between(question.options.base, question.now)
    elif bad.since and bad.until:
        base = Window(bad.since - max(_LEAST_BASE, bad.until - bad.since), bad.since)
    else:
        base = bad
    if bad.since and base.until and bad.until and base.since and base.since < bad.until and bad.since < base.until:
        raise Unanswerable("the base and the bad time overlap")
    return bad, _as_far_as(question, base)


def _as_far_as(question: Question, base: Window) -> Window:
    """Return the part of a window that the log reaches back to."""
    begin = parsed(question.extent[0]) if question.extent else None
    if begin and base.since and base.until and base.since < begin < base.until:
        return Window(begin, base.until)
    return base


def _values(question: Question, bad: Window, base: Window) -> tuple[list[Value], dict[int, Value]]:
    """Return every value in both windows, and of each unit what all its lines had."""
    ends = [end for window in (bad, base) for end in window if end]
    logs = question.logs(Window(min(ends), max(ends)))
    sides: dict[tuple[int, str, str], dict[bool, Side]] = defaultdict(dict)
    for row in logs.rows(_select(_fields(question), bad, base)):
        p95 = math.exp(row["p95"] / _PER_E) if row["p95"] is not None else None
        sides[row["step"], row["field"], row["value"]][row["bad"]] = Side(
            row["lines"], row["troubled"], row["time"] or 0.0, p95
        )
    none = Side(0, 0, 0.0, None)
    found = [Value(*key, of.get(True, none), of.get(False, none)) for key, of in sides.items()]
    totals = {unit: Value(unit, "", "", none, none) for unit in _UNITS}
    totals |= {value.unit: value for value in found if not value.field}
    return [value for value in found if value.field], totals


def _fields(question: Question) -> list[str]:
    """Return the fields whose values are compared: also a project's own that have few of them."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for line in sample(question.files):
        for name in line.keys() - CATALOGUE.keys():
            if name in question.fields.types and line.get("event") in {"request.finished", "attempt.finished"}:
                seen[name][str(line[name])] += 1
    own = [name for name, values in seen.items() if len(values) <= min(_FEW_VALUES, max(values.total() / 2, 3))]
    return [*_PLACES, *_SYMPTOMS, *sorted(own)]


def _select(fields: list[str], bad: Window, base: Window) -> str:
    """Return the one pass over the lines, which counts them by all that is compared, and what is made of the counts."""
    lines = [name for name in fields if name != "service.version"]
    cells = ", ".join(f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}" for name in lines)
    values = "\nUNION ALL ".join(
        f"SELECT step, bad, {literal(name)} AS field, {quoted(name)} AS value, bucket, lines, troubled, time "
        "FROM judged"
        for name in fields
    )
    return f"""
        WITH counted AS MATERIALIZED (
            SELECT CASE event WHEN 'request.finished' THEN {_REQUEST} WHEN 'attempt.finished' THEN {_ATTEMPT}
                    WHEN 'gateway.started' THEN {_START} END AS step,
                CASE WHEN {_in(bad)} THEN true WHEN {_in(base)} THEN false END AS bad,
                CAST(round(ln(greatest(0.001, {DURATION})) * {_PER_E}) AS SMALLINT) AS bucket,
                {cells}, CASE event WHEN 'gateway.started' THEN "service.version" END AS started,
                count(*) AS lines, sum({DURATION}) AS time
            FROM {{logs}} WHERE step IS NOT NULL AND (bad IS NOT NULL OR step = {_START}) GROUP BY ALL
        ), versions AS (
            SELECT "service.instance.id" AS process, max(started) AS version FROM counted WHERE step = {_START}
            GROUP BY process
        ), before AS (
            SELECT step, upstream, CASE step WHEN {_REQUEST} THEN "http.route" END AS route, bucket,
                sum(lines) AS lines
            FROM counted WHERE NOT bad AND bucket IS NOT NULL GROUP BY ALL
        ), ranked AS (
            SELECT *, sum(lines) OVER (PARTITION BY step, upstream, route ORDER BY bucket) AS upto,
                sum(lines) OVER (PARTITION BY step, upstream, route) AS timed
            FROM before
        ), usual AS (
            SELECT step, upstream, route, min(bucket) AS longest
            FROM ranked WHERE upto >= 0.95 * timed GROUP BY step, upstream, route
        ), judged AS MATERIALIZED (
            SELECT counted.*, CASE WHEN version IS NULL AND (SELECT count(*) FROM versions) > 0 THEN {literal(_EARLIER)}
                    ELSE version END AS "service.version",
                CASE WHEN counted.outcome = 'failed' OR (counted.outcome = 'partial' AND counted.step = {_REQUEST})
                    OR counted.bucket > longest THEN lines ELSE 0 END AS troubled
            FROM counted
            LEFT JOIN usual ON usual.step = counted.step AND usual.upstream IS NOT DISTINCT FROM counted.upstream
                AND usual.route IS NOT DISTINCT FROM CASE counted.step WHEN {_REQUEST} THEN counted."http.route" END
            LEFT JOIN versions ON process = counted."service.instance.id"
            WHERE counted.step <> {_START} AND bad IS NOT NULL
        ), divided AS (
            SELECT step, bad, '' AS field, '' AS value, bucket, lines, troubled, time FROM judged
            UNION ALL {values}
        ), buckets AS (
            SELECT step, bad, field, value, bucket, sum(lines) AS lines, sum(troubled) AS troubled, sum(time) AS time
            FROM divided WHERE value IS NOT NULL GROUP BY ALL
        ), cumulated AS (
            SELECT *, sum(lines) OVER (PARTITION BY step, bad, field, value ORDER BY bucket) AS upto,
                sum(lines) FILTER (bucket IS NOT NULL) OVER (PARTITION BY step, bad, field, value) AS timed
            FROM buckets
        )
        SELECT step, bad, field, value, CAST(sum(lines) AS BIGINT) AS lines, CAST(sum(troubled) AS BIGINT) AS troubled,
            sum(time) AS time, min(bucket) FILTER (upto >= 0.95 * timed) AS p95
        FROM cumulated GROUP BY step, bad, field, value
    """


def _in(window: Window) -> str:
    since, until = window.texts
    return f"timestamp >= {literal(since or '')} AND timestamp < {literal(until or '9')}"


def _row(value: Value, total: Value) -> dict[str, Any]:
    """Return what is told of a value, with scores that are 0 where chance could have made the difference."""
    bad, base = (_side(of, whole) for of, whole in ((value.bad, total.bad), (value.base, total.base)))
    return {
        "field": value.field,
        "value": value.value,
        "unit": _UNITS[value.unit],
        "score": round(_WEIGHTS[value.unit] * trouble(value, total), 4),
        "slow_score": round(_WEIGHTS[value.unit] * slowness(value, total), 4),
        "lift": round(bad["share"] / base["share"], 3) if base["share"] else None,
        "sure": surely_shifted(value, total),
        "bad": bad,
        "base": base,
    }


def _is_everywhere(row: Mapping[str, Any]) -> bool:
    """Tell whether all lines had the value, before and now: that tells nothing."""
    return bool(min(row["bad"]["share"], row["base"]["share"]) >= _NEARLY_ALL)


def _side(side: Side, whole: Side) -> dict[str, Any]:
    return {
        "count": side.lines,
        "share": round(side.lines / whole.lines, 6) if whole.lines else 0.0,
        "troubled_share": round(side.troubled_share, 6) if side.lines else None,
        "mean_ms": round(side.mean, 3) if side.lines else None,
        "p95_ms": round(side.p95, 3) if side.p95 is not None else None,
    }


def _ranked(rows: Iterable[Mapping[str, Any]], by: str) -> list[dict[str, Any]]:
    """Return the rows with a score, the best first; of one value's two, as attempts and as requests, the better."""
    order = {name: place for place, name in enumerate(_PLACES)}
    found = sorted(
        (row for row in rows if row[by] > _LEAST_SCORE),
        key=lambda row: (-round(row[by], 2), order.get(row["field"], len(order)), row["unit"], row["value"]),
    )
    best = {(row["field"], row["value"]): row for row in reversed(found)}
    return [_told(row, row[by]) for row in found if best[row["field"], row["value"]] is row]


def _shifted(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows whose share of all is surely another: first what there is more of, the most first."""
    found = sorted((row for row in rows if row["sure"]), key=lambda row: (-_shift(row), row["field"], row["value"]))
    return [_told(row, round(_shift(row), 4)) for row in found]


def _shift(row: Mapping[str, Any]) -> float:
    return float(row["bad"]["share"] - row["base"]["share"])


def _told(row: Mapping[str, Any], score: float) -> dict[str, Any]:
    return {**{name: row[name] for name in ("field", "value", "unit", "lift", "bad", "base")}, "score": score}


def _whole(window: Window, totals: Mapping[int, Value], side: str) -> dict[str, Any]:
    requests, attempts = (getattr(totals[unit], side) for unit in (_REQUEST, _ATTEMPT))
    since, until = window.texts
    seconds = (window.until - window.since).total_seconds() if window.until and window.since else 1.0
    return {
        "from": since,
        "to": until,
        "requests": requests.lines,
        "rate": round(requests.lines / max(seconds, 1.0), 3),
        "attempts": attempts.lines,
        "troubled_requests_share": round(requests.troubled_share, 6),
        "troubled_attempts_share": round(attempts.troubled_share, 6),
        "p95_ms": round(requests.p95, 3) if requests.p95 is not None else None,
    }


def _show(answer: Any, question: Question, paint: Paint) -> Iterator[str]:
    bad, base = _windows(question)
    for name, window in (("bad", bad), ("base", base)):
        of = answer[name]
        yield (
            f"{paint(BOLD, f'{name:4}')}  {window}  {number(of['requests'])} requests  {rate(of['rate'])}/s  "
            f"{share(of['troubled_requests_share'])} in trouble  p95 {milliseconds(of['p95_ms'])} ms"
        )
    if not answer["base"]["requests"] + answer["base"]["attempts"]:
        yield "The log has nothing of the base to compare with; give another with --base."
    parts = {
        "Where the trouble is, the likeliest cause first": answer["places"],
        "Where it is slower": answer["slow"],
        "How it shows": answer["symptoms"],
        "What was asked for more, or less": answer["shifts"],
    }
    bad_share, base_share = (answer[side]["troubled_requests_share"] for side in ("bad", "base"))
    if not answer["places"] and bad_share > 2 * base_share:
        yield "The trouble is everywhere alike: no value has much more of it than the others."
    elif not any(parts.values()):
        yield "No value differs more than chance would make it."
    for title, rows in parts.items():
        if rows:
            yield from ("", f"{title}:")
            yield from _table(rows[:_SHOWN], paint)


def _table(rows: list[Mapping[str, Any]], paint: Paint) -> Iterator[str]:
    head = ("what", "of all", "before", "in trouble", "before", "p95 ms", "before", "lines")
    cells = [
        (
            clipped(f"{safe(row['field'])} = {safe(row['value'])}", _VALUE_WIDTH),
            share(row["bad"]["share"]),
            share(row["base"]["share"]),
            share(row["bad"]["troubled_share"]),
            share(row["base"]["troubled_share"]),
            milliseconds(row["bad"]["p95_ms"]),
            milliseconds(row["base"]["p95_ms"]),
            f"{number(row['bad']['count'])} {row['unit']}s",
        )
        for row in rows
    ]
    first, *lines = table(head, cells, {"what"})
    yield paint(BOLD, first)
    yield paint(RED, lines[0])
    yield from lines[1:]


COMPARE: Final = Verb(
    "compare",
    "What is different about a bad time: the host, upstream, route or version where the trouble gathers.",
    _arguments,
    answer,
    _show,
)
