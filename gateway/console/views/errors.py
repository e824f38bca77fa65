"""Errors: each kind of failure once, with how often, since when, where, and a request to look at."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponse

from gateway.console.entry import guarded
from gateway.console.questions import asked, filters, window
from gateway.console.rendering import rendered

_MOST: Final = 200


@guarded
async def errors(request: HttpRequest) -> HttpResponse:
    """List them, the most frequent first: `?f=` are filters, `?new=` only those first seen since then."""
    conditions = filters(request)
    new = request.GET.get("new", "").strip()
    found = await asked(
        "errors",
        *window(request),
        *(f"--filter={condition}" for condition in conditions),
        *([f"--new-since={new}"] if new else []),
        f"--top={_MOST}",
    )
    rows = found.answer["errors"] if found.answer else []
    context = {
        "found": found.answer,
        "fault": found.fault,
        "filters": conditions,
        "new": new,
        "most": max((row["count"] for row in rows), default=0),
        "rows": rows,
    }
    return rendered(request, "errors.html", context)
