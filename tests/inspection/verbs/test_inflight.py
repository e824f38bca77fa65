"""`inflight`: what has not finished, told apart from what never will."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from inspection.processes import counts, named, state
from tests.inspection.asking import asked
from tests.inspection.shop import START, Line, attempt, line, write

Capture = pytest.CaptureFixture[str]
PROCESS = "web-1-7"


def begun(name: str, seconds: float = 0.0, process: str = PROCESS) -> Line:
    return line("request.started", seconds, http__request__method="GET", url__path=f"/{name}", **ids(name, process))


def over(name: str, seconds: float = 0.0, process: str = PROCESS) -> Line:
    return line("request.finished", seconds, duration_ms=1.0, outcome="ok", **ids(name, process))


def ids(name: str, process: str = PROCESS) -> dict[str, Any]:
    return {"trace_id": f"trace-{name}", "request_id": name, "service__instance__id": process}


@contextmanager
def living(folder: Path, pid: int, number: int = 0) -> Iterator[None]:
    """A process's count, locked as it is while the process lives."""
    path = folder / f"gateway-{pid}.count"
    path.write_bytes(struct.pack("<Q", number))
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_what_has_begun_and_not_ended_is_in_flight_with_what_it_has_behind_it(tmp_path: Path, capsys: Capture) -> None:
    write(
        tmp_path / "gateway-7.ndjson",
        begun("a"),
        begun("b", 1.0),
        attempt(1.1, "users", **ids("b"), start_offset_ms=1.0),
        line("call.finished", 1.1, call="users", outcome="ok", attempts=1, **ids("b")),
        attempt(1.2, "reviews", "failed", error__type="dns_error", **ids("b"), start_offset_ms=1.0),
        over("a", 2.0),
    )
    with living(tmp_path, 7):
        found = asked(capsys, "inflight", "--dir", tmp_path, "--json").json
        shown = asked(capsys, "inflight", "--dir", tmp_path)

    (request,) = found["in_flight"]
    assert (request["request_id"], request["path"], request["process"]) == ("b", "/b", "running")
    assert request["calls"] == ["users"]
    tries = [(one["call"], one["outcome"]) for one in request["attempts"]]
    assert sorted(tries) == [("reviews", "failed"), ("users", "ok")]
    assert (found["lost"], found["unseen"], found["left_out"]) == ([], False, 0)
    assert shown.code == 0
    assert shown.out.startswith("1 request in flight at ")
    assert "done: users; tried: reviews #1 dns_error" in shown.out


def test_what_a_dead_process_had_under_way_is_lost(tmp_path: Path, capsys: Capture) -> None:
    here = socket.gethostname()
    write(tmp_path / "gateway-7.ndjson", begun("killed"))
    write(tmp_path / "gateway-8.ndjson", begun("stopped", 0.0, "web-1-8"),
          line("gateway.stopped", 5.0, service__instance__id="web-1-8"))  # fmt: skip
    write(tmp_path / "gateway-9.ndjson", begun("before", 0.0, "web-1-9"),
          line("gateway.started", 5.0, service__instance__id="web-1-9"), begun("since", 6.0, "web-1-9"))  # fmt: skip
    write(tmp_path / "elsewhere.ndjson", begun("elsewhere", 0.0, "web-2-70"))
    write(tmp_path / "gone.ndjson", begun("gone", 0.0, f"{here}-4194305"))
    (tmp_path / "gateway-7.count").write_bytes(struct.pack("<Q", 3))
    with living(tmp_path, 9):
        found = asked(capsys, "inflight", "--dir", tmp_path, "--json").json
        shown = asked(capsys, "inflight", "--dir", tmp_path).out

    assert {request["request_id"] for request in found["lost"]} == {"killed", "stopped", "before", "gone"}
    assert {(request["request_id"], request["process"]) for request in found["in_flight"]} == {
        ("since", "running"),
        ("elsewhere", "unknown"),
    }
    assert "4 requests lost: their process has ended" in shown


def test_only_the_older_ones_and_those_that_meet_the_filters(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "gateway-7.ndjson", begun("old"), begun("new", 86_400 * 365 * 200.0))

    old = asked(capsys, "inflight", "--dir", tmp_path, "--older", "5s", "--json").json
    new = asked(capsys, "inflight", "--dir", tmp_path, "-f", "path=/new", "--json").json
    assert [one["path"] for one in old["in_flight"]] == ["/old"]
    assert [one["path"] for one in new["in_flight"]] == ["/new"]
    wrong = asked(capsys, "inflight", "--dir", tmp_path, "--older", "soon")
    assert (wrong.code, "is no length of time" in wrong.err) == (2, True)


def test_as_of_an_earlier_moment(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "gateway-7.ndjson", begun("a"), over("a", 60.0))
    then = (START + timedelta(seconds=30)).isoformat()
    (request,) = asked(capsys, "inflight", "--dir", tmp_path, "--until", then, "--json").json["in_flight"]

    assert request["age_ms"] == 30_000.0
    assert asked(capsys, "inflight", "--dir", tmp_path).code == 1


def test_an_id_that_comes_again_is_counted_each_time(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "gateway-7.ndjson", begun("a"), over("a", 1.0), begun("a", 2.0))
    (request,) = asked(capsys, "inflight", "--dir", tmp_path, "--json").json["in_flight"]

    assert request["at"] == "2026-05-04T09:00:02.000000Z"


def test_a_log_without_arrivals_says_that_it_says_nothing(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "gateway-7.ndjson", over("a"))
    ended = asked(capsys, "inflight", "--dir", tmp_path)

    assert (ended.code, ended.out.count("LOG_STEPS=problems")) == (0, 1)


def test_an_age_that_is_none_is_a_usage_error_though_nothing_is_under_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = asked(capsys, "inflight", "--dir", tmp_path, "--older", "long")

    assert (ended.code, ended.err) == (2, "logs: 'long' is no length of time; write it as 90s, 30m or 2h\n")


# Processes


def test_a_process_is_known_by_its_count(tmp_path: Path) -> None:
    (tmp_path / "gateway-8.count").write_bytes(struct.pack("<Q", 5))
    (tmp_path / "gateway-8-20260504T090000.000000Z.count").write_bytes(struct.pack("<Q", 4))
    with living(tmp_path, 7, 12):
        assert [(count.name.pid, count.number, count.running) for count in counts(tmp_path)] == [
            (7, 12, True), (8, 4, False), (8, 5, False),
        ]  # fmt: skip
        assert [state(tmp_path, f"web-1-{pid}") for pid in (7, 8, 9)] == ["running", "ended", "unknown"]
    assert state(tmp_path, f"{socket.gethostname()}-{os.getpid()}") == "unknown"
    assert counts(tmp_path / "none") == []


def test_files_are_whose_their_names_say() -> None:
    assert named(Path("gateway-7.ndjson")) == (7, None)
    assert named(Path("gateway-7-20260504T090000.000000Z.ndjson.gz")) == (7, "20260504T090000.000000Z")
    assert named(Path("other.ndjson")) is None
