"""`requests`: listed, counted over time, divided."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inspection.cli import main
from tests.inspection.shop import at, line, request, write


def asked(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> Any:
    """Return the answer as JSON has it."""
    code = main(["requests", "--json", f"--dir={folder}", *options])
    out = capsys.readouterr().out
    found = msgspec.json.decode(out) if out.strip() else None
    assert code == (0 if found else 1)
    return found


def values(answer: Any, field: str) -> dict[str | None, int]:
    """Return a facet's values with their counts."""
    return next(
        (
            {value["value"]: value["count"] for value in facet["values"]}
            for facet in answer["facets"]
            if facet["field"] == field
        ),
        {},
    )


def test_nothing_is_found_in_a_log_without_finished_requests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "gateway-1.ndjson", line("request.started", request_id="a"))
    assert asked(capsys, tmp_path) is None


def test_the_latest_comes_first_over_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "gateway-1.ndjson", request(0, request_id="a"), request(20, request_id="c"))
    write(tmp_path / "gateway-2.ndjson", request(10, request_id="b"), line("call.finished", 30, call="x"))
    answer = asked(capsys, tmp_path)
    assert [row["request_id"] for row in answer["requests"]] == ["c", "b", "a"]
    assert (answer["total"], answer["from"], answer["to"]) == (3, at(0), at(20))


def test_the_slowest_come_first_when_asked_for_and_what_has_no_duration_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = [("a", 5.0), ("b", None), ("c", 50.0), ("d", 7.0)]
    write(tmp_path / "gateway-1.ndjson", *(request(1, request_id=name, duration_ms=time) for name, time in times))
    answer = asked(capsys, tmp_path, "--slowest")
    assert [row["request_id"] for row in answer["requests"]] == ["c", "d", "a", "b"]
    assert (answer["p50_ms"], answer["p99_ms"]) == pytest.approx((7.0, 50.0), rel=0.003)


def test_only_so_many_are_listed_and_all_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "gateway-1.ndjson", *(request(nth, user_id=nth % 20) for nth in range(100)))
    answer = asked(capsys, tmp_path, "--limit", "3", "--top", "5")
    assert len(answer["requests"]) == 3
    assert answer["total"] == 100
    facet = next(facet for facet in answer["facets"] if facet["field"] == "user_id")
    assert (facet["distinct"], len(facet["values"])) == (20, 5)
    assert all(value["count"] == 5 for value in facet["values"])


def test_facets_count_each_value_and_what_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        tmp_path / "gateway-1.ndjson",
        request(0, calls_failed=["reviews"], outcome="partial", tenant="acme"),
        request(1, tenant="acme"),
        request(2, outcome="failed", http__response__status_code=503, http__route=None),
    )
    answer = asked(capsys, tmp_path)
    assert values(answer, "outcome") == {"failed": 1, "ok": 1, "partial": 1}
    assert values(answer, "http.response.status_code") == {"200": 2, "503": 1}
    assert values(answer, "http.route") == {"home": 2, None: 1}
    assert values(answer, "calls_failed") == {"[]": 2, '["reviews"]': 1}
    assert values(answer, "tenant") == {"acme": 2, None: 1}


def test_a_projects_own_field_with_many_values_is_no_facet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "gateway-1.ndjson", *(request(nth, cart=f"cart-{nth}", shop="one") for nth in range(60)))
    fields = [facet["field"] for facet in asked(capsys, tmp_path)["facets"]]
    assert "cart" not in fields
    assert "shop" in fields


