"""Every file of the log says whose it is; a dead process's is set aside by the next, a living one's by nobody else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.log.archive import adopt_dead
from gateway.log.count import Claim, Tally
from gateway.log.files import Entry, Limits, listed, set_aside
from gateway.log.outputs import File
from tests.gateway.log.processes import counts, events, start, tidied, written

OURS = os.getpid()
ASIDE = re.compile(r"gateway-(\d+)-(\d{8}T\d{6}\.\d{6}Z)\.(ndjson|ndjson\.gz|count)")
HOUR = 3600


@pytest.fixture
def dead() -> int:
    """The pid of a process that has ended."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        process.wait()
    return process.pid


def left(folder: Path, pid: int, *, count: int | None = None, age: float = 0.0, text: bytes = b'{"seq":1}\n') -> Path:
    """Leave behind what a process that died would."""
    path = folder / f"gateway-{pid}.ndjson"
    path.write_bytes(text)
    os.utime(path, (time.time() - age,) * 2)
    if count is not None:
        (folder / f"gateway-{pid}.count").write_bytes(count.to_bytes(8, "little"))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("gateway-7.ndjson", Entry(7, None, "ndjson")),
        ("gateway-7.count", Entry(7, None, "count")),
        ("gateway-7-20261122T190000.000001Z.ndjson", Entry(7, "20261122T190000.000001Z", "ndjson")),
        ("gateway-7-20261122T190000.000001Z.ndjson.gz", Entry(7, "20261122T190000.000001Z", "ndjson.gz")),
        ("gateway-7-20261122T190000.000001Z.count", Entry(7, "20261122T190000.000001Z", "count")),
        ("gateway-7-20261122T190000.000001Z.part", Entry(7, "20261122T190000.000001Z", "part")),
        ("gateway-7-20261322T190000.000001Z.ndjson", None),
        ("gateway-7-20261122T190000Z.ndjson", None),
        ("gateway-7-20261122.ndjson", None),
        ("gateway-07.ndjson", None),
        ("gateway-7.ndjson.1", None),
        ("gateway-7.ndjson.zst", None),
        ("gateway-7.ndjson\n", None),
        ("gateway-\u0667.ndjson", None),
        ("xgateway-7.ndjson", None),
        ("gateway.ndjson", None),
    ],
)
def test_a_file_is_the_logs_by_its_whole_name(name: str, entry: Entry | None, tmp_path: Path) -> None:
    (tmp_path / name).touch()

    assert list(listed(tmp_path)) == ([entry] if entry else [])
    assert entry is None or entry.path(tmp_path) == tmp_path / name


def test_where_there_is_no_folder_there_are_no_files(tmp_path: Path) -> None:
    assert list(listed(tmp_path / "none")) == []


def test_what_is_being_compressed_is_not_taken_for_a_file_of_lines(tmp_path: Path) -> None:
    for kind in ("part", "count"):
        Entry(7, "20261122T190000.000001Z", kind).path(tmp_path).touch()

    assert list(tmp_path.glob("*.ndjson*")) == []


def test_a_name_says_when_the_last_line_was_written(tmp_path: Path) -> None:
    left(tmp_path, 7)

    set_aside(tmp_path, 7, datetime(2026, 11, 22, 19, 0, 1, 5, tzinfo=UTC).timestamp())

    assert names(tmp_path) == ["gateway-7-20261122T190001.000005Z.ndjson"]


def test_names_of_a_process_ascend_whatever_the_clock_does(tmp_path: Path) -> None:
    aside = []
    for seconds in (1e9, 1e9, 2e9, 1e9, 1.5e9):
        left(tmp_path, 7)
        aside.append(set_aside(tmp_path, 7, seconds).stamp)

    assert aside == sorted(set(filter(None, aside)))
    assert len(names(tmp_path)) == 5


def test_what_a_killed_process_left_is_set_aside_with_its_count(tmp_path: Path, dead: int) -> None:
    left(tmp_path, dead, count=9)

    adopt_dead(tmp_path)

    count, lines = names(tmp_path)
    match = ASIDE.fullmatch(lines)
    assert match
    assert match[1] == str(dead)
    assert datetime.now(UTC) - datetime.strptime(match[2], "%Y%m%dT%H%M%S.%f%z") < timedelta(minutes=5)
    assert count == lines.replace("ndjson", "count")
    assert counts(tmp_path) == {count: 9}


def test_a_count_without_a_file_is_kept_for_what_it_tells(tmp_path: Path, dead: int) -> None:
    Entry(dead, "20991122T190000.000001Z", "ndjson").path(tmp_path).touch()
    (tmp_path / f"gateway-{dead}.count").write_bytes((9).to_bytes(8, "little"))

    adopt_dead(tmp_path)

    assert counts(tmp_path) == {f"gateway-{dead}-20991122T190000.000002Z.count": 9}  # after the file it is about


