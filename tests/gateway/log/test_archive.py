"""Files that were set aside are compressed and in time removed; no line is lost by that, nothing else is touched."""

from __future__ import annotations

import fcntl
import gzip
import os
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.log.archive import Archive, compress, prune
from gateway.log.files import Entry, Limits
from tests.gateway.log.processes import start, tidied

DAY = timedelta(days=1)
LINES = b'{"seq":1,"text":"' + b"x" * 1000 + b'"}\n'
NEVER = Limits(keep_days=36500, keep_bytes=2**60)


def aside(folder: Path, pid: int, ago: timedelta, *, kind: str = "ndjson", content: bytes = LINES) -> Path:
    """Make a file that was set aside so long ago."""
    stamp = (datetime.now(UTC) - ago).strftime("%Y%m%dT%H%M%S.%fZ")
    path = Entry(pid, stamp, kind).path(folder)
    path.write_bytes(content)
    return path


def packed(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def part(path: Path) -> Path:
    return path.with_suffix(".part")


def test_a_file_set_aside_is_compressed_line_for_line_and_keeps_its_time(tmp_path: Path) -> None:
    path = aside(tmp_path, 7, DAY, content=LINES * 5000)
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))

    compress(tmp_path)

    assert list(tmp_path.iterdir()) == [packed(path)]
    assert gzip.decompress(packed(path).read_bytes()) == LINES * 5000
    found = packed(path).stat()
    assert found.st_mtime_ns == 1_234_567_890_123_456_789
    assert stat.S_IMODE(found.st_mode) & ~0o640 == 0
    assert found.st_size < 50_000


