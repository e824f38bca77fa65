"""One call to an upstream: what is asked, and how its answer is read."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
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


class Call(msgspec.Struct, eq=False):
    """One call: what is asked, of whom and until when, and how many attempts it has come to.

    `hedge` and `coalesce` take the place of the upstream's own, unless they are None; False is none. `part` tells apart
    the requests of one call that is made of several. `host` was asked last.
    """

    name: str
    request: Request[Any]
    decoder: Decoder
    inbound: Inbound
    deadline: Deadline
    absent: Collection[int] = ()
    part: str = ""
    hedge: Hedge | Literal[False] | None = None
    coalesce: bool | None = None
    attempts: int = 0
    host: Host | None = None

    def read(self, answer: Answer) -> Reading:
        """Take the value out of an answer, or say why there is none in it."""
        status, body = answer.status, answer.body
        if status in self.absent:
            return Reading(absent=True)
        if not 200 <= status < 300 or status == 206:
            return Reading(fault=Fault.HTTP_RESPONSE_STATUS)
        if body and self.decoder.wants_json and (fault := _not_json(answer.content_type, answer.charset)):
            return Reading(fault=Fault.BODY_MALFORMED, detail=fault)
        try:
            return Reading(self.decoder.read(body, status, answer.headers))
        except Unreadable as error:
            return Reading(fault=error.fault, detail=str(error))


@lru_cache(maxsize=256)
def _not_json(kind: str, charset: str | None) -> str | None:
    """Say why a media type and its charset are not UTF-8 JSON's, or None if they are (RFC 8259, RFC 6839)."""
    if kind != "application/json" and not kind.endswith("+json"):
        return "Content-Type is not JSON's" if kind else "there is no Content-Type"
    if charset is not None and charset.replace("-", "") not in {"utf8", "usascii"}:
        return "charset is not UTF-8"
    return None
