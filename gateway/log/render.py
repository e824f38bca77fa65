"""An event as the one line of JSON it becomes. Whatever is in it, there is a line, and it is one line."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
from structlog.typing import EventDict, WrappedLogger

from gateway.log.redact import redact, safe_repr

SCHEMA: Final = 1
#: What the log says itself about a line; nobody's field takes their place.
HEAD: Final = frozenset(
    {"timestamp", "level", "event", "schema", "trace_id", "request_id", "http.route", "service.instance.id", "seq"}
)

_encoder: Final = msgspec.json.Encoder(enc_hook=safe_repr)
# Beside what JSON escapes: what ends a line for some readers, moves a terminal's cursor, or turns text around.
_UNSEEN: Final = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
#: Whose the lines of this context are, as they say it: encoded once a request.
_whose: Final[ContextVar[bytes]] = ContextVar("whose_lines", default=b"")


def identify(identity: Mapping[str, str]) -> None:
    """Put these fields on every line of this context, and of the tasks that are started in it, from here on."""
    _whose.set(b",%b" % _encode(identity)[1:-1] if identity else b"")


def line(level: str, event: str, fields: Mapping[str, Any]) -> bytes:
    """Return one of the catalogue's events as its line: when, how grave, what and whose in front, then its fields."""
    now = time.time()
    second = int(now)
    return b"%b%06d%b%b%b%b" % (
        _second(second),
        (now - second) * 1_000_000,
        _kind(level, event),
        _whose.get(),
        b"," if fields else b"",
        _encode(fields)[1:],
    )


def render(_: WrappedLogger, level: str, fields: EventDict) -> bytes:
    """Return anybody's event as its line: structlog's last processor."""
    event = fields.pop("event", None)
    text = _encode(event if isinstance(event, str) else safe_repr(event))
    return line(level, text[1:-1].decode(), fields)


@lru_cache(maxsize=2)
def _second(seconds: int) -> bytes:
    """Return how a line begins in a second since 1970, up to its fractions: many lines share it."""
    return f'{{"timestamp":"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.'.encode()


@lru_cache(maxsize=128)
def _kind(level: str, event: str) -> bytes:
    """Return how a line goes on behind its time: the catalogue has few events, and a project's code few texts."""
    return f'Z","level":"{level}","event":"{event}","schema":{SCHEMA}'.encode()


def _encode(value: Any) -> bytes:
    """Encode a value; what cannot be encoded as it is, is written as text, for a log line must not fail a request."""
    try:
        text = _encoder.encode(value)
    except Exception:  # noqa: BLE001 - a lone surrogate, a number too large, a circle
        text = _encoder.encode(redact({"": value})[""])
    return text if text.isascii() else _UNSEEN.sub(_escape, text.decode()).encode()


def mask(_: WrappedLogger, __: str, fields: EventDict) -> dict[str, Any]:
    """Redact an event that is not the catalogue's own, and take out fields that would pass for the log's."""
    return {name: value for name, value in redact(fields).items() if name == "event" or name not in HEAD}


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