def test_a_living_process_keeps_its_file_however_long_it_is_silent(tmp_path: Path) -> None:
    program = """
log(1)
writer.flush()
print("written", file=sys.stderr, flush=True)
sys.stdin.readline()
log(2)
"""
    with start(program, LOG_DIR=str(tmp_path)) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"written\n"
        os.utime(tmp_path / f"gateway-{process.pid}.ndjson", (time.time() - 2 * HOUR,) * 2)

        adopt_dead(tmp_path)

        assert names(tmp_path) == [f"gateway-{process.pid}.count", f"gateway-{process.pid}.ndjson"]
        process.communicate(b"\n", timeout=60)
    assert [event["seq"] for event in written(tmp_path)[f"gateway-{process.pid}.ndjson"]] == [1, 2]


def test_a_file_without_a_count_is_left_alone_for_an_hour(tmp_path: Path, dead: int) -> None:
    path = left(tmp_path, dead, age=HOUR - 60)
    adopt_dead(tmp_path)
    assert names(tmp_path) == [path.name]

    left(tmp_path, dead, age=HOUR + 60)
    adopt_dead(tmp_path)

    (name,) = names(tmp_path)
    assert ASIDE.fullmatch(name)


def test_a_count_that_nobody_has_counted_in_is_nobodys_end(tmp_path: Path, dead: int) -> None:
    path = left(tmp_path, dead)
    (tmp_path / f"gateway-{dead}.count").touch()

    adopt_dead(tmp_path)

    assert names(tmp_path) == [path.name]


def test_a_pid_that_comes_again_neither_adds_to_the_dead_ones_file_nor_counts_on_in_its_count(tmp_path: Path) -> None:
    left(tmp_path, OURS, count=9)
    tally = Tally()
    file = File(tmp_path, tally, Limits())
    file.begin()
    tally.count(1)
    assert file.write([b'{"seq":1,"mine":true}']) == 0

    found = counts(tmp_path)
    assert found.pop(f"gateway-{OURS}.count") == 1
    assert list(found.values()) == [9]
    file.close()
    tidied()
    assert events((tmp_path / f"gateway-{OURS}.ndjson").read_bytes()) == [{"seq": 1, "mine": True}]
    assert [{"seq": 1}] in written(tmp_path).values()


def test_a_pid_that_comes_again_after_a_clean_end_makes_a_file_of_its_own(tmp_path: Path) -> None:
    for number in (1, 2):
        file = File(tmp_path, Tally(), Limits())
        file.write([b'{"seq":%d}' % number])
        file.close()
    tidied()

    assert [[event["seq"] for event in lines] for lines in written(tmp_path).values()] == [[1], [2]]
    assert counts(tmp_path) == {}


def test_lines_are_written_though_another_has_the_claim_and_counted_once_it_lets_go(tmp_path: Path) -> None:
    other = Claim.on(tmp_path / f"gateway-{OURS}.count")
    assert other is not None
    tally = Tally()
    tally.count(7)
    file = File(tmp_path, tally, Limits())
    assert file.write([b'{"seq":6}']) == 0

    other.drop()

    assert file.write([b'{"seq":7}']) == 0
    assert counts(tmp_path) == {f"gateway-{OURS}.count": 7}
    file.close()
    assert [[event["seq"] for event in lines] for lines in written(tmp_path).values()] == [[6, 7]]


def test_a_count_that_was_removed_with_its_folder_is_made_again(tmp_path: Path) -> None:
    tally = Tally()
    file = File(tmp_path / "logs", tally, Limits())
    file.write([b'{"seq":1}'])
    for path in (tmp_path / "logs").iterdir():
        path.unlink()
    (tmp_path / "logs").rmdir()
    tally.count(2)

    file.write([b'{"seq":2}'])

    assert counts(tmp_path / "logs") == {f"gateway-{OURS}.count": 2}
    file.close()


def test_a_file_is_set_aside_at_its_size_between_two_lines(tmp_path: Path) -> None:
    program = """
for nth in range(20_000): log(nth, "x" * (nth % 300))
writer.flush()
tidied()
"""
    options = json.dumps({"file_bytes": 64 * 1024})
    with start(program, LOG_DIR=str(tmp_path), LOG_OPTIONS=options) as process:
        _, complaint = process.communicate(timeout=60)
    found = written(tmp_path)

    assert (process.returncode, complaint) == (0, b"")
    assert len(found) > 30
    assert [event["seq"] for lines in found.values() for event in lines] == list(range(1, 20_001))
    assert all(ASIDE.fullmatch(name) for name in list(found)[:-1])
    assert list(found)[-1] == f"gateway-{process.pid}.ndjson"
    assert sum(name.endswith(".gz") for name in found) > 30
    assert counts(tmp_path) == {}


def test_a_process_keeps_no_more_than_it_may(tmp_path: Path) -> None:
    program = """
for nth in range(20_000):
    log(nth, "x" * 300)
    if nth % 1000 == 0: writer.flush()
writer.flush()
tidied()
"""
    left(tmp_path, 7).rename(tmp_path / "gateway-7-20261122T190000.000001Z.ndjson")
    left(tmp_path, 8).rename(tmp_path / "other.ndjson")
    options = json.dumps({"file_bytes": 64 * 1024, "keep_bytes": 128 * 1024, "keep_days": 1})
    with start(program, LOG_DIR=str(tmp_path), LOG_OPTIONS=options) as process:
        _, complaint = process.communicate(timeout=60)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir() if path.name != "other.ndjson"}

    assert (process.returncode, complaint) == (0, b"")
    assert sum(sizes.values()) <= 128 * 1024
    assert (tmp_path / "other.ndjson").exists()
    (tmp_path / "other.ndjson").unlink()
    assert "gateway-7-20261122T190000.000001Z.ndjson" not in sizes
    kept = [event["seq"] for lines in written(tmp_path).values() for event in lines]
    assert kept == list(range(kept[0], 20_001))


