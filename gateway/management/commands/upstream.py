"""`manage.py upstream NAME`: hold a breaker open or closed, in every worker of this machine, or let it decide again."""

from __future__ import annotations

import argparse
import difflib
import getpass
import time
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from gateway.conf import conf
from gateway.serving.holds import Hold, hold, holds
from inspection.fault import Unanswerable
from inspection.times import seconds

_LONGEST: Final = 366 * 86400.0
_HELD: Final[dict[str, Literal["open", "closed"]]] = {"open": "open", "close": "closed"}


class Command(BaseCommand):
    """Writes what the workers follow within a second; without an action it says what is held."""

    help = "Hold an upstream's breaker open or closed, or let it decide again."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own form; a faulty page must not stand in the way

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take whose breaker, and what to hold it in."""
        parser.add_argument("name", help="the upstream's name")
        actions = parser.add_mutually_exclusive_group()
        actions.add_argument("--open", dest="action", action="store_const", const="open", help="ask it nothing")
        actions.add_argument(
            "--close", dest="action", action="store_const", const="close", help="ask it whatever comes"
        )
        actions.add_argument("--auto", dest="action", action="store_const", const="auto", help="let the breaker decide")
        parser.add_argument(
            "--for", dest="time", metavar="TIME", help="how long, such as 90s, 30m, 2h (default: no end)"
        )

    def handle(self, **options: Any) -> None:
        """Hold it, let it go, or say what is held."""
        directory, name, action = _directory(), _known(options["name"]), options["action"]
        if options["time"] and action not in _HELD:
            raise CommandError("--for says how long to hold it: it goes with --open or --close")
        try:
            if action is not None:
                hold(directory, name, _hold(action, options["time"]))
            held = holds(directory).get(name)
        except (OSError, msgspec.DecodeError, Unanswerable) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{name}: {said(held)}")
        if action is not None:
            self.stdout.write(
                "Every worker on this machine follows within a second, and logs it: manage.py logs breakers"
            )


def said(held: Hold | None) -> str:
    """Return what a hold comes to, in words."""
    if held is None:
        return "its breaker decides by itself"
    until = "until it is let go" if held.left is None else f"for another {_length(held.left)}"
    return f"held {held.state} by {held.by}, {until}"


def _length(left: float) -> str:
    minutes, rest = divmod(round(left), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (rest, "s"))
    return " ".join(f"{count}{unit}" for count, unit in parts if count) or "0s"


def _hold(action: str, length: str | None) -> Hold | None:
    if action not in _HELD:
        return None
    until = time.time() + _bounded(seconds(length)) if length else None
    return Hold(_HELD[action], f"{getpass.getuser()} at a terminal", until)


def _bounded(length: float) -> float:
    if length > _LONGEST:
        raise CommandError("--for is a year at most; without it there is no end")
    return length


def _directory() -> Path:
    try:
        directory = conf().control_dir
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from None
    if directory is None:
        raise CommandError("set LOG_DIR or GATEWAY_CONTROL_DIR, here and for the gateway: the workers look there")
    return directory


def _known(name: str) -> str:
    names = list(conf().upstreams)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; UPSTREAMS has {', '.join(names) or 'none'}"
        raise CommandError(f"no upstream is called {name!r}{hint}")
    return name
