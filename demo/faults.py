"""The demo's fault knob: `?fault=reviews:timeout` on a page becomes a header that only the demo's services obey."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest


class FaultKnob:
    """Middleware that turns the query's `fault` into the request header `X-Demo-Fault`, which upstreams may be sent."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Pass the request on, with the header if a fault is asked for."""
        fault = request.GET.get("fault")
        if fault and fault.isascii() and fault.isprintable():
            request.META["HTTP_X_DEMO_FAULT"] = fault
            scope = getattr(request, "scope", None)
            if scope is not None:
                scope["headers"] = [*scope["headers"], (b"x-demo-fault", fault.encode("ascii"))]
        return self.get_response(request)
