"""Requests: which there were, over time, and what they can be divided by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from django.http import HttpRequest, HttpResponse

from gateway.console.entry import guarded
from gateway.console.questions import asked, filters, window
from gateway.console.rendering import rendered

_FEW, _MANY = 50, 500
_HEIGHT: Final = 60.0
#: From the bottom of a bar to its top.
_STACK: Final = ("ok", "other", "disconnected", "rejected", "partial", "failed")


class Part(NamedTuple):
    """A piece of a bar, in the drawing's units: how many requests ended so."""

    outcome: str
    y: float
    height: float
    requests: int


class Bar(NamedTuple):
    """One stretch of time in the histogram."""

    x: int
    begin: str
    end: str
    total: int
    parts: list[Part]


@guarded
async def requests(request: HttpRequest) -> HttpResponse:
    """List them: `?f=` are filters, `?order=slowest`, `?many=1` lists more."""
    conditions = filters(request)
    limit = _MANY if request.GET.get("many") else _FEW
    slowest = request.GET.get("order") == "slowest"
    found = await asked(
        "requests",
        *window(request),
        *(f"--filter={condition}" for condition in conditions),
        f"--limit={limit}",
        *(["--slowest"] if slowest else []),
    )
    bars = list(histogram(found.answer["histogram"]["bars"])) if found.answer else []
    listed = found.answer["requests"] if found.answer else []
    context = {
        "found": found.answer,
        "fault": found.fault,
        "filters": conditions,
        "slowest": slowest,
        "more": bool(found.answer) and found.answer["total"] > len(listed) and limit < _MANY,
        "longest": max((row["duration_ms"] or 0.0 for row in listed), default=0.0),
        "bars": bars,
        "last": bars[-1] if bars else None,
        "outcomes": [outcome for outcome in _STACK if any(bar[outcome] for bar in _counts(found.answer))],
        "highest": max((bar.total for bar in bars), default=0),
    }
    return rendered(request, "requests.html", context)


def histogram(bars: list[Mapping[str, Any]]) -> Iterator[Bar]:
    """Yield what is drawn for bars that `requests` gave: ten units wide each, the highest as high as the drawing."""
    highest = max((_total(bar) for bar in bars), default=0) or 1
    for nth, bar in enumerate(bars):
        parts, top = [], _HEIGHT
        for outcome in _STACK:
            if height := round(bar[outcome] / highest * _HEIGHT, 2):
                height = max(height, 1.0)
                top -= height
                parts.append(Part(outcome, round(top, 2), height, bar[outcome]))
        yield Bar(nth * 10, bar["at"], bar["until"], _total(bar), parts)


def _counts(answer: Any) -> list[Mapping[str, Any]]:
    return answer["histogram"]["bars"] if answer else []


def _total(bar: Mapping[str, Any]) -> int:
    return sum(bar[outcome] for outcome in _STACK)
