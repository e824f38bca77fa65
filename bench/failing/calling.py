"""A client's call as a bench makes it, without a page, and a journal that keeps nothing."""

from __future__ import annotations

import time
from typing import Any

from upstreams import Call, Deadline, Decoder, Inbound, Journal, Request
from upstreams.inbound import new_span_id, new_trace_id


class Silence(Journal):
    """Told of everything, and silent."""


def call(request: Request[Any], type_: Any, within: float) -> Call:
    """Return a call with `within` seconds for all of it."""
    inbound = Inbound(
        request_id="bench",
        trace_id=new_trace_id(),
        span_id=new_span_id(),
        trace_flags="00",
        headers={},
        idempotency_key="bench",
        started=time.perf_counter(),
    )
    return Call("bench", request, Decoder(type_), inbound, Deadline.within(within))
