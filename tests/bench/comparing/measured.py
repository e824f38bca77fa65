"""Results as a run of the benchmark would have them, with figures that are easy to reckon with."""

from __future__ import annotations

from typing import Any, Final

from bench.comparing.results import Results, Run
from bench.comparing.rows import Row

FIRST: Final = "2026-01-01T10:00:00+00:00"
SECOND: Final = "2026-01-02T11:30:00+00:00"


def run(date: str, **changes: Any) -> Run:
    described = {
        "run": "bench-full",
        "processor": "a processor",
        "cores": 2,
        "load_before": 0.25,
        "system": "Linux 6.1",
        "commit": "abc1234",
        "versions": {"python": "3.11.7", "aiohttp": "3.14.5"},
    }
    return Run(**{**described, **changes}, date=date)


def widths(slope: float = 100.0, start: float = 50.0, date: str = FIRST) -> list[Row]:
    """Rows of pages of 1, 3, 10 and 32 calls, on a straight line."""
    return [
        Row(server="Tributary", work=f"fan-out of {width}", width=width, cpu_us=start + slope * width, run=date)
        for width in (1, 3, 10, 32)
    ]


def of(*rows: Row) -> Results:
    return Results([], []).with_run(run(FIRST), rows)