@pytest.mark.parametrize("facet", ["outcome", "http.response.status_code", "http.route", "calls_failed", "tenant"])
def test_every_value_of_a_facet_finds_as_many_as_it_counts(
    facet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        request(
            nth, outcome=("ok", "partial")[nth % 2], calls_failed=["a", "b"][: nth % 3], tenant=(None, "a b=c")[nth % 2]
        )
        for nth in range(12)
    ]
    write(tmp_path / "gateway-1.ndjson", *lines, request(13, http__route=None))
    counted = values(asked(capsys, tmp_path), facet)
    assert counted
    for value, count in counted.items():
        assert asked(capsys, tmp_path, "-f", f"{facet}={value or ''}")["total"] == count
        rest = asked(capsys, tmp_path, "-f", f"{facet}!={value or ''}")
        assert (rest["total"] if rest else 0) == 13 - count


def test_the_histogram_has_no_gaps_and_adds_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [request(0), request(1, outcome="failed"), request(3600, outcome="strange")]
    write(tmp_path / "gateway-1.ndjson", *lines)
    bars = asked(capsys, tmp_path)["histogram"]["bars"]
    assert 30 <= len(bars) <= 62
    assert all(before["until"] == after["at"] for before, after in pairwise(bars))
    assert bars[0]["at"] <= at(0) < bars[0]["until"]
    assert (bars[0]["ok"], bars[0]["failed"], bars[-1]["other"]) == (1, 1, 1)
    assert sum(bar[outcome] for bar in bars for outcome in bar if outcome not in {"at", "until"}) == 3


def test_the_histogram_spans_the_window_that_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "gateway-1.ndjson", request(1800))
    found = asked(capsys, tmp_path, f"--since={at(0)}", f"--until={at(3600)}")["histogram"]
    assert found["seconds"] == 60
    assert (found["bars"][0]["at"], found["bars"][-1]["until"]) == (at(0), at(3600))


@pytest.mark.parametrize("apart", [1, 7, 13, 61, 500, 40_000])
def test_a_bar_has_all_requests_of_its_time_and_no_others(
    apart: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "gateway-1.ndjson", *(request(nth * apart) for nth in range(80)))
    bars = asked(capsys, tmp_path)["histogram"]["bars"]
    for bar in bars:
        times = [at(nth * apart) for nth in range(80)]
        assert bar["ok"] == sum(bar["at"] <= time < bar["until"] for time in times)


@pytest.mark.parametrize("stamp", ["soon", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", None, 7])
def test_a_timestamp_that_is_none_stops_nothing(stamp: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "gateway-1.ndjson", request(0), {**request(1), "timestamp": stamp})
    answer = asked(capsys, tmp_path)
    assert len(answer["histogram"]["bars"]) == 1
    assert answer["histogram"]["bars"][0]["ok"] == 1


def test_values_of_unexpected_types_and_lines_that_are_none_stop_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = request(0, duration_ms="long", http__response__status_code="ok", calls_failed={"a": 1}, attempts=[1])
    path = write(tmp_path / "gateway-1.ndjson", odd, request(1))
    path.write_bytes(path.read_bytes() + b'nonsense\n{"event":"request.fin')
    answer = asked(capsys, tmp_path)
    assert answer["total"] == 2
    assert answer["requests"][1]["status"] is None


@pytest.mark.parametrize("options", [("--limit", "0"), ("--limit", "1001"), ("--top", "0"), ("--top", "51")])
def test_a_limit_that_is_none_is_a_sentence(
    options: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "gateway-1.ndjson", request(0))
    assert main(["requests", f"--dir={tmp_path}", *options]) == 2
    assert "--limit goes from 1 to 1000, and --top from 1 to 50" in capsys.readouterr().err


def test_for_people_it_is_a_table_and_the_facets_below(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        tmp_path / "gateway-1.ndjson",
        request(0, outcome="failed", error__type="deadline_exceeded", request_id="a\x1b[31m", url__path="/cart"),
        request(1, request_id="b", attempts=3, calls=2),
    )
    assert main(["requests", f"--dir={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 requests  p50 20.0  p95 20.0  p99 20.0 ms\n")
    assert "failed deadline_exceeded" in out
    assert "outcome  failed 1  ok 1\n" in out
    assert "\x1b" not in out
