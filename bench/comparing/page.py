"""docs/performance.md's figures: the tables and pictures of the result files, between two marks of the page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.comparing import matrix
from bench.comparing.growth import GROWTHS, Growth, Series
from bench.comparing.measuring import Work
from bench.comparing.pictures import pictures
from bench.comparing.results import Results
from bench.comparing.rows import Row
from bench.comparing.servers import TRIBUTARY
from bench.comparing.targets import TARGETS
from bench.running import ROOT

DOCS = ROOT / "docs"
_FROM, _TO = "<!-- figures: written by bench/compare.py -->\n", "<!-- end of figures -->\n"


@dataclass(frozen=True, slots=True)
class _Section:
    """A chapter of the page: works, what there is to know of them, and their picture if they have one."""

    title: str
    works: tuple[Work, ...]
    text: str
    picture: str = ""
    shows: str = ""


_SECTIONS = (
    _Section(
        "The comparison",
        matrix.MERGED,
        "The same three upstreams, merged into an answer of 5, 30 and 270 KB.",
        "comparison",
        "Bars: CPU time for an answer of 5, 30 and 270 KB, server by server",
    ),
    _Section(
        "Latency",
        (matrix.LATENCY,),
        "One client, which asks again once it is answered; `over` is what its answers take beyond an upstream's own.",
        "latency",
        "Bars: milliseconds that each server adds at p50 and p99",
    ),
    _Section(
        "Coalescing and two workers",
        (matrix.COALESCED, matrix.WORKERS),
        "Sixty-four clients ask for one page: with `coalesce` they share the calls that are under way, so that nearly"
        " all are followers: the others, by how much upstreams were `asked`, are taken out of what the target says of a"
        " follower. Then a page of which nothing is shared, from one worker and from two; `busiest worker` is which"
        " part of the server's CPU time that one had, half where two share evenly.",
        "sharing",
        "Bars: CPU time with and without coalescing, and with one and two workers",
    ),
    _Section(
        "Ways to read a body",
        matrix.READ,
        "Tributary splices; typed, it decodes every field; projected, two fields of each row; decoded, all into"
        " Python's own dicts and lists, as the floor does.",
    ),
    _Section("Streams", matrix.STREAMED, "The same page as JSON Lines and as server-sent events."),
    _Section("Slow upstreams", matrix.SLOW, "Sixty-four clients, upstreams that take their time."),
    _Section("Three megabytes", (matrix.LARGE,), "Twelve times the largest answer of the comparison."),
    _Section(
        "Idle connections",
        (matrix.IDLE,),
        "Clients that have had one answer and stay: what the server's memory grew by, for each.",
    ),
)


def write(results: Results, docs: Path = DOCS) -> None:
    """Draw the pictures, and put the tables into the page; pictures of what is not in the results go."""
    images = docs / "images"
    drawn = {images / _file(name): picture for name, picture in pictures(results).items()}
    for old in set(images.glob(_file("*"))) - set(drawn):
        old.unlink()
    for file, picture in drawn.items():
        file.write_text(picture)
    page = docs / "performance.md"
    page.write_text(filled(page.read_text(), results))


def filled(page: str, results: Results) -> str:
    """Return a page with these figures between its marks. Raises ValueError if it has none."""
    before, _, rest = page.partition(_FROM)
    _, mark, after = rest.partition(_TO)
    if not mark:
        message = f"the page has no {_FROM.strip()} that is followed by {_TO.strip()}"
        raise ValueError(message)
    return f"{before}{_FROM}\n{_figures(results)}\n\n{_TO}{after}"


def _figures(results: Results) -> str:
    """Return the tables and the pictures of what has been measured, as Markdown."""
    there = pictures(results).keys()
    chapters = [_runs(results), _targets(results)]
    chapters += [_chapter(section, results, there) for section in _SECTIONS]
    chapters += [_growths(results), _left_out(results)]
    return "\n\n".join(filter(None, chapters))


def _runs(results: Results) -> str:
    """Return when, where and with what the figures were measured."""
    return "\n".join(["## Runs", "", *(f"- {run}" for run in results.runs)])


def _targets(results: Results) -> str:
    """Return what was wanted beside what was measured."""
    rows = [(target.name, target.wanted, target.came(results), target.verdict(results)) for target in TARGETS]
    text = "Of the tables below, which say when each was measured."
    return f"## Targets\n\n{text}\n\n{_table(('', 'wanted', 'measured', ''), rows)}"


def _chapter(section: _Section, results: Results, there: Collection[str]) -> str:
    """Return a chapter; nothing if none of its works was measured."""
    measured = [rows for work in section.works if (rows := results.of(work.name))]
    if not measured:
        return ""
    picture = [_image(section.picture, section.shows)] if section.picture in there else []
    tables = [text for rows in measured for text in (_heading(rows), _rows(rows))]
    return "\n\n".join([f"## {section.title}", section.text, *picture, *tables])


def _left_out(results: Results) -> str:
    """Name the chapters that nothing was measured for."""
    names = [section.title for section in _SECTIONS if not any(results.of(work.name) for work in section.works)]
    names += [f"Growth: {growth.title}" for growth in GROWTHS if not growth.series(results)]
    return f"Measured by `make bench-full` only, and not in these runs: {'; '.join(names)}." if names else ""


def _heading(rows: Sequence[Row]) -> str:
    """Say what a work's table is of, and when it was measured."""
    number, row = max(len(row.rounds) for row in rows), rows[0]
    rounds = f", {number} rounds of {row.seconds} s" if number else ""
    return f"**{row.work}**: {row.connections} at a time{rounds}, {_when(row)}"


