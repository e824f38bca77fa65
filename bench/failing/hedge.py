"""An upstream with a few slow answers: the same page with a hedge and without, in one run."""

from __future__ import annotations

from bench.failing.progress import say
from bench.failing.scene import scene, side_by_side
from bench.failing.services import Knobs
from bench.figures import Figure, percentile

_ROUNDS = 3000
_WARM_UP = 300  # rounds: a hedge's delay is known after 100 answers
_CLIENTS = 8
_KNOBS = Knobs(latency=0.05, tail=0.03, factor=10.0)
_CUT = 0.6
_EXTRA = 0.06


async def measure() -> list[Figure]:
    """Ask for both pages in turn; each has a service of its own, with the same knobs."""
    took: dict[str, list[float]] = {"unhedged": [], "hedged": []}
    async with scene() as on:
        for service in range(len(took)):
            await on.turn(service, _KNOBS)

        async def ask(number: int) -> None:
            for name, times in took.items():
                times.append((await on.page(name)).took * 1000)
            if number % 100 == 0:
                say(f"hedge: round {number}")

        await side_by_side(_CLIENTS, _WARM_UP, ask)
        before = await on.counts()
        for times in took.values():
            times.clear()
        await side_by_side(_CLIENTS, _ROUNDS, ask)
        requests = [after - former for after, former in zip(await on.counts(), before, strict=True)]
    return _figures(took["unhedged"], took["hedged"], requests[0], requests[1])


def _figures(plain: list[float], hedged: list[float], plain_requests: int, hedged_requests: int) -> list[Figure]:
    cut = 1 - percentile(hedged, 99) / percentile(plain, 99)
    extra = hedged_requests / len(hedged) - 1
    return [
        Figure("p99 cut by hedging", f"{cut:.1%}", f"at least {_CUT:.0%}", ok=cut >= _CUT),
        Figure("extra attempts", f"{extra:.2%}", f"at most {_EXTRA:.0%}", ok=extra <= _EXTRA),
        Figure("unhedged: p50, p99", f"{percentile(plain, 50):.1f} ms, {percentile(plain, 99):.1f} ms"),
        Figure("hedged: p50, p99", f"{percentile(hedged, 50):.1f} ms, {percentile(hedged, 99):.1f} ms"),
        Figure("unhedged: extra attempts", f"{plain_requests / len(plain) - 1:.2%}"),
    ]
