"""What an answer costs against what grows, and the straight line through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.comparing import matrix
from bench.comparing.bodies import SIZES
from bench.comparing.results import Results
from bench.comparing.rows import Row
from bench.comparing.servers import FASTIFY, FLOOR, LUA, TRIBUTARY

_LEAST = 3  # points that make a line worth fitting
_FLAT = 1e-12  # of the points' variance: below it there is none, but for rounding

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line, and where the point is that is furthest from it, by which part of itself: a step shows."""

    start: float
    slope: float
    r2: float
    furthest: tuple[float, float]

    @property
    def steepness(self) -> str:
        """Return the slope as it is written, with its sign."""
        return f"{self.slope:+,.0f}" if abs(self.slope) >= 100 else f"{self.slope:+.3g}"

    def at(self, x: float) -> float:
        """Return the line's value."""
        return self.start + self.slope * x


@dataclass(frozen=True, slots=True)
class Series:
    """A server's cost, in microseconds, point by point, and its line."""

    server: str
    points: tuple[Point, ...]
    line: Line


@dataclass(frozen=True, slots=True)
class Growth:
    """One thing that grows: how much of it a row has (`x`), what one of it is called, and the works that show it.

    Of all servers, those `drawn` are on the picture; `server` is whose point a row is.
    """

    name: str
    title: str
    unit: str
    works: tuple[str, ...]
    x: Callable[[Row], float | None]
    drawn: tuple[str, ...]
    server: Callable[[Row], str] = lambda row: row.server

    def rows(self, results: Results) -> list[Row]:
        """Return what was measured of it, in the newest of the runs that did: runs are not compared with each other."""
        rows = [row for work in self.works for row in results.of(work) if row.cpu_us is not None]
        newest = max((row.run for row in rows), default="")
        return [row for row in rows if row.run == newest and self.x(row) is not None]

    def series(self, results: Results) -> list[Series]:
        """Return each server's points with their line; none of servers with too few points."""
        points: dict[str, list[Point]] = {}
        for row in self.rows(results):
            x = self.x(row)
            if x is not None and row.cpu_us is not None:
                points.setdefault(self.server(row), []).append((x, row.cpu_us))
        return [
            Series(server, tuple(sorted(these)), fitted(these))
            for server, these in points.items()
            if len(these) >= _LEAST
        ]


def fitted(points: Sequence[Point]) -> Line:
    """Fit a line by least squares of distances in parts of each point, so that the small ones count as much.

    There are at least two points, with different x, all y above 0; R² is of the same weights.
    """
    weights = [1 / (y * y) for _, y in points]
    whole = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / whole
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / whole
    along = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True)) / along
    start = mean_y - slope * mean_x
    left = sum(w * (y - start - slope * x) ** 2 for w, (x, y) in zip(weights, points, strict=True))
    spread = sum(w * (y - mean_y) ** 2 for w, (_, y) in zip(weights, points, strict=True))
    off = [(x, 1 - (start + slope * x) / y) for x, y in points]
    return Line(start, slope, 1 - left / spread if spread > _FLAT else 1.0, max(off, key=lambda point: abs(point[1])))


def _kilobytes(row: Row) -> float:
    return SIZES[row.size] / 1000


def _logged(row: Row) -> float | None:
    return None if row.log_bytes is None else row.log_bytes / 1000


_MERGED, _TYPED = TRIBUTARY.server, matrix.TYPED.server
GROWTHS = (
    Growth(
        "width",
        "calls in a page",
        "call",
        tuple(work.name for work in matrix.WIDE),
        lambda row: row.width,
        (_MERGED, FLOOR.server, FASTIFY.server),
    ),
    Growth(
        "payload",
        "KB in an answer",
        "KB",
        tuple(work.name for work in (*matrix.READ, matrix.LARGE)),
        _kilobytes,
        (_MERGED, _TYPED, FLOOR.server),
    ),
    Growth(
        "connections",
        "clients at once",
        "client",
        tuple(work.name for work in matrix.CLIENTS),
        lambda row: row.connections,
        (_MERGED, FLOOR.server, FASTIFY.server, LUA.server),
    ),
    Growth(
        "log",
        "KB of log for an answer",
        "KB of log",
        (matrix.LOG.name,),
        _logged,
        (_MERGED,),
        lambda _: _MERGED,
    ),
)
