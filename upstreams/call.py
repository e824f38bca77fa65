"""One call to an upstream: what is asked, and how its answer is read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import msgspec

from upstreams.deadline import Deadline
from upstreams.fault import Fault
from upstreams.hosts import Host
from upstreams.inbound import Inbound
from upstreams.policy import Hedge
from upstreams.request import Request
from upstreams.values import Decoder, Unreadable
from upstreams.wire import Answer


class Reading(msgspec.Struct, frozen=True):
    """What is in an answer: a value, or its declared absence, or a fault."""

    value: Any = None
    absent: bool = False
    fault: Fault | None = None
    detail: str | None = None


class Call:
    """One call: what is asked, of whom and until when, and how many attempts it has come to.

    `hedge` and `coalesce` take the place of the upstream's own, unless they are None; False is none. `part` tells apart
    the requests of one call that is made of several.
    """

    __slots__ = (
        "absent", "attempts", "coalesce", "deadline", "decoder", "hedge", "host", "inbound", "name", "part", "request",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        request: Request[Any],
        decoder: Decoder,
        inbound: Inbound,
        deadline: Deadline,
        absent: Collection[int] = (),
        part: str = "",
        *,
        hedge: Hedge | Literal[False] | None = None,
        coalesce: bool | None = None,
    ) -> None:
        self.name = name
        self.request = request
        self.decoder = decoder
        self.inbound = inbound
        self.deadline = deadline
        self.absent = absent
        self.part = part
        self.hedge = hedge
        self.coalesce = coalesce
        self.attempts = 0
        self.host: Host | None = None

    def read(self, answer: Answer) -> Reading:
        """Take the value out of an answer, or say why there is none in it."""
        if answer.status in self.absent:
            return Reading(absent=True)
        if not 200 <= answer.status < 300 or answer.status == 206:
            return Reading(fault=Fault.HTTP_RESPONSE_STATUS)
        if answer.body and self.decoder.wants_json and (fault := not_json(answer)):
            return Reading(fault=Fault.BODY_MALFORMED, detail=fault)
        try:
            return Reading(self.decoder.read(answer.body, answer.status, answer.headers))
        except Unreadable as error:
            return Reading(fault=error.fault, detail=str(error))


def not_json(answer: Answer) -> str | None:
    """Say why an answer's Content-Type is not UTF-8 JSON's, or None if it is (RFC 8259, RFC 6839)."""
    kind = answer.content_type
    if kind != "application/json" and not kind.endswith("+json"):
        return "Content-Type is not JSON's" if kind else "there is no Content-Type"
    if answer.charset is not None and answer.charset.replace("-", "") not in {"utf8", "usascii"}:
        return "charset is not UTF-8"
    return None
