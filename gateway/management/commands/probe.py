"""`manage.py probe`: is every upstream there? Each is asked once."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from gateway.conf import conf
from gateway.serving.visit import inbound_of
from inspection.showing.columns import columns
from upstreams import GET, Attempt, Call, Deadline, Decoder, Fault, Journal, Outcome, Request, Upstream, open_fleet

_SERVER_ERROR: Final = 500
_ROOM: Final = 1.0
_RIGHT: Final = frozenset({2})


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
        if not table:
            raise CommandError("UPSTREAMS is empty: there is nobody to ask")
        try:
            request = GET(options["path"])
        except (TypeError, ValueError) as error:
            raise CommandError(f"--path: {error}") from None
        found = asyncio.run(probe(table, request))
        lines = columns([_cells(probed) for probed in found], _RIGHT)
        for probed, line in zip(found, lines, strict=True):
            self.stdout.write(line if probed.up else self.style.ERROR(line))
        if not all(probed.up for probed in found):
            sys.exit(1)


class Probed(NamedTuple):
    """What came of asking one base URL of an upstream; `attempt` is None if nothing was sent."""

    name: str
    url: str
    outcome: Outcome
    attempt: Attempt | None

    @property
    def up(self) -> bool:
        """Whether the upstream answered for itself: a 404 is an answer too."""
        if self.outcome.fault is Fault.HTTP_RESPONSE_STATUS:
            return (self.outcome.status or 0) < _SERVER_ERROR
        return self.outcome.ok


async def probe(table: Mapping[str, Upstream], request: Request[Any]) -> list[Probed]:
    """Ask every base URL of each upstream, all at once and each once."""
    asked = {f"{name}-{number}": (name, url) for name in table for number, url in enumerate(table[name].urls)}
    seen = _Seen()
    once = {key: replace(table[name], url=url, retry=None, hedge=None) for key, (name, url) in asked.items()}
    longest = max((upstream.timeout for upstream in table.values()), default=0.0)
    async with open_fleet(once, seen, via=conf().name) as fleet:
        deadline = Deadline.within(longest + _ROOM)
        calls = {key: Call(key, request, Decoder(bytes, bytes), inbound_of({}), deadline) for key in asked}
        outcomes = await asyncio.gather(*(fleet.send(key, call) for key, call in calls.items()))
    return [
        Probed(name, url, outcome, seen.attempts.get(key))
        for (key, (name, url)), outcome in zip(asked.items(), outcomes, strict=True)
    ]


class _Seen(Journal):
    """A journal that keeps each upstream's last attempt."""

    def __init__(self) -> None:
        self.attempts: dict[str, Attempt] = {}

    def attempt_finished(self, upstream: str, call: str, attempt: Attempt) -> None:  # noqa: ARG002 - a journal's
        """Keep the attempt."""
        self.attempts[upstream] = attempt


def _chosen(names: list[str]) -> dict[str, Upstream]:
    try:
        table = conf().upstreams
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from None
    unknown = [name for name in names if name not in table]
    if unknown:
        raise CommandError(f"no upstream is called {unknown[0]!r}; UPSTREAMS has {', '.join(table) or 'none'}")
    return {name: table[name] for name in names or table}


def _cells(probed: Probed) -> tuple[str, ...]:
    took = f"{probed.attempt.duration * 1000:.1f} ms" if probed.attempt else "-"
    return probed.name, "up" if probed.up else "down", took, _said(probed.outcome), probed.url


def _said(outcome: Outcome) -> str:
    if outcome.fault is None or outcome.fault is Fault.HTTP_RESPONSE_STATUS:
        return f"{outcome.status}"
    return outcome.fault.word
