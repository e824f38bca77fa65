"""Django's ASGI handler, kept off threads for pages.

The stock handler starts two OS threads for every request, and every MiddlewareMixin middleware hops to one of them and
back. A page needs neither: it gets its own chain of native async middleware (PAGE_MIDDLEWARE), and its response is
closed on the loop unless somebody listens who must not be called there. Every other view is served by the stock
handler, thread-sensitive context and all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from typing import IO, Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core import signals
from django.core.exceptions import ImproperlyConfigured, RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.http import HttpRequest, HttpResponseBase
from django.urls import Resolver404, get_resolver, is_valid_path, set_script_prefix
from django.utils.module_loading import import_string

from gateway.answer import Problem
from gateway.conf import conf
from gateway.problems import problem_of, problem_response

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
GetResponse = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class Handler(ASGIHandler):
    """Serves pages on the event loop alone, and everything else as Django does."""

    def __init__(self) -> None:
        super().__init__()
        self._answer_page = _chain(conf().page_middleware, _view_response)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if _is_page(scope):
            await self._handle_page(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _handle_page(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            body_file = await self.read_body(receive)
        except RequestAborted:
            return
        with closing(body_file):
            set_script_prefix(get_script_prefix(scope))
            await signals.request_started.asend(sender=self.__class__, scope=scope)
            response = await self._respond(scope, body_file, receive, send)
            await self._close(response)

    async def _respond(
        self, scope: dict[str, Any], body_file: IO[bytes], receive: Receive, send: Send
    ) -> HttpResponseBase | None:
        """Answer, or be cancelled when the client leaves; returns the response to close, if there is one."""
        request, refusal = self.create_request(scope, body_file)
        response: HttpResponseBase | None = refusal
        departure = asyncio.create_task(_cancel_on_disconnect(receive, asyncio.current_task()))
        try:
            if request is not None:
                request.resolver_match = scope["tributary.match"]
                response = await self._answer_page(request)
                response._handler_class = self.__class__  # type: ignore[attr-defined] # noqa: SLF001 - Django's own
            if response is not None:
                await self.send_response(response, send)
        except asyncio.CancelledError:
            if not (departure.done() and departure.result()) or _uncancelled() > 0:
                raise
        finally:
            departure.cancel()
        return response

    async def _close(self, response: HttpResponseBase | None) -> None:
        """Close a response, on the loop unless a receiver of request_finished has to be called elsewhere."""
        if response is None:
            await signals.request_finished.asend(sender=self.__class__)
        elif signals.request_finished.has_listeners(self.__class__):
            await sync_to_async(response.close)()
        else:
            response.close()


def _is_page(scope: dict[str, Any]) -> bool:
    """Tell whether a path leads to a page, or to nothing; what it leads to is kept for the request."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    try:
        match = get_resolver().resolve(path)
    except Resolver404:
        scope["tributary.match"] = None
        return not (settings.APPEND_SLASH and not path.endswith("/") and is_valid_path(f"{path}/"))
    scope["tributary.match"] = match
    return hasattr(match.func, "pages")


async def _view_response(request: HttpRequest) -> HttpResponseBase:
    """Call the view that was found; the innermost link of the pages' chain."""
    match = request.resolver_match
    if match is None:
        return problem_response(request, Problem(404))
    response: HttpResponseBase = await match.func(request, *match.args, **match.kwargs)
    return response


def _chain(middleware: tuple[str, ...], innermost: GetResponse) -> GetResponse:
    """Build the pages' chain, outermost first. Raises ImproperlyConfigured for middleware that is not native async."""
    answer = innermost
    for path in reversed(middleware):
        factory = import_string(path)
        if not getattr(factory, "async_capable", False) or hasattr(factory, "process_request"):
            message = f"PAGE_MIDDLEWARE: {path} is not native async middleware; it would start a thread for every page"
            raise ImproperlyConfigured(message)
        answer = factory(_guarded(answer))
        if not iscoroutinefunction(answer):
            message = f"PAGE_MIDDLEWARE: {path} is not a coroutine function when given one"
            raise ImproperlyConfigured(message)
    return answer


def _guarded(answer: GetResponse) -> GetResponse:
    """Turn what a link of the chain raises into a response, so that the links outside it see one."""

    async def guarded(request: HttpRequest) -> HttpResponseBase:
        try:
            return await answer(request)
        except Exception as error:  # noqa: BLE001 - the next line knows them all
            return problem_response(request, problem_of(request, error))

    return guarded


async def _cancel_on_disconnect(receive: Receive, page: asyncio.Task[Any] | None) -> bool:
    """Wait for the client to leave, then cancel its page; returns whether it did."""
    message = await receive()
    return message["type"] == "http.disconnect" and page is not None and page.cancel()


def _uncancelled() -> int:
    """Take back the cancellation that a departure made; returns how many others there are."""
    task = asyncio.current_task()
    return task.uncancel() if task is not None else 0
