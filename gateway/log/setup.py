"""structlog and the standard library's logging, set up once, both ending in the same writer.

Django calls `configure` with `settings.LOGGING`: `LOGGING_CONFIG = "gateway.log.configure"`.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from gateway.log.redact import redact
from gateway.log.writer import FileSink, Writer

SCHEMA: Final = 1
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_STEPS: Final = frozenset({"all", "problems"})
_HEALTHY: Final = _LEVELS["info"]

_encoder: Final = msgspec.json.Encoder(enc_hook=repr)
_held: Final[contextvars.ContextVar[list[bytes] | None]] = contextvars.ContextVar("held_steps", default=None)


def configure(options: Mapping[str, Any]) -> None:
    """Set up logging. `options`: `level` (a name), `dir` (for NDJSON files, or None), `steps` (`all` or `problems`)."""
    level = str(options.get("level", "info")).lower()
    steps = str(options.get("steps", "all"))
    if level not in _LEVELS or steps not in _STEPS or options.keys() - {"level", "dir", "steps"}:
        message = f"LOGGING takes level {sorted(_LEVELS)}, steps {sorted(_STEPS)} and dir, not {dict(options)}"
        raise ValueError(message)
    writer.sinks[:] = _sinks(options.get("dir"))
    holding.enabled = steps == "problems"
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _stamp, _render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    _route_standard_library(_LEVELS[level])


class Holding:
    """Whether the steps of a request are held back until it is known to have had a problem (LOG_STEPS=problems)."""

    def __init__(self) -> None:
        self.enabled = False

    def begin(self) -> None:
        """Start holding this context's lines back."""
        _held.set([] if self.enabled else None)

    def end(self, *, healthy: bool) -> None:
        """Let the held lines go, or drop them where all went well."""
        held = _held.get()
        _held.set(None)
        if held and not healthy:
            for line in held:
                writer.put(line)


class _Lines:
    """The logger under structlog's: hands rendered lines to the writer, or keeps them until their request has ended."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, line: bytes) -> None:
        held = _held.get()
        if held is None:
            writer.put(line)
        else:
            held.append(line)

    debug = info = warning = error = critical = msg


class _StandardLibrary(logging.Handler):
    """Turns records of Django, uvicorn, aiohttp and asyncio into lines like ours, redacted."""

    _formatter = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. Django's note that an answer was an error is left out: the wide line says so."""
        if record.name == "django.request" and not record.exc_info:
            return
        fields: EventDict = {"event": "log.recorded", "level": record.levelname.lower(), "logger": record.name}
        structlog.contextvars.merge_contextvars(None, "", fields)
        fields.update(redact({"message": record.getMessage()}))
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = [redact(trace) for trace in self._formatter(record.exc_info)]
        _Lines().msg(_render(None, record.levelname.lower(), _stamp(None, record.levelname.lower(), fields)))


def _route_standard_library(level: int) -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _StandardLibrary)]:
        root.removeHandler(handler)
    root.addHandler(_StandardLibrary())
    root.setLevel(max(level, logging.INFO))
    for name in ("django", "django.server", "uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").disabled = True
    logging.captureWarnings(capture=True)


def _stamp(_: WrappedLogger, name: str, fields: EventDict) -> EventDict:
    """Put what every line has in front."""
    return {
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": fields.pop("level", name),
        "event": fields.pop("event"),
        "schema": SCHEMA,
        **fields,
    }


def _render(_: WrappedLogger, __: str, fields: MutableMapping[str, Any]) -> bytes:
    """Encode a line; what cannot be encoded is written as text, for a log line must not fail a request."""
    try:
        return _encoder.encode(fields)
    except Exception:  # noqa: BLE001 - a lone surrogate, a number too large, an object whose repr fails
        return json.dumps(fields, default=_safely, skipkeys=True).encode("ascii", "backslashreplace")


def _safely(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - somebody's repr
        return f"<{type(value).__name__}>"


def _dropped(count: int) -> bytes:
    return _render(None, "warning", _stamp(None, "warning", {"event": "log.dropped", "count": count}))


def _sinks(directory: str | os.PathLike[str] | None) -> list[FileSink]:
    sinks = (
        [FileSink(sys.__stdout__.fileno(), _pretty() if sys.__stdout__.isatty() else None)] if sys.__stdout__ else []
    )
    if directory is not None:
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        sinks.append(FileSink(os.open(path / f"gateway-{os.getpid()}.ndjson", flags, 0o640)))
    return sinks


def _pretty() -> Callable[[bytes], bytes]:
    """Return what renders a line for a terminal: the event and its fields in colour, ids and constants left out."""
    console = structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ, pad_event_to=18)

    def render(line: bytes) -> bytes:
        fields = msgspec.json.decode(line)
        for name in ("schema", "trace_id", "span_id"):
            fields.pop(name, None)
        fields["timestamp"] = fields["timestamp"][11:23]
        return str(console(None, "", {name: value for name, value in fields.items() if value is not None})).encode()

    return render


writer: Final = Writer(_dropped)
holding: Final = Holding()
