"""What is wanted of the gateway's figures, and whether the results are so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.comparing import matrix
from bench.comparing.results import Results
from bench.comparing.servers import FASTIFY, FLOOR, STOCK, TRIBUTARY

_SMALL, _MIDDLE, _LARGE = (work.name for work in matrix.MERGED)
_OURS = TRIBUTARY.server


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that is to be at most `most`; `measured` takes it from the results, None if it is not in them."""

    name: str
    most: float
    unit: str
    measured: Callable[[Results], float | None]

    @property
    def wanted(self) -> str:
        """Return what is wanted, in words."""
        return f"at most {self.most:g}{self.unit}"

    def came(self, results: Results) -> str:
        """Return what was measured, in words."""
        value = self.measured(results)
        return "" if value is None else f"{value:.2f}{self.unit}"

    def verdict(self, results: Results) -> str:
        """Say whether the target is met, or by how much it is missed."""
        value = self.measured(results)
        if value is None:
            return "not measured"
        over = value - self.most
        return "met" if over <= 0 else f"missed by {over:.2f}{self.unit} ({over / self.most:.1%})"


def _ratio(work: str, other: str, server: str = _OURS) -> Callable[[Results], float | None]:
    def measured(results: Results) -> float | None:
        row = results.row(work, server)
        return row.ratios.get(other) if row else None

    return measured


def _field(work: str, field: str, server: str = _OURS) -> Callable[[Results], float | None]:
    def measured(results: Results) -> float | None:
        row = results.row(work, server)
        return getattr(row, field) if row else None

    return measured


def _memory(results: Results) -> float | None:
    rows = (results.row(work.name, _OURS) for work in matrix.MERGED)
    return max((row.rss_mb for row in rows if row and row.rss_mb is not None), default=None)


def _follower(results: Results) -> float | None:
    """Take the fan-outs of those that lead, as many as upstreams were asked for, out of what a shared page costs."""
    row = results.row(matrix.COALESCED.name, matrix.SHARED.server)
    if row is None or _OURS not in row.ratios or row.upstream_requests is None:
        return None
    leading = row.upstream_requests / row.width
    return (row.ratios[_OURS] - leading) / (1 - leading)


OVER_P50 = Target(
    "one client, three upstreams of 20 ms: over one of them, p50",
    1.5,
    " ms",
    _field(matrix.LATENCY.name, "over_p50_ms"),
)
OVER_P99 = Target("the same, p99", 4, " ms", _field(matrix.LATENCY.name, "over_p99_ms"))
TARGETS = (
    Target("5 KB from three upstreams: CPU time, beside the floor", 1.4, " x", _ratio(_SMALL, FLOOR.server)),
    Target("the same, beside stock Django", 0.22, " x", _ratio(_SMALL, STOCK.server)),
    Target("30 KB: CPU time, beside fastify", 1, " x", _ratio(_MIDDLE, FASTIFY.server)),
    Target("270 KB, spliced: CPU time, beside fastify", 0.25, " x", _ratio(_LARGE, FASTIFY.server)),
    OVER_P50,
    OVER_P99,
    Target(
        "a coalesced follower: CPU time, beside a fan-out",
        0.4,
        " x",
        _follower,
    ),
    Target("two workers: CPU time, beside one", 1.05, " x", _ratio(matrix.WORKERS.name, _OURS, matrix.TWO.server)),
    Target(
        "the busier of them: its CPU time, beside both",
        0.55,
        " x",
        _field(matrix.WORKERS.name, "busiest", matrix.TWO.server),
    ),
    Target("memory of a worker, the most at 5, 30 and 270 KB", 90, " MB", _memory),
    Target("memory of an idle connection, of 10,000", 20, " KB", _field(matrix.IDLE.name, "kb_per_connection")),
)
