"""What came of a call: its attempts, and the value or the fault they ended in."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from upstreams.fault import Fault
from upstreams.wire import Answer

#: Why an attempt was made. `transparent`: the connection it would have used had been closed meanwhile, so it is the
#: same attempt on another one, and counts as no other.
Kind = Literal["first", "retry", "hedge", "transparent"]


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try. `sent` says whether a request went out on a connection; times are seconds, `start` since the page began.

    `host` is where it went, if the upstream has several. `status` is None when no answer's head was read; `fault` is
    None when the answer could be used, and then `value` is what was in it, or `absent` says that its status means that
    there is nothing; `retry_after` is what the upstream asked for, in seconds. `stale`: it went out on a connection
    that the upstream had closed, and not a byte came back.
    """

    number: int
    span_id: str
    method: str = "GET"
    start: float
    duration: float
    kind: Kind = "first"
    host: str | None = None
    sent: bool = False
    conn: Literal["new", "reused"] | None = None
    status: int | None = None
    answer: Answer | None = None
    value: Any = None
    absent: bool = False
    fault: Fault | None = None
    detail: str | None = None
    retry_after: float | None = None
    stale: bool = False
    cancelled: bool = False

    @property
    def begun(self) -> bool:
        """Whether it was let through at all; what was refused here is told like an attempt, and is none."""
        return bool(self.span_id)

    @property
    def body_bytes(self) -> int:
        """The size of the answer's body, decompressed."""
        return len(self.answer.body) if self.answer is not None else 0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one call: never raised, always returned.

    `fault` is None when the call has a value, also when that value is None because its status was declared `absent`.
    `status` is the last answer's, if there was one; `retry_after` seconds, if the upstream asked for a wait;
    `passthrough` says that the upstream's configuration makes this status the page's own.
    """

    upstream: str
    value: Any = None
    absent: bool = False
    fault: Fault | None = None
    status: int | None = None
    detail: str | None = None
    attempts: int = 0
    retry_after: float | None = None
    passthrough: bool = False

    @property
    def ok(self) -> bool:
        """Whether there is a value, or a declared absence of one."""
        return self.fault is None

    @property
    def retryable(self) -> bool:
        """Whether asking again later may help: what a client is told in `errors`."""
        if self.fault is Fault.HTTP_RESPONSE_STATUS:
            return self.status in RETRYABLE_STATUSES
        return self.fault is not None and (self.fault.retryable or self.fault.status in {503, 504})


RETRYABLE_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
