"""Which of its three forms an answer takes: one JSON document, or a stream of frames in one of two syntaxes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from django.http import HttpRequest

from gateway.answering.answer import Problem

JSON_TYPE: Final = "application/json"
JSONL_TYPE: Final = "application/jsonl"
SSE_TYPE: Final = "text/event-stream"
#: What tells caches that an answer has other forms.
VARY: Final[Mapping[str, str]] = {"Vary": "Accept"}

_LONGEST_ACCEPT: Final = 4096
_ANYTHING: Final = frozenset({"", "*/*", JSON_TYPE})
_WEIGHT: Final = re.compile(r";\s*q\s*=\s*(0(?:\.\d*)?|\.\d+)\s*(?:;|$)")


class _Liking(NamedTuple):
    """How much a client likes a media type, how exactly it named it, and how early (0, -1, ...): more is better."""

    weight: float
    exactness: int
    earliness: int


def negotiate(request: HttpRequest, *, streamable: bool) -> str:
    """Return the media type the client likes best of those on offer; raises Problem 406 when it likes none.

    As RFC 9110 section 12.5.1 has it, the most exact range decides how much a type is liked. Between types liked as
    much, one named exactly goes before one that a wildcard admits; then the client's order decides, then ours.
    Ranges beyond the first 4096 characters are not looked at.
    """
    accept = request.META.get("HTTP_ACCEPT", "").strip(" \t,")
    if accept in _ANYTHING:
        return JSON_TYPE
    if len(accept) > _LONGEST_ACCEPT:
        beginning = accept[:_LONGEST_ACCEPT]
        accept = beginning.rpartition(",")[0] or beginning
    offered = (JSON_TYPE, JSONL_TYPE, SSE_TYPE) if streamable else (JSON_TYPE,)
    best = _best(accept, offered)
    if best is None:
        raise Problem(406, detail=f"this page can be had as {', '.join(offered)}", headers=VARY)
    return best


@lru_cache(maxsize=256)
def _best(accept: str, offered: tuple[str, ...]) -> str | None:
    """Return the type that is liked best, None if none is; kept, for browsers of one kind all say the same."""
    ranges = accept.lower().split(",")
    likings = {media_type: _liking(media_type, ranges) for media_type in offered}
    best = max(offered, key=lambda media_type: likings[media_type])
    return best if likings[best].weight else None


def _liking(media_type: str, ranges: list[str]) -> _Liking:
    """Judge one type by the most exact range that admits it; of several as exact, the first.

    Parameters but `q` say nothing of JSON, and are left out of account.
    """
    admitting = [
        _Liking(_weight(text), 2 - name.count("*"), -position)
        for position, text in enumerate(ranges)
        if _admits(name := text.partition(";")[0].strip(), media_type)
    ]
    return max(admitting, key=lambda liking: (liking.exactness, liking.earliness), default=_Liking(0.0, 0, 0))


def _admits(name: str, media_type: str) -> bool:
    return name in {media_type, "*/*"} or (name.endswith("/*") and media_type.startswith(name[:-1]))


def _weight(text: str) -> float:
    found = _WEIGHT.search(text)
    return float(found[1]) if found else 1.0
