"""`breakers` tells every change, and what each process's breaker is now."""

from __future__ import annotations

from pathlib import Path

from gateway.log import events
from tests.inspection.conftest import Logs
from tests.inspection.shop import Line, at, line, write
from tests.logs import Log


def changed(
    seconds: float,
    process: str,
    former: str,
    to: str,
    reason: str = "5 of 10 attempts failed",
    open_ms: float | None = None,
) -> Line:
    told = {"from": former, "to": to, "reason": reason} | ({} if open_ms is None else {"open_ms": open_ms})
    return line("breaker.changed", seconds, upstream="catalog", service__instance__id=process, request_id="r1") | told


def test_each_process_has_its_own_state_the_gravest_first(logs: Logs, tmp_path: Path) -> None:
    write(
        tmp_path / "gateway-1.ndjson",
        changed(0, "a", "closed", "open", open_ms=5000.0),
        changed(6, "a", "open", "half_open", "the open time is over"),
        changed(7, "a", "half_open", "closed", "3 probes succeeded"),
        changed(8, "b", "closed", "open", open_ms=5000.0),
        changed(9, "c", "closed", "open", "forced by hand"),
        changed(1, "d", "closed", "open", open_ms=1000.0),
        line("gateway.stopped", 10, service__instance__id="d"),
    )

    said = logs("breakers", "--json")

    assert [(each["process"], each["state"], each["running"]) for each in said.json["states"]] == [
        ("c", "open (forced)", True), ("b", "open", True), ("a", "closed", True), ("d", "open", False),
    ]  # fmt: skip
    assert said.json["states"][1] == {
        "upstream": "catalog", "process": "b", "state": "open", "since": at(8), "reason": "5 of 10 attempts failed",
        "until": at(13), "running": True,
    }  # fmt: skip
    assert [each["at"] for each in said.json["changes"]] == [at(second) for second in (0, 1, 6, 7, 8, 9)]
    told = logs("breakers").out
    assert "the open time is over" in told
    assert "5.0 s" in told


def test_changes_are_those_of_the_window_and_states_those_at_its_end(logs: Logs, tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", changed(0, "a", "closed", "open"), changed(9, "a", "open", "closed"))

    said = logs("breakers", "--json", "--since", at(5)).json
    before = logs("breakers", "--json", "--until", at(5)).json

    assert ([each["to"] for each in said["changes"]], said["states"][0]["state"]) == (["closed"], "closed")
    assert ([each["to"] for each in before["changes"]], before["states"][0]["state"]) == (["open"], "open")


def test_hosts_that_were_left_out_are_told_and_whether_they_are_yet(logs: Logs, tmp_path: Path) -> None:
    ejected = {"upstream": "catalog", "reason": "5 failed in a row", "service__instance__id": "a"}
    write(
        tmp_path / "gateway-1.ndjson",
        line("host.ejected", 0, **ejected, server__address="a:1", out_ms=3000.0),
        line("host.ejected", 5, **ejected, server__address="b:1", out_ms=30_000.0),
    )

    said = logs("breakers", "--json", "--until", at(10)).json

    assert [(each["host"], each["until"], each["out"]) for each in said["ejections"]] == [
        ("a:1", at(3), False), ("b:1", at(35), True),
    ]  # fmt: skip
    assert "Hosts left out" in logs("breakers", "--until", at(10)).out


def test_a_log_without_changes_says_so(logs: Logs, tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", line("request.started"))

    assert (logs("breakers").code, logs("breakers").out) == (1, "Nothing found in 1 file (all of the log).\n")


def test_lines_that_lack_what_they_should_have_are_told_as_they_are(logs: Logs, tmp_path: Path) -> None:
    write(
        tmp_path / "gateway-1.ndjson",
        line("breaker.changed", 0), {**line("breaker.changed", 1, upstream="u\x1b[2J"), "to": "ajar", "open_ms": 1e300},
        line("host.ejected", 2, out_ms="long"),
    )  # fmt: skip

    said = logs("breakers")

    assert (said.code, said.err) == (0, "")
    assert "\x1b" not in said.out


def test_it_reads_what_the_gateway_writes(logs: Logs, tmp_path: Path, log: Log) -> None:
    events.breaker_changed("catalog", "closed", "open", "forced maintenance", 5.0)
    events.host_ejected("users", "a:1", "5 failed in a row", 3600.0)
    (tmp_path / "gateway-1.ndjson").write_bytes(b"\n".join([*log.lines(), b""]))

    said = logs("breakers", "--json").json

    assert [(each["upstream"], each["state"]) for each in said["states"]] == [("catalog", "open (forced)")]
    assert [(each["host"], each["out"], each["out_ms"]) for each in said["ejections"]] == [("a:1", True, 3_600_000)]
