"""Without a verb there is one page that says how it goes, and where to look next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from inspection.cli import VERBS
from inspection.times import stamp
from tests.inspection.conftest import Logs
from tests.inspection.shop import Line, at, attempt, line, request, write


def test_it_tells_of_the_last_quarter_of_an_hour_of_a_log_that_has_ended(logs: Logs, tmp_path: Path) -> None:
    opened = {"from": "closed", "to": "open"}
    write(
        tmp_path / "gateway-1.ndjson",
        request(0, "failed"),
        request(5000),
        attempt(5000, "catalog", "failed", request_id="r1", trace_id="t1", error__type="connection_refused"),
        line("breaker.changed", 5001, upstream="catalog", reason="5 of 10 attempts failed") | opened,
        request(5100, "partial", calls_failed=["catalog"]),
        line("request.started", 5101, trace_id="t2", request_id="r2"),
    )

    said = logs("--json").json

    assert (said["from"], said["to"], said["ended"]) == (at(5101 - 900), at(5101), at(5101))
    assert said["stats"]["total"]["count"] == 2
    assert [row["error"] for row in said["errors"]["errors"]] == ["connection_refused"]
    assert said["not_closed"] == [{"upstream": "catalog", "breaker": "open"}]
    assert said["in_flight"] == 1
    told = logs().out
    assert "The log ends at" in told
    assert "The breaker of catalog is open." in told
    assert "1 in flight" in told


def test_what_it_says_to_ask_next_can_be_asked(logs: Logs, tmp_path: Path) -> None:
    same = {"request_id": "r1", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}
    write(
        tmp_path / "gateway-1.ndjson",
        attempt(0, "catalog", "failed", **same, start_offset_ms=1.0, http__response__status_code=503),
        request(1, "partial", **same, http__request__method="GET", url__path="/", calls_failed=["catalog"]),
        line("request.started", 2, trace_id="t2", request_id="r2"),
    )

    steps = [step["command"] for step in logs("--json").json["next"]]

    assert steps[0] == f"trace {same['trace_id']}"
    assert {step.split()[0] for step in steps} == {"trace", "errors", "stats", "compare", "inflight"}
    assert {step.split()[0] for step in steps} <= set(VERBS)
    for step in steps:
        assert logs(*step.split()).code in {0, 1}, step


def test_of_a_log_that_goes_on_it_is_the_time_before_now(logs: Logs, tmp_path: Path) -> None:
    def of(minutes: float) -> Line:
        return {**request(), "timestamp": stamp(datetime.now(UTC) - timedelta(minutes=minutes))}

    write(tmp_path / "gateway-1.ndjson", of(20), of(10), of(0.1))

    said = logs("--json").json

    assert (said["ended"], said["stats"]["total"]["count"], said["errors"]) == (None, 2, None)
    assert [step["command"].split(" --since")[0] for step in said["next"]] == ["stats --by route"]


def test_a_window_that_is_asked_for_is_kept(logs: Logs, tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", request(0), request(5000))

    assert logs("summary", "--since", at(0), "--until", at(10), "--json").json["stats"]["total"]["count"] == 1
    assert logs("--until", at(10), "--json").json["stats"]["total"]["count"] == 1
    assert logs("--since", at(6000)).code == 1


def test_a_log_with_nothing_to_tell_is_said_to_have_nothing(logs: Logs, tmp_path: Path) -> None:
    (tmp_path / "gateway-1.ndjson").write_bytes(b"garbage\n")

    assert (logs().code, logs().out) == (1, "Nothing found in 1 file (all of the log).\n")
