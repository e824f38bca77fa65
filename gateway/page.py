"""A page: an ordinary Django class-based view whose answer is made of several upstreams' answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Final

import msgspec
from django.http import BadHeaderError, HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.utils.decorators import classonlymethod
from django.views import View

from gateway.answering.answer import Answer, CallFailed, Problem, envelope
from gateway.answering.headers import stored
from gateway.answering.inputs import read_inputs
from gateway.answering.negotiation import JSON_TYPE, negotiate
from gateway.answering.problems import problem_of, problem_response
from gateway.answering.proxy_status import proxy_status
from gateway.answering.stream import stream
from gateway.conf import conf
from gateway.declaring.plan import DeclarationError, Node, Plan, compile_plan
from gateway.log import events
from gateway.running.fanout import FanOut
from gateway.serving.fleets import borrowed_fleet
from gateway.serving.visit import OWN_FIELDS, Visit, visit_of
from upstreams import Sender
from upstreams.values import encode, hashes_numbers


class AggregateView(View):
    """Declare calls as methods of a subclass; its `as_view()` answers with what they come to.

    `deadline` (seconds) is shared by every call and every retry. Without `merge` the answer is each call's value by
    name; with it, what it returns. `envelope = False` leaves out `complete` and `errors`; `partial_status` is the
    status of an answer with something missing. `methods` overrides GET and HEAD, or POST where there is a `body`.
    `max_body` bounds the client's, in bytes. `log_fields` names inputs (`user_id`, `query.page`) for the wide log line.
    `heartbeat` is the longest silence of a stream, in seconds.
    """

    deadline: ClassVar[float] = 2.0
    envelope: ClassVar[bool] = True
    partial_status: ClassVar[int] = 200
    methods: ClassVar[tuple[str, ...] | None] = None
    max_body: ClassVar[int] = 1024 * 1024
    log_fields: ClassVar[tuple[str, ...]] = ()
    heartbeat: ClassVar[float] = 15.0
    merge: ClassVar[Callable[..., Any]]
    plan: ClassVar[Plan]

    view_is_async = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Compile the declaration; raises DeclarationError for what is wrong with it."""
        super().__init_subclass__(**kwargs)
        cls.plan = compile_plan(cls, _RESERVED)
        if faults := list(_faults(cls)):
            raise DeclarationError(cls.__qualname__, faults)

    @classonlymethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., Any]:  # noqa: N805 - Django's class method
        """Return the view function, which knows its page for routing, checks and commands.

        Settings of the page that are given here make a page of their own, checked as any other.
        """
        settings = {name: initkwargs.pop(name) for name in _SETTINGS & initkwargs.keys()}
        if settings:
            names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
            page: type[AggregateView] = type(cls.__name__, (cls,), {**names, **settings})
            return page.as_view(**initkwargs)
        view: Any = super().as_view(**initkwargs)
        return _marked(view, dict.fromkeys(cls.allowed(), cls))

    @classmethod
    def allowed(cls) -> tuple[str, ...]:
        """Name the HTTP methods this page answers, beside OPTIONS."""
        if cls.methods is not None:
            return tuple(method.upper() for method in cls.methods)
        return ("POST",) if cls.plan.body is not None else ("GET", "HEAD")

    async def dispatch(self, request: HttpRequest, *_: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        """Answer one request. Whatever goes wrong is a problem+json response, and only cancellation is raised."""
        response: HttpResponseBase
        try:
            response = await self._respond(request, kwargs)
        except Exception as error:  # noqa: BLE001 - the next line knows them all
            response = problem_response(request, problem_of(request, error))
        if self.plan.streamable:
            headers = stored(response)
            if "vary" in headers:
                patch_vary_headers(response, ("Accept",))
            else:
                headers["vary"] = ("Vary", "Accept")
        return response

    async def _respond(self, request: HttpRequest, kwargs: Mapping[str, Any]) -> HttpResponseBase:
        visit = visit_of(request)
        if request.method not in self.allowed():
            return self._other_method(request)
        media_type = negotiate(request, streamable=self.plan.streamable)
        inputs = read_inputs(self.plan, request, kwargs, self.max_body)
        if self.log_fields:
            visit.note(_logged(self.log_fields, inputs))
        if media_type != JSON_TYPE:
            return stream(self, request, inputs, media_type)
        async with borrowed_fleet(request) as fleet:
            fan_out = self.fan_out(fleet, visit, inputs)
            return self.answer(visit, fan_out, await self.outcome(visit, fan_out))

    def fan_out(
        self, fleet: Sender, visit: Visit, inputs: Mapping[str, Any], settled: Callable[[Node], None] | None = None
    ) -> FanOut:
        """Return this page's calls, ready to run until the deadline."""
        return FanOut(self.plan, self, fleet, visit.inbound, visit.deadline(self.deadline), inputs, settled)

    async def outcome(self, visit: Visit, fan_out: FanOut) -> Answer[Any]:
        """Run the calls and merge their values. Raises Problem where the page has no answer."""
        try:
            await fan_out.run()
        except CallFailed as failed:
            visit.failed(failed.failure.error)
            errors = fan_out.errors()
            errors.pop(failed.call, None)
            raise failed.problem(errors) from None
        finally:
            visit.fields.update(_summary(fan_out))
        value = self._merged(fan_out)
        return value if isinstance(value, Answer) else Answer(value)

    def answer(self, visit: Visit, fan_out: FanOut, answer: Answer[Any]) -> HttpResponse:
        """Return the response: values in the order of declaration, and what is missing."""
        errors = fan_out.errors()
        content = (
            envelope(answer.body, complete=fan_out.complete, errors=errors) if self.envelope else encode(answer.body)
        )
        status = self.partial_status if not fan_out.complete and answer.status == HTTPStatus.OK else answer.status
        if status in _WITHOUT_CONTENT:
            content = b""
        visit.fields["complete"] = fan_out.complete
        response = HttpResponse(content, JSON_TYPE, status)
        for name, value in answer.headers.items():
            response[name] = value
        stored(response)["x-complete"] = ("X-Complete", "true" if fan_out.complete else "false")
        if errors:
            response["Proxy-Status"] = proxy_status(errors)
        if conf().server_timing:
            response["Server-Timing"] = _server_timing(fan_out)
        _set_cookies(response, answer.cookies)
        return response

    def _merged(self, fan_out: FanOut) -> Any:
        if self.plan.merge is None:
            return fan_out.data()
        started = time.perf_counter()
        try:
            value = self.merge(**fan_out.arguments(self.plan.merge))
        except asyncio.CancelledError as error:  # nothing was awaited that a leaving client could have cut short
            raise RuntimeError("merge raised CancelledError by itself") from error
        events.merge_finished(duration=time.perf_counter() - started)
        return value

    def _other_method(self, request: HttpRequest) -> HttpResponse:
        allow = ", ".join((*self.allowed(), "OPTIONS"))
        if request.method == "OPTIONS":
            return HttpResponse(status=204, headers={"Allow": allow})
        raise Problem(405, headers={"Allow": allow})


def by_method(**views: Any) -> Callable[..., Any]:
    """Share one URL between pages: `by_method(GET=Cart, POST=AddToCart)`. HEAD goes where GET does."""
    pages: dict[str, type[AggregateView]] = {}
    for method, page in views.items():
        if not (isinstance(page, type) and issubclass(page, AggregateView)) or method not in page.allowed():
            message = f"by_method({method}=...) takes a page that answers {method}, not {page!r}"
            raise TypeError(message)
        pages[method] = page
    if "GET" in pages and "HEAD" in pages["GET"].allowed():
        pages.setdefault("HEAD", pages["GET"])
    shown = {method: page.as_view() for method, page in pages.items()}
    allow = ", ".join((*shown, "OPTIONS"))

    async def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        chosen = shown.get(request.method or "")
        if chosen is not None:
            response: HttpResponseBase = await chosen(request, *args, **kwargs)
            return response
        if request.method == "OPTIONS":
            return HttpResponse(status=204, headers={"Allow": allow})
        return problem_response(request, Problem(405, headers={"Allow": allow}))

    return _marked(view, pages)


def _marked(view: Any, pages: Mapping[str, type[AggregateView]]) -> Callable[..., Any]:
    """Make a view known as its pages'. A page knows no cookie session, so there is no request to forge."""
    view.pages = pages
    view.max_body = max((page.max_body for page in pages.values()), default=0)
    view.csrf_exempt = True
    marked: Callable[..., Any] = view
    return marked


def _set_cookies(response: HttpResponse, cookies: Mapping[str, str | Mapping[str, Any]]) -> None:
    """Set an answer's cookies; raises BadHeaderError for one that could not be sent, or would be more than a cookie."""
    for name, cookie in cookies.items():
        response.set_cookie(name, **({"value": cookie} if isinstance(cookie, str) else dict(cookie)))
        text = response.cookies[name].OutputString()
        if not (text.isascii() and text.isprintable()):
            message = f"the cookie {name!r} cannot be sent: it holds more than printable ASCII"
            raise BadHeaderError(message)


def _faults(page: type[AggregateView]) -> Iterator[str]:
    """Say what is wrong with a page's settings, a sentence each."""
    for setting in ("methods", "log_fields"):
        if isinstance(value := getattr(page, setting), str):
            yield f"{setting} is a tuple of names, not {value!r}: write ({value!r},)"
    for setting in ("deadline", "heartbeat"):
        if not getattr(page, setting) > 0:
            yield f"{setting} must be above 0 seconds, not {getattr(page, setting)!r}"
    if page.deadline == math.inf:
        yield "deadline must have an end, not be inf"
    if not HTTPStatus.OK <= page.partial_status < HTTPStatus.MULTIPLE_CHOICES:
        yield f"partial_status must be from 200 to 299, not {page.partial_status!r}"
    yield from _body_faults(page)
    structs = {"query": page.plan.query, "body": page.plan.body}
    for name in page.log_fields:
        source, _, field = name.partition(".")
        struct = structs.get(source)
        if name in OWN_FIELDS:
            yield f"log_fields: {name!r} is a field of the log's own; rename the URL's kwarg"
        elif struct is not None and field.partition(".")[0] not in struct.__struct_fields__:
            yield f"log_fields: {struct.__qualname__} has no field for {name!r}"


def _body_faults(page: type[AggregateView]) -> Iterator[str]:
    """Say so where a client can hold up a worker with a body."""
    body = page.plan.body
    if body is not None and page.max_body > _MOST_HASHED and hashes_numbers(body):
        yield (
            f"{body.__qualname__} has a set or keys of numbers, which a client can make collide: take a list, or set "
            f"max_body to {_MOST_HASHED} at most"
        )


def _logged(names: tuple[str, ...], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Read the inputs a page wants on its wide line; one that is not there is left out."""
    found = {}
    for name in names:
        source, *fields = name.split(".")
        value = inputs.get(source)
        for field in fields:
            value = getattr(value, field, None)
        if value is not None:
            found[name] = msgspec.to_builtins(value, enc_hook=str)
    return found


def _summary(fan_out: FanOut) -> dict[str, Any]:
    return {
        "page": fan_out.plan.page,
        "calls": len(fan_out.plan.nodes),
        "calls_failed": list(fan_out.errors()),
        "attempts": sum(fan_out.attempts.values()),
    }


def _server_timing(fan_out: FanOut) -> str:
    """Write what each call took (W3C Server Timing), in milliseconds."""
    return ", ".join(f"{name};dur={duration * 1000:.1f}" for name, duration in fan_out.durations.items())


#: Statuses whose answers end with their headers (RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5).
_WITHOUT_CONTENT: Final = frozenset({204, 205, 304})
_MOST_HASHED: Final = 64 * 1024  # bytes of numbers that collide take a tenth of a second, and ten times as many ten
#: What a subclass of a page may set, and `as_view` too: the annotated attributes that have a default.
_SETTINGS: Final = AggregateView.__annotations__.keys() & vars(AggregateView).keys()
_RESERVED: Final = frozenset(
    name for name in (*dir(View), *vars(AggregateView), *AggregateView.__annotations__) if not name.startswith("__")
) | {"get", "head", "post", "put", "patch", "delete", "options", "trace", "request", "args", "kwargs", "setup"}
