"""`doctor`: what is wrong with a log is found, named and counted, and nothing is found in one that is whole."""

from __future__ import annotations

import gzip
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.log.processes import start
from tests.inspection.asking import Ended, asked
from tests.inspection.shop import Line, line, text, write
from tests.inspection.verbs.test_inflight import living

Capture = pytest.CaptureFixture[str]


def process(*numbers: int, name: str = "web-1-7", **fields: Any) -> list[Line]:
    return [line("x", number, service__instance__id=name, seq=number, **fields) for number in numbers]


def examined(capsys: Capture, folder: Path) -> Ended:
    return asked(capsys, "doctor", "--dir", folder, "--json")


def verdicts(ended: Ended) -> dict[str, str]:
    """Return what is not in order."""
    return {check["check"]: check["verdict"] for check in ended.json["checks"] if check["verdict"] != "ok"}


def found(ended: Ended, name: str) -> list[dict[str, Any]]:
    (check,) = (check for check in ended.json["checks"] if check["check"] == name)
    assert isinstance(check["found"], list)
    return check["found"]


def test_a_log_that_is_whole_is_well(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "gateway-7.ndjson", *process(*range(50, 90)))
    older = text(process(*range(10, 50)))
    (tmp_path / "gateway-7-20260504T090050.000000Z.ndjson.gz").write_bytes(gzip.compress(older))
    with living(tmp_path, 7, 95):
        ended = examined(capsys, tmp_path)
        shown = asked(capsys, "doctor", "--dir", tmp_path)

    assert (ended.code, ended.json["verdict"], verdicts(ended)) == (0, "ok", {})
    assert (shown.code, len(shown.out.splitlines())) == (0, 9)
    assert "2 files, 1 of them compressed" in shown.out
    assert "80 lines, from 2026-05-04T09:00:10.000000Z to 2026-05-04T09:01:29.000000Z" in shown.out


def test_what_is_no_log_line_is_counted_and_its_first_place_told(tmp_path: Path, capsys: Capture) -> None:
    whole = text(process(1))
    (tmp_path / "gateway-7.ndjson").write_bytes(whole + b"garbage\n[1]\n{}\n" + text(process(2)) + b'{"time')
    (tmp_path / "b.ndjson.gz").write_bytes(gzip.compress(whole + b'{"timestamp":"yesterday"}\n'))
    ended = examined(capsys, tmp_path)

    assert ended.code == 1
    assert verdicts(ended)["lines"] == "look"
    assert {(Path(one["file"]).name, one["lines"], one["first_offset"]) for one in found(ended, "lines")} == {
        ("gateway-7.ndjson", 4, len(whole)),
        ("b.ndjson.gz", 1, len(whole)),
    }


def test_the_line_that_a_living_process_writes_is_not_garbled(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "gateway-7.ndjson").write_bytes(text(process(1, 2)) + b'{"timestamp":"20')
    with living(tmp_path, 7, 3):
        assert verdicts(examined(capsys, tmp_path)) == {}
    assert verdicts(examined(capsys, tmp_path))["lines"] == "look"


def test_numbers_that_are_missing_are_lines_that_were_lost(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "gateway-7-20260504T090010.000000Z.ndjson", *process(1, 2, 5, 6))
    write(tmp_path / "gateway-7.ndjson", *process(10, 11))
    write(tmp_path / "gateway-8.ndjson", *process(500, 501, name="web-1-8"))
    ended = examined(capsys, tmp_path)

    assert verdicts(ended) == {"gaps": "lost"}
    assert [(gap["process"], gap["after"], gap["before"], gap["missing"]) for gap in found(ended, "gaps")] == [
        ("web-1-7", 2, 5, 2),
        ("web-1-7", 6, 10, 3),
    ]
    assert "5 lines are missing between others of their process" in asked(capsys, "doctor", "--dir", tmp_path).out


