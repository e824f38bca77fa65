"""`stats` counts each thing once, times it right, and divides by whatever there is."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.inspection.conftest import Logs
from tests.inspection.shop import at, attempt, call, line, request, traffic, write

SINCE = ("--since", at(0), "--until", at(60))


def breaker(seconds: float, process: str, to: str, reason: str = "5 of 10 attempts failed") -> dict[str, Any]:
    fields = {"from": "closed", "to": to}
    return line("breaker.changed", seconds, upstream="catalog", service__instance__id=process, reason=reason) | fields


def rows(said: Any) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in said.json["rows"]}


def test_upstreams_are_told_by_their_attempts_and_requests_as_a_whole(logs: Logs, tmp_path: Path) -> None:
    write(
        tmp_path / "gateway-1.ndjson",
        request(0, "ok", duration_ms=10.0),
        request(1, "partial", duration_ms=20.0),
        request(2, "failed", duration_ms=30.0),
        request(3, "disconnected", duration_ms=40.0),
        request(10, "rejected", duration_ms=50.0),
        attempt(0, "catalog", "failed", duration_ms=5.0),
        attempt(1, "catalog", "ok", kind="retry", attempt=2, duration_ms=7.0),
        attempt(1, "catalog", "cancelled", kind="hedge", duration_ms=9.0),
        attempt(1, "users", duration_ms=100.0),
        call(1, "catalog"),
        call(2, "catalog", "failed", attempts=0, error__type="destination_unavailable"),
        call(2, "catalog"),
        call(2, "catalog"),
        line("flight.joined", 2, upstream="catalog"),
        line("host.ejected", 3, upstream="catalog", server__address="a:1"),
        line("request.started", 3),
    )

    said = logs("stats", "--json")
    total, catalog = said.json["total"], rows(said)["catalog"]

    assert said.code == 0
    assert (said.json["by"], said.json["unit"], said.json["left_out"]) == ("upstream", "attempt", 0)
    assert (said.json["from"], said.json["to"]) == (at(0), at(10))
    assert (total["unit"], total["count"], total["rate"], total["max_ms"]) == ("request", 5, 0.5, 50.0)
    assert [total[f"{name}_share"] for name in ("failed", "partial", "rejected", "disconnected")] == [0.2] * 4
    assert total["p50_ms"] == pytest.approx(30, rel=0.003)
    assert list(rows(said)) == ["catalog", "users"]
    assert {name: catalog[name] for name in ("count", "calls", "attempts", "retries", "hedges", "ejections")} == {
        "count": 3, "calls": 4, "attempts": 3, "retries": 1, "hedges": 1, "ejections": 1,
    }  # fmt: skip
    assert (catalog["failed_share"], catalog["refused_share"], catalog["coalesced_share"]) == (0.333333, 0.25, 0.25)
    assert (catalog["attempts_per_call"], catalog["max_ms"], catalog["breaker"]) == (0.75, 9.0, None)
    assert rows(said)["users"]["attempts_per_call"] is None


def test_percentiles_are_those_of_all_durations_to_a_quarter_of_a_per_cent(logs: Logs, tmp_path: Path) -> None:
    chance = random.Random(5)
    durations = [round(chance.lognormvariate(3, 2), 3) for _ in range(5000)]
    write(tmp_path / "gateway-1.ndjson", *(request(0, duration_ms=each) for each in durations))

    total = logs("stats", "--json").json["total"]

    for percent in (50, 95, 99):
        exact = sorted(durations)[5000 * percent // 100 - 1]
        assert total[f"p{percent}_ms"] == pytest.approx(exact, rel=0.0026)
    assert total["max_ms"] == max(durations)


@pytest.mark.parametrize(
    ("by", "key", "count", "unit"),
    [
        ("route", "home", 2, "request"),
        ("http.route", "home", 2, "request"),
        ("instance", "web-1-7", 2, "request"),
        ("host", "a:1", 1, "attempt"),
        ("kind", "first", 2, "attempt"),
        ("status", "200", 2, "request"),
        ("user_id", "9", 1, "request"),
        ("level", "info", 2, "request"),
    ],
)
def test_it_divides_by_any_field(logs: Logs, tmp_path: Path, by: str, key: str, count: int, unit: str) -> None:
    same = {"service__instance__id": "web-1-7"}
    write(
        tmp_path / "gateway-1.ndjson",
        request(0, **same, user_id=9),
        request(0, **same, user_id=3),
        attempt(0, server__address="a:1"),
        attempt(0, server__address="b:1"),
    )

    said = logs("stats", "--by", by, "--json")

    assert (rows(said)[key]["count"], said.json["unit"]) == (count, unit)


def test_pages_that_were_shed_are_told_beside_those_that_began(logs: Logs, tmp_path: Path) -> None:
    shed = [line("requests.shed", 1, level="error", count=many, http__route=of) for many, of in ((40, "a"), (2, "b"))]
    write(
        tmp_path / "gateway-1.ndjson",
        *(request(0, http__route=route) for route in "aab"),
        *shed,
        {**shed[0], "count": 2},
        {**shed[0], "count": 10**18},
        {**shed[0], "timestamp": "once"},
    )

    said = logs("stats", "--by", "route", "--json")

    assert {key: (row["count"], row["shed"]) for key, row in rows(said).items()} == {"a": (2, 1_000_042), "b": (1, 2)}
    assert (said.json["total"]["count"], said.json["total"]["shed"]) == (3, 1_000_044)
    assert "1,000,044 shed" in logs("stats").out
    assert [row["shed"] for row in logs("stats", "--by", "second", "--json").json["rows"]] == [0, 1_000_044]


def test_nothing_is_said_of_shed_pages_where_there_are_none(logs: Logs, tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", request(0))

    assert "shed" not in logs("stats", "--by", "route").out


def test_of_a_host_nothing_is_told_that_only_calls_have(logs: Logs, tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", attempt(server__address="a:1"), attempt(server__address="b:1"), call())

    told = logs("stats", "--by", "host").out

    assert "server.address" in told
    assert "tries" not in told
    assert logs("stats", "--by", "host", "--json").json["rows"][0]["refused_share"] is None


@pytest.mark.parametrize(
    ("by", "seconds", "keys"),
    [
        ("minute", (0, 30, 200), [f"2026-05-04T09:0{minute}:00Z" for minute in range(4)]),
        ("second", (0, 2.5), ["2026-05-04T09:00:00Z", "2026-05-04T09:00:01Z", "2026-05-04T09:00:02Z"]),
        ("hour", (0, 7200), ["2026-05-04T09:00:00Z", "2026-05-04T10:00:00Z", "2026-05-04T11:00:00Z"]),
    ],
)  # fmt: skip
def test_by_time_rows_are_in_order_and_without_gaps(
    logs: Logs, tmp_path: Path, by: str, seconds: tuple[float, ...], keys: list[str]
) -> None:
    write(tmp_path / "gateway-1.ndjson", *(request(each) for each in seconds))

    said = logs("stats", "--by", by, "--json")

    assert [row["key"] for row in said.json["rows"]] == keys
    assert sum(row["count"] for row in said.json["rows"]) == len(seconds)
    assert {row["p50_ms"] is None for row in said.json["rows"] if not row["count"]} == {True}
    last = logs("stats", "--by", by, "--json", "--top", "2").json
    assert [row["key"] for row in last["rows"]] == keys[-2:]


def test_of_the_stretches_before_those_that_are_shown_it_is_told_how_many_there_are(logs: Logs, tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", *(request(second) for second in range(0, 400, 10)))

    said = logs("stats", "--by", "second", "--json").json

    assert (len(said["rows"]), said["left_out"]) == (30, 391 - 30)
    assert "... and 361 more" in logs("stats", "--by", "second").out


def test_times_are_shown_by_this_machines_clock(logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "gateway-1.ndjson", request(0))
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        told = logs("stats", "--by", "minute").out
    finally:
        monkeypatch.undo()
        time.tzset()

    assert "05-04 14:30:00" in told
    assert "+05:30" in told


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ([breaker(1, "a", "open"), breaker(2, "a", "half_open"), breaker(3, "a", "closed")], "closed"),
        ([breaker(1, "a", "open"), breaker(2, "b", "open"), breaker(3, "b", "closed")], "open"),
        ([breaker(3, "a", "closed"), breaker(1, "a", "open")], "closed"),
        ([breaker(1, "a", "open", "forced maintenance")], "open (forced)"),
        ([breaker(1, "a", "open", "forced"), breaker(2, "a", "closed", "no longer forced")], "closed"),
        ([breaker(1, "a", "closed", "forced"), breaker(2, "b", "closed")], "closed (forced)"),
        ([breaker(1, "a", "ajar"), breaker(2, "b", "closed")], "closed"),
        ([], None),
    ],
)
def test_a_breaker_is_what_it_is_in_the_worst_process(
    logs: Logs, tmp_path: Path, changes: list[dict[str, Any]], state: str | None
) -> None:
    write(tmp_path / "gateway-1.ndjson", attempt(0), *changes)

    assert rows(logs("stats", "--json"))["catalog"]["breaker"] == state


def test_rates_are_of_the_time_that_was_asked_about_as_far_as_the_log_goes(logs: Logs, tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", request(0), request(100), request(110), request(300))

    def of(*arguments: str) -> tuple[int, float]:
        total = logs("stats", "--json", *arguments).json["total"]
        return total["count"], total["rate"]

    assert of() == (4, round(4 / 300, 3))
    assert of("--since", at(90), "--until", at(190)) == (2, 0.02)
    assert of("--since", at(-1000), "--until", at(200)) == (3, 0.015)
    assert of("--since", at(200)) == (1, 0.01)


def test_filters_and_windows_leave_lines_out(logs: Logs, tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", request(0, user_id=1), request(30, user_id=2), request(60, user_id=2))

    assert logs("stats", *SINCE, "--json").json["total"]["count"] == 2
    assert logs("stats", *SINCE, "-f", "user_id=2", "--json").json["total"]["count"] == 1
    nothing = logs("stats", "--since", at(61))
    assert nothing.code == 1
    assert nothing.out.startswith("Nothing found in 0 files") or "Nothing found in 1 file (" in nothing.out
    filtered = logs("stats", "-f", "user_id=3")
    assert (filtered.code, filtered.out) == (1, "Nothing found in 1 file (all of the log, user_id=3).\n")


def test_the_table_fits_a_terminal_and_controls_none(logs: Logs, tmp_path: Path) -> None:
    write(
        tmp_path / "gateway-1.ndjson",
        *traffic(random.Random(1), 5, 10),
        attempt(0, "x" * 90 + "\x1b[2J\nend", "failed"),
        call(0, "catalog", "failed", attempts=0, error__type="destination_unavailable"),
        line("flight.joined", 0, upstream="catalog"),
        breaker(1, "a", "half_open"),
    )

    told = logs("stats").out

    assert max(map(len, told.splitlines())) <= 120
    assert "\x1b" not in told
    assert "\\x1b[2J" in told or "\u2026" in told
    assert "half_open" in told


@pytest.mark.parametrize(
    "content",
    [
        "garbage\n{\n",
        '{"timestamp":"x","event":null}\n',
        "",
        '{"timestamp":"2026","event":"request.finished"}\n',
        '{"timestamp":"2026-99-99T99:99:99Z","event":"request.finished","outcome":[1],"duration_ms":"x"}\n',
        '{"timestamp":"2026-05-04T09:00:00Z","event":"request.finished","duration_ms":1e999,"http.route":{"a":1}}\n',
        '{"timestamp":"2026-05-04T09:00:00Z","event":"breaker.changed","to":null}\n',
    ],
)
def test_whatever_is_in_the_files_there_is_an_answer(logs: Logs, tmp_path: Path, content: str) -> None:
    (tmp_path / "gateway-1.ndjson").write_text(content)

    for by in ("upstream", "minute", "route"):
        said = logs("stats", "--by", by)
        assert said.code in {0, 1}
        assert said.out
        assert not said.err


def test_many_values_are_counted_and_the_most_frequent_told(logs: Logs, tmp_path: Path) -> None:
    many = (request(0, user_id=number) for number in range(20_000))
    write(tmp_path / "gateway-1.ndjson", *many, request(0, user_id=7))

    said = logs("stats", "--by", "user_id", "--top", "1", "--json").json

    assert [(row["key"], row["count"]) for row in said["rows"]] == [("7", 2)]
    assert said["left_out"] == 19_999


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--by", "upstrem"), "no line has a field 'upstrem'; did you mean upstream or upstreams?"),
        (("--top", "0"), "--top is a number of rows, 1 at least"),
    ],
)
def test_a_question_that_cannot_be_asked_is_answered_with_one_sentence(
    logs: Logs, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    write(tmp_path / "gateway-1.ndjson", request())

    said = logs("stats", *arguments)

    assert (said.code, said.out, said.err) == (2, "", f"logs: {sentence}\n")
