"""What the client's request hands on to the upstreams: its identity, its trace, the headers that may be forwarded."""

from __future__ import annotations

import random
from collections.abc import Mapping

import msgspec


class Inbound(msgspec.Struct, frozen=True, kw_only=True):
    """One client request as its upstream calls see it.

    `headers` have lower-case names and are only a source: each upstream takes those it allows. `trace_id`, `span_id`
    and `trace_flags` are W3C Trace Context's, in hex; `parent_span_id` is the client's own span, None if it sent no
    `traceparent`. `idempotency_key` is the client's, or one made for this request.
    `started` is the moment it arrived, on time.perf_counter's clock.
    """

    request_id: str
    trace_id: str
    span_id: str
    trace_flags: str
    headers: Mapping[str, str]
    idempotency_key: str
    started: float
    parent_span_id: str | None = None


def new_trace_id() -> str:
    """Return 16 random bytes in hex; they name a request, and guard nothing."""
    return f"{random.getrandbits(128) or 1:032x}"


def new_span_id() -> str:
    """Return 8 random bytes in hex."""
    return f"{random.getrandbits(64) or 1:016x}"
