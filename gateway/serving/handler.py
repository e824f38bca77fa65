"""Django's ASGI handler, kept off threads for pages.

The stock handler starts two OS threads for every request, and every MiddlewareMixin middleware hops to one of them and
back. A page needs neither: it gets its own chain of native async middleware (PAGE_MIDDLEWARE), and its response is
closed on the loop unless somebody listens who must not be called there. A path that leads nowhere is answered in the
same way. Every other view is served by the stock handler.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from io import BytesIO
from typing import IO, Any, Final

from asgiref.sync import ThreadSensitiveContext, iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core import signals
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's own name
from django.core.exceptions import BadRequest, ImproperlyConfigured, MiddlewareNotUsed, RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.base import reset_urlconf
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseBase
from django.urls import Resolver404, ResolverMatch, get_resolver, is_valid_path, set_script_prefix, set_urlconf
from django.utils.deprecation import MiddlewareMixin
from django.utils.module_loading import import_string

from gateway.answering.answer import Problem
from gateway.answering.headers import stored
from gateway.answering.problems import problem_of, problem_response
from gateway.conf import conf
from gateway.console.place import is_console
from gateway.middleware import Edge
from gateway.serving.admission import OVERLOADED, Admission
from gateway.serving.health import Short, deliver
from gateway.serving.visit import visit_of

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
GetResponse = Callable[[HttpRequest], Awaitable[HttpResponseBase]]

_EDGE: Final = "gateway.middleware.Edge"
_BEFORE_LOOKING: Final = 0.05  # seconds
_LONGEST_CONTENT_TYPE: Final = 1024  # bytes
_MOST_FOR_CONSOLE: Final = 64 * 1024  # bytes; its forms are small
_TOO_LARGE: Final = Short(
    413,
    b'{"type":"about:blank","title":"Content Too Large","status":413}',
    "application/problem+json",
)
#: As the signal keeps it: a reference equals another to the same function, and no receiver that is kept itself.
_DJANGOS_OWN: Final = weakref.ref(reset_urlconf)


class Handler(ASGIHandler):
    """Serves pages on the event loop alone, and everything else as Django does."""

    def __init__(self) -> None:
        super().__init__()
        self._answer_page = _chain(conf().page_middleware, self._view_response)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if not _is_page(scope):
            await self._handle_view(scope, receive, send)
            return
        admission: Admission | None = (scope.get("state") or {}).get("admission")
        if admission is None or admission.at_once() or await _waited(admission, scope):
            # Starts no thread by itself: it is for synchronous receivers of signals, and a page that asks for a thread.
            async with ThreadSensitiveContext():
                await self._handle_page(scope, receive, send)
        else:
            await deliver(OVERLOADED, scope, send)

    def create_request(self, scope: Mapping[str, Any], body_file: IO[bytes]) -> tuple[Any, Any]:
        """Return the request and None, or None and problem+json where Django cannot read its query or Content-Type."""
        try:
            _check_content_type(scope)
            request, refusal = super().create_request(scope, body_file)
        except (BadRequest, ValueError):
            request, refusal = None, HttpResponseBadRequest()
        if refusal is not None:
            problem = Problem(refusal.status_code)
            headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
            readable = self.request_class({**scope, "query_string": b"", "headers": headers}, body_file)
            return None, Edge(lambda request: problem_response(request, problem))(readable)
        return request, None

    async def send_response(self, response: HttpResponseBase, send: Send) -> None:
        """Send a response; one that is in memory as a whole is sent as a whole, where Django would cut it up."""
        if not isinstance(response, HttpResponse):
            await super().send_response(response, send)
            return
        fields = stored(response).values()
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in fields]
        if response.cookies:
            headers += [(b"Set-Cookie", cookie.OutputString().encode("ascii")) for cookie in response.cookies.values()]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.content})

    async def _handle_view(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Have Django's stock handler answer, whose own bounds hold; before the console's door there are none."""
        if is_console(scope["path"]):
            try:
                body = await _body(receive, _MOST_FOR_CONSOLE)
            except RequestAborted:
                return
            if len(content := body.read()) > _MOST_FOR_CONSOLE:
                await deliver(_TOO_LARGE, scope, send)
                return
            receive = _replayed(content, receive)
        await super().__call__(scope, receive, send)

    async def _handle_page(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            body = await _body(receive, _most_read(scope))
        except RequestAborted:
            return
        if prefix := scope["tributary.prefix"]:  # Django's own without any is /
            set_script_prefix(prefix)
        await signals.request_started.asend(sender=self.__class__, scope=scope)
        await self._respond(scope, body, receive, send)

    async def _respond(self, scope: dict[str, Any], body: IO[bytes], receive: Receive, send: Send) -> None:
        """Answer, or be cancelled when the client leaves; either way let go of what the response holds."""
        response: HttpResponseBase | None = None
        lookout = _Lookout(receive)
        try:
            response = await self._response(scope, body)
            await self.send_response(response, send)
        except asyncio.CancelledError:
            if not lookout.saw_departure() or _uncancelled() > 0:
                raise
        finally:
            lookout.end()
            await self._finish(response)

    async def _response(self, scope: dict[str, Any], body: IO[bytes]) -> HttpResponseBase:
        request, refused = self.create_request(scope, body)
        response: Any = refused
        if request is not None:
            request.resolver_match = match if isinstance(match := scope["tributary.match"], ResolverMatch) else None
            response = await self._answer_page(request)
            response._resource_closers.append(request.close)  # noqa: SLF001 - as Django's own handlers do
            if isinstance(response, FileResponse):
                response.block_size = self.chunk_size
        response._handler_class = self.__class__  # noqa: SLF001 - the same
        answered: HttpResponseBase = response
        return answered

    async def _finish(self, response: HttpResponseBase | None) -> None:
        """Close a response and send request_finished: on the loop, unless a receiver has to be called elsewhere."""
        if isinstance(response, HttpResponse) and _nobody_listens():
            _close(response)
            return
        send = partial(signals.request_finished.send, sender=self.__class__)
        close = send if response is None else response.close
        synchronous, asynchronous = signals.request_finished._live_receivers(self.__class__)  # noqa: SLF001
        if asynchronous or any(receiver is not reset_urlconf for receiver in synchronous):
            await sync_to_async(close)()
        else:
            close()

    async def _view_response(self, request: HttpRequest) -> HttpResponseBase:
        """Call the view that was found; the innermost link of the pages' chain."""
        response: HttpResponseBase
        match = request.scope["tributary.match"]  # type: ignore[attr-defined]
        if hasattr(request, "urlconf"):  # a link of the chain has chosen another URLconf
            try:
                response = await self._get_response_async(request)  # type: ignore[attr-defined]
            finally:
                set_urlconf(None)
        elif match is None:
            response = problem_response(request, Problem(404))
        elif isinstance(match, Exception):
            raise match
        else:
            response = await match.func(request, *match.args, **match.kwargs)
        return response


@register("gateway")
def check_middleware(**_: object) -> list[CheckMessage]:
    """Check that every link of the pages' chain runs on the loop, and that the edge is in both chains."""
    try:
        chain = conf().page_middleware
    except ImproperlyConfigured:
        return []  # gateway.E001 says so
    found: list[CheckMessage] = [
        Error(fault, hint="Middleware for ordinary views belongs in MIDDLEWARE.", id="gateway.E006")
        for fault in map(_fault, chain)
        if fault is not None
    ]
    for name, paths in (("MIDDLEWARE", settings.MIDDLEWARE), ("PAGE_MIDDLEWARE", chain)):
        if _EDGE not in paths:
            fault = f"{name} is without {_EDGE}: requests there get no id, no wide log line, and errors in HTML."
            found.append(Warning(fault, hint="Put it first.", id="gateway.W003"))
    return found


def _is_page(scope: dict[str, Any]) -> bool:
    """Tell whether a path leads to a page, or to nothing; where it leads, and the prefix, are kept for the request."""
    prefix = scope["tributary.prefix"] = get_script_prefix(scope)
    path = _below(prefix, scope["path"]) if prefix else scope["path"]
    match: ResolverMatch | Exception | None
    try:
        match = _resolved(path)
        if match is None and _lacks_slash(path):
            return False
    except Exception as error:  # noqa: BLE001 - a path converter's own mistake, answered inside the chain
        match = error
    scope["tributary.match"] = match
    return not isinstance(match, ResolverMatch) or hasattr(match.func, "pages")


async def _waited(admission: Admission, scope: dict[str, Any]) -> bool:
    """Wait until a page may begin; False where it has waited too long."""
    waited = await admission.wait()
    if waited is None:
        admission.refused(getattr(scope["tributary.match"], "route", None))
        return False
    scope["tributary.waited"] = waited
    return True


def _most_read(scope: Mapping[str, Any]) -> int:
    """Return how many bytes of a body there can be a use for: the most that a page behind this path takes."""
    most: int = getattr(getattr(scope["tributary.match"], "func", None), "max_body", 0)
    return most


async def _body(receive: Receive, most: int) -> IO[bytes]:
    """Return the client's body, or what shows that it has more bytes than `most`. Raises RequestAborted if it leaves.

    Django's own reads whatever comes, and writes what is large to disk, on the loop.
    """
    body = BytesIO()
    more = True
    while more and body.tell() <= most:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestAborted
        body.write(message.get("body", b""))
        more = message.get("more_body", False)
    body.seek(0)
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that has been read already, and then what else comes."""
    read = [{"type": "http.request", "body": body}]

    async def again() -> Mapping[str, Any]:
        return read.pop() if read else await receive()

    return again


def _check_content_type(scope: Mapping[str, Any]) -> None:
    """Raise BadRequest for one that is too long: Django's parser takes a time that grows with the square of it."""
    if sum(len(value) for name, value in scope["headers"] if name == b"content-type") > _LONGEST_CONTENT_TYPE:
        raise BadRequest


def _below(prefix: str, path: str) -> str:
    """Return what is left of a path below the script prefix."""
    root = prefix.rstrip("/")
    return path[len(root) :] if path == root or path.startswith(f"{root}/") else path


def _resolved(path: str) -> ResolverMatch | None:
    try:
        return get_resolver().resolve(path)
    except Resolver404:
        return None


def _lacks_slash(path: str) -> bool:
    """Tell whether Django would redirect a path that leads nowhere (APPEND_SLASH)."""
    return bool(settings.APPEND_SLASH and not path.endswith("/") and is_valid_path(f"{path}/"))


def _chain(middleware: tuple[str, ...], innermost: GetResponse) -> GetResponse:
    """Build the pages' chain, outermost first. Raises ImproperlyConfigured for middleware that is not native async."""
    answer = _guarded(innermost)
    for path in reversed(middleware):
        if (fault := _fault(path)) is not None:
            raise ImproperlyConfigured(fault)
        try:
            link = import_string(path)(answer)
        except MiddlewareNotUsed:
            continue
        if not iscoroutinefunction(link):
            raise ImproperlyConfigured(f"PAGE_MIDDLEWARE: {path} is not a coroutine function when given one")
        answer = _guarded(link)
    return answer


def _fault(path: str) -> str | None:
    """Say why middleware cannot be around pages: it would start threads for every one, or do only half of its work."""
    try:
        factory = import_string(path)
    except ImportError as error:
        return f"PAGE_MIDDLEWARE: {path} cannot be imported: {error}"
    calls = [getattr(factory, name, None) for name in ("__call__", "__acall__")]
    if not getattr(factory, "async_capable", False) or calls == [MiddlewareMixin.__call__, MiddlewareMixin.__acall__]:
        return f"PAGE_MIDDLEWARE: {path} is not native async middleware; it would start a thread for every page"
    # The edge's own tells the log the route, which the handler of a page has done before.
    if getattr(factory, "process_view", None) not in {None, Edge.process_view}:
        return f"PAGE_MIDDLEWARE: {path} has a process_view, which is not called for pages"
    return None


def _guarded(answer: GetResponse) -> GetResponse:
    """Turn what a link of the chain raises into a response, so that the links outside it see one."""

    async def guarded(request: HttpRequest) -> HttpResponseBase:
        try:
            return await answer(request)
        except Exception as error:  # noqa: BLE001 - the next line knows them all
            response = problem_response(request, problem_of(request, error))
            response["X-Request-ID"] = visit_of(request).inbound.request_id
            return response

    return guarded


def _nobody_listens() -> bool:
    """Tell whether request_finished has no receiver but Django's own, which takes back what no page has done."""
    return all(receiver == _DJANGOS_OWN for _, receiver, *_ in signals.request_finished.receivers)


def _close(response: Any) -> None:
    """Do as a response's own `close` does, but for the signal."""
    for closer in response._resource_closers:  # noqa: SLF001 - as Django's own handlers do
        with suppress(Exception):
            closer()
    response._resource_closers.clear()  # noqa: SLF001 - the same
    response.closed = True


class _Lookout:
    """Looks out for the client's leaving, and cancels its page then. Made in the page's task.

    It begins a moment after the page: most are done by then, and to look out costs a task.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._page = asyncio.current_task()
        self._task: asyncio.Task[bool] | None = None
        self._timer = asyncio.get_running_loop().call_later(_BEFORE_LOOKING, self._begin)

    def saw_departure(self) -> bool:
        """Tell whether the client has left, and the page been cancelled for that."""
        return self._task is not None and self._task.done() and self._task.result()

    def end(self) -> None:
        """Look out no more."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.create_task(_cancel_on_disconnect(self._receive, self._page), name="lookout")


async def _cancel_on_disconnect(receive: Receive, page: asyncio.Task[Any] | None) -> bool:
    """Wait for the client to leave, then cancel its page; returns whether it did.

    A function by itself: a cancelled task keeps what its frame holds, and would keep a lookout that keeps the task.
    """
    while (await receive())["type"] != "http.disconnect":
        pass  # a body that nobody has a use for
    return page is not None and page.cancel()


def _uncancelled() -> int:
    """Take back the cancellation that a departure made; returns how many others there are."""
    task = asyncio.current_task()
    return task.uncancel() if task is not None else 0
