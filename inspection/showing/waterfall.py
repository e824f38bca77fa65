"""A request's story drawn as a waterfall: for a terminal, and as Markdown for whoever is to read it elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from inspection.showing.figures import milliseconds, number, share
from inspection.showing.lines import safe, shown
from inspection.showing.paint import BOLD, DIM, GREEN, RED, YELLOW, Paint, plain
from inspection.story import Head, Line, Row, Story, text
from inspection.times import parsed

#: How wide a drawing is where nobody says, and at least and at most, in characters.
WIDTH: Final = 100
_LEAST_WIDTH, _MOST_WIDTH = 80, 120
_LEAST_BAR: Final = 16
_TICK: Final = 8
_MARK: Final = "\u25c4"
_BLOCKS: Final = {"failed": "\u2592", "cancelled": "\u2591"}
_WHOLE, _OTHERS, _SHARED, _SHORT, _WAITED, _REFUSED = "\u2588", "\u259e", "\u2500", "\u258f", "\u00b7", "\u2298"
_LED, _THEN, _AND = "\u2514 ", " \u2192 ", " \u00b7 "
_TICKED: Final = "`"
_CUT: Final = "\u2026"
_COLOURS: Final = {"ok": GREEN, "absent": GREEN, "partial": YELLOW, "rejected": YELLOW, "failed": RED, "cancelled": DIM}


class _Column(NamedTuple):
    """A column of the table: its heading, its cells, how wide it may be, and whether it lines up at its end."""

    name: str
    cells: list[str]
    most: int = 12
    right: bool = False

    @property
    def width(self) -> int:
        return min(max(map(len, (self.name, *self.cells))), self.most)

    def cell(self, text: str) -> str:
        """Return a text as wide as the column."""
        cut = text if len(text) <= self.width else text[: self.width - 1] + _CUT
        return cut.rjust(self.width) if self.right else cut.ljust(self.width)


def waterfall(story: Story, paint: Paint = plain, width: int = WIDTH) -> Iterator[str]:
    """Yield the drawing of a request, as many characters wide as a terminal has, within reason."""
    yield from _title(story.request, paint)
    if story.rows:
        yield ""
        yield from _table(story, paint, min(max(width, _LEAST_WIDTH), _MOST_WIDTH))
    below = [*_footer(story, paint), *(paint(YELLOW, remark) for remark in story.remarks)]
    if below:
        yield ""
        yield from (f"  {line}" for line in below)
    if story.lines:
        yield ""
        yield from (f"  {_marked(line)}{shown(line, paint)}" for line in story.lines)


def markdown(story: Story) -> Iterator[str]:
    """Yield a request as Markdown: a heading, a table of what was tried, and what it came to."""
    head = story.request
    yield f"### {_escaped(_asked(head))}: {_escaped(_ended(head))} in {_took(head)}"
    yield ""
    yield from (f"- {name}: `{safe(value).replace(_TICKED, '')}`" for name, value in _identity(head))
    if story.rows:
        yield ""
        columns = _columns(story.rows)
        yield f"| {' | '.join(column.name for column in columns)} | |"
        yield f"|{'|'.join('--:' if column.right else '---' for column in columns)}|---|"
        for nth, row in enumerate(story.rows):
            cells = [_escaped(column.cells[nth].strip()) for column in columns]
            yield f"| {' | '.join(cells)} | {_escaped(_beside(row))} |"
    yield ""
    yield from (f"- {_escaped(line)}" for line in (*_footer(story, plain), *story.remarks))


def _title(head: Head, paint: Paint) -> Iterator[str]:
    parts = [paint(BOLD, _asked(head)), paint(_COLOURS.get(head.outcome or "", "0"), _ended(head))]
    if head.duration_ms is not None:
        parts.append(_took(head))
    yield "  ".join(parts)
    line: list[str] = []
    taken = 0
    for name, value in _identity(head):
        size = len(name) + len(safe(value)) + 3
        if line and taken + size > WIDTH:
            yield "  ".join(line)
            line, taken = [], 0
        line.append(f"{paint(DIM, name)} {safe(value)}")
        taken += size
    if line:
        yield "  ".join(line)


def _took(head: Head) -> str:
    queued = f", {milliseconds(head.queued_ms)} of them before it began" if head.queued_ms else ""
    return f"{milliseconds(head.duration_ms)} ms{queued}"


def _asked(head: Head) -> str:
    return " ".join(safe(part) for part in (head.method, head.path) if part) or "a request"


def _ended(head: Head) -> str:
    if head.outcome is None:
        return "not finished"
    parts = (head.status, head.outcome, head.error if head.error != "http_response_status" else None)
    return " ".join(safe(part) for part in parts if part is not None)


def _identity(head: Head) -> Iterator[tuple[str, str]]:
    when = parsed(head.started or head.finished or "")
    if when is not None:
        local = when.astimezone()
        yield "at", f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local:%z}"
    if head.request_id is not None and head.request_id != head.trace_id:
        yield "request", head.request_id
    named = {"trace": head.trace_id, "process": head.instance, "page": head.page, "route": head.route}
    yield from ((name, value) for name, value in named.items() if value is not None)
    yield from ((name, safe(value)) for name, value in head.inputs.items() if value is not None)


def _table(story: Story, paint: Paint, width: int) -> Iterator[str]:
    columns = _narrowed(_columns(story.rows), width - _LEAST_BAR)
    room = width - _taken(columns)
    heading = "  ".join(column.cell(column.name) for column in columns)
    yield paint(DIM, f"  {heading}  {_axis(story.span_ms, room)}".rstrip())
    for nth, row in enumerate(story.rows):
        colour = _COLOURS.get(row.outcome or "", "0")
        cells = [
            paint(colour, column.cell(column.cells[nth]))
            if column.name == "outcome"
            else column.cell(column.cells[nth])
            for column in columns
        ]
        bar = _bar(row, story.span_ms, room)
        yield f"  {'  '.join(cells)}  {paint(colour, bar)}{_remark(row, len(bar), room, paint)}".rstrip()


def _taken(columns: Sequence[_Column]) -> int:
    """Return the characters that stand beside a bar: columns, the gaps before them, and a mark behind it."""
    return sum(column.width + 2 for column in columns) + 4


def _narrowed(columns: list[_Column], most: int) -> list[_Column]:
    """Return columns that take no more than so many characters: the widest text is cut first."""
    while _taken(columns) > most:
        nth = max((nth for nth, column in enumerate(columns) if not column.right), key=lambda nth: columns[nth].width)
        columns[nth] = columns[nth]._replace(most=columns[nth].width - 1)
    return columns


def _columns(rows: Sequence[Row]) -> list[_Column]:
    """Return the columns that have something to say."""
    names = [_LED * row.is_anothers + safe(row.call) for row in rows]
    found = [_Column("call", names, 24)]
    if any(row.upstream not in {None, row.call} for row in rows):
        found.append(
            _Column("upstream", [safe(row.upstream or "-") if row.what != "merge" else "" for row in rows], 16)
        )
    if any(row.host for row in rows):
        found.append(_Column("host", [safe(row.host or "") for row in rows], 21))
    found.append(_Column("try", [_try(row) for row in rows], 13))
    found.append(_Column("outcome", [_outcome(row) for row in rows], 28))
    if any(row.wait_ms is not None for row in rows):
        waits = [milliseconds(row.wait_ms) if row.wait_ms is not None else "" for row in rows]
        found.append(_Column("wait", waits, right=True))
    begun = [row.what != "skipped" for row in rows]
    for name, times in (("start", [row.start_ms for row in rows]), ("took", [row.took_ms for row in rows])):
        cells = [milliseconds(time) if has else "" for time, has in zip(times, begun, strict=True)]
        found.append(_Column(name, cells, right=True))
    return found


def _try(row: Row) -> str:
    if row.attempt is None:
        return ""
    return f"{row.attempt} {row.kind}" if row.kind in {"hedge", "transparent"} else str(row.attempt)


def _outcome(row: Row) -> str:
    if row.what in {"skipped", "shared"} and row.error is None:
        return safe(row.outcome if row.what == "skipped" else f"shared: {row.outcome or 'waiting'}")
    if row.outcome == "cancelled" or row.error is None:
        return safe(row.status if row.status is not None and row.outcome != "cancelled" else row.outcome or "-")
    if row.error == "http_response_status" and row.status is not None:
        return str(row.status)
    return safe(row.error) + (f" ({row.status})" if row.status is not None else "")


def _bar(row: Row, span: float, room: int) -> str:
    """Draw the wait before a row, and its time; what is too short to be seen is drawn as a tick."""
    if row.what == "skipped":
        return ""
    scale = room / (span or 1.0)
    start = min(max(int(row.start_ms * scale), 0), room - 1)
    length = min(round((row.took_ms + min(row.start_ms, 0.0)) * scale), room - start)
    waited = min(round((row.wait_ms or 0.0) * scale), start)
    block = _BLOCKS.get(row.outcome or "", _WHOLE)
    if row.of is not None:
        block = _OTHERS
    if row.what == "shared":
        block = _SHARED
    if row.what == "refused" and not length:
        return " " * (start - waited) + _WAITED * waited + _REFUSED
    return " " * (start - waited) + _WAITED * waited + (block * length if length else _SHORT)


def _remark(row: Row, taken: int, room: int, paint: Paint) -> str:
    """Return what stands beside a bar: the critical path's mark, and what there is to say."""
    mark = f" {_MARK}" if row.critical else ""
    said = safe(row.note or "")
    if said and taken + len(mark) + len(said) + 1 > room:
        return f"{mark}\n{' ' * 6}{paint(DIM, said)}"
    return mark + (paint(DIM, f" {said}") if said else "")


