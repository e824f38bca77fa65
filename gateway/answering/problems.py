"""Every error as problem+json: what was raised becomes a Problem, a Problem becomes a response."""

from __future__ import annotations

import logging
from typing import Final

from django.core import signals
from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError

from gateway.answering.answer import CallFailed, Problem, denied
from gateway.answering.proxy_status import proxy_status
from gateway.running.fanout import Unusable
from gateway.serving.visit import visit_of
from upstreams import Fault, InvalidParameter

CONTENT_TYPE: Final = "application/problem+json"
logger = logging.getLogger(__name__)


def problem_of(request: HttpRequest, error: Exception) -> Problem:  # noqa: PLR0911 - one line a kind of error
    """Return what a client may know of an error. One that nobody expected is logged with its traceback."""
    match error:
        case Problem():
            return error
        case CallFailed():
            visit_of(request).failed(error.failure.error)
            return error.problem({})
        case Unusable():
            return Problem(400, "The request is not valid", kind="invalid_request", invalid={error.field: error.reason})
        case InvalidParameter():
            return _unusable_value(request, error)
        case Http404():
            return Problem(404)
        case PermissionDenied():
            return Problem(403)
        case RequestDataTooBig():
            return Problem(413)
        case BadRequest() | SuspiciousOperation() | MultiPartParserError() | UnreadablePostError():
            return Problem(400)
    visit_of(request).failed(Fault.PROXY_INTERNAL_ERROR)
    logger.error("unexpected error in %s", request.path, exc_info=error)
    _announce(request)
    return Problem(500, kind=Fault.PROXY_INTERNAL_ERROR.word)


def _announce(request: HttpRequest) -> None:
    """Send Django's signal, on the loop where a page is. Receivers that raise are logged, and spoil no answer."""
    try:
        signals.got_request_exception.send_robust(sender=None, request=request)
    except RuntimeError:
        logger.error("got_request_exception has an async receiver, which cannot be called for a page")  # noqa: TRY400


def _unusable_value(request: HttpRequest, error: InvalidParameter) -> Problem:
    """Tell a value that the client gave to a function view from one that an upstream gave."""
    given = dict(request.GET.lists())
    given.update(
        {name: [value] for name, value in (request.resolver_match.kwargs if request.resolver_match else {}).items()}
    )
    field = next((name for name, values in given.items() if error.value in values), None)
    if field is not None:
        return problem_of(request, Unusable(field, error))
    return problem_of(request, CallFailed(error.name, denied(None, str(error))))


def problem_response(request: HttpRequest, problem: Problem) -> HttpResponse:
    """Return the response a problem makes."""
    response = HttpResponse(
        problem.document(visit_of(request).inbound.request_id),
        status=problem.status,
        headers={"Cache-Control": "no-store", **problem.headers, "Content-Type": CONTENT_TYPE},
    )
    if problem.failures:
        response["X-Complete"] = "false"
        response["Proxy-Status"] = proxy_status(problem.failures)
    return response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """Answer 400: a URLconf's `handler400`."""
    return problem_response(request, Problem(400))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """Answer 403: a URLconf's `handler403`."""
    return problem_response(request, Problem(403))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001 - Django's signature
    """Answer 403 to a request that may be forged: the setting `CSRF_FAILURE_VIEW`."""
    return problem_response(request, Problem(403, detail="the request's CSRF token or origin is missing or wrong"))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """Answer 404: a URLconf's `handler404`."""
    return problem_response(request, Problem(404))


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500: a URLconf's `handler500`."""
    return problem_response(request, Problem(500, kind=Fault.PROXY_INTERNAL_ERROR.word))
