"""`stats`: how the upstreams are doing, or the requests divided by any field there is."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec

from inspection.durations import BUCKET, DURATION, at
from inspection.fault import Unanswerable
from inspection.fields import quoted
from inspection.question import Question, Verb
from inspection.showing.columns import clipped, table
from inspection.showing.figures import milliseconds, number, rate, share
from inspection.showing.lines import safe
from inspection.showing.paint import BOLD, RED, YELLOW, Paint
from inspection.times import parsed, shown, stamp


class _Span(NamedTuple):
    """A stretch of time that requests can be divided by: as much of the timestamp, what makes it whole, its length."""

    digits: int
    rest: str
    length: timedelta


_TIMES: Final = {
    "second": _Span(19, "Z", timedelta(seconds=1)),
    "minute": _Span(16, ":00Z", timedelta(minutes=1)),
    "hour": _Span(13, ":00:00Z", timedelta(hours=1)),
}
_EVENTS: Final = (
    "('attempt.finished', 'call.finished', 'request.finished', 'requests.shed', 'flight.joined', 'host.ejected', "
    "'breaker.changed')"
)
#: What a line counts as, in SQL: tens are the event, ones how it went. One number, so that counting is cheap.
_STEP: Final = """CASE event
    WHEN 'attempt.finished' THEN CASE kind WHEN 'retry' THEN 22 WHEN 'hedge' THEN 24 ELSE 20 END
        + CASE outcome WHEN 'failed' THEN 1 ELSE 0 END
    WHEN 'call.finished' THEN CASE WHEN attempts = 0 AND "error.type" = 'destination_unavailable' THEN 31 ELSE 30 END
    WHEN 'request.finished' THEN CASE outcome
        WHEN 'failed' THEN 11 WHEN 'partial' THEN 12 WHEN 'rejected' THEN 13 WHEN 'disconnected' THEN 14 ELSE 10 END
    WHEN 'flight.joined' THEN 40 WHEN 'host.ejected' THEN 50 WHEN 'breaker.changed' THEN 60
    WHEN 'requests.shed' THEN 70 END"""
#: A breaker's change as JSON, in SQL: to group by it costs less than a list of which nearly every line has nothing.
_CHANGE: Final = """CASE event WHEN 'breaker.changed'
    THEN CAST(to_json({'at': timestamp, 'process': "service.instance.id", 'to': "to", 'reason': reason}) AS VARCHAR)
    END"""
#: For how many more than one a line stands, in SQL: only of those that were shed one tells of many.
_MORE: Final = """CASE WHEN event = 'requests.shed' AND moment IS NOT NULL THEN least("count", 1000000) - 1 END"""
_COUNTED: Final[Mapping[str, str]] = {
    "requests": "step // 10 = 1",
    "requests_failed": "step = 11",
    "requests_partial": "step = 12",
    "requests_rejected": "step = 13",
    "requests_disconnected": "step = 14",
    "requests_shed": "step = 70",
    "attempts": "step // 10 = 2",
    "attempts_failed": "step IN (21, 23, 25)",
    "retries": "step IN (22, 23)",
    "hedges": "step IN (24, 25)",
    "calls": "step // 10 = 3",
    "refused": "step = 31",
    "joined": "step = 40",
    "ejections": "step = 50",
}
_TIMED: Final = {"request": 1, "attempt": 2}
_MOMENT: Final = "try_cast(timestamp AS TIMESTAMP)"
_FORM: Final = "'%Y-%m-%dT%H:%M:%S.%fZ'"
_PERCENTS: Final = (50, 95, 99)
_TIMES_OF_NONE: Final = [f"{unit}_{name}" for unit in _TIMED for name in ("longest", *(f"p{p}" for p in _PERCENTS))]
_GRAVITY: Final = ("open (forced)", "open", "half_open", "closed (forced)", "closed")
_BAD_SHARE: Final = 0.05
_KEY_WIDTH: Final = 34


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by",
        default="upstream",
        metavar="FIELD",
        help="upstream (the default), route, host, instance, second, minute, hour, or any field",
    )
    parser.add_argument("--top", type=int, default=30, metavar="N", help="so many rows (default: 30)")
    parser.add_argument("--watch", action="store_true", help="on a terminal: again every two seconds")


def answer(question: Question) -> dict[str, Any] | None:
    """Return how requests, or attempts, went: as a whole and divided by a field. None without any.

    - `by`: the field, or second, minute, hour; `unit`: `request` or `attempt`, what a row counts and times
    - `from`, `to`: the stretch of time that rates are of
    - `total`: of all, whatever the division: as a row, without `key`, and with a `unit` of its own: `request` where
      there are any
    - `rows`: by time in its order, without gaps, `key` being the beginning; else the most frequent first. Each has
      `key`, `count`, `rate` (a second), `failed_share`, `p50_ms`, `p95_ms`, `p99_ms`, `max_ms`, `calls`, `attempts`,
      `attempts_per_call`, `retries`, `hedges`, `ejections`, `coalesced_share` and `refused_share` (of the calls: those
      that waited for an identical one, those that the breaker refused), and `breaker` (the gravest state it is in, of
      all processes); those of requests also `partial_share`, `rejected_share`, `disconnected_share`, and
      `shed`: how many others were refused because the worker could not begin them in time
    - `left_out`: how many rows there are beside them

    Shares are 0 to 1; times are milliseconds; what does not apply is null. Raises Unanswerable for no such field.
    """
    options = question.options
    if options.top < 1:
        raise Unanswerable("--top is a number of rows, 1 at least")
    by = options.by if options.by in _TIMES else question.fields.named(options.by)
    found = question.logs().rows(_select(by, options.top))
    total = next((row for row in found if row["whole"]), None)
    if total is None:
        return None
    groups = [row for row in found if not row["whole"]]
    unit = "attempt" if groups and not any(row["requests"] for row in groups) else "request"
    whole = "request" if total["requests"] else "attempt"
    begin, end = question.stretch(total["first"], total["last"])
    seconds = _TIMES[by].length.total_seconds() if by in _TIMES else _between(begin, end)
    rows: list[Mapping[str, Any]] = [{"key": row["key"], **_figures(row, unit, seconds)} for row in groups]
    left_out = groups[0]["groups"] - len(groups) if groups else 0
    if by in _TIMES and groups:
        rows, left_out = _without_gaps(rows, groups[0]["earliest"], _TIMES[by], unit, options.top)
    return {
        "by": by,
        "unit": unit,
        "from": begin,
        "to": end,
        "total": {"unit": whole, **_figures(total, whole, _between(begin, end))},
        "rows": rows,
        "left_out": left_out,
    }


def _select(by: str, top: int) -> str:
    """Return the one pass over the lines, and what is made of its counts: a row for each value, and one for all."""
    span = _TIMES.get(by)
    key = f"substr(timestamp, 1, {span.digits}) || '{span.rest}'" if span else f"CAST({quoted(by)} AS VARCHAR)"
    counted = ", ".join(
        f"CAST(coalesce(sum(lines) FILTER ({steps}), 0) AS BIGINT) AS {name}" for name, steps in _COUNTED.items()
    )
    timed = ", ".join(
        f"max(longest) FILTER (step // 10 = {tens}) AS {unit}_longest, "
        + ", ".join(
            f"min(bucket) FILTER (step // 10 = {tens} AND upto * 100 >= timed * {percent}) AS {unit}_p{percent}"
            for percent in _PERCENTS
        )
        for unit, tens in _TIMED.items()
    )
    rank = "key" if span else "CASE WHEN max(requests) OVER (PARTITION BY whole) > 0 THEN requests ELSE attempts END"
    return f"""
        WITH counted AS (
            SELECT {key} AS key, CAST({_STEP} AS TINYINT) AS step, {BUCKET} AS bucket, {_CHANGE} AS change,
                count(moment) + coalesce(sum({_MORE}), 0) AS lines,
                max(CASE WHEN moment IS NOT NULL THEN {DURATION} END) AS longest,
                min(moment) AS "first", max(moment) AS "last"
            FROM (SELECT *, {_MOMENT} AS moment FROM {{logs}} WHERE event IN {_EVENTS})
            GROUP BY ALL HAVING lines > 0
        ), divided AS (
            SELECT grouping(key) = 1 AS whole, key, step, bucket, sum(lines) AS lines, max(longest) AS longest,
                min("first") AS "first", max("last") AS "last", list(change) FILTER (change IS NOT NULL) AS breaker
            FROM counted GROUP BY GROUPING SETS ((key, step, bucket), (step, bucket))
        ), ranked AS (
            SELECT *, sum(lines) OVER (PARTITION BY whole, key, step // 10 ORDER BY bucket) AS upto,
                sum(lines) FILTER (bucket IS NOT NULL) OVER (PARTITION BY whole, key, step // 10) AS timed
            FROM divided WHERE whole OR key IS NOT NULL
        ), figures AS (
            SELECT whole, key, strftime(min("first"), {_FORM}) AS "first", strftime(max("last"), {_FORM}) AS "last",
                {counted}, {timed}, flatten(list(breaker) FILTER (breaker IS NOT NULL)) AS breaker
            FROM ranked GROUP BY whole, key
        ), sorted AS (
            SELECT *, count(*) OVER (PARTITION BY whole) AS groups, min(key) OVER (PARTITION BY whole) AS earliest,
                {rank} AS rank FROM figures
        )
        SELECT * FROM sorted QUALIFY row_number() OVER (PARTITION BY whole ORDER BY rank DESC, key) <= {top}
        ORDER BY {"key" if span else "rank DESC, key"}
    """


def _figures(row: Mapping[str, Any], unit: str, seconds: float) -> dict[str, Any]:
    count, calls = row[f"{unit}s"], row["calls"]
    found: dict[str, Any] = {
        "count": count,
        "rate": round(count / seconds, 3),
        "failed_share": _share(row[f"{unit}s_failed"], count),
        **{f"p{percent}_ms": at(row[f"{unit}_p{percent}"], row[f"{unit}_longest"]) for percent in _PERCENTS},
        "max_ms": row[f"{unit}_longest"],
        "calls": calls,
        "attempts": row["attempts"],
        "attempts_per_call": round(row["attempts"] / calls, 3) if calls else None,
        "retries": row["retries"],
        "hedges": row["hedges"],
        "ejections": row["ejections"],
        "coalesced_share": _share(row["joined"], calls),
        "refused_share": _share(row["refused"], calls),
        "breaker": breaker_state(row["breaker"] or ()),
    }
    if unit == "request":
        others = ("partial", "rejected", "disconnected")
        found |= {f"{name}_share": _share(row[f"requests_{name}"], count) for name in others}
        found["shed"] = row["requests_shed"]
    return found


def _without_gaps(
    rows: Iterable[Mapping[str, Any]], earliest: str, span: _Span, unit: str, top: int
) -> tuple[list[Mapping[str, Any]], int]:
    """Return the last rows of stretches of time, with empty ones for those in which nothing was logged.

    And how many there are before them, since the earliest of all.
    """
    found = {begin: row for row in rows if (begin := parsed(row["key"]))}
    nothing = _figures(dict.fromkeys(_COUNTED, 0) | {"breaker": None} | dict.fromkeys(_TIMES_OF_NONE), unit, 1.0)
    first, last = parsed(earliest) or min(found), max(found)
    count = int((last - first) / span.length) + 1
    begins = [last - span.length * back for back in reversed(range(min(count, top)))]
    told = [found.get(begin) or {"key": stamp(begin)[: span.digits] + span.rest, **nothing} for begin in begins]
    return told, count - len(told)


def breaker_state(written: Iterable[str]) -> str | None:
    """Return the gravest of what a breaker is in each process, by the latest of its changes; None without any."""
    changes = sorted(map(msgspec.json.decode, written), key=itemgetter("at"))
    latest = {change["process"]: state_of(change) for change in changes}
    return min(latest.values(), key=gravity, default=None)


def state_of(change: Mapping[str, Any]) -> str:
    """Return what a breaker is after a change, and whether it is held there by hand."""
    return f"{change['to']}{' (forced)' * str(change['reason']).startswith('forced')}"


def gravity(state: str) -> int:
    """Return a number that is the lower the graver a breaker's state is."""
    return _GRAVITY.index(state) if state in _GRAVITY else len(_GRAVITY)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _between(begin: str, end: str) -> float:
    """Return the seconds between two timestamps, one at least."""
    since, until = parsed(begin), parsed(end)
    return max((until - since).total_seconds(), 1.0) if since and until else 1.0


def _show(answer: Any, _: Question, paint: Paint) -> Iterator[str]:
    yield stretch(answer)
    yield headline(answer["total"], paint)
    yield ""
    yield from table_of(answer, paint)
    if answer["left_out"]:
        yield f"... and {number(answer['left_out'])} more (--top)"


def stretch(answer: Mapping[str, Any]) -> str:
    """Say of which time an answer is."""
    begin, end = parsed(answer["from"]), parsed(answer["to"])
    return f"{shown(begin)} .. {shown(end)}" if begin and end else "at a time that its lines do not tell"


def headline(total: Mapping[str, Any], paint: Paint) -> str:
    """Say in one line how it all went."""
    parts = [
        paint(BOLD, f"{number(total['count'])} {total['unit']}{'s' * (total['count'] != 1)}"),
        f"{rate(total['rate'])}/s",
        _alarming(f"{share(total['failed_share'])} failed", total["failed_share"], paint),
    ]
    if total["unit"] == "request":
        parts += [f"{share(total['partial_share'])} partial", f"{share(total['disconnected_share'])} left early"]
        parts += [_alarming(f"{number(total['shed'])} shed", 1.0, paint)] if total["shed"] else []
    parts += [f"p{percent} {milliseconds(total[f'p{percent}_ms'])}" for percent in _PERCENTS]
    return "  ".join(parts) + " ms"


def table_of(answer: Mapping[str, Any], paint: Paint) -> Iterator[str]:
    """Yield the table of an answer's rows, a head first."""
    cells = [dict(_cells(row, answer)) for row in answer["rows"]]
    if not cells:
        return
    head, *lines = table(list(cells[0]), [list(row.values()) for row in cells], {answer["by"], "breaker"})
    yield paint(BOLD, head)
    for row, line in zip(answer["rows"], lines, strict=True):
        open_ = str(row["breaker"] or "").startswith("open")
        yield _alarming(line, 1.0 if open_ else row["failed_share"], paint)


def _cells(row: Mapping[str, Any], answer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is told of a row, by the column's name."""
    yield answer["by"], _key(row["key"], answer["by"])
    yield f"{answer['unit']}s", number(row["count"])
    yield "/s", rate(row["rate"])
    yield "failed", share(row["failed_share"])
    if answer["unit"] == "request":
        yield "partial", share(row["partial_share"])
        yield "shed", number(row["shed"]) if row["shed"] else "-"
    yield from ((name, milliseconds(row[f"{name}_ms"])) for name in ("p50", "p95", "p99"))
    yield "max ms", milliseconds(row["max_ms"])
    yield "tries", f"{row['attempts_per_call']:.2f}" if row["attempts_per_call"] is not None else "-"
    yield "shared", _if_any(row["coalesced_share"])
    yield "refused", _if_any(row["refused_share"])
    yield "ejected", number(row["ejections"]) if row["ejections"] else "-"
    yield "breaker", safe(row["breaker"] or "-")


def _key(key: str, by: str) -> str:
    """Return what a row is of: a time as this machine's clock shows it."""
    begin = parsed(key) if by in _TIMES else None
    return begin.astimezone().strftime("%m-%d %H:%M:%S") if begin else clipped(safe(key), _KEY_WIDTH)


def _if_any(part: float | None) -> str:
    return share(part) if part else "-"


def _alarming(text: str, bad: float | None, paint: Paint) -> str:
    """Paint what is bad, and what is not good."""
    if not bad or bad < _BAD_SHARE / 5:
        return text
    return paint(RED if bad >= _BAD_SHARE else YELLOW, text)


STATS: Final = Verb(
    "stats",
    "Rates, failures, percentiles and attempts: of every upstream, or by any field.",
    _arguments,
    answer,
    _show,
)
