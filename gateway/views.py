"""The same runtime under ordinary function views."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from django.http import HttpRequest, HttpResponse

from gateway.answering.answer import envelope
from gateway.answering.negotiation import JSON_TYPE
from gateway.answering.proxy_status import proxy_status
from gateway.running.fan import Fan
from gateway.serving.fleets import borrowed_fleet
from gateway.serving.visit import Visit, visit_of
from upstreams import Deadline, Inbound, Sender


class ViewFan(Fan):
    """A fan that also makes the view's answer."""

    def __init__(self, sender: Sender, inbound: Inbound, deadline: Deadline, visit: Visit) -> None:
        super().__init__(sender, inbound, deadline)
        self._visit = visit

    def answer(self, data: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
        """Return the response a page would give for these values: an envelope that tells what is missing.

        Raises CallFailed for a required call that failed and was never awaited.
        """
        self.raise_untold()
        failures = self.failures
        complete = not failures
        self._visit.fields["complete"] = complete
        response = HttpResponse(
            envelope(data, complete=complete, errors=failures),
            status=status,
            content_type=JSON_TYPE,
            headers=dict(headers or {}),
        )
        response["X-Complete"] = "true" if complete else "false"
        if failures:
            response["Proxy-Status"] = proxy_status(failures)
        return response

    async def __aexit__(self, *exception: object) -> None:
        """Tell the wide log line what there was; cancel and reap what still runs."""
        self._visit.fields.update(calls=len(self.names), calls_failed=list(self.failures), attempts=self.attempts)
        await super().__aexit__(*exception)


@asynccontextmanager
async def fan_out(request: HttpRequest, *, deadline: float = 2.0) -> AsyncIterator[ViewFan]:
    """Open a fan for one view: its calls share `deadline` (seconds), and none outlives the block.

    A client may shorten the deadline, as a page's. A required call that fails raises CallFailed where it is awaited;
    left alone, that becomes problem+json.
    """
    visit = visit_of(request)
    async with borrowed_fleet(request) as fleet, ViewFan(fleet, visit.inbound, visit.deadline(deadline), visit) as fan:
        yield fan
