"""`manage.py probe`: is every upstream there? Each is asked once."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from gateway.conf import conf
from gateway.visit import inbound_of
from upstreams import GET, Attempt, Call, Deadline, Decoder, Fault, Outcome, Upstream, open_fleet

_SERVER_ERROR: Final = 500
_ROOM: Final = 1.0


class Command(BaseCommand):
    """Prints a table, and exits with 1 if an upstream is down."""

    help = "Ask each upstream once; exit code 1 if one does not answer, or answers with 500 or above."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own form; a faulty page must not hide a dead upstream

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take what to ask, and whom."""
        parser.add_argument("upstreams", nargs="*", help="names of upstreams (default: all)")
        parser.add_argument("--path", default="/", help="path to ask for, after the base URL's own (default: /)")

    def handle(self, **options: Any) -> None:
        """Ask, print, and exit with 1 if one is down."""
        table = _chosen(options["upstreams"])
        found = asyncio.run(probe(table, options["path"]))
        width = max(map(len, found), default=0)
        for name, (outcome, attempt) in found.items():
            word, style = ("up", self.style.SUCCESS) if is_up(outcome) else ("down", self.style.ERROR)
            took = f"{attempt.duration * 1000:8.1f} ms" if attempt else " " * 11
            self.stdout.write(
                f"{name:<{width}}  {style(f'{word:<4}')}  {took}  {_said(outcome)}  {table[name].urls[0]}"
            )
        if not all(is_up(outcome) for outcome, _ in found.values()):
            sys.exit(1)


def is_up(outcome: Outcome) -> bool:
    """Tell whether an upstream answered for itself: a 404 is an answer too."""
    if outcome.fault is Fault.HTTP_RESPONSE_STATUS:
        return (outcome.status or 0) < _SERVER_ERROR
    return outcome.ok


async def probe(table: Mapping[str, Upstream], path: str) -> dict[str, tuple[Outcome, Attempt | None]]:
    """Ask each upstream for a path, all at once and each once; return outcome and attempt by name."""
    seen = _Seen()
    once = {name: replace(upstream, retry=None) for name, upstream in table.items()}
    longest = max((upstream.timeout for upstream in table.values()), default=0.0)
    async with open_fleet(once, seen, via=conf().name) as fleet:
        deadline = Deadline.within(longest + _ROOM)
        names = list(table)
        calls = [Call(name, GET(path), Decoder(bytes, bytes), inbound_of({}), deadline) for name in names]
        outcomes = await asyncio.gather(*(fleet.send(name, call) for name, call in zip(names, calls, strict=True)))
    return {name: (outcome, seen.attempts.get(name)) for name, outcome in zip(names, outcomes, strict=True)}


class _Seen:
    """A journal that keeps each upstream's last attempt."""

    def __init__(self) -> None:
        self.attempts: dict[str, Attempt] = {}

    def attempt_finished(self, upstream: str, call: str, attempt: Attempt) -> None:  # noqa: ARG002 - a journal's
        """Keep the attempt."""
        self.attempts[upstream] = attempt

    def retry_scheduled(self, upstream: str, call: str, attempt: Attempt, wait: float) -> None:
        """Nothing is retried here."""


def _chosen(names: list[str]) -> dict[str, Upstream]:
    table = conf().upstreams
    unknown = [name for name in names if name not in table]
    if unknown:
        message = f"no upstream is called {unknown[0]!r}; UPSTREAMS has {', '.join(table) or 'none'}"
        raise CommandError(message)
    return {name: table[name] for name in names or table}


def _said(outcome: Outcome) -> str:
    if outcome.fault is None or outcome.fault is Fault.HTTP_RESPONSE_STATUS:
        return f"{outcome.status}"
    return outcome.fault.word
