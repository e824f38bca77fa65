"""Following a log: every line once, in order, whatever becomes of the files meanwhile."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inspection.follower import Follower, stamp_of, stamps
from tests.gateway.log.processes import start
from tests.inspection.shop import line, text


def row(number: int) -> bytes:
    return text([line("x", number, seq=number)]).rstrip(b"\n")


def add(path: Path, *numbers: int) -> None:
    with path.open("ab") as file:
        file.writelines(row(number) + b"\n" for number in numbers)


@pytest.fixture
def current(tmp_path: Path) -> Path:
    path = tmp_path / "gateway-7.ndjson"
    add(path, 1, 2)
    return path


@pytest.fixture
def follower(current: Path) -> Iterator[Follower]:
    with Follower(current.parent) as follower:
        yield follower


def test_only_what_comes_is_read_and_once(current: Path, follower: Follower) -> None:
    assert follower.read() == []
    add(current, 3, 4)
    assert follower.read() == [row(3), row(4)]
    assert follower.read() == []


def test_a_line_without_its_end_is_waited_for_also_one_that_was_begun_before(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(row(1) + b"\n" + row(2)[:20])
    with Follower(tmp_path) as follower:
        assert follower.read() == []
        with path.open("ab") as file:
            file.write(row(2)[20:] + b"\n" + row(3)[:5])
        assert follower.read() == [row(2)]
        assert follower.begins == {path.stat().st_ino: path.stat().st_size}


def test_a_file_that_is_renamed_goes_on_and_a_new_one_of_its_name_is_read_whole(
    current: Path, follower: Follower
) -> None:
    add(current, 3)
    renamed = current.rename(current.with_name("gateway-7-20260504T090000.000000Z.ndjson"))
    add(renamed, 4)
    add(current, 5)

    assert follower.read() == [row(3), row(4), row(5)]
    add(renamed, 6)
    add(current, 7)
    assert follower.read() == [row(6), row(7)]


class Rotating:
    """A folder's entry whose file is set aside, and made anew, when somebody is about to open it."""

    def __init__(self, entry: os.DirEntry[str], pending: list[int]) -> None:
        self._entry = entry
        self._pending = pending
        self.name = entry.name
        self.inode = entry.inode
        self.stat = entry.stat

    @property
    def path(self) -> str:
        path = Path(self._entry.path)
        if self._pending:
            path.rename(path.with_name("gateway-7-20260504T090000.000000Z.ndjson"))
            add(path, self._pending.pop())
        return str(path)


def test_a_file_that_is_renamed_while_it_is_being_opened_is_read_once_and_so_is_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir, pending = os.scandir, [2]

    class Entries:
        def __init__(self, path: Path) -> None:
            self._entries = [Rotating(entry, pending) for entry in scandir(path)]

        def __enter__(self) -> list[Rotating]:
            return self._entries

        def __exit__(self, *_: object) -> None: ...

    with Follower(tmp_path) as follower:
        add(tmp_path / "gateway-7.ndjson", 1)
        monkeypatch.setattr(os, "scandir", Entries)
        found = [line for _ in range(4) for line in follower.read()]
        monkeypatch.undo()

    assert sorted(found) == [row(1), row(2)]


def test_what_was_written_last_to_a_file_that_is_gone_is_read(current: Path, follower: Follower) -> None:
    add(current, 3)
    current.unlink()

    assert follower.read() == [row(3)]
    for _ in range(5):
        assert follower.read() == []
    add(current, 4)
    assert follower.read() == [row(4)]


def test_a_file_that_is_cut_is_read_from_its_new_beginning(current: Path, follower: Follower) -> None:
    with current.open("r+b") as file:
        file.truncate()
    assert follower.read() == []
    add(current, 9)
    assert follower.read() == [row(9)]


def packed(path: Path, *, remove: bool = True) -> Path:
    """Compress a file as the gateway does: the time of writing goes along."""
    found = path.stat()
    other = path.with_name(f"{path.name}.gz")
    with path.open("rb") as source, gzip.open(other, "wb") as target:
        shutil.copyfileobj(source, target)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    if remove:
        path.unlink()
    return other


def test_a_file_that_was_read_is_not_read_again_when_it_has_been_compressed(current: Path, follower: Follower) -> None:
    add(current, 3)
    packed(current.rename(current.with_name("gateway-7-20260504T090000.000000Z.ndjson")))

    assert follower.read() == [row(3)]
    assert follower.read() == []


def test_a_file_that_came_and_was_compressed_between_two_looks_is_read(current: Path, follower: Follower) -> None:
    other = current.with_name("gateway-7-20260504T090001.000000Z.ndjson")
    add(other, 3, 4)
    packed(other)
    assert follower.read() == [row(3), row(4)]
    assert follower.read() == []


@pytest.mark.parametrize("plain_first", [True, False])
def test_a_file_that_came_and_stands_there_compressed_too_is_read_once(
    current: Path, follower: Follower, plain_first: object
) -> None:
    other = current.with_name("gateway-7-20260504T090001.000000Z.ndjson")
    add(other, 3, 4)
    both = [packed(other, remove=False), other]
    aside = [path.rename(path.with_suffix(".later")) for path in both]
    found = []
    for path, hidden in sorted(zip(both, aside, strict=True), reverse=not plain_first):
        hidden.rename(path)
        found += follower.read()

    assert found == [row(3), row(4)]