def _beside(row: Row) -> str:
    """Return in words what the drawing shows beside the figures."""
    parts = [
        "critical path" if row.critical else None,
        "another request's" if row.is_anothers else None,
        row.note,
        row.detail,
    ]
    return "; ".join(safe(part) for part in parts if part)


def _footer(story: Story, paint: Paint) -> Iterator[str]:
    """Yield what it came to: how much was tried, what took longest, what the time went into, what is missing."""
    if story.rows:
        parts = [f"{_counted(story.attempts, 'attempt')} for {_counted(story.calls, 'call')}"]
        if story.slowest is not None:
            slowest = story.slowest
            parts.append(f"slowest: {safe(slowest.call)} {milliseconds(slowest.took_ms)} ms ({share(slowest.share)})")
        if story.missing:
            parts.append(paint(YELLOW, f"missing in the answer: {', '.join(map(safe, story.missing))}"))
        elif story.request.failed_calls:
            parts.append(paint(RED, f"failed: {', '.join(map(safe, story.request.failed_calls))}"))
        yield _AND.join(parts)
    path = sorted((row for row in story.rows if row.critical), key=lambda row: row.start_ms)
    if path:
        yield f"{_MARK} critical path: {_THEN.join(step for row in path for step in _stages(row))}"
    details = defaultdict[str, list[str]](list)
    for row in story.rows:
        if row.detail:
            details[f"{safe(row.detail)}"].append(f"{safe(row.call)} #{row.attempt}")
    yield from (f"{', '.join(dict.fromkeys(tries))}: {detail}" for detail, tries in details.items())


