"""Latency: percentiles over time, of all requests, of a route's, or of the attempts at an upstream."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

from django.http import HttpRequest, HttpResponse, JsonResponse

from gateway.console.entry import guarded
from gateway.console.questions import Found, since, window
from gateway.console.recent import recent
from gateway.console.rendering import rendered
from inspection.times import parsed

#: What latency can be divided by: the name in the query, and the field in the log.
_FIELDS: Final = {"route": "http.route", "upstream": "upstream"}
#: Windows in which time is divided into minutes; others may be days long.
_SHORT: Final = frozenset({"15m", "1h", "6h", "24h"})
_STEPS: Final = {"minute": 60, "hour": 3600}
_MOST_POINTS: Final = 1500
_MOST_ROWS: Final = 100
_FIGURES: Final = ("count", "failed_share", "p50_ms", "p95_ms", "p99_ms")


class _Subject(NamedTuple):
    """Whose latency: `kind` is `route`, `upstream`, or nothing for all requests."""

    kind: str = ""
    name: str = ""

    @property
    def options(self) -> list[str]:
        """What asks for its lines alone."""
        return [f"--filter={_FIELDS[self.kind]}={self.name}"] if self.kind else []


@guarded
async def latency(request: HttpRequest) -> HttpResponse:
    """Show the chart, the same as a table, and whose latency can be seen."""
    series, *divided = await asyncio.gather(
        _over_time(request),
        *(recent("stats", f"--by={field}", f"--top={_MOST_ROWS}", *window(request)) for field in _FIELDS.values()),
    )
    context = {
        "subject": _subject(request),
        "fault": next((found.fault for found in (series, *divided) if found.fault), ""),
        "unit": _unit(series),
        "total": series.answer["total"] if series.answer else None,
        "points": [row for row in reversed(_rows(series)) if row["count"]],
        "step": _step(request),
        "divided": [
            (kind, [row for row in _rows(found) if row["count"]]) for kind, found in zip(_FIELDS, divided, strict=True)
        ],
    }
    return rendered(request, "latency.html", context)


@guarded
async def points(request: HttpRequest) -> HttpResponse:
    """Return the chart's columns as JSON, a value a minute or hour, null where nothing was.

    `at` is seconds since 1970, `step` the seconds between two; the others are called as `stats` calls them. `fault`
    says why there is nothing.
    """
    found = await _over_time(request)
    rows = _rows(found)
    columns = {name: [row[name] for row in rows] for name in _FIGURES}
    at = [int(moment.timestamp()) if (moment := parsed(row["key"])) else None for row in rows]
    step = _STEPS[_step(request)]
    return JsonResponse({"fault": found.fault, "unit": _unit(found), "step": step, "at": at, **columns})


def _subject(request: HttpRequest) -> _Subject:
    given = ((kind, request.GET.get(kind, "")) for kind in _FIELDS)
    return next((_Subject(kind, name) for kind, name in given if name), _Subject())


def _step(request: HttpRequest) -> str:
    return "minute" if since(request) in _SHORT else "hour"


async def _over_time(request: HttpRequest) -> Found:
    options = [f"--by={_step(request)}", f"--top={_MOST_POINTS}", *window(request), *_subject(request).options]
    return await recent("stats", *options)


def _rows(found: Found) -> list[dict[str, Any]]:
    return found.answer["rows"] if found.answer else []


def _unit(found: Found) -> str:
    return str(found.answer["unit"]) if found.answer else "request"
