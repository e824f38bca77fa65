"""A page's answer as it comes: a frame per call, as JSON Lines or as server-sent events.

First `{"pending": [...]}`, then `{"call", "data"}` or `{"call", "error"}` for each public call in the order they end,
last `{"result", "complete", "errors"}` or `{"problem", "complete", "errors"}`. In between, after a silence, what is
still pending is said again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final, Protocol

from asgiref.sync import async_to_sync
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from gateway.answering.answer import Answer, Failure, shown
from gateway.answering.negotiation import SSE_TYPE
from gateway.answering.problems import problem_of
from gateway.declaring.plan import Node
from gateway.running.fanout import FanOut
from gateway.running.tasks import reap
from gateway.serving.fleets import borrowed_fleet
from gateway.serving.visit import Visit, visit_of
from upstreams import Sender
from upstreams.values import encode

_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")
Frame = Mapping[str, Any]


class Streamed(Protocol):
    """What a stream needs of a page: its calls, what they come to, and its longest silence in seconds."""

    heartbeat: ClassVar[float]

    def fan_out(
        self, fleet: Sender, visit: Visit, inputs: Mapping[str, Any], settled: Callable[[Node], None] | None = None
    ) -> FanOut:
        """Return the page's calls, ready to run; `settled` is told of each as it ends."""

    async def outcome(self, visit: Visit, fan_out: FanOut) -> Answer[Any]:
        """Run the calls and merge their values. Raises Problem where the page has no answer."""


def stream(page: Streamed, request: HttpRequest, inputs: Mapping[str, Any], media_type: str) -> HttpResponseBase:
    """Return the streaming response; its calls start when it is read, in the loop that reads it."""
    if media_type == SSE_TYPE and "HTTP_LAST_EVENT_ID" in request.META:
        return HttpResponse(status=204)  # a browser's reconnect: the answer has been given, and is not made again
    if request.method == "HEAD":
        return _Stream(_given(()), media_type)  # what GET's headers are is known without a call
    visit_of(request).streaming = True
    return _Stream(_Frames(page, request, inputs, _event if media_type == SSE_TYPE else _line), media_type)


class _Stream(StreamingHttpResponse):
    """A response whose reader closes what it reads; a server that is not async gets it as one list."""

    def __init__(self, content: AsyncIterator[bytes] | _Frames, media_type: str) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, content_type=media_type, headers=headers)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the generator itself: closed early, it ends its calls there and then."""
        if not self.is_async:  # Django's async test client has emptied it
            return super().__aiter__()
        iterator: AsyncIterator[bytes] = self._iterator  # type: ignore[attr-defined] # Django's own
        return iterator

    def __iter__(self) -> Iterator[bytes]:
        """Read the whole stream in an event loop of its own; a test client may have emptied it before."""
        return iter(async_to_sync(_read)(aiter(self))) if self.is_async else super().__iter__()


class _Frames:
    """The frames of one answer, encoded by `write(number, frame)`. Live: to read them is to run the page, once."""

    def __init__(
        self,
        page: Streamed,
        request: HttpRequest,
        inputs: Mapping[str, Any],
        write: Callable[[int, Frame], bytes],
    ) -> None:
        self._page = page
        self._request = request
        self._inputs = inputs
        self._write = write
        self._visit = visit_of(request)
        self._begun = False
        self._written = 0
        self._status = 200

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """Yield frames to the last, or until the reader leaves; then log the wide line."""
        self._begun = True
        size = 0
        try:
            async with aclosing(self._frames()) as frames:
                async for frame in frames:
                    size += len(frame)
                    yield frame
        except (asyncio.CancelledError, GeneratorExit):
            self._visit.abandon(size)
            raise
        self._visit.finish(self._status, size)

    def close(self) -> None:
        """Log the wide line of a stream that nobody read. Django calls this when it closes the response."""
        if not self._begun:
            self._visit.abandon()

    async def _frames(self) -> AsyncGenerator[bytes, None]:
        """Run the page and tell of it; whatever goes wrong is the last frame, and nothing runs on after it."""
        ended: asyncio.Queue[Node | None] = asyncio.Queue()
        async with borrowed_fleet(self._request) as fleet:
            fan_out = self._page.fan_out(fleet, self._visit, self._inputs, settled=ended.put_nowait)
            run = asyncio.create_task(self._page.outcome(self._visit, fan_out))
            run.add_done_callback(lambda _: ended.put_nowait(None))
            try:
                async with aclosing(self._settled(fan_out, ended)) as frames:
                    async for frame in frames:
                        yield self._encoded(frame)
                result = self._encoded(_result(fan_out, run.result().body))
                self._visit.fields["complete"] = fan_out.complete
                yield result
            except Exception as error:  # noqa: BLE001 - as in the page's dispatch
                yield self._encoded(self._problem(fan_out, error))
            finally:
                await reap([run])

    async def _settled(self, fan_out: FanOut, ended: asyncio.Queue[Node | None]) -> AsyncGenerator[Frame, None]:
        """Yield a frame for each public call as it ends, until the run itself has ended."""
        pending = dict.fromkeys(fan_out.plan.public)
        yield {"pending": list(pending)}
        while True:
            try:
                async with asyncio.timeout(self._page.heartbeat):
                    node = await _next_public(ended)
            except TimeoutError:
                yield {"pending": list(pending)}
                continue
            if node is None:
                return
            del pending[node.name]
            yield _call_frame(fan_out, node)

    def _encoded(self, frame: Frame) -> bytes:
        text = self._write(self._written + 1, frame)
        self._written += 1
        return text

    def _problem(self, fan_out: FanOut, error: Exception) -> Frame:
        """Return the frame that ends a failed stream; the wide line gets the status the answer would have had."""
        problem = problem_of(self._request, error)
        self._status = problem.status
        members = problem.members(self._visit.inbound.request_id)
        return {"problem": members, "complete": False, "errors": fan_out.errors()}


def _line(_: int, frame: Frame) -> bytes:
    """Write a frame as a line of JSON; opaque JSON may hold line breaks, between its tokens only."""
    return encode(frame).translate(_ONE_LINE) + b"\n"


def _event(number: int, frame: Frame) -> bytes:
    """Write a frame as a server-sent event, named for its first member."""
    return b"id: %d\nevent: %s\ndata: %s\n" % (number, next(iter(frame)).encode(), _line(number, frame))


def _call_frame(fan_out: FanOut, node: Node) -> Frame:
    frame: dict[str, Any] = {"call": node.name}
    failure: Failure | None = fan_out.failures.get(node.name)
    if failure is not None:
        frame["error"] = failure
    if failure is None or node.policy.has_fallback or node.join is not None:
        frame["data"] = shown(fan_out.values[node.name])
    return frame


def _result(fan_out: FanOut, body: Any) -> Frame:
    return {"result": body, "complete": fan_out.complete, "errors": fan_out.errors()}


async def _next_public(ended: asyncio.Queue[Node | None]) -> Node | None:
    """Wait for the next call that stands in the answer to end; None when the run itself has."""
    while (node := await ended.get()) is not None and not node.public:
        pass
    return node


async def _given(frames: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for frame in frames:
        yield frame


async def _read(content: AsyncIterator[bytes]) -> list[bytes]:
    return [frame async for frame in content]
