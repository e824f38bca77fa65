"""structlog and the standard library's logging, set up once, both ending in the same writer.

Django calls `configure` with `settings.LOGGING`: `LOGGING_CONFIG = "gateway.log.configure"`.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import structlog
from django.core.exceptions import ImproperlyConfigured

from gateway.log import events
from gateway.log.files import Limits
from gateway.log.lines import LEVELS, holding, lines, writer
from gateway.log.outputs import File, Stream
from gateway.log.records import Records, exceptions
from gateway.log.render import mask, render
from gateway.log.writer import Queue, Sink
from inspection.showing.lines import terminal

__all__ = ["configure", "holding", "writer"]

_STEPS: Final = ("all", "problems")
_OPTIONS: Final = frozenset({"level", "steps", "dir", "file_bytes", "keep_days", "keep_bytes"})
_LIMITS: Final = ("file_bytes", "keep_days", "keep_bytes")
_LEAST_BYTES: Final = 64 * 1024
_MOST_DAYS: Final = 36525
#: Loggers to which Django or uvicorn give handlers of their own.
_HANDLED_ELSEWHERE: Final = ("django", "django.server", "uvicorn", "uvicorn.error")


def configure(options: Mapping[str, Any]) -> None:
    """Set up logging. `options`: `level` (a name), `steps` (`all` or `problems`), `dir` (for NDJSON files, or None).

    Of the files: `file_bytes` (a file's size when it is set aside), `keep_days` and `keep_bytes` (what is kept).
    Raises ImproperlyConfigured for options that make no sense. Called again, it takes the place of the first time.
    """
    level, steps, limits, directory = _checked(options)
    lines.level = LEVELS[level]
    holding.enabled = steps == "problems"
    writer.use(_sinks(directory, limits))
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, exceptions, mask, render],
        wrapper_class=structlog.make_filtering_bound_logger(lines.level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    _route_standard_library(lines.level)


def _checked(options: Mapping[str, Any]) -> tuple[str, str, Limits, Path | None]:
    level, steps, directory = options.get("level", "info"), options.get("steps", "all"), options.get("dir")
    if unknown := options.keys() - _OPTIONS:
        raise ImproperlyConfigured(
            "LOGGING takes level, steps, dir, file_bytes, keep_days and keep_bytes, not " + ", ".join(sorted(unknown))
        )
    if level not in tuple(LEVELS):
        raise ImproperlyConfigured(f"LOGGING['level'] must be one of {', '.join(LEVELS)}, not {level!r}")
    if steps not in _STEPS:
        raise ImproperlyConfigured(f"LOGGING['steps'] must be all or problems, not {steps!r}")
    limits = _limits(options)
    if directory is None:
        return level, steps, limits, None
    if not isinstance(directory, (str, Path)) or not str(directory):
        raise ImproperlyConfigured(f"LOGGING['dir'] must be a directory's path or None, not {directory!r}")
    return level, steps, limits, _writable(Path(directory))


def _limits(options: Mapping[str, Any]) -> Limits:
    limits = Limits(**{name: options[name] for name in _LIMITS if name in options})
    for name in ("file_bytes", "keep_bytes"):
        size = getattr(limits, name)
        if type(size) is not int or size < _LEAST_BYTES:
            raise ImproperlyConfigured(
                f"LOGGING[{name!r}] must be a whole number of bytes, {_LEAST_BYTES} or more, not {size!r}"
            )
    days = limits.keep_days
    if type(days) not in {int, float} or not 0 <= days <= _MOST_DAYS:
        raise ImproperlyConfigured(f"LOGGING['keep_days'] must be a number of days, 0 to {_MOST_DAYS}, not {days!r}")
    return limits


def _writable(directory: Path) -> Path:
    """Make a directory if need be; raise ImproperlyConfigured if no file could be made there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(f"LOG_DIR, LOGGING['dir']: {directory} cannot be made: {error.strerror}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ImproperlyConfigured(f"LOG_DIR, LOGGING['dir']: {directory} is not writable")
    return directory.resolve()


def _sinks(directory: Path | None, limits: Limits) -> list[Sink]:
    sinks: list[Sink] = []
    descriptor = _standard_output()
    if descriptor is not None:
        shown = terminal() if os.isatty(descriptor) else None
        sinks.append(Queue(Stream(descriptor, "stdout", shown), _dropped))
    if directory is not None:
        sinks.append(Queue(File(directory, writer.tally, limits), _dropped))
    return sinks


def _dropped(count: int, sink: str) -> bytes:
    """Return the line that tells a sink of its loss; it says whose it is, as every line does."""
    return writer.sign(events.log_dropped(count, sink))


def _standard_output() -> int | None:
    """Return the descriptor of standard output, None where the process was started without or it leads nowhere."""
    try:
        descriptor = sys.__stdout__.fileno() if sys.__stdout__ is not None else None
    except (OSError, ValueError):
        return None
    return None if descriptor is None or _leads_nowhere(descriptor) else descriptor


def _leads_nowhere(descriptor: int) -> bool:
    """Tell whether a descriptor is that of /dev/null: what is written there, nobody reads."""
    try:
        told = os.fstat(descriptor)
        return stat.S_ISCHR(told.st_mode) and told.st_rdev == _null_device()
    except OSError:
        return False


@cache
def _null_device() -> int:
    """Return the number of the device that /dev/null is. Raises OSError where there is none."""
    return Path(os.devnull).stat().st_rdev


def _route_standard_library(level: int) -> None:
    """Let every record come to our handler, once, and no other handler of Django's or uvicorn's have it."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, Records)]:
        root.removeHandler(handler)
    root.addHandler(Records())
    root.setLevel(level)
    for name in _HANDLED_ELSEWHERE:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").disabled = True
    logging.captureWarnings(capture=True)


# Where a project has logging of its own, the catalogue's events go to standard output all the same.
writer.use(_sinks(None, Limits()))
