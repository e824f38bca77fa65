"""Three upstreams that fail a tenth of all attempts, each by itself: how many pages are whole, and at what price."""

from __future__ import annotations

from bench.failing.progress import say
from bench.failing.scene import Scene, scene, side_by_side
from bench.failing.services import Knobs
from bench.figures import Figure

_PAGES = 5000
_PAGES_ONCE = 1000
_CLIENTS = 8
_CALLS = 3
_LEAST = 0.995
_MOST_SENT = 1.35


async def measure() -> list[Figure]:
    """Ask for the page, and for the same page without retries."""
    async with scene() as on:
        for service in range(_CALLS):
            await on.turn(service, Knobs(failures=0.1, latency=0.005))
        complete, sent = await _ask(on, "three", _PAGES)
        complete_once, sent_once = await _ask(on, "once", _PAGES_ONCE)
    return [
        Figure(f"complete pages, of {_PAGES}", f"{complete:.2%}", f"at least {_LEAST:.1%}", ok=complete >= _LEAST),
        Figure("requests for each call", f"{sent:.3f}", f"below {_MOST_SENT}", ok=sent < _MOST_SENT),
        Figure(f"without retries: complete pages, of {_PAGES_ONCE}", f"{complete_once:.2%}"),
        Figure("without retries: requests for each call", f"{sent_once:.3f}"),
    ]


async def _ask(on: Scene, name: str, pages: int) -> tuple[float, float]:
    """Return the share of pages that were complete, and the requests that the services saw for each call."""
    before = sum(await on.counts())
    complete = 0

    async def ask(number: int) -> None:
        nonlocal complete
        page = await on.page(name)
        complete += page.complete
        if number % 100 == 0:
            say(f"flaky: page {number} of {pages}")

    await side_by_side(_CLIENTS, pages, ask)
    return complete / pages, (sum(await on.counts()) - before) / (_CALLS * pages)
