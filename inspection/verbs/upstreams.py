"""`upstreams`: each one's figures, how they came about from time to time, and at each of its hosts."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from inspection.question import Question, Verb
from inspection.showing.columns import columns
from inspection.showing.figures import milliseconds, number, share
from inspection.showing.lines import safe
from inspection.showing.paint import BOLD, Paint
from inspection.times import parsed, stamp
from inspection.verbs.stats import STATS

_BARS: Final = 48
#: Round lengths of a bar of the histogram, in seconds.
_LENGTHS: Final = (*(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200), 86_400)
_MOST: Final = 1000
_HOST: Final = ("count", "failed_share", "p50_ms", "p95_ms", "p99_ms")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(by="upstream", top=_MOST)


def answer(question: Question) -> dict[str, Any] | None:
    """Return what there is to tell of every upstream. None when nothing was logged.

    - `from`, `to`: the stretch of time that rates are of; `bar_s`: the length of a bar, in seconds
    - `rows`, the busiest first: what a row of `stats` has, and
      - `bars`: the attempts from time to time, each `at`, `count`, `failed`; only those with any
      - `hosts`: of an upstream with several, each `host`, `count`, `failed_share`, `p50_ms`, `p95_ms`, `p99_ms`

    Shares are 0 to 1; times are milliseconds, moments timestamps.
    """
    found = STATS.answer(question)
    if found is None:
        return None
    length = _length(found["from"], found["to"])
    bars, hosts = defaultdict[str, list[dict[str, Any]]](list), defaultdict[str, list[dict[str, Any]]](list)
    for part in question.logs().rows(_select(length)):
        if part["host"] is None:
            bars[part["upstream"]].append(_bar(part, length))
        else:
            hosts[part["upstream"]].append(_host(part))
    rows = [{**row, "bars": bars[row["key"]], "hosts": hosts[row["key"]]} for row in found["rows"]]
    return {"from": found["from"], "to": found["to"], "bar_s": length, "rows": rows}


def _length(begin: str, end: str) -> int:
    first, last = parsed(begin), parsed(end)
    seconds = (last - first).total_seconds() if first and last else 0.0
    return next((length for length in _LENGTHS if length * _BARS >= seconds), int(seconds / _BARS) + 1)


def _select(length: int) -> str:
    """Return the one pass over the attempts: a row for every bar, and one for every host."""
    return f"""
        WITH tries AS MATERIALIZED (
            SELECT upstream, "server.address" AS host, outcome = 'failed' AS failed, duration_ms,
                CAST(floor(epoch(try_cast(timestamp AS TIMESTAMP)) / {length}) AS BIGINT) AS bar
            FROM {{logs}} WHERE event = 'attempt.finished' AND upstream IS NOT NULL
        )
        SELECT upstream, bar, count(*) AS count, count(*) FILTER (failed) AS failed,
            NULL AS host, NULL AS p50_ms, NULL AS p95_ms, NULL AS p99_ms
        FROM tries WHERE bar IS NOT NULL GROUP BY upstream, bar
        UNION ALL BY NAME
        SELECT upstream, host, count(*) AS count, count(*) FILTER (failed) AS failed,
            approx_quantile(duration_ms, 0.5) AS p50_ms, approx_quantile(duration_ms, 0.95) AS p95_ms,
            approx_quantile(duration_ms, 0.99) AS p99_ms
        FROM tries WHERE host IS NOT NULL GROUP BY upstream, host
        ORDER BY upstream, bar, host
    """


def _bar(part: Mapping[str, Any], length: int) -> dict[str, Any]:
    at = datetime.fromtimestamp(part["bar"] * length, UTC)
    return {"at": stamp(at), "count": part["count"], "failed": part["failed"]}


def _host(part: Mapping[str, Any]) -> dict[str, Any]:
    found = {**part, "failed_share": round(part["failed"] / part["count"], 6)}
    return {"host": part["host"], **{name: found[name] for name in _HOST}}


def _show(found: Mapping[str, Any], _: Question, paint: Paint) -> Iterator[str]:
    """Yield the upstreams, their hosts below them."""
    head = ("upstream", "attempts", "failed", "p50", "p95", "p99 ms")
    lines = columns([head, *_rows(found)], range(1, len(head)))
    yield paint(BOLD, next(lines))
    yield from lines


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in found["rows"]:
        yield safe(row["key"]), number(row["attempts"]), *_figures(row)
        for host in row["hosts"]:
            yield f"  {safe(host['host'])}", number(host["count"]), *_figures(host)


def _figures(row: Mapping[str, Any]) -> Iterator[str]:
    yield share(row["failed_share"])
    yield from (milliseconds(row[name]) for name in ("p50_ms", "p95_ms", "p99_ms"))


UPSTREAMS: Final = Verb(
    "upstreams",
    "Every upstream: its figures, how they came about from time to time, and each host's.",
    _arguments,
    answer,
    _show,
)
