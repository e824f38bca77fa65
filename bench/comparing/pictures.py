"""The pictures of the results: which there are, and what is on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.comparing import matrix
from bench.comparing.growth import GROWTHS, Growth, Series
from bench.comparing.results import Results
from bench.comparing.rows import Row
from bench.comparing.servers import TRIBUTARY
from bench.comparing.svg import Bar, Curve, Panel, bars, curves
from bench.comparing.targets import OVER_P50, OVER_P99

_COST = "us of CPU time, shorter is better; in grey: times Tributary's"


def pictures(results: Results) -> Mapping[str, str]:
    """Return each picture as SVG by its name; none of what has not been measured."""
    drawn = {
        "comparison": _costs(
            results, "An answer from three upstreams", {work.name: work.name for work in matrix.MERGED}
        ),
        "latency": _latency(results),
        "sharing": _costs(
            results,
            "Shared calls, and two workers",
            {
                matrix.COALESCED.name: "64 clients ask for one page, upstreams of 20 ms",
                matrix.WORKERS.name: "one worker and two",
            },
        ),
        **{f"growth-{growth.name}": _growth(results, growth) for growth in GROWTHS},
    }
    return {name: picture for name, picture in drawn.items() if picture}


def _costs(results: Results, title: str, works: Mapping[str, str]) -> str:
    """Draw what an answer costs each server, a panel for each work."""
    rows = {heading: results.of(work) for work, heading in works.items()}
    panels = [Panel(heading, [_cost(row) for row in these if row.cpu_us]) for heading, these in rows.items() if these]
    return bars(title, _COST, panels, _captions(results, rows.values())) if panels else ""


def _cost(row: Row) -> Bar:
    ratio = row.ratios.get(TRIBUTARY.server)
    remark = "" if ratio is None else f"{ratio:.2f} x"
    return Bar(row.server, row.cpu_us or 0.0, f"{row.cpu_us:,.0f}", remark, row.spread)


def _latency(results: Results) -> str:
    """Draw what servers add to the slowest of three upstreams, for one client."""
    rows = [row for row in results.of(matrix.LATENCY.name) if row.over_p50_ms is not None]
    panels = [
        Panel(f"{name}; wanted of Tributary: {target.wanted}", [_added(row, field) for row in rows], target.most)
        for name, field, target in (("p50", "over_p50_ms", OVER_P50), ("p99", "over_p99_ms", OVER_P99))
    ]
    note = "ms beyond one upstream of 20 ms, shorter is better"
    return bars("What a page of three adds, for one client", note, panels, _captions(results, [rows])) if rows else ""


def _added(row: Row, field: str) -> Bar:
    value = getattr(row, field)
    return Bar(row.server, max(value, 0.0), f"{value:.2f}")


def _growth(results: Results, growth: Growth) -> str:
    series = [one for one in growth.series(results) if one.server in growth.drawn]
    drawn = [Curve(one.server, one.points, one.line, _said(one, growth.unit)) for one in series]
    captions = _captions(results, [growth.rows(results)])
    note = "us for an answer, and the straight line that fits best"
    return curves(f"CPU time against {growth.title}", note, drawn, captions) if drawn else ""


def _said(series: Series, unit: str) -> str:
    line = series.line
    at, off = line.furthest
    return f"{line.start:,.0f} us, {line.steepness} us a {unit}, R² {line.r2:.3f}; furthest {off:+.1%} at {at:,.4g}"


def _captions(results: Results, rows: Iterable[Sequence[Row]]) -> list[str]:
    return results.captions(row for these in rows for row in these)
