"""Reading the environment: a value of the right kind, or a sentence that names the variable and stops the start."""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from typing import Final, NoReturn

from upstreams import Upstream

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


class EnvironmentFault(SystemExit):
    """An environment variable is missing or makes no sense. Ends the process with its sentence, and no traceback."""


def text(name: str, default: str | None = None) -> str:
    """Return a variable as it is; without a default it must be set, and not empty."""
    value = os.environ.get(name, "")
    if value:
        return value
    if default is None:
        _fault(name, "is not set")
    return default


def secret(name: str, default: str | None = None) -> str:
    """Return a secret from the variable, or from the file that `<name>_FILE` names."""
    path = os.environ.get(f"{name}_FILE", "")
    if not path:
        return text(name, default)
    try:
        found = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        _fault(f"{name}_FILE", f"names a file that cannot be read ({type(error).__name__})")
    return found or _fault(f"{name}_FILE", "names a file with nothing in it")


def flag(name: str, *, default: bool) -> bool:
    """Return a switch: 1/0, true/false, yes/no or on/off."""
    value = os.environ.get(name, "").lower()
    if not value:
        return default
    if value not in _TRUE | _FALSE:
        _fault(name, f"must be true or false, not {value!r}")
    return value in _TRUE


def number(name: str, default: float, *, least: float = 0.0, most: float = math.inf) -> float:
    """Return a number, at least `least` and at most `most`."""
    value = os.environ.get(name, "")
    if not value:
        return default
    try:
        found = float(value)
    except ValueError:
        _fault(name, f"must be a number, not {value!r}")
    if not (found >= least and math.isfinite(found)):
        _fault(name, f"must be {least:g} or more, not {value!r}")
    if found > most:
        _fault(name, f"must be {most:g} or less, not {value!r}")
    return found


def words(name: str, default: str | None = None) -> list[str]:
    """Return a list separated by commas; without a default there must be something in it."""
    found = [word.strip() for word in text(name, default).split(",") if word.strip()]
    if not found and default is None:
        _fault(name, "names nothing")
    return found


def choice(name: str, default: str, allowed: tuple[str, ...]) -> str:
    """Return one of a few words."""
    value = os.environ.get(name, "") or default
    if value not in allowed:
        _fault(name, f"must be one of {', '.join(allowed)}, not {value!r}")
    return value


def urls(name: str, default: str | None = None) -> list[str]:
    """Return the base URL of a service, or those of its hosts, separated by commas."""
    found = words(name, default)
    if fault := next(Upstream(found).faults(), None):
        _fault(name, f"is no base URL: {fault.removeprefix('url ')}")
    return found


def module(name: str, default: str) -> str:
    """Return the dotted name of a Python module that there is."""
    value = text(name, default)
    try:
        found = importlib.util.find_spec(value) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        _fault(name, f"must name a Python module, not {value!r}")
    return value


def folder(name: str) -> str | None:
    """Return the path of a folder that can be written to, or be made; None if the variable is not set."""
    value = os.environ.get(name, "")
    if not value:
        return None
    there = next(path for path in (Path(value).absolute(), *Path(value).absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        _fault(name, f"must name a folder that can be written to, not {value!r}")
    return value


def _fault(name: str, sentence: str) -> NoReturn:
    message = f"environment variable {name} {sentence}"
    raise EnvironmentFault(message)
