"""What goes back to the client: values in the order they were declared, what is missing and why, or a problem.

Pure functions of what the calls came to. Nothing an upstream sends as an error, and nothing of its address, gets here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

import msgspec

from upstreams import Fault, Outcome
from upstreams.values import encode

T = TypeVar("T")

_TELLING: Final = frozenset({Fault.BODY_MALFORMED, Fault.BODY_MISMATCH, Fault.HTTP_REQUEST_DENIED})
_BUSY: Final = frozenset({429, 503})


class Answer(msgspec.Struct, Generic[T], frozen=True):
    """What `merge` may return to decide on more than the body.

    `cookies` maps a name to its value, or to the arguments of Django's `set_cookie`.
    """

    body: T
    status: int = 200
    headers: Mapping[str, str] = {}
    cookies: Mapping[str, str | Mapping[str, Any]] = {}


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call without its value, as `errors` shows it.

    `because` names the call whose lack made this one be skipped; `keys` are those a join lost.
    """

    upstream: str | None
    error: Fault
    status: int | None
    attempts: int
    retryable: bool
    detail: str | None = None
    because: str | None = None
    keys: list[Any] | None = None


class Problem(Exception):
    """A failed request as problem+json (RFC 9457). May be raised in a call method or in `merge`.

    `extensions` become further members of the document; `headers` go beside it.
    """

    def __init__(
        self,
        status: int,
        title: str | None = None,
        detail: str | None = None,
        *,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extensions: Any,
    ) -> None:
        self.status = status
        self.title = title or _phrase(status)
        self.detail = detail
        self.kind = kind
        self.headers = dict(headers or {})
        self.extensions = extensions
        super().__init__(self.title)

    def document(self, request_id: str | None) -> bytes:
        """Return the JSON document, with the request's id in it for whoever is asked about it."""
        members: dict[str, Any] = {
            "type": f"urn:tributary:problem:{self.kind}" if self.kind else "about:blank",
            "title": self.title,
            "status": self.status,
        }
        if self.detail is not None:
            members["detail"] = self.detail
        if request_id is not None:
            members["request_id"] = request_id
        return encode({**members, **self.extensions})


class CallFailed(Exception):
    """A required call has no value. Raised by awaiting a `fan.call`; on a page it never leaves the fan-out."""

    def __init__(
        self, call: str, failure: Failure, *, passthrough: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{call}: {failure.error.word}")
        self.call = call
        self.failure = failure
        self.passthrough = passthrough
        self.retry_after = retry_after

    def problem(self, errors: Mapping[str, Failure]) -> Problem:
        """Return the page's problem: this failure decides its status, all known failures are in `errors`."""
        if self.passthrough and self.failure.status is not None:
            return Problem(self.failure.status, kind="passthrough", errors={**errors, self.call: self.failure})
        status = _page_status(self.failure)
        headers = (
            {"Retry-After": str(math.ceil(self.retry_after or 1))} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
        )
        return Problem(
            status,
            _TITLES.get(status),
            f"{self.call} has no value: {self.failure.error.word}",
            kind=self.failure.error.word,
            headers=headers,
            complete=False,
            errors={**errors, self.call: self.failure},
        )


def failure_of(outcome: Outcome) -> Failure:
    """Return what clients may know of a call's failure."""
    assert outcome.fault is not None  # noqa: S101 - only failed outcomes are told as failures
    return Failure(
        upstream=outcome.upstream,
        error=outcome.fault,
        status=outcome.status,
        attempts=outcome.attempts,
        retryable=outcome.retryable,
        detail=outcome.detail if outcome.fault in _TELLING else None,
    )


def skipped(upstream: str | None, because: str) -> Failure:
    """Return the failure of a call that was not made, for want of another's value."""
    return Failure(
        upstream=upstream or None, error=Fault.SKIPPED, status=None, attempts=0, retryable=False, because=because
    )


def denied(upstream: str | None, detail: str) -> Failure:
    """Return the failure of a request that was not sent, because an upstream's value does not fit into it."""
    return Failure(
        upstream=upstream or None,
        error=Fault.HTTP_REQUEST_DENIED,
        status=None,
        attempts=0,
        retryable=False,
        detail=detail,
    )


def envelope(data: Any, *, complete: bool, errors: Mapping[str, Failure]) -> bytes:
    """Encode an answer: `{"data": ..., "complete": ..., "errors": {...}}`."""
    return encode({"data": data, "complete": complete, "errors": errors})


def _page_status(failure: Failure) -> int:
    if failure.error is Fault.HTTP_RESPONSE_STATUS and failure.status in _BUSY:
        return HTTPStatus.SERVICE_UNAVAILABLE
    return failure.error.status


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


_TITLES: Final = {
    502: "An upstream failed",
    503: "An upstream is not available",
    504: "An upstream did not answer in time",
}
