"""What other code logs through the standard library, as lines like ours: redacted, and with its tracebacks as text."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from structlog.tracebacks import Stack, Trace, extract
from structlog.typing import EventDict, WrappedLogger

from gateway.log import events
from gateway.log.lines import LEVELS
from gateway.log.redact import LONGEST_TEXT, redact_text, safe_repr

_MOST_FRAMES: Final = 20
_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"


class Records(logging.Handler):
    """Turns records of Django, uvicorn, aiohttp, asyncio and a project's own loggers into `log.recorded`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record. Django's note that an answer was an error is left out: the wide line says so."""
        if record.name == "django.request" and not record.exc_info:
            return
        fields = {"logger": record.name, "message": _message(record), **_exception(record.exc_info)}
        events.log_recorded(level=level_name(record.levelno), fields=fields)


def exceptions(_: WrappedLogger, __: str, fields: EventDict) -> EventDict:
    """Turn structlog's `exc_info=` into the fields that tell of an exception."""
    told = _exception(fields.pop("exc_info", None))
    return {**fields, **told}


def level_name(number: int) -> str:
    """Return the name of a level, or of the next one below that has a name here."""
    return next((name for name in reversed(LEVELS) if LEVELS[name] <= number), "debug")


def _message(record: logging.LogRecord) -> str:
    """Return a record's message; arguments that do not fit are put beside it."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - somebody's format or repr
        return f"{safe_repr(record.msg)} {safe_repr(record.args)}"


def _exception(info: object) -> Mapping[str, Any]:
    """Return the fields that tell of an exception, named as OpenTelemetry does; none if there is no exception."""
    error = info if isinstance(info, BaseException) else None
    if isinstance(info, tuple):
        error = info[1]
    elif info and error is None:
        error = sys.exc_info()[1]
    if error is None:
        return {}
    try:
        trace = extract(type(error), error, error.__traceback__, show_locals=False)
    except Exception:  # noqa: BLE001 - an exception with notes that are none, or a name that is no text
        return {"exception.type": type(error).__name__}
    return {
        "exception.type": trace.stacks[0].exc_type,
        "exception.message": trace.stacks[0].exc_value,
        "exception.stacktrace": "\n".join(_written(trace))[-LONGEST_TEXT:],
    }


def _written(trace: Trace, indent: str = "") -> Iterator[str]:
    """Yield the lines Python would print, oldest exception first, without source lines: reading those would block."""
    for nth in reversed(range(len(trace.stacks))):
        stack = trace.stacks[nth]
        yield from (f"{indent}{line}" for line in _stack(stack))
        for inner in stack.exceptions:
            yield from _written(inner, f"{indent}  | ")
        if nth:
            yield f"\n{indent}{_CAUSE if stack.is_cause else _CONTEXT}\n"


def _stack(stack: Stack) -> Iterator[str]:
    yield "Traceback (most recent call last):"
    frames = [f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}' for frame in stack.frames]
    if len(frames) > _MOST_FRAMES:
        left = len(frames) - _MOST_FRAMES
        frames[_MOST_FRAMES // 2 : -_MOST_FRAMES // 2] = [f"  [{left} frames left out]"]
    yield from frames
    yield f"{stack.exc_type}: {redact_text(stack.exc_value)}"
    yield from map(redact_text, stack.exc_notes)
