"""Testing a page without a network: its real plan, fan-out, decoding and merging over answers given in the test."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from gateway.conf import conf
from upstreams import Call, Fault, Outcome, Reply, Request
from upstreams.values import encode
from upstreams.wire import Answer

if TYPE_CHECKING:
    from gateway.page import AggregateView

_ERROR = 400


class PageTest(msgspec.Struct, kw_only=True):
    """What a page did with the answers it was given: the `requests` it made by call, in order, and its own answer.

    `body` is the answer's JSON, decoded: for a page that was asked for a stream, the list of its frames.
    """

    requests: dict[str, list[Request[Any]]]
    status: int
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    body: Any
    enveloped: bool
    streamed: bool

    @property
    def data(self) -> Any:
        """The answer's data, decoded: a stream's are its frames. Raises LookupError when the answer is a problem."""
        if self.status >= _ERROR:
            message = f"there is no data in the answer: {self.status} {self.body}"
            raise LookupError(message)
        return self.body["data"] if self.enveloped and isinstance(self.body, dict) else self.body

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self._end.get("complete") is True if self.streamed else self.headers.get("X-Complete") == "true"

    @property
    def errors(self) -> dict[str, Any]:
        """What is missing, by call."""
        told = self.streamed or self.enveloped or self.status >= _ERROR
        found: dict[str, Any] = self._end.get("errors", {}) if told else {}
        return found

    @property
    def _end(self) -> dict[str, Any]:
        """What tells of the whole: the answer's object or a stream's last frame; nothing where there is none."""
        last = self.body[-1] if self.streamed and self.body else self.body
        return last if isinstance(last, dict) else {}


def page_test(
    page: type[AggregateView],
    /,
    *,
    answers: Mapping[str, Any],
    method: str | None = None,
    query: Mapping[str, Any] | None = None,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> PageTest:
    """Run a page over given answers and return what it did; `kwargs` are the URL's.

    `answers` has one for each call by name (for calls inside a part: `part.upstream`): a value to be sent as JSON; a
    Reply of one, for its status and headers; an HTTPStatus for an answer of that status and no body; bytes for a body
    as it is; a Fault for a call that fails so; or a function of the Request that returns any of these. `query` and
    `body` are the client's: a body of bytes is sent as it is, any other as JSON.

    What would be a 500 is raised: the page's own mistakes, and LookupError for a call without an answer. Runs in an
    event loop of its own, so call it from a plain test function.
    """
    if missing := page.plan.not_in(kwargs):
        message = f"{page.__qualname__} takes {missing[0]!r} from its URL: give page_test(..., {missing[0]}=...)"
        raise TypeError(message)
    if _in_a_loop():
        message = (
            "page_test runs in an event loop of its own: call it from a plain test function, not from an async one"
        )
        raise RuntimeError(message)
    return asyncio.run(_run(page, _Answers(answers), _request(page, method, query, body, headers), kwargs))


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _run(page: type[AggregateView], answers: _Answers, request: HttpRequest, kwargs: dict[str, Any]) -> PageTest:
    request.scope = {"state": {"fleet": answers}, "headers": _raw_headers(request)}  # type: ignore[attr-defined]
    view: Callable[..., Any] = page.as_view()
    with _unexpected_errors(request) as errors:
        response: HttpResponseBase = await view(request, **kwargs)
        body = await _decoded(response)
    if errors:
        raise errors[0]
    return PageTest(
        requests=answers.requests,
        status=response.status_code,
        headers=dict(response.headers),
        cookies={name: morsel.value for name, morsel in response.cookies.items()},
        body=body,
        enveloped=page.envelope,
        streamed=response.streaming,
    )


@contextmanager
def _unexpected_errors(request: HttpRequest) -> Iterator[list[BaseException]]:
    """Collect the errors of a request that its client is told nothing of."""
    errors: list[BaseException] = []

    def collect(request: HttpRequest, **_: object) -> None:
        error = sys.exception()
        if request is asked and error is not None:
            errors.append(error)

    asked = request
    got_request_exception.connect(collect)
    try:
        yield errors
    finally:
        got_request_exception.disconnect(collect)


async def _decoded(response: HttpResponseBase) -> Any:
    """Decode a response's JSON; a stream's is one document a line, which server-sent events put behind `data:`."""
    if isinstance(response, StreamingHttpResponse):
        lines = b"".join([chunk async for chunk in response]).splitlines()
        documents = (line.removeprefix(b"data: ") for line in lines)
        return [msgspec.json.decode(document) for document in documents if document.startswith(b"{")]
    content = response.content if isinstance(response, HttpResponse) else b""
    return msgspec.json.decode(content) if content else None


def _request(
    page: type[AggregateView],
    method: str | None,
    query: Mapping[str, Any] | None,
    body: Any,
    headers: Mapping[str, str] | None,
) -> HttpRequest:
    from django.test import RequestFactory  # noqa: PLC0415 - heavy, and no worker's business

    factory = RequestFactory(headers=dict(headers or {}))
    chosen = method or page.allowed()[0]
    content = b"" if body is None else body if isinstance(body, bytes) else encode(body)
    return factory.generic(chosen, "/", content, content_type="application/json", query_params=dict(query or {}))


def _raw_headers(request: HttpRequest) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in request.headers.items()]


class _Answers:
    """Stands where the fleet would: answers each call from a table, as its client would read that answer."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = answers
        self.requests: dict[str, list[Request[Any]]] = {}

    async def send(self, upstream: str, call: Call) -> Outcome:
        """Answer one call."""
        self.requests.setdefault(call.name, []).append(call.request)
        call.attempts += 1
        answer = self._answer(call)
        if isinstance(answer, Fault):
            return Outcome(upstream=upstream, fault=answer, attempts=1)
        answered = _answered(answer)
        reading = call.read(answered)
        known = conf().upstreams.get(upstream)
        return Outcome(
            upstream=upstream,
            value=reading.value,
            absent=reading.absent,
            fault=reading.fault,
            status=answered.status,
            detail=reading.detail,
            attempts=1,
            passthrough=known is not None and answered.status in known.passthrough,
        )

    def _answer(self, call: Call) -> Any:
        if call.name not in self._answers:
            message = f"answers has none for {call.name!r}, which asked {call.request!r}"
            raise LookupError(message)
        answer = self._answers[call.name]
        return answer(call.request) if callable(answer) else answer


def _answered(answer: Any) -> Answer:
    """Return the answer that an upstream would have given."""
    status, headers, body = HTTPStatus.OK.value, {}, answer
    if isinstance(answer, Reply):
        status, headers, body = answer.status, dict(answer.headers), answer.value
    elif isinstance(answer, HTTPStatus):
        status, body = answer.value, b""
    content = body if isinstance(body, bytes) else encode(body)
    return Answer(status=status, headers=headers, content_type="application/json", charset=None, body=content)
