"""Upstreams: a card for each, and the switch that holds its breaker in every worker of this machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlencode

import msgspec
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse

from gateway.conf import conf
from gateway.console.entry import client_address, guarded
from gateway.console.questions import since, window
from gateway.console.recent import recent
from gateway.console.rendering import rendered
from gateway.log import events
from gateway.serving.holds import Hold, hold, holds
from inspection.times import parsed, stamp
from upstreams import Upstream

#: How long a breaker can be held, as the page offers it, in seconds.
LENGTHS: Final[Mapping[str, float | None]] = {"5m": 300.0, "30m": 1800.0, "2h": 7200.0, "no end": None}
_STATES: Final[Mapping[str, Literal["open", "closed"] | None]] = {"open": "open", "closed": "closed", "auto": None}
_BAD_SHARE: Final = 0.05
_HEIGHT: Final = 28.0
_WIDTH: Final = 192.0


class Bar(NamedTuple):
    """One bar of a card's histogram, in the units of its drawing: all attempts, and at its foot those that failed."""

    x: float
    width: float
    y: float
    height: float
    failed_y: float
    failed_height: float


class Card(NamedTuple):
    """What one upstream's card shows; `figures` is its row of the log's, or None."""

    name: str
    upstream: Upstream
    figures: Mapping[str, Any] | None
    bars: Sequence[Bar]
    breakers: Sequence[Mapping[str, Any]]
    out: Sequence[Mapping[str, Any]]
    held: Hold | None

    @property
    def state(self) -> str:
        """The gravest of what its breaker is in any process, or that none has ever opened."""
        return self.breakers[0]["state"] if self.breakers else "closed"

    @property
    def health(self) -> str:
        """What a glance should tell: `bad`, `warn`, `ok`, or `gone` when nothing was asked of it."""
        failed = self.figures["failed_share"] or 0.0 if self.figures else 0.0
        if self.state.startswith("open") or failed >= _BAD_SHARE:
            return "bad"
        if self.state != "closed" or self.out or failed > 0 or self.held:
            return "warn"
        return "ok" if self.figures else "gone"

    @property
    def held_until(self) -> str:
        """When its hold ends, as a timestamp; empty when it has no end."""
        until = self.held.until if self.held else None
        return _timestamp(until) if until is not None else ""


@guarded
async def upstreams(request: HttpRequest) -> HttpResponse:
    """Show them; `?part=cards` only what changes."""
    return await _page(request)


@guarded
async def held(request: HttpRequest, name: str) -> HttpResponse:
    """Hold an upstream's breaker as a form says, or let it decide again, and show what came of it."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    if name not in conf().upstreams:
        raise Http404
    state, length = request.POST.get("state", ""), request.POST.get("length", "")
    directory = conf().control_dir
    if directory is None or state not in _STATES or length not in LENGTHS:
        return await _page(request, "That is no way to hold a breaker.", 400)
    address = client_address(request)
    try:
        await asyncio.to_thread(hold, directory, name, _hold(state, length, address))
    except OSError as error:
        return await _page(request, f"The hold could not be written: {error.strerror}.", 503)
    events.console_acted(level="warning", action="held", address=address, upstream=name, to=state)
    return HttpResponseRedirect(f"{reverse('ops:upstreams')}?{urlencode({'since': since(request), 'held': name})}")


async def _page(request: HttpRequest, fault: str = "", status: int = 200) -> HttpResponse:
    found, breakers, (present, unreadable) = await asyncio.gather(
        recent("upstreams", *window(request)), recent("breakers", "--top=1", *window(request)), _holds()
    )
    cards = list(_cards(found.answer, breakers.answer, present))
    context = {
        "fault": fault or found.fault or breakers.fault or unreadable,
        "cards": cards,
        "known": not found.fault,
        "done": next((card for card in cards if card.name == request.GET.get("held")), None),
        "can_hold": conf().control_dir is not None,
        "lengths": list(LENGTHS),
        "now": _timestamp(time.time()),
        "width": _WIDTH,
        "height": _HEIGHT,
    }
    template = "upstreams_figures.html" if request.GET.get("part") == "cards" else "upstreams.html"
    return rendered(request, template, context, status)


async def _holds() -> tuple[Mapping[str, Hold], str]:
    """Return the holds there are, and why they could not be read if that is so."""
    directory = conf().control_dir
    if directory is None:
        return {}, ""
    try:
        return await asyncio.to_thread(holds, directory), ""
    except (OSError, msgspec.DecodeError) as error:
        return {}, f"What is held cannot be read: {error}."


def _hold(state: str, length: str, address: str) -> Hold | None:
    held = _STATES[state]
    if held is None:
        return None
    seconds = LENGTHS[length]
    return Hold(held, f"console {address}", None if seconds is None else time.time() + seconds)


def _timestamp(seconds: float) -> str:
    return stamp(datetime.fromtimestamp(seconds, UTC))


def _cards(
    found: Mapping[str, Any] | None, breakers: Mapping[str, Any] | None, present: Mapping[str, Hold]
) -> Iterator[Card]:
    """Yield a card for each upstream in the settings, in their order."""
    figures = {row["key"]: row for row in found["rows"]} if found else {}
    states = breakers["states"] if breakers else []
    ejections = breakers["ejections"] if breakers else []
    for name, upstream in conf().upstreams.items():
        row = figures.get(name)
        yield Card(
            name=name,
            upstream=upstream,
            figures=row,
            bars=list(_bars(row["bars"], found)) if row and found else [],
            breakers=[state for state in states if state["upstream"] == name and state["running"]],
            out=[ejection for ejection in ejections if ejection["upstream"] == name and ejection["out"]],
            held=present.get(name),
        )


def _bars(bars: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> Iterator[Bar]:
    """Yield an upstream's histogram, as high as its highest bar and as wide as the window."""
    begin, end = parsed(found["from"]), parsed(found["to"])
    if begin is None or end is None:
        return
    length = found["bar_s"]
    first = begin.timestamp() // length
    step = _WIDTH / (end.timestamp() // length - first + 1)
    most = max((bar["count"] for bar in bars), default=1)
    for bar in bars:
        at = parsed(bar["at"])
        number = at.timestamp() // length - first if at else 0
        height, failed = (bar[name] / most * _HEIGHT for name in ("count", "failed"))
        yield Bar(*(round(size, 2) for size in (
            number * step, max(step - 0.5, 0.5), _HEIGHT - height, height, _HEIGHT - failed, failed,
        )))  # fmt: skip
