"""Live: the log as it is written, and the requests under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from gateway.conf import conf
from gateway.console.entry import guarded
from gateway.console.questions import filters
from gateway.console.recent import recent
from gateway.console.rendering import rendered
from gateway.console.tailing import LEVELS, MOST_TAILS, Wanted, Watch, wanted, watch
from inspection.fault import Unanswerable


@guarded
async def live(request: HttpRequest) -> HttpResponse:
    """Show the page, which asks for the lines by itself; `?part=inflight` only the requests under way."""
    found = await recent("inflight")
    context = {"inflight": found.answer, "unknown": found.fault}
    if request.GET.get("part") == "inflight":
        return rendered(request, "live_inflight.html", context)
    _, fault = await _wanted(request)
    context |= {
        "fault": fault,
        "written": filters(request),
        "level": request.GET.get("level", ""),
        "levels": LEVELS[1:],
    }
    return rendered(request, "live.html", context)


@guarded
async def tail(request: HttpRequest) -> HttpResponseBase:
    """Send the lines that are wanted as server-sent events, until the reader leaves or the worker ends.

    `latest` and `lines`: `rows`, the latest first, and `left_out`, how many more there were; `lost`: `count` lines were
    not sent, for they were not read fast enough.
    """
    which, fault = await _wanted(request)
    directory = conf().log_dir
    if which is None or directory is None:
        return HttpResponse(fault, status=400, content_type="text/plain; charset=utf-8")
    watching = watch(directory)
    if watching.full:
        why = f"{MOST_TAILS} others watch this worker's log already."
        return HttpResponse(why, status=503, headers={"Retry-After": "30"}, content_type="text/plain; charset=utf-8")
    headers = {"X-Accel-Buffering": "no"}
    return StreamingHttpResponse(_events(watching, which), content_type="text/event-stream", headers=headers)


async def _wanted(request: HttpRequest) -> tuple[Wanted | None, str]:
    """Return which lines a query asks for, or why there are none."""
    directory = conf().log_dir
    if directory is None:
        return None, "There are no log files: set LOG_DIR."
    try:
        return await asyncio.to_thread(wanted, directory, request.GET.get("level", ""), filters(request)), ""
    except Unanswerable as fault:
        return None, str(fault)


async def _events(watching: Watch, which: Wanted) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    with watching.tail(which) as tail:
        async for event in tail.events():
            yield event
