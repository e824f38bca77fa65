"""Run every case of the table of faults, and print the table row by row: `python -m tests.faults`.

More arguments go to pytest: `-k U15` runs one case.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from typing import Any, Final, TextIO

import pytest

_LINE: Final = "{number:<3} {fault:<27} {variant:<13} {expected:<32} {got:<4} {wire:>4} {logged:>4} {ms:>5}"
_WIDTH: Final = 100
_COLOURS: Final = {"failed": "31", "not done": "33", "head": "1"}


class Table:
    """A pytest plugin that prints one row a test, in the order of the cases' numbers."""

    def __init__(self, out: TextIO) -> None:
        self.passed = 0
        self.failed = 0
        self._out = out
        self._coloured = out.isatty() and "NO_COLOR" not in os.environ
        self._reports: list[pytest.TestReport] = []
        self._item: pytest.Item

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: _order(_fault(item)[0]))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed += 1
            self._print(str(report.longrepr), "failed")

    def pytest_sessionstart(self) -> None:
        titles = {"number": "no", "fault": "fault", "variant": "variant", "expected": "expected", "got": "got"}
        self._print(_LINE.format(**titles, wire="wire", logged="log", ms="ms"), "head")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        self._item, self._reports = item, []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.append(report)
        if report.when == "teardown":
            self._row()

    def _row(self) -> None:
        """Print the row of the test that has ended; under it, what was wrong or why it was not done."""
        failed = next((report for report in self._reports if report.failed), None)
        skipped = next((report for report in self._reports if report.skipped), None)
        row: Any = dict(self._reports[-1].user_properties).get("row", {})
        self.passed += failed is None and skipped is None
        self.failed += failed is not None
        ending = "failed" if failed else "not done" if skipped else "passed"
        self._print(self._cells(row, ending), ending)
        if failed is not None:
            self._print(_indented(f"got: {row.get('got') or 'nothing'}\n{_reason(failed)}"), "failed")
        elif skipped is not None:
            self._print(_indented(f"not done: {_why(skipped)}"), "not done")

    def _cells(self, row: dict[str, Any], ending: str) -> str:
        number, words = _fault(self._item)
        spec = getattr(self._item, "callspec", None)
        variant = str(spec.params.get("variant", spec.id)) if spec is not None else ""
        return _LINE.format(
            number=number,
            fault=_fitted(words, 27),
            variant=_fitted(variant, 13),
            expected=_fitted(row.get("expected") or "", 32),
            got={"failed": "ELSE", "not done": "-", "passed": "same"}[ending],
            wire=_count(row.get("wire")),
            logged=_count(row.get("logged")),
            ms=round(1000 * sum(report.duration for report in self._reports if report.when == "call")),
        ).rstrip()

    def _print(self, text: str, kind: str) -> None:
        colour = _COLOURS.get(kind) if self._coloured else None
        print(f"\033[{colour}m{text}\033[0m" if colour else text, file=self._out, flush=True)


def _fault(item: pytest.Item) -> tuple[str, str]:
    mark = item.get_closest_marker("fault")
    return mark.args if mark is not None else ("", item.name)


def _order(number: str) -> tuple[bool, int]:
    """Upstreams' faults first, then those of the fan-out; tests without a number last."""
    found = re.fullmatch(r"([UC])(\d+)", number)
    return (found[1] == "C", int(found[2])) if found else (True, sys.maxsize)


def _fitted(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _count(count: int | None) -> str:
    return "-" if count is None else str(count)


def _reason(report: pytest.TestReport) -> str:
    """Say what failed: the assertion, and where."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return f"{crash.message}\n{report.nodeid}, line {crash.lineno}" if crash else str(report.longrepr)


def _why(report: pytest.TestReport) -> str:
    longrepr = report.longrepr
    reason = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return reason.removeprefix("Skipped: ")


def _indented(text: str) -> str:
    lines = [line for paragraph in text.splitlines() for line in textwrap.wrap(paragraph, _WIDTH - 5)]
    return textwrap.indent("\n".join(lines), " " * 5)


def main(arguments: list[str]) -> int:
    """Run the cases; the exit code is 1 if one failed."""
    # pytest may take the standard output for itself; the table goes to what it was before.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as out:
        table = Table(out)
        options = ["-p", "no:terminal", "-p", "no:randomly", "-p", "no:xdist", "-p", "no:cov", "-p", "no:cacheprovider"]
        code = pytest.main([*options, "-o", "addopts=", "tests/faults", *arguments], plugins=[table])
        out.write(f"{table.passed} passed, {table.failed} failed\n")
    return int(code != pytest.ExitCode.OK or table.failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