def test_a_line_cut_by_a_full_disk_keeps_its_file_until_it_is_whole(tmp_path: Path) -> None:
    program = """
import resource
from gateway.log.count import Tally
from gateway.log.files import Limits
from gateway.log.outputs import File
from pathlib import Path
file = File(Path(os.environ["FOLDER"]), Tally(), Limits(file_bytes=1000))
line = lambda nth: b'{"seq":%d,"text":"%s"}' % (nth, b"x" * 100)
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1234, most))
lost = file.write([line(nth) for nth in range(20)])
assert len(list(file._directory.glob("*.ndjson"))) == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
file.write([])
assert file.write([line(20)]) == 0
file.close()
tidied()
print(lost, file=sys.stderr)
"""
    with start(program, FOLDER=str(tmp_path)) as process:
        _, complaint = process.communicate(timeout=60)
    first, second = written(tmp_path).values() if len(written(tmp_path)) == 2 else (*written(tmp_path).values(), [])

    assert process.returncode == 0
    assert [event["seq"] for event in (*first, *second)] == [*range(20 - int(complaint)), 20]


def test_a_count_for_which_there_is_no_room_is_made_when_there_is_and_the_file_is_the_processs_meanwhile(
    tmp_path: Path,
) -> None:
    program = """
import resource
from gateway.log.count import Tally
from gateway.log.files import Limits
from gateway.log.outputs import File
from pathlib import Path
folder = Path(os.environ["FOLDER"])
file = File(folder, Tally(), Limits())
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (4, most))
lost = file.write([b'{"seq":1}', b'{"seq":2}'])
print(lost, sorted(path.suffix for path in folder.iterdir()), file=sys.stderr)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
lost = file.write([b'{"seq":3}'])
print(lost, sorted(path.suffix for path in folder.iterdir()), file=sys.stderr)
file.close()
"""
    with start(program, FOLDER=str(tmp_path)) as process:
        _, complaint = process.communicate(timeout=60)

    assert complaint.decode().splitlines() == ["1 ['.ndjson']", "0 ['.count', '.ndjson']"]
    assert [[event["seq"] for event in lines] for lines in written(tmp_path).values()] == [[1, 3]]
    assert counts(tmp_path) == {}


# What several processes make of one folder.


def test_processes_that_share_a_folder_lose_and_repeat_no_line_whatever_they_set_aside(tmp_path: Path) -> None:
    program = """
for nth in range(6000): log(nth, "x" * 200)
writer.flush()
tidied()
"""
    options = json.dumps({"file_bytes": 64 * 1024})
    programs = (program, f"{program}os.kill(os.getpid(), 9)")
    with (tmp_path.parent / "nowhere").open("wb") as nowhere:
        running = [
            start(programs[nth % 2], stdout=nowhere, LOG_DIR=str(tmp_path), LOG_OPTIONS=options) for nth in range(4)
        ]
        for process in running:
            _, complaint = process.communicate(timeout=120)
            assert complaint == b""

    adopt_dead(tmp_path)

    found: dict[str, list[int]] = {}
    for lines in written(tmp_path).values():
        for event in lines:
            found.setdefault(event["service.instance.id"].rpartition("-")[2], []).append(event["seq"])
    assert found.keys() == {str(process.pid) for process in running}
    for number in found.values():
        assert number == list(range(1, 6001))
    killed = [name for name in counts(tmp_path) if ASIDE.fullmatch(name)]
    assert {name.split("-")[1] for name in killed} == {str(process.pid) for process in running[1::2]}
    assert set(counts(tmp_path).values()) == {6000}
    assert not list(tmp_path.glob("*.part"))


def test_the_next_process_sees_to_what_a_killed_one_left_and_its_loss_can_be_told(tmp_path: Path) -> None:
    killed = """
for nth in range(1000): log(nth)
writer.flush()
for nth in range(1000, 1200): log(nth)
os.kill(os.getpid(), 9)
"""
    with start(killed, LOG_DIR=str(tmp_path)) as process:
        process.communicate(timeout=60)
    with start("log(1)\nwriter.flush()\ntidied()", LOG_DIR=str(tmp_path)) as following:
        following.communicate(timeout=60)

    (name,) = (name for name in written(tmp_path) if str(following.pid) not in name)
    assert name.endswith(".ndjson.gz")
    last = written(tmp_path)[name][-1]["seq"]
    ((counted, count),) = counts(tmp_path).items()
    assert counted == name.replace("ndjson.gz", "count")
    assert count == 1200
    assert 1000 <= last <= count
