"""`sql`: one SELECT over the log, for what no other verb answers. It reads the log's files and nothing else."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from inspection.fault import Unanswerable
from inspection.files import within
from inspection.question import Question, Verb
from inspection.sandbox import table
from inspection.showing.columns import columns
from inspection.showing.lines import safe
from inspection.showing.paint import BOLD, Paint

_LONGEST_TIME: Final = 60.0
_FORMATS: Final = ("table", "csv", "json", "md")
_NUMBERS: Final = (int, float)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", nargs="?", help="one SELECT from logs; without it: the columns of logs")
    parser.add_argument("--format", choices=_FORMATS, default="table", help="(default: table)")
    parser.add_argument("--limit", type=int, default=1000, metavar="N", help="so many rows (default: 1000)")
    parser.add_argument("--timeout", type=float, default=2.0, metavar="SECONDS", help="(default: 2, at most 60)")


def answer(question: Question) -> dict[str, Any] | None:
    """Return what one SELECT gives: `columns` (each `name` and `type`, DuckDB's), `rows` (lists), `more` (rows beyond).

    Without a query, the columns of `logs` itself, and no rows. In `logs`, `timestamp` is a TIMESTAMP, in UTC; a field
    whose name has a dot is written in double quotes. Values are JSON's; what JSON has none for is text. None when
    there are no rows. Raises Unanswerable for all that DuckDB cannot do, may not do, or takes too long or too much
    memory for.
    """
    options = question.options
    if options.limit < 1:
        raise Unanswerable("--limit is a number of rows, 1 at least")
    if not 0 < options.timeout <= _LONGEST_TIME:
        raise Unanswerable(f"--timeout is a number of seconds, at most {_LONGEST_TIME:g}")
    query = options.query or "SELECT * FROM logs LIMIT 0"
    found = table(
        within(question.files, question.window), question.fields, question.window, question.filters,
        query, limit=options.limit, seconds=options.timeout,
    )  # fmt: skip
    if options.query and not found.rows:
        return None
    return {
        "columns": [{"name": name, "type": kind} for name, kind in zip(found.names, found.types, strict=True)],
        "rows": [list(row) for row in found.rows],
        "more": found.more,
    }


def _show(answer: Any, question: Question, paint: Paint) -> Iterator[str]:
    options = question.options
    if not options.query:
        fields = [[column["name"], column["type"]] for column in answer["columns"]]
        yield from _laid_out([["column", "type"], *fields], (), paint)
        return
    names = [column["name"] for column in answer["columns"]]
    rows = answer["rows"]
    match options.format:
        case "json":
            named = [dict(zip(names, row, strict=True)) for row in rows]
            yield msgspec.json.format(msgspec.json.encode(named)).decode()
        case "csv":
            yield from _csv([names, *rows])
        case "md":
            yield from _markdown([names, *rows])
        case _:
            numbers = [place for place in range(len(names)) if all(isinstance(row[place], _NUMBERS) for row in rows)]
            yield from _laid_out([names, *([_cell(value) for value in row] for row in rows)], numbers, paint)
    if answer["more"] and options.format == "table":
        yield f"... and more; these are the first {len(rows):,} (--limit)"


def _laid_out(rows: Sequence[Sequence[str]], numbers: Sequence[int], paint: Paint) -> Iterator[str]:
    head, *lines = columns([[safe(cell) for cell in row] for row in rows], numbers)
    yield paint(BOLD, head)
    yield from lines


def _csv(rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    for row in rows:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(["" if value is None else _plain(value) for value in row])
        yield safe(line.getvalue()) if sys.stdout.isatty() else line.getvalue()


def _markdown(rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    for number, row in enumerate(rows):
        yield "| " + " | ".join(safe(_cell(value)).replace("|", "\\|") for value in row) + " |"
        if number == 0:
            yield "|" + "---|" * len(row)


def _cell(value: Any) -> str:
    return "-" if value is None else _plain(value)


def _plain(value: Any) -> str:
    """Return a value as text: texts as they are, all else as JSON writes it."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


SQL: Final = Verb(
    "sql",
    'One SELECT of yours: sql "SELECT event, count(*) FROM logs GROUP BY event".',
    _arguments,
    answer,
    _show,
)