def _stages(row: Row) -> Iterator[str]:
    """Yield what a row of the critical path took: the wait before it, and itself."""
    if row.wait_ms is not None:
        yield f"wait {milliseconds(row.wait_ms)}"
    numbered = f" #{row.attempt}" if row.attempt is not None and row.attempt > 1 else ""
    yield f"{safe(row.call)}{numbered} {milliseconds(row.took_ms)}"


def _counted(count: int, noun: str) -> str:
    return f"{number(count)} {noun}{'s' * (count != 1)}"


def _axis(span: float, room: int) -> str:
    """Draw the scale above the bars: round times, as many as there is room for, and the last row's end."""
    end = f"{milliseconds(span)} ms"
    step = next(step for step in _steps() if span / step * _TICK <= room)
    axis = "0"
    for nth in range(1, int(span / step) + 1):
        place, label = int(nth * step / span * room), f"{nth * step:g}"
        if len(axis) < place and place + len(label) < room - len(end):
            axis = axis.ljust(place) + label
    return axis + end.rjust(room - len(axis))


def _steps() -> Iterator[float]:
    """Yield round lengths of time, ever longer."""
    power = 0.001
    while True:
        yield from (power, power * 2, power * 5)
        power *= 10


def _marked(line: Line) -> str:
    """Mark what is about more than this request."""
    return "! " if text(line, "event") in {"breaker.changed", "host.ejected"} else ""


def _escaped(text: str) -> str:
    return safe(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
