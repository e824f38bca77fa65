"""The edge of every request, under ASGI and WSGI alike: its id, its wide log line, and its errors as problem+json."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from gateway.answering.answer import Problem
from gateway.answering.headers import stored
from gateway.answering.problems import problem_of, problem_response
from gateway.serving.visit import Visit, visit_of

_ERROR: Final = 400
_BODILESS: Final = frozenset({204, 304})
#: Headers that tell of a body, and leave with it.
_OF_THE_BODY: Final = (
    "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length", "Content-Type", "ETag",
    "Last-Modified",
)  # fmt: skip


class Edge:
    """Native in both worlds: no thread is started for a page.

    Takes `X-Request-ID` if it is fit to be logged, else the trace's id is the request's, and echoes it. Errors that
    Django would answer in HTML, with a path that no view took or a view that raised, are problem+json, and so are
    those that have no body: `require_safe`'s, say.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer one request."""
        if self._is_async:
            return self._answer(request)
        visit = visit_of(request)
        return _finished(request, visit, self.get_response(request))

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        visit = visit_of(request)
        try:
            response = await self.get_response(request)
        except asyncio.CancelledError:
            visit.abandon()
            raise
        return _finished(request, visit, response)

    @property
    def process_view(self) -> Callable[..., Any]:
        """Tell the log an ordinary view's route before it begins: in a thread or on the loop, where the chain is."""
        return _found_on_the_loop if self._is_async else _found

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse:
        """Answer for a view that raised."""
        return problem_response(request, problem_of(request, exception))


def _found(request: HttpRequest, *_: object) -> None:
    visit_of(request)


async def _found_on_the_loop(request: HttpRequest, *_: object) -> None:
    visit_of(request)


def _finished(request: HttpRequest, visit: Visit, response: HttpResponseBase) -> HttpResponseBase:
    if response.status_code >= _ERROR and isinstance(response, HttpResponse) and _is_djangos_own(request, response):
        _tell(request, response)
    headers = stored(response)
    headers["x-request-id"] = ("X-Request-ID", visit.inbound.request_id)
    size = None if response.streaming else len(response.content)  # type: ignore[attr-defined]
    if size is not None and "content-length" not in headers and response.status_code not in _BODILESS:
        headers["content-length"] = ("Content-Length", str(size))
    if not visit.streaming:
        visit.finish(response.status_code, size)
    return response


def _is_djangos_own(request: HttpRequest, response: HttpResponse) -> bool:
    """Tell an error page of Django's own from a view's: it is empty, no view was found, or it is for a page."""
    html = response.headers.get("Content-Type", "").startswith("text/html")
    match = request.resolver_match
    return not response.content or (html and (match is None or hasattr(match.func, "pages")))


def _tell(request: HttpRequest, response: HttpResponse) -> None:
    """Make an error problem+json; cookies, and headers that tell of more than the body, stay as they are."""
    problem = problem_response(request, Problem(response.status_code))
    response.content = problem.content
    for name in _OF_THE_BODY:
        del response[name]
    for name, value in problem.items():
        response.setdefault(name, value)