def _when(row: Row) -> str:
    return f"{row.run[:10]} {row.run[11:16]} UTC"


def _rows(rows: Sequence[Row]) -> str:
    """Return a work's rows as a table, without columns that none of them has."""
    there = [(name, cell) for name, cell in _COLUMNS if any(map(cell, rows))]
    return _table([name for name, _ in there], [[cell(row) for _, cell in there] for row in rows])


def _growths(results: Results) -> str:
    """Return the chapter of what grows; nothing without a line to fit."""
    parts = [text for growth in GROWTHS for text in _grown(growth, results)]
    return "\n\n".join(["## Growth", _GROWTH, *parts]) if parts else ""


def _grown(growth: Growth, results: Results) -> Iterator[str]:
    series = growth.series(results)
    if not series:
        return
    rows = growth.rows(results)
    yield f"### {growth.title[0].upper()}{growth.title[1:]}"
    yield _image(f"growth-{growth.name}", f"Points and lines: CPU time for an answer against {growth.title}")
    yield f"Measured {_when(rows[0])}."
    xs = sorted({x for one in series for x, _ in one.points})
    names = ["CPU us", *(f"{x:,.4g}" for x in xs), "line: us at 0", f"us a {growth.unit}", "R²", "furthest from it"]
    yield _table(names, [_line(one, xs) for one in series])


def _line(series: Series, xs: Sequence[float]) -> list[str]:
    points, line = dict(series.points), series.line
    at, off = line.furthest
    return [
        series.server,
        *(_number(points.get(x)) for x in xs),
        *(f"{line.start:,.0f}", line.steepness, f"{line.r2:.3f}", f"{off:+.1%} at {at:,.4g}"),
    ]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are figures."""
    ruler = ["---", *("---:" for _ in names[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, ruler, *rows))


def _image(picture: str, shows: str) -> str:
    return f"![{shows}](images/{_file(picture)})"


def _file(picture: str) -> str:
    return f"performance-{picture}.svg"


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _spread(row: Row) -> str:
    return f"{_number(row.spread[0])} to {_number(row.spread[1])}" if row.spread else ""


_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("server", lambda row: row.server),
    ("CPU us", lambda row: _number(row.cpu_us)),
    ("spread", _spread),
    ("x floor", lambda row: _number(row.ratio_to_floor, 2)),
    ("x Tributary", lambda row: _number(row.ratios.get(TRIBUTARY.server), 2)),
    ("req/s", lambda row: _number(row.rps)),
    ("p50 ms", lambda row: _number(row.p50_ms, 2)),
    ("p99 ms", lambda row: _number(row.p99_ms, 2)),
    ("over, p50 ms", lambda row: _number(row.over_p50_ms, 2)),
    ("over, p99 ms", lambda row: _number(row.over_p99_ms, 2)),
    ("asked", lambda row: _number(row.upstream_requests, 2)),
    ("log, bytes", lambda row: _number(row.log_bytes)),
    ("peak MB", lambda row: _number(row.rss_mb)),
    ("busiest worker", lambda row: "" if row.busiest is None else f"{row.busiest:.0%}"),
    ("KB each", lambda row: _number(row.kb_per_connection, 1)),
    ("refused, lost", lambda row: f"{row.refused}, {row.lost}" if row.refused or row.lost else ""),
)
_GROWTH = (
    "Each line is fitted by least squares, every point weighed by its own size, so that small pages count as much as"
    " large ones; R² is of the same weights. The point that is furthest from its line is where a step would show."
)
