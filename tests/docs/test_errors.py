"""docs/errors.md names every error there is, with the facts the code has about it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from upstreams import Fault
from upstreams.outcome import RETRYABLE_STATUSES, Outcome

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `?(\w+)`? \| (.*) \|$", TEXT, re.MULTILINE))


def problems_made() -> Iterator[ast.Call]:
    """Find every place in the gateway where a Problem is made."""
    for module in sorted((ROOT / "gateway").rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
                yield node


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.word)
def test_every_fault_is_told_with_its_status_and_whether_it_is_tried_again(fault: Fault) -> None:
    status, again, cause, mend = ROWS[fault.word].split(" | ")

    assert status.split(",")[0] == str(fault.status)
    assert again == ("yes" if fault.retryable else "no")
    assert cause
    assert mend


def test_every_kind_of_problem_is_told() -> None:
    kinds = {
        keyword.value.value
        for made in problems_made()
        for keyword in made.keywords
        if keyword.arg == "kind" and isinstance(keyword.value, ast.Constant)
    }
    assert kinds
    assert kinds <= ROWS.keys()


def test_every_status_of_a_problem_without_a_kind_is_told() -> None:
    statuses = {
        made.args[0].value
        for made in problems_made()
        if made.args
        and isinstance(made.args[0], ast.Constant)
        and not any(word.arg == "kind" for word in made.keywords)
    }
    assert statuses
    assert {str(status) for status in statuses} <= ROWS.keys()


def test_nothing_is_told_that_is_not_there() -> None:
    words = {word for word in ROWS if not word.isdigit()}

    assert words == {fault.word for fault in Fault} | {"word", "status", "invalid_request", "overloaded", "passthrough"}


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.HTTP_RESPONSE_STATUS])
def test_clients_are_told_to_ask_again_where_the_rows_say_so(fault: Fault) -> None:
    _, again, *_ = ROWS[fault.word].split(" | ")

    assert Outcome(upstream="all", fault=fault).retryable == (again == "yes" or fault.status in {503, 504})


def test_the_upstreams_statuses_worth_asking_again_are_told() -> None:
    (listed,) = re.findall(r"statuses for ([\d, and]+)\.", TEXT)

    assert set(map(int, re.findall(r"\d+", listed))) == RETRYABLE_STATUSES
