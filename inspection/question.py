"""A question as it was asked, the same for every verb: of which lines, and how the answer is wanted."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from inspection.database import Logs
from inspection.fields import Fields
from inspection.files import extent, sample, within
from inspection.filters import Filter, parse
from inspection.showing.paint import Paint
from inspection.times import Window


@dataclass(frozen=True)
class Question:
    """What was asked: `files` are the log's, `options` the verb's own, `now` the moment from which times count."""

    files: Sequence[Path]
    window: Window
    written_filters: Sequence[str]
    options: argparse.Namespace
    now: datetime

    @cached_property
    def fields(self) -> Fields:
        """The fields that lines of these files have."""
        return Fields(sample(self.files))

    @cached_property
    def filters(self) -> list[Filter]:
        """What was asked for with -f. Raises Unanswerable."""
        return [parse(written, self.fields) for written in self.written_filters]

    @cached_property
    def extent(self) -> tuple[str, str] | None:
        """The first and the last timestamp in the files; None when they have none."""
        return extent(self.files)

    def stretch(self, first: str, last: str) -> tuple[str, str]:
        """Return the time that was asked about, as far as the log goes; `first` and `last` are of the lines found."""
        since, until = self.window.texts
        begin, end = self.extent or (first, last)
        return max(since or first, min(begin, first)), min(until or last, max(end, last))

    def asking(self, window: Window, **options: Any) -> Question:
        """Return another question to the same files, of another window and with other options."""
        other = replace(self, window=window, options=argparse.Namespace(**options))
        known = {name: value for name, value in vars(self).items() if name in {"fields", "extent"}}
        vars(other).update(known)
        return other

    def logs(self, window: Window | None = None) -> Logs:
        """Return the lines that were asked for, or those of another window."""
        window = window or self.window
        return Logs(within(self.files, window), self.fields, window, self.filters)


def exit_code(answer: Any) -> int:
    """Return 0 for an answer, 1 for none."""
    return 0 if answer else 1


class Verb(NamedTuple):
    """One verb of the command.

    `answer` returns what `--json` prints, falsy when nothing was found; an iterator is printed item by item, as it
    comes. `show` yields the same as lines for people. `code` makes the exit code of an answer that is no iterator.
    `reads` tells whether it needs the log's files. Unanswerable, from either, is a usage error.
    """

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    answer: Callable[[Question], Any]
    show: Callable[[Any, Question, Paint], Iterator[str]]
    code: Callable[[Any], int] = exit_code
    reads: bool = True
