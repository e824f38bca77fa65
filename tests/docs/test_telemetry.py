"""Every metric and every attribute of a span stands in docs/telemetry.md with its labels, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from gateway.serving.health import PROBES
from gateway.telemetry import scraping
from gateway.telemetry.metrics import Metrics

ROOT: Final = Path(__file__).parent.parent.parent
DOCUMENT: Final = (ROOT / "docs" / "telemetry.md").read_text()


def chapter(heading: str) -> str:
    return DOCUMENT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(heading: str) -> list[list[str]]:
    return [re.split(r" *\| *", line.strip("| ")) for line in re.findall(r"^\| .*\|$", chapter(heading), re.MULTILINE)]


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    counted = Metrics([])
    yield counted
    counted.close()


def test_every_metric_is_described_with_its_kind_and_its_labels(metrics: Metrics) -> None:
    described = {
        row[0].strip("`"): (row[1], set(re.findall(r"`(\w+)`", row[2]))) for row in rows("Metrics") if row[0][0] == "`"
    }
    there = {
        f"{meter._name}_total" if meter._type == "counter" else meter._name: (meter._type, set(meter._labelnames))
        for meter in metrics._meters
    }

    assert described == there


def test_every_attribute_of_a_span_is_described() -> None:
    tree = ast.parse((ROOT / "gateway" / "telemetry" / "spans.py").read_text())
    written = {
        str(key.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and "." in str(key.value) and not str(key.value).startswith("service.")
    }
    text = chapter("Spans")

    assert {name for name in written if f"`{name.removeprefix('tributary.')}`" not in text} == set()


def test_the_paths_that_are_answered_in_front_of_django_are_described() -> None:
    assert {row[0].strip("`") for row in rows("Probes") if row[0].startswith("`/")} == set(PROBES)
    assert f"`{scraping.PATH}`" in chapter("Metrics")
