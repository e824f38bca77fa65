"""`python -m tests.faults` prints the table of faults, a row for each case, and fails if one does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def table(*arguments: str) -> tuple[int, list[str]]:
    """Return the exit code of the table of some cases, and its lines."""
    printed = subprocess.run(
        [sys.executable, "-m", "tests.faults", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return printed.returncode, printed.stdout.splitlines()


def test_every_case_is_a_row_of_what_was_expected_and_what_came() -> None:
    code, (head, *rows, total) = table("-k", "U15")

    assert (code, total) == (0, "4 passed, 0 failed")
    assert head.split() == ["no", "fault", "variant", "expected", "got", "wire", "log", "ms"]
    assert [row.split()[0] for row in rows] == ["U15"] * 4
    came = [row[head.index("got") :].split()[:3] for row in rows]
    assert came == [["same", "3", "3"], ["same", "3", "3"], ["same", "1", "1"], ["same", "1", "1"]]


def test_a_table_of_nothing_is_a_failure() -> None:
    assert table("-k", "no_such_case")[0] == 1
