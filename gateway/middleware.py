"""The edge of every request, under ASGI and WSGI alike: its id, its wide log line, and its errors as problem+json."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from gateway.answering.answer import Problem
from gateway.answering.problems import problem_of, problem_response
from gateway.serving.visit import Visit, visit_of

_ERROR = 400
_BODILESS = frozenset({204, 304})


class Edge:
    """Native in both worlds: no thread is started for a page.

    Takes `X-Request-ID` if it is fit to be logged, else the trace's id is the request's, and echoes it. Errors that
    Django would answer in HTML, with a path that no view took or a view that raised, are problem+json.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer one request."""
        if iscoroutinefunction(self.get_response):
            return self._answer(request)
        return _finished(request, visit_of(request), self.get_response(request))

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        visit = visit_of(request)
        try:
            response = await self.get_response(request)
        except asyncio.CancelledError:
            visit.abandon()
            raise
        return _finished(request, visit, response)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse:
        """Answer for a view that raised."""
        return problem_response(request, problem_of(request, exception))


def _finished(request: HttpRequest, visit: Visit, response: HttpResponseBase) -> HttpResponseBase:
    if response.status_code >= _ERROR and _is_djangos_own(request, response):
        response = problem_response(request, Problem(response.status_code))
    response["X-Request-ID"] = visit.inbound.request_id
    if not (response.streaming or response.has_header("Content-Length") or response.status_code in _BODILESS):
        response["Content-Length"] = str(len(response.content))  # type: ignore[attr-defined]
    match = request.resolver_match
    if match is not None and visit.fields["http.route"] is None:
        visit.fields["http.route"] = match.route
    if not visit.streaming:
        visit.finish(response.status_code, None if response.streaming else len(response.content))  # type: ignore[attr-defined]
    return response


def _is_djangos_own(request: HttpRequest, response: HttpResponseBase) -> bool:
    """Tell an error page of Django's own from a view's: no view was found, or it is for a page."""
    html = response.headers.get("Content-Type", "").startswith("text/html")
    match = request.resolver_match
    return html and (match is None or hasattr(match.func, "pages"))
