"""What a server came to at a work, and the table that shows it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

_COLUMNS = (
    *("server", "CPU us", "spread", "x floor", "x Tributary"),
    *("req/s", "p50 ms", "p99 ms", "peak MB", "asked", "core", ""),
)


class Row(msgspec.Struct, kw_only=True):
    """One server at one work. Medians of the rounds; None for what was not measured.

    `ratio_to_floor` and `ratios`, to every server of the same work, are of CPU time: medians of each round's own.
    `upstream_requests` is how often upstreams were asked for an answer, `core` which part of a core the server used,
    `busiest` which part of that the busiest of several workers had, `refused` and `lost` how many requests got an error
    and none. `spread` is the least and the most `cpu_us`.
    `over_p50_ms` is how much longer an answer took than one of the upstream itself; likewise `over_p99_ms`.
    `log_bytes` is what a server that logs in files wrote for an answer, `run` the date of the run.
    """

    server: str
    work: str
    cpu_us: float | None = None
    rps: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    rss_mb: float | None = None
    ratio_to_floor: float | None = None
    ratios: dict[str, float] = {}
    spread: tuple[float, float] | None = None
    rounds: list[float] = []
    seconds: int = 0
    connections: int = 0
    workers: int = 1
    width: int = 3
    size: str = ""
    upstream_ms: int = 0
    upstream_requests: float | None = None
    core: float | None = None
    busiest: float | None = None
    refused: int = 0
    lost: int = 0
    over_p50_ms: float | None = None
    over_p99_ms: float | None = None
    kb_per_connection: float | None = None
    log_bytes: float | None = None
    run: str = ""


def table(rows: Sequence[Row]) -> str:
    """Lay the rows of a work out for reading; the last column says what is peculiar to the work, or wrong."""
    lines = [_COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    last = len(_COLUMNS) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in {0, last} else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    spread = f"{_number(row.spread[0])}-{_number(row.spread[1])}" if row.spread else ""
    remarks = []
    if row.over_p50_ms is not None and row.over_p99_ms is not None:
        remarks.append(f"over the upstream: p50 {row.over_p50_ms:.2f} ms, p99 {row.over_p99_ms:.2f} ms")
    if row.kb_per_connection is not None:
        remarks.append(f"{row.kb_per_connection:.1f} KB a connection")
    if row.log_bytes is not None:
        remarks.append(f"{row.log_bytes:.0f} bytes of log")
    if row.busiest is not None:
        remarks.append(f"{row.busiest:.0%} by the busiest worker")
    if row.refused or row.lost:
        remarks.append(f"{row.refused} refused, {row.lost} lost")
    return (
        row.server,
        _number(row.cpu_us),
        spread,
        _ratio(row.ratio_to_floor),
        _ratio(row.ratios.get("Tributary")),
        _number(row.rps),
        "" if row.p50_ms is None else f"{row.p50_ms:.2f}",
        "" if row.p99_ms is None else f"{row.p99_ms:.2f}",
        "" if row.rss_mb is None else f"{row.rss_mb:.0f}",
        "" if row.upstream_requests is None else f"{row.upstream_requests:.2f}",
        "" if row.core is None else f"{row.core:.0%}",
        "; ".join(remarks),
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