@pytest.mark.parametrize("name", ["gateway-7.ndjson", "gateway-7.ndjson.1", "shop.ndjson", "gateway-7-old.ndjson"])
def test_what_is_in_use_or_not_the_logs_is_neither_compressed_nor_removed(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(LINES)
    os.utime(tmp_path / name, (1, 1))

    compress(tmp_path)
    prune(tmp_path, Limits(keep_days=0, keep_bytes=0))

    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_compression_that_was_interrupted_is_begun_again(tmp_path: Path) -> None:
    path = aside(tmp_path, 7, DAY)
    part(path).write_bytes(b"half" * 10_000)

    compress(tmp_path)

    assert list(tmp_path.iterdir()) == [packed(path)]
    assert gzip.decompress(packed(path).read_bytes()) == LINES


def test_a_compression_that_was_interrupted_before_its_last_step_is_ended(tmp_path: Path) -> None:
    path = aside(tmp_path, 7, DAY)
    packed(path).write_bytes(gzip.compress(LINES))

    compress(tmp_path)

    assert list(tmp_path.iterdir()) == [packed(path)]
    assert gzip.decompress(packed(path).read_bytes()) == LINES


def test_a_process_killed_while_it_compresses_loses_nothing(tmp_path: Path) -> None:
    path = aside(tmp_path, 7, DAY, content=os.urandom(32 * 1024 * 1024))
    content = path.read_bytes()
    program = """
from gateway.log.archive import compress
from pathlib import Path
threading.Thread(target=compress, args=[Path(os.environ["FOLDER"])], daemon=True).start()
while not [part for part in Path(os.environ["FOLDER"]).glob("*.part") if part.stat().st_size]: pass
os.kill(os.getpid(), 9)
"""
    with start(program, FOLDER=str(tmp_path)) as process:
        process.communicate(timeout=60)
    assert sorted(tmp_path.iterdir()) == [path, part(path)]

    compress(tmp_path)

    assert list(tmp_path.iterdir()) == [packed(path)]
    assert gzip.decompress(packed(path).read_bytes()) == content


def test_a_full_disk_leaves_the_plain_file(tmp_path: Path) -> None:
    path = aside(tmp_path, 7, DAY, content=os.urandom(100_000))
    program = """
import resource
from gateway.log.archive import compress
from pathlib import Path
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, most))
compress(Path(os.environ["FOLDER"]))
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
"""
    with start(program, FOLDER=str(tmp_path)) as process:
        _, complaint = process.communicate(timeout=60)

    assert (process.returncode, complaint) == (0, b"")
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_size == 100_000


def test_a_file_that_another_process_compresses_is_left_to_it(tmp_path: Path) -> None:
    path = aside(tmp_path, 7, DAY)
    other = aside(tmp_path, 8, DAY)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        compress(tmp_path)

    assert sorted(tmp_path.iterdir()) == sorted([path, packed(other)])


def _by_age(folder: Path) -> tuple[Limits, list[Path]]:
    for days in (20, 15):
        aside(folder, 7, days * DAY)
        aside(folder, 8, days * DAY, kind="ndjson.gz")
    return Limits(), [aside(folder, 7, 13 * DAY), aside(folder, 8, DAY, kind="ndjson.gz")]


def _by_size(folder: Path) -> tuple[Limits, list[Path]]:
    for hours in range(9, 4, -1):
        aside(folder, hours, timedelta(hours=hours))
    kept = [aside(folder, hours, timedelta(hours=hours), kind="ndjson.gz") for hours in (4, 3)]
    current = folder / "gateway-7.ndjson"
    current.write_bytes(LINES)
    return Limits(keep_bytes=3 * len(LINES)), [*kept, current]


@pytest.mark.parametrize("limits", [_by_age, _by_size])
def test_files_go_by_age_and_then_the_oldest_by_size(
    limits: Callable[[Path], tuple[Limits, list[Path]]], tmp_path: Path
) -> None:
    chosen, kept = limits(tmp_path)

    prune(tmp_path, chosen)

    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_file_in_use_stays_though_it_alone_is_too_large(tmp_path: Path) -> None:
    current = tmp_path / "gateway-7.ndjson"
    current.write_bytes(LINES * 100)
    aside(tmp_path, 7, DAY)

    prune(tmp_path, Limits(keep_bytes=len(LINES)))

    assert list(tmp_path.iterdir()) == [current]


def test_a_count_goes_with_the_last_file_that_it_is_about(tmp_path: Path) -> None:
    first, last = aside(tmp_path, 7, 15 * DAY, kind="ndjson.gz"), aside(tmp_path, 7, 13 * DAY)
    count = last.with_suffix(".count")
    count.write_bytes(bytes(8))

    prune(tmp_path, Limits())
    assert sorted(tmp_path.iterdir()) == sorted([last, count])
    assert not first.exists()

    prune(tmp_path, Limits(keep_days=10))
    assert list(tmp_path.iterdir()) == []


def test_a_count_that_has_no_file_goes_by_its_age(tmp_path: Path) -> None:
    aside(tmp_path, 7, 15 * DAY, kind="count", content=bytes(8))
    young = aside(tmp_path, 8, 13 * DAY, kind="count", content=bytes(8))
    living = tmp_path / "gateway-9.count"
    living.write_bytes(bytes(8))

    prune(tmp_path, Limits())

    assert sorted(tmp_path.iterdir()) == sorted([young, living])


def test_a_part_of_what_is_gone_goes(tmp_path: Path) -> None:
    aside(tmp_path, 7, DAY, kind="part")
    path = aside(tmp_path, 8, DAY)
    part(path).touch()

    prune(tmp_path, NEVER)

    assert sorted(tmp_path.iterdir()) == [path, part(path)]


def test_many_that_put_one_folder_in_order_at_once_do_not_trip_over_one_another(tmp_path: Path) -> None:
    files = [aside(tmp_path, pid, timedelta(hours=pid), content=LINES * 300) for pid in range(1, 40)]
    old = [aside(tmp_path, pid, 20 * DAY) for pid in range(40, 60)]
    program = """
from gateway.log.archive import Archive
from gateway.log.files import Limits
from pathlib import Path
Archive(Path(os.environ["FOLDER"]), Limits()).tidy()
tidied()
"""
    running = [start(program, FOLDER=str(tmp_path)) for _ in range(4)]
    for process in running:
        _, complaint = process.communicate(timeout=60)
        assert (process.returncode, complaint) == (0, b"")

    assert sorted(tmp_path.iterdir()) == sorted(packed(path) for path in files)
    assert {gzip.decompress(packed(path).read_bytes()) for path in files} == {LINES * 300}
    assert not [path for path in old if path.exists()]


def test_asked_again_while_it_is_at_work_it_looks_again(tmp_path: Path) -> None:
    archive = Archive(tmp_path, NEVER)
    made = []
    for nth in range(50):
        made.append(aside(tmp_path, nth + 1, DAY))
        archive.tidy()
    while any(thread.name == "log-archive" for thread in threading.enumerate()):
        tidied()

    assert sorted(tmp_path.iterdir()) == sorted(map(packed, made))


def test_a_folder_that_is_gone_is_no_fault(tmp_path: Path) -> None:
    Archive(tmp_path / "gone", NEVER).tidy()
    tidied()

    assert list(tmp_path.iterdir()) == []