def test_files_that_were_there_before_are_not_read_packed_or_not(tmp_path: Path) -> None:
    for number in range(3):
        add(tmp_path / f"{number}.ndjson", number)
    packed(tmp_path / "1.ndjson")
    with Follower(tmp_path) as follower:
        assert follower.read() == []


def test_a_file_long_asleep_is_not_kept_open_and_read_on_when_it_wakes(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    add(path, 1)
    os.utime(path, (time.time() - 7200, time.time() - 7200))
    with Follower(tmp_path) as follower:
        assert follower.read() == []
        assert str(path) not in open_files()
        add(path, 2)
        assert follower.read() == [row(2)]


@pytest.mark.parametrize("former", ["packed", "asleep"])
def test_a_new_file_is_read_whole_that_has_the_inode_of_one_that_is_gone(tmp_path: Path, former: str) -> None:
    """A file system gives a number out again at once; here, by writing the old file anew under another name."""
    gone, new = tmp_path / "gateway-1.ndjson", tmp_path / "gateway-2.ndjson"
    add(gone, 1, 2, 3)
    os.utime(gone, (time.time() - 7200, time.time() - 7200))
    if former == "packed":
        gone = packed(gone)
    with Follower(tmp_path) as follower:
        assert follower.read() == []
        gone.rename(new)
        new.write_bytes(b"")
        add(new, 4)
        assert follower.read() == [row(4)]
        add(new, 5)
        assert follower.read() == [row(5)]


def open_files() -> list[str]:
    return [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]


def test_lines_of_several_files_come_by_their_time(tmp_path: Path, current: Path, follower: Follower) -> None:
    other = tmp_path / "gateway-8.ndjson"
    add(current, 3, 6)
    add(other, 4, 5)
    assert follower.read() == [row(3), row(4), row(5), row(6)]


def test_one_file_alone_can_be_followed_also_across_a_renaming(current: Path) -> None:
    with Follower(current) as follower:
        add(current.with_name("gateway-8.ndjson"), 90)
        renamed = current.rename(current.with_name("old"))
        add(renamed, 3)
        add(current, 4)
        assert follower.read() == [row(3), row(4)]


def test_a_folder_that_comes_later_is_followed(tmp_path: Path) -> None:
    with Follower(tmp_path / "logs") as follower:
        assert follower.read() == []
        (tmp_path / "logs").mkdir()
        add(tmp_path / "logs" / "a.ndjson", 1)
        assert follower.read() == [row(1)]


def test_a_line_that_is_too_long_is_left_out_and_the_next_is_not(current: Path, follower: Follower) -> None:
    with current.open("ab") as file:
        file.write(b"x" * (5 * 1024 * 1024) + b"\n" + row(3) + b"\n")
    found = [line for _ in range(10) for line in follower.read()]

    assert found == [row(3)]


def test_a_compressed_file_that_is_none_stops_nothing(current: Path, follower: Follower) -> None:
    current.with_name("b.ndjson.gz").write_bytes(b"no gzip at all, but long enough")
    current.with_name("c.ndjson.gz").write_bytes(b"")
    add(current, 3)
    assert follower.read() == [row(3)]
    add(current, 4)
    assert follower.read() == [row(4)]


def test_no_line_of_a_process_that_rotates_all_the_time_is_lost_or_doubled(tmp_path: Path) -> None:
    program = "sys.stdin.readline()\nfor nth in range(4000): log(nth, 'x' * 200)\nwriter.flush()"
    limits = "configure({'dir': os.environ['LOG_DIR'], 'file_bytes': 65536})\n"
    with Follower(tmp_path) as follower:
        with start(limits + program, stdout=subprocess.DEVNULL, LOG_DIR=str(tmp_path)) as process:
            found: list[bytes] = []
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            until = time.monotonic() + 60
            while len(found) < 4000 and time.monotonic() < until:
                found += follower.read()
            process.communicate(timeout=60)
        found += follower.read()

    methods = [int(line.split(b'"http.request.method":"')[1].split(b'"')[0]) for line in found]
    assert sorted(methods) == list(range(4000))
    assert len(list(tmp_path.glob("*.ndjson*"))) > 3


@pytest.mark.parametrize(
    ("written", "stamp"),
    [
        (b'{"timestamp":"2026-05-04T09:12:31.204518Z","a":1}', b"2026-05-04T09:12:31.204518Z"),
        (b'{"a":1,"timestamp":"2026-05-04T09:12:31.204518Z"}', b"2026-05-04T09:12:31.204518Z"),
        (b'{"a":1}', b""),
        (b"", b""),
    ],
)
def test_a_timestamp_is_found_without_decoding(written: bytes, stamp: bytes) -> None:
    assert stamp_of(written) == stamp


def test_a_line_without_a_time_is_of_the_time_before_it() -> None:
    assert [stamp for stamp, _ in stamps([b"x", row(1), b"y"])] == [b"", stamp_of(row(1)), stamp_of(row(1))]
