"""A page's answer as it comes: a frame per call, as JSON Lines or as server-sent events.

First `{"pending": [...]}`, then `{"call", "data"}` or `{"call", "error"}` for each public call in the order they end,
last `{"result", "complete", "errors"}` or `{"problem", "complete", "errors"}`. In between, after a silence, what is
still pending is said again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from gateway.answer import Failure, Problem
from gateway.fanout import FanOut
from gateway.fleets import borrowed_fleet
from gateway.negotiation import SSE_TYPE
from gateway.plan import Node
from gateway.problems import problem_of
from gateway.tasks import reap
from gateway.visit import Visit, visit_of
from upstreams.values import encode

if TYPE_CHECKING:
    from gateway.page import AggregateView

_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")


def stream(page: AggregateView, request: HttpRequest, inputs: Mapping[str, Any], media_type: str) -> HttpResponseBase:
    """Return the streaming response; its calls start when it is read, in the loop that reads it."""
    if media_type == SSE_TYPE and "HTTP_LAST_EVENT_ID" in request.META:
        return HttpResponse(status=204)  # a browser's reconnect: the answer has been given, and is not made again
    visit_of(request).streaming = True
    frames = _lines(page, request, inputs) if media_type != SSE_TYPE else _events(page, request, inputs)
    return StreamingHttpResponse(
        frames, content_type=media_type, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


async def _lines(page: AggregateView, request: HttpRequest, inputs: Mapping[str, Any]) -> AsyncIterator[bytes]:
    async for frame in _frames(page, request, inputs):
        yield _line(frame) + b"\n"


async def _events(page: AggregateView, request: HttpRequest, inputs: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """Write frames as server-sent events, numbered, each named for its first member."""
    number = 0
    async for frame in _frames(page, request, inputs):
        number += 1
        yield b"id: %d\nevent: %s\ndata: %s\n\n" % (number, next(iter(frame)).encode(), _line(frame))


def _line(frame: Mapping[str, Any]) -> bytes:
    """Encode a frame on one line; opaque JSON may hold line breaks, between its tokens only."""
    return encode(frame).translate(_ONE_LINE)


async def _frames(
    page: AggregateView, request: HttpRequest, inputs: Mapping[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    visit = visit_of(request)
    ended: asyncio.Queue[Node | None] = asyncio.Queue()
    status = 500
    async with borrowed_fleet(request) as fleet:
        fan_out = page.fan_out(fleet, visit, inputs, settled=ended.put_nowait)
        run = asyncio.create_task(page.outcome(visit, fan_out))
        run.add_done_callback(lambda _: ended.put_nowait(None))
        try:
            async for frame in _settled_frames(page, fan_out, ended):
                yield frame
            frame, status = _last_frame(request, visit, fan_out, run)
            yield frame
        except (asyncio.CancelledError, GeneratorExit):
            status = 0
            raise
        finally:
            await reap([run])
            _finish(visit, status)


async def _settled_frames(
    page: AggregateView, fan_out: FanOut, ended: asyncio.Queue[Node | None]
) -> AsyncIterator[dict[str, Any]]:
    """Yield a frame for each public call as it ends, until the run itself has ended."""
    pending = dict.fromkeys(fan_out.plan.public())
    yield {"pending": list(pending)}
    while True:
        try:
            async with asyncio.timeout(page.heartbeat):
                node = await ended.get()
        except TimeoutError:
            yield {"pending": list(pending)}
            continue
        if node is None:
            return
        if node.public:
            del pending[node.name]
            yield _call_frame(fan_out, node)


def _call_frame(fan_out: FanOut, node: Node) -> dict[str, Any]:
    frame: dict[str, Any] = {"call": node.name}
    failure: Failure | None = fan_out.failures.get(node.name)
    if failure is not None:
        frame["error"] = failure
    if failure is None or node.policy.has_fallback or node.join is not None:
        frame["data"] = fan_out.values[node.name]
    return frame


def _last_frame(
    request: HttpRequest, visit: Visit, fan_out: FanOut, run: asyncio.Task[Any]
) -> tuple[dict[str, Any], int]:
    """Return the frame that ends the stream, and the status the answer would have had."""
    try:
        return {"result": run.result().body, "complete": fan_out.complete, "errors": fan_out.errors()}, 200
    except Exception as error:  # noqa: BLE001 - as in the page's dispatch
        problem: Problem = problem_of(request, error)
    errors = problem.extensions.pop("errors", {})
    problem.extensions.pop("complete", None)
    document = msgspec.Raw(problem.document(visit.inbound.request_id))
    return {"problem": document, "complete": False, "errors": errors}, problem.status


def _finish(visit: Visit, status: int) -> None:
    if status:
        visit.finish(status, None)
    else:
        visit.abandon()
