"""Which of its three forms an answer takes: one JSON document, or a stream of frames in one of two syntaxes."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest

from gateway.answer import Problem

JSON_TYPE: Final = "application/json"
JSONL_TYPE: Final = "application/jsonl"
SSE_TYPE: Final = "text/event-stream"


def negotiate(request: HttpRequest, *, streamable: bool) -> str:
    """Return the media type the client likes best of those on offer; raises Problem 406 when it likes none."""
    accept = request.META.get("HTTP_ACCEPT", "*/*")
    if accept in {"*/*", JSON_TYPE}:
        return JSON_TYPE
    offered = [JSON_TYPE, JSONL_TYPE, SSE_TYPE] if streamable else [JSON_TYPE]
    chosen = request.get_preferred_type(offered)
    if chosen is None:
        raise Problem(406, detail=f"this page can be had as {', '.join(offered)}")
    return chosen
