"""`upstreams`: every upstream's figures, over time and at each of its hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from inspection.cli import main
from tests.inspection.shop import at, attempt, call, request, write


def answered(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> Any:
    """Return the answer as JSON."""
    assert main(["upstreams", "--dir", str(folder), "--json", *options]) == 0
    return msgspec.json.decode(capsys.readouterr().out)


def test_attempts_are_counted_from_time_to_time_those_that_failed_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.ndjson", attempt(0), attempt(1, outcome="failed"), attempt(479), request(480))
    found = answered(capsys, tmp_path)
    assert found["bar_s"] == 10
    (row,) = found["rows"]
    assert row["bars"] == [
        {"at": at(0), "count": 2, "failed": 1},
        {"at": at(470), "count": 1, "failed": 0},
    ]


def test_a_row_has_what_stats_says_of_the_upstream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.ndjson", attempt(0), attempt(1, upstream="users"), attempt(2), call(2))
    rows = {row.pop("key"): row for row in answered(capsys, tmp_path)["rows"]}
    assert main(["stats", "--dir", str(tmp_path), "--json"]) == 0
    for row in msgspec.json.decode(capsys.readouterr().out)["rows"]:
        assert rows[row.pop("key")].items() >= row.items()


def test_hosts_have_figures_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = {"server__address": "10.0.0.1:80"}, {"server__address": "10.0.0.2:80"}
    write(
        tmp_path / "a.ndjson",
        *(attempt(number, duration_ms=10.0, **one) for number in range(4)),
        attempt(5, duration_ms=80.0, outcome="failed", **two),
        attempt(6, upstream="users"),
    )
    catalog, users = answered(capsys, tmp_path)["rows"]
    assert [(host["host"], host["count"], host["failed_share"]) for host in catalog["hosts"]] == [
        ("10.0.0.1:80", 4, 0.0), ("10.0.0.2:80", 1, 1.0),
    ]  # fmt: skip
    assert catalog["hosts"][1]["p99_ms"] == pytest.approx(80.0)
    assert users["hosts"] == []


def test_people_see_hosts_below_their_upstream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.ndjson", attempt(0, outcome="failed", server__address="10.0.0.1:80"))
    assert main(["upstreams", "--dir", str(tmp_path)]) == 0
    head, upstream, host = capsys.readouterr().out.splitlines()
    assert head.split() == ["upstream", "attempts", "failed", "p50", "p95", "p99", "ms"]
    assert upstream.split()[:3] == ["catalog", "1", "100%"]
    assert host.split()[:3] == ["10.0.0.1:80", "1", "100%"]


def test_without_a_line_there_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.ndjson")
    assert main(["upstreams", "--dir", str(tmp_path), "--json"]) == 1
    assert msgspec.json.decode(capsys.readouterr().out) is None


def test_lines_without_a_time_or_with_other_types_are_in_no_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {**attempt(1), "timestamp": "yesterday", "duration_ms": "long"}
    write(tmp_path / "a.ndjson", attempt(0), odd, {**attempt(2), "upstream": ["x"]})
    found = answered(capsys, tmp_path)
    assert sum(bar["count"] for row in found["rows"] for bar in row["bars"] if row["key"] == "catalog") == 1
