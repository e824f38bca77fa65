"""An event as the one line of JSON it becomes. Whatever is in it, there is a line, and it is one line."""

from __future__ import annotations

import contextvars
import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from gateway.log.redact import redact, safe_repr

SCHEMA: Final = 1
#: What the log says itself about a line; nobody's field takes their place.
HEAD: Final = frozenset(
    {"timestamp", "level", "event", "schema", "trace_id", "request_id", "service.instance.id", "seq"}
)

_encoder: Final = msgspec.json.Encoder(enc_hook=safe_repr)
# Beside what JSON escapes: what ends a line for some readers, moves a terminal's cursor, or turns text around.
_UNSEEN: Final = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
# The context variables behind structlog's `bind_contextvars`, as it hands them out: reading these three costs a tenth
# of a walk over the whole context.
_IDENTITY: Final = tuple(
    (name, token.var)
    for name, token in contextvars.Context()
    .run(structlog.contextvars.bind_contextvars, **dict.fromkeys(("trace_id", "request_id", "http.route"), ""))
    .items()
)


def stamp(_: WrappedLogger, level: str, fields: EventDict) -> EventDict:
    """Put what every line has in front: when, how grave, what, and whose."""
    now = datetime.now(UTC)
    line: EventDict = {
        # A fraction of zero would be left out, and such a line sort wrongly as text; so it is a microsecond late.
        "timestamp": now if now.microsecond else now.replace(microsecond=1),
        "level": level,
        "event": fields.pop("event", None),
        "schema": SCHEMA,
    }
    for name, variable in _IDENTITY:
        value = variable.get(...)
        if value is not ...:
            line[name] = value
    line.update(fields)
    return line


def encode(_: WrappedLogger, __: str, fields: EventDict) -> bytes:
    """Encode a line; what cannot be encoded as it is, is written as text, for a log line must not fail a request."""
    try:
        line = _encoder.encode(fields)
    except Exception:  # noqa: BLE001 - a lone surrogate, a number too large, a circle
        line = _encoder.encode(redact(fields))
    return line if line.isascii() else _UNSEEN.sub(_escape, line.decode()).encode()


def mask(_: WrappedLogger, __: str, fields: EventDict) -> dict[str, Any]:
    """Redact an event that is not the catalogue's own, and take out fields that would pass for the log's."""
    return {name: value for name, value in redact(fields).items() if name == "event" or name not in HEAD}


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
