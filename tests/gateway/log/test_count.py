"""However a process ends, it can be told how many lines it had logged, and so how many of them are lost."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from gateway.log.count import Claim, Tally
from gateway.log.files import Limits
from gateway.log.outputs import File
from tests.gateway.log.processes import counts, run, start, written


def seqs(folder: Path) -> list[int]:
    return [event["seq"] for lines in written(folder).values() for event in lines if "seq" in event]


@pytest.mark.parametrize("wait", [1000, 5000])
def test_a_killed_process_leaves_the_number_of_its_last_line(wait: int, tmp_path: Path) -> None:
    program = """
nth = 0
while True:
    log(nth)
    nth += 1
    os.write(2, b"x" * 8)
"""
    with start(program, LOG_DIR=str(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        told = process.stderr.read(8 * wait)
        while not any(counts(tmp_path).values()):  # it counts from the moment that its thread has begun
            told += process.stderr.read(8)
        process.kill()
        told += process.stderr.read()
    logged = len(told) // 8

    ((name, count),) = counts(tmp_path).items()
    assert name == f"gateway-{process.pid}.count"
    assert count in {logged, logged + 1}  # it was killed before it told us, or after
    assert seqs(tmp_path) == list(range(1, len(seqs(tmp_path)) + 1))
    assert count >= len(seqs(tmp_path))


def test_lines_that_a_kill_caught_in_the_queue_are_what_the_count_has_more_than_the_file(tmp_path: Path) -> None:
    program = """
for nth in range(100): log(nth)
writer.flush()
for nth in range(100, 150): log(nth)
os.kill(os.getpid(), 9)
"""
    with start(program, LOG_DIR=str(tmp_path)) as process:
        process.communicate(timeout=60)

    assert process.returncode == -signal.SIGKILL
    assert counts(tmp_path) == {f"gateway-{process.pid}.count": 150}
    assert 100 <= max(seqs(tmp_path)) <= 150


def test_lines_of_a_first_moment_are_counted_though_none_was_written(tmp_path: Path) -> None:
    program = """
from pathlib import Path
log(0)
while not any(path.read_bytes().strip(b"\\0") for path in Path(os.environ["LOG_DIR"]).glob("*.count")): pass
for nth in range(1, 30): log(nth)
os.kill(os.getpid(), 9)
"""
    with start(program, LOG_DIR=str(tmp_path)) as process:
        process.communicate(timeout=60)

    assert 1 <= counts(tmp_path)[f"gateway-{process.pid}.count"] <= 30


def test_a_process_that_ends_by_itself_leaves_no_count(tmp_path: Path) -> None:
    code, found, complaint = run("for nth in range(1000): log(nth)", LOG_DIR=str(tmp_path))

    assert (code, complaint, len(found)) == (0, b"", 1000)
    assert seqs(tmp_path) == list(range(1, 1001))
    assert counts(tmp_path) == {}


def test_a_process_that_could_not_write_all_leaves_its_count(tmp_path: Path) -> None:
    program = """
import resource
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1234, most))
for nth in range(1000): log(nth)
writer.rest()
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
"""
    code, found, complaint = run(program, LOG_DIR=str(tmp_path))

    assert (code, complaint, len(found)) == (0, b"", 1000)
    assert list(counts(tmp_path).values()) == [1000]
    assert 0 < len(seqs(tmp_path)) < 10


def test_a_forked_process_counts_for_itself_from_one(tmp_path: Path) -> None:
    program = """
for nth in range(1000): log(nth)
writer.flush()
child = os.fork()
if not child:
    for nth in range(10): log(nth)
    writer.flush()
    os.kill(os.getpid(), 9)
os.waitpid(child, 0)
for nth in range(1000, 1100): log(nth)
print(child, file=sys.stderr)
"""
    code, _, complaint = run(program, LOG_DIR=str(tmp_path))
    child = int(complaint)
    files = {name: [event["seq"] for event in lines] for name, lines in written(tmp_path).items()}

    assert code == 0
    assert counts(tmp_path) == {f"gateway-{child}.count": 10}
    assert files.pop(f"gateway-{child}.ndjson") == list(range(1, 11))
    assert list(files.values()) == [list(range(1, 1101))]


def test_a_line_has_the_same_number_and_name_in_every_sink(tmp_path: Path) -> None:
    code, found, _ = run(
        "for nth in range(100): log(nth)\nprint(os.uname().nodename, file=sys.stderr)", LOG_DIR=str(tmp_path)
    )
    (lines,) = written(tmp_path).values()
    (name,) = written(tmp_path)

    assert code == 0
    assert lines == found
    assert {event["service.instance.id"] for event in found} == {
        f"{os.uname().nodename}-{name.removeprefix('gateway-').removesuffix('.ndjson')}"
    }


def test_threads_that_log_at_once_have_each_number_once_and_their_own_in_order(tmp_path: Path) -> None:
    program = """
sys.setswitchinterval(1e-6)
def many(name):
    for nth in range(2000): log(nth, name)
threads = [threading.Thread(target=many, args=(name,)) for name in "abcd"]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    code, found, _ = run(program, LOG_DIR=str(tmp_path))

    assert code == 0
    assert sorted(event["seq"] for event in found) == list(range(1, 8001))
    for name in "abcd":
        own = [event for event in found if event["url.path"] == name]
        assert [int(event["http.request.method"]) for event in own] == list(range(2000))
        assert [event["seq"] for event in own] == sorted(event["seq"] for event in own)


def test_a_count_is_locked_as_long_as_its_process_writes_there(tmp_path: Path) -> None:
    path = tmp_path / f"gateway-{os.getpid()}.count"
    file = File(tmp_path, Tally(), Limits())
    file.begin()
    assert Claim.on(path) is None

    file.close()

    claim = Claim.on(path)
    assert claim is not None
    assert not claim.counted()
    claim.remove()
    claim.drop()
    assert list(tmp_path.iterdir()) == []


def test_a_claim_on_a_count_that_was_renamed_meanwhile_is_none(tmp_path: Path) -> None:
    claim = Claim.on(tmp_path / "gateway-7.count")
    assert claim is not None
    assert claim.stands()

    claim.rename(tmp_path / "elsewhere")

    assert not claim.stands()
    claim.remove()
    claim.drop()
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_a_tally_takes_its_number_along(tmp_path: Path) -> None:
    tally = Tally()
    tally.count(7)
    with (tmp_path / "count").open("w+b") as file:
        file.write(bytes(8))
        file.flush()
        tally.move(mmap.mmap(file.fileno(), 8))
    assert repr(tally) == "<Tally 7>"

    tally.count(2**63)

    assert (tmp_path / "count").read_bytes() == (2**63).to_bytes(8, "little")
    tally.move(bytearray(8))
    assert tally.number == 2**63


def test_a_number_that_comes_while_the_count_moves_is_neither_lost_nor_overwritten() -> None:
    """The interpreter is made to change threads all the time."""
    tally, interval = Tally(), sys.getswitchinterval()

    def count(first: int) -> None:
        for number in range(first, first + 5):
            tally.count(number)

    sys.setswitchinterval(1e-6)
    try:
        for first in range(1, 30_000, 5):
            counting = threading.Thread(target=count, args=(first,))
            counting.start()
            while counting.is_alive():
                tally.move(bytearray(8))
            assert int.from_bytes(tally.memory, "little") == first + 4
    finally:
        sys.setswitchinterval(interval)
