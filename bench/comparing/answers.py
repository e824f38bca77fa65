"""Whether servers that are compared give the same answer: byte for byte, up to the order of an object's members."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec


class Differs(Exception):
    """A server's answer is not what the others answer, so there is nothing to compare."""


def check(raw: bytes, data: dict[str, Any], *, streamed: bool = False) -> None:
    """Raise Differs unless an answer is this data, complete, and nothing else."""
    wanted = msgspec.json.encode({"data": data, "complete": True, "errors": {}})
    given = _joined(raw) if streamed else raw
    if len(given) != len(wanted) or _in_order(given) != _in_order(wanted):
        raise Differs(f"wanted {wanted[:200]!r} ({len(wanted)} bytes), got {given[:200]!r} ({len(given)} bytes)")


def _joined(raw: bytes) -> bytes:
    """Return a stream of frames as the answer that they make up."""
    texts = (line.removeprefix(b"data:").strip() for line in raw.splitlines())
    frames = [msgspec.json.decode(text, type=dict[str, msgspec.Raw]) for text in texts if text.startswith(b"{")]
    data = {msgspec.json.decode(frame["call"], type=str): frame["data"] for frame in frames if "data" in frame}
    return msgspec.json.encode({"data": data, **{name: frames[-1][name] for name in ("complete", "errors")}})


def _in_order(raw: bytes) -> str:
    """Return JSON with its members sorted, and its numbers as they were written."""
    try:
        value = json.loads(raw, parse_float=_as_written("float"), parse_int=_as_written("int"))
    except ValueError:
        return ""
    return json.dumps(value, sort_keys=True)


def _as_written(kind: str) -> Callable[[str], str]:
    return lambda text: f"{kind} {text}"