def test_in_a_large_log_missing_lines_are_still_all_counted(tmp_path: Path, capsys: Capture) -> None:
    numbers = [number for number in range(60_000) if number % 20_000 not in {7, 8, 9}]
    rows = (
        b'{"timestamp":"2026-05-04T09:%02d:%02d.%06dZ","level":"info","event":"x","schema":1,"pad":"%s",'
        b'"service.instance.id":"w-7","seq":%d}\n' % (n // 1000, n // 20 % 50, n % 20, b"x" * 400, n)
        for n in numbers
    )
    (tmp_path / "gateway-7.ndjson").write_bytes(b"".join(rows))
    ended = examined(capsys, tmp_path)

    assert verdicts(ended) == {"gaps": "lost"}
    assert sum(gap["missing"] for gap in found(ended, "gaps")) == 9


def test_a_process_name_that_was_used_again_is_another_process(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "gateway-7-20260504T090100.000000Z.ndjson", *process(1, 2, 3))
    write(tmp_path / "gateway-7.ndjson", *[one | {"timestamp": line("x", 100)["timestamp"]} for one in process(1, 2)])

    assert verdicts(examined(capsys, tmp_path)) == {}


def test_lines_that_are_there_twice_are_told_and_not_judged(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "all.ndjson", *process(1, 2, 3), *process(1, 2, 3))

    assert verdicts(examined(capsys, tmp_path)) == {"gaps": "look"}


def test_what_processes_dropped_by_their_own_account_is_added_up(tmp_path: Path, capsys: Capture) -> None:
    of = {"service__instance__id": "web-1-7", "level": "warning"}
    write(tmp_path / "a.ndjson", line("log.dropped", 1, count=3, sink="file", **of),
          line("log.dropped", 2, count=4, sink="file", **of))  # fmt: skip
    assert verdicts(examined(capsys, tmp_path)) == {"dropped": "lost"}
    assert found(examined(capsys, tmp_path), "dropped") == [{"process": "web-1-7", "file": 7, "stdout": 0}]

    write(tmp_path / "a.ndjson", line("log.dropped", 1, count=3, sink="stdout", **of))
    assert verdicts(examined(capsys, tmp_path)) == {"dropped": "look"}


def test_each_count_is_compared_with_the_files_it_is_about(tmp_path: Path, capsys: Capture) -> None:
    first, second = "20260504T090010.000000Z", "20260504T090200.000000Z"
    write(tmp_path / f"gateway-7-{first}.ndjson", *process(1, 2, 3))
    (tmp_path / f"gateway-7-{first}.count").write_bytes(struct.pack("<Q", 10))
    again = [one | {"timestamp": line("x", 100)["timestamp"]} for one in process(1, 2, 3, 4)]
    write(tmp_path / f"gateway-7-{second}.ndjson", *again)
    (tmp_path / f"gateway-7-{second}.count").write_bytes(struct.pack("<Q", 4))
    ended = examined(capsys, tmp_path)

    assert verdicts(ended) == {"killed": "lost"}
    assert [(one["pid"], one["handed_over"], one["missing"]) for one in found(ended, "killed")] == [(7, 10, 7)]


def test_what_a_process_took_with_it_that_was_killed_is_told(tmp_path: Path, capsys: Capture) -> None:
    program = "for nth in range(3000):\n  log(nth, 'x' * 500)\n  nth == 99 and writer.flush()\nos.kill(os.getpid(), 9)"
    with start(program, stdout=subprocess.DEVNULL, LOG_DIR=str(tmp_path)) as process:
        process.communicate(timeout=60)
    (file,) = tmp_path.glob("*.ndjson")
    ended = examined(capsys, tmp_path)
    (count,) = tmp_path.glob("*.count")
    handed_over = struct.unpack("<Q", count.read_bytes())[0]
    written = sum(1 for row in file.read_bytes().splitlines() if row.endswith(b"}"))
    gone = sum(one["missing"] for one in found(ended, "gaps")) + sum(one["missing"] for one in found(ended, "killed"))

    assert process.returncode == -signal.SIGKILL
    assert handed_over == 3000
    assert gone == handed_over - written


def test_a_process_that_ended_without_saying_so_is_told(tmp_path: Path, capsys: Capture) -> None:
    for pid, event in ((7, "gateway.started"), (8, "gateway.stopped"), (9, "x"), (10, "gateway.started")):
        name = f"web-1-{pid}"
        write(tmp_path / f"gateway-{pid}.ndjson", line("gateway.started", 1, service__instance__id=name)
              if event != "x" else line("x", 1, service__instance__id=name),
              *([line(event, 2, service__instance__id=name)] if event == "gateway.stopped" else []))  # fmt: skip
        (tmp_path / f"gateway-{pid}.count").write_bytes(struct.pack("<Q", 0))
    with living(tmp_path, 10):
        ended = examined(capsys, tmp_path)

    assert verdicts(ended) == {"ended": "look"}
    assert [one["process"] for one in found(ended, "ended")] == ["web-1-7"]


def test_clocks_that_were_set_back_or_are_ahead_are_told(tmp_path: Path, capsys: Capture) -> None:
    back = [line("x", seconds, service__instance__id="web-1-7", seq=number)
            for number, seconds in enumerate([10.0, 20.0, 20.5, 15.0, 15.2, 14.9], 1)]  # fmt: skip
    write(tmp_path / "a.ndjson", *back)
    ended = examined(capsys, tmp_path)
    assert verdicts(ended) == {"clock": "look"}
    assert [one["back_s"] for one in found(ended, "clock")] == [5.5]

    ahead = line("x", 86_400 * 365 * 200, service__instance__id="web-1-7", seq=1)
    write(tmp_path / "a.ndjson", ahead)
    assert found(examined(capsys, tmp_path), "clock") == [{"process": "web-1-7", "lines_ahead": 1}]


def test_another_versions_lines_are_told(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "a.ndjson", *process(1), *[one | {"schema": 2} for one in process(2, 3)])
    ended = examined(capsys, tmp_path)

    assert verdicts(ended) == {"schema": "look"}
    assert found(ended, "schema")[0]["lines"] == 2


def test_files_that_are_damaged_are_named_and_the_rest_is_examined(tmp_path: Path, capsys: Capture) -> None:
    whole = gzip.compress(text(process(*range(2000))))
    (tmp_path / "cut.ndjson.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.ndjson.gz").write_bytes(b"no gzip at all")
    write(tmp_path / "a.ndjson", *process(1, 2, name="web-1-8"))
    ended = examined(capsys, tmp_path)

    assert verdicts(ended) == {"readable": "lost"}
    assert {Path(one["file"]).name for one in found(ended, "readable")} == {"cut.ndjson.gz", "none.ndjson.gz"}


def test_no_files_are_nothing_found(tmp_path: Path, capsys: Capture) -> None:
    ended = asked(capsys, "doctor", "--dir", tmp_path)

    assert (ended.code, ended.out) == (1, "There are no log files (*.ndjson, .gz, .zst) there yet.\n")
