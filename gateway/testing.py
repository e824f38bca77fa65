"""Testing a page without a network: its real plan, fan-out, decoding and merging over answers given in the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from django.http import HttpRequest, HttpResponse

from upstreams import Call, Fault, Outcome, Request
from upstreams.values import Unreadable, encode

if TYPE_CHECKING:
    from gateway.page import AggregateView


class PageTest(msgspec.Struct, kw_only=True):
    """What a page did with the answers it was given: the `requests` it made by call, in order, and its own answer."""

    requests: dict[str, list[Request[Any]]]
    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def data(self) -> Any:
        """The answer's data, decoded."""
        return self.body["data"]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return bool(self.body["complete"])

    @property
    def errors(self) -> dict[str, Any]:
        """What is missing, by call."""
        found: dict[str, Any] = self.body.get("errors", {})
        return found


def page_test(
    page: type[AggregateView],
    *,
    answers: Mapping[str, Any],
    method: str | None = None,
    query: Mapping[str, Any] | None = None,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> PageTest:
    """Run a page over given answers and return what it did; `kwargs` are the URL's.

    `answers` has one for each call by name (for calls inside a part: `part.upstream`): a value to be sent as JSON; an
    HTTPStatus for an answer of that status; bytes for a body as it is; a Fault for a call that fails so; or a function
    of the Request that returns any of these. Runs in an event loop of its own, so call it from a plain test function.
    """
    return asyncio.run(_run(page, answers, _request(page, method, query, body, headers), kwargs))


async def _run(
    page: type[AggregateView], answers: Mapping[str, Any], request: HttpRequest, kwargs: dict[str, Any]
) -> PageTest:
    sender = _Answers(answers)
    request.scope = {"state": {"fleet": sender}, "headers": _raw_headers(request)}  # type: ignore[attr-defined]
    view: Callable[..., Any] = page.as_view()
    response: HttpResponse = await view(request, **kwargs)
    content = response.content
    return PageTest(
        requests=sender.requests,
        status=response.status_code,
        headers=dict(response.headers),
        body=msgspec.json.decode(content) if content else None,
    )


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
    content = b"" if body is None else encode(body)
    return factory.generic(chosen, "/", content, content_type="application/json", query_params=dict(query or {}))


def _raw_headers(request: HttpRequest) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in request.headers.items()]


class _Answers:
    """Stands where the fleet would: answers each call from a table, through the real decoder."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = answers
        self.requests: dict[str, list[Request[Any]]] = {}

    async def send(self, upstream: str, call: Call) -> Outcome:
        """Answer one call."""
        self.requests.setdefault(call.name, []).append(call.request)
        if call.name not in self._answers:
            message = f"answers has none for {call.name!r}, which asked {call.request!r}"
            raise LookupError(message)
        answer = self._answers[call.name]
        if callable(answer) and not isinstance(answer, type):
            answer = answer(call.request)
        return _outcome(upstream, call, answer)


def _outcome(upstream: str, call: Call, answer: Any) -> Outcome:
    if isinstance(answer, Fault):
        return Outcome(upstream=upstream, fault=answer, attempts=1)
    if isinstance(answer, HTTPStatus):
        absent = answer in call.absent
        fault = None if absent else Fault.HTTP_RESPONSE_STATUS
        return Outcome(upstream=upstream, absent=absent, fault=fault, status=int(answer), attempts=1)
    content = answer if isinstance(answer, bytes) else encode(answer)
    try:
        value = call.decoder.read(content, 200, {"Content-Type": "application/json"})
    except Unreadable as error:
        return Outcome(upstream=upstream, fault=error.fault, status=200, detail=str(error), attempts=1)
    return Outcome(upstream=upstream, value=value, status=200, attempts=1)
