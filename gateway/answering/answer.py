"""What goes back to the client: values in the order they were declared, what is missing and why, or a problem.

Pure functions of what the calls came to. Nothing an upstream sends as an error, and nothing of its address, gets here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

import msgspec

from upstreams import Fault, Outcome, Reply
from upstreams.values import encode

T = TypeVar("T")

_TELLING: Final = frozenset({Fault.BODY_MALFORMED, Fault.BODY_MISMATCH, Fault.HTTP_REQUEST_DENIED})
_BUSY: Final = frozenset({429, 503})
_LAST_STATUS: Final = 599
_FIELD_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: How an answer is framed and coded is the server's to say, and is not copied from an upstream's.
_FRAMING: Final = frozenset(
    {"connection", "content-encoding", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)


class Answer(msgspec.Struct, Generic[T], frozen=True):
    """What `merge` may return to decide on more than the body.

    `cookies` maps a name to its value, or to the arguments of Django's `set_cookie`. Raises ValueError for a status
    that ends no request, and for a header that cannot be sent or that belongs to the connection.
    """

    body: T
    status: int = 200
    headers: Mapping[str, str] = {}
    cookies: Mapping[str, str | Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        """Refuse a status or headers where they are written, not when they are sent."""
        _check_status(self.status, least=200)
        _check_headers(self.headers)


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

    `extensions` become further members of the document; `headers` go beside it. `failures` are the calls without a
    value, for which it is raised. Raises TypeError or ValueError for what cannot be sent.
    """

    def __init__(
        self,
        status: int,
        title: str | None = None,
        detail: str | None = None,
        *,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
        failures: Mapping[str, Failure] | None = None,
        **extensions: Any,
    ) -> None:
        _check_status(status, least=400)
        _check_headers(headers or {})
        self.status = status
        self.title = title or _phrase(status)
        self.detail = detail
        self.kind = kind
        self.headers = dict(headers or {})
        self.failures = dict(failures or {})
        self.extensions = extensions
        self.document("")  # what cannot be encoded is found where it is written
        super().__init__(self.title)

    def members(self, request_id: str) -> dict[str, Any]:
        """Return what the problem says of itself, with the request's id in it for whoever is asked about it."""
        members: dict[str, Any] = {
            "type": f"urn:tributary:problem:{self.kind}" if self.kind else "about:blank",
            "title": self.title,
            "status": self.status,
        }
        if self.detail is not None:
            members["detail"] = self.detail
        return {**members, "request_id": request_id, **self.extensions}

    def document(self, request_id: str) -> bytes:
        """Return the whole JSON document: the problem's members, and which calls have no value."""
        members = self.members(request_id)
        if self.failures:
            members |= {"complete": False, "errors": self.failures}
        return encode(members)


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
        failures = {**errors, self.call: self.failure}
        if self.passthrough and self.failure.status is not None:
            status = self.failure.status
            return Problem(status, kind="passthrough", headers=self._wait(status), failures=failures)
        status = _page_status(self.failure)
        return Problem(
            status,
            _TITLES.get(status),
            f"{self.call} has no value: {self.failure.error.word}",
            kind=self.failure.error.word,
            headers=self._wait(status),
            failures=failures,
        )

    def _wait(self, status: int) -> dict[str, str]:
        """Say when to come again, in whole seconds, where the status asks the client to."""
        return {"Retry-After": str(math.ceil(self.retry_after or 1))} if status in _BUSY else {}


def passes_through(outcome: Outcome, statuses: Collection[int], *, required: bool) -> bool:
    """Tell whether a status is the page's own: the call says so, or the upstream does of a required one."""
    return outcome.fault is Fault.HTTP_RESPONSE_STATUS and (
        outcome.status in statuses or (outcome.passthrough and required)
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


def shown(value: Any) -> Any:
    """Return what clients may see of a call's value: of a Reply the value alone, for its headers are the upstream's."""
    if isinstance(value, Reply):
        return value.value
    if isinstance(value, dict) and any(isinstance(row, Reply) for row in value.values()):
        return {key: shown(row) for key, row in value.items()}
    return value


def envelope(data: Any, *, complete: bool, errors: Mapping[str, Failure]) -> bytes:
    """Encode an answer: `{"data": ..., "complete": ..., "errors": {...}}`."""
    return encode({"data": data, "complete": complete, "errors": errors})


def _check_status(status: int, *, least: int) -> None:
    if not least <= status <= _LAST_STATUS:
        message = f"the status must be from {least} to {_LAST_STATUS}, not {status!r}"
        raise ValueError(message)


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _FIELD_NAME.fullmatch(name) or name.lower() in _FRAMING:
            message = f"{name!r} is no header that an answer may set"
            raise ValueError(message)
        if _CONTROL.search(str(value)):
            message = f"the header {name!r} has a value that cannot be sent"
            raise ValueError(message)


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
