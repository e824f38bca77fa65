"""Lines are written whole and in order, whatever a disk, a pipe or an operator does in the middle of one."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.log.count import Tally
from gateway.log.files import Limits
from gateway.log.outputs import File, Stream
from tests.gateway.log.processes import events, lost, numbers, run


def lines(*numbers: int, size: int = 0) -> list[bytes]:
    return [msgspec.json.encode({"number": number, "text": "x" * size}) for number in numbers]


def read(path: Path) -> list[int]:
    return [msgspec.json.decode(line)["number"] for line in path.read_bytes().splitlines()]


def own_file(folder: Path) -> Path:
    return folder / f"gateway-{os.getpid()}.ndjson"


def file_in(folder: Path) -> File:
    return File(folder, Tally(), Limits())


def test_a_process_has_a_file_of_its_own_that_others_cannot_read(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    former = os.umask(0o022)
    try:
        file = file_in(folder)
        assert not folder.exists()
        assert file.write(lines(1, 2)) == 0
    finally:
        os.umask(former)
        file.close()

    assert [path.name for path in folder.iterdir()] == [f"gateway-{os.getpid()}.ndjson"]
    assert stat.S_IMODE(own_file(folder).stat().st_mode) == 0o640
    assert read(own_file(folder)) == [1, 2]


def test_a_file_that_was_closed_is_added_to_by_who_wrote_it(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    for number in (1, 2):
        file.write(lines(number))
        file.close()

    assert read(own_file(tmp_path)) == [1, 2]
    assert list(tmp_path.iterdir()) == [own_file(tmp_path)]


def test_lines_are_added_to_a_file_without_interning_names(tmp_path: Path) -> None:
    interned: list[str] = []

    def see(frame: types.FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function is sys.intern:
            interned.append(frame.f_code.co_qualname)

    file = file_in(tmp_path)
    file.write(lines(0))
    sys.setprofile(see)
    try:
        for number in range(1, 100):
            file.write(lines(number))
    finally:
        sys.setprofile(None)
        file.close()

    assert read(own_file(tmp_path)) == list(range(100))
    assert interned == []


def _renamed(folder: Path) -> None:
    own_file(folder).rename(folder / "rotated")


def _removed(folder: Path) -> None:
    own_file(folder).unlink()


def _folder_removed(folder: Path) -> None:
    shutil.rmtree(folder)


def _replaced(folder: Path) -> None:
    own_file(folder).rename(folder / "rotated")
    own_file(folder).touch(0o640)


@pytest.mark.parametrize("moved", [_renamed, _removed, _folder_removed, _replaced])
def test_a_file_that_was_moved_or_removed_is_made_again(moved: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    file = file_in(folder)
    file.write(lines(1, 2))

    moved(folder)

    assert file.write(lines(3)) == 0
    assert file.write(lines(4)) == 0
    file.close()
    assert read(own_file(folder)) == [3, 4]
    assert not (folder / "rotated").exists() or read(folder / "rotated") == [1, 2]


def test_a_file_that_was_emptied_in_place_is_written_from_its_beginning(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.write(lines(1, 2))

    os.truncate(own_file(tmp_path), 0)

    file.write(lines(3))
    file.close()
    assert read(own_file(tmp_path)) == [3]


def test_a_folder_that_cannot_be_made_loses_lines_until_it_can(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    file = file_in(tmp_path / "logs")

    assert file.write(lines(1, 2)) == 2

    (tmp_path / "logs").unlink()
    assert file.write(lines(3)) == 0
    file.close()
    assert read(own_file(tmp_path / "logs")) == [3]


def test_a_line_that_a_full_disk_cut_is_finished_when_there_is_room_again(tmp_path: Path) -> None:
    code, found, complaint = run(
        """
import resource
from gateway.log.count import Tally
from gateway.log.files import Limits
from gateway.log.outputs import File
from pathlib import Path
file = File(Path(os.environ["FOLDER"]), Tally(), Limits())
line = lambda nth: b'{"number":%d,"text":"%s"}' % (nth, b"x" * 100)
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
counts = []
for round in range(3):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1234 * (round + 1), most))
    counts.append(file.write([line(100 * round + nth) for nth in range(50)]))
    counts.append(file.write([line(100 * round + 50)]))
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
counts.append(file.write([line(999)]))
print(*counts, file=sys.stderr)
""",
        FOLDER=str(tmp_path),
    )
    (path,) = tmp_path.glob("*.ndjson")
    written = read(path)
    counts = [int(count) for count in complaint.split()]

    assert (code, found) == (0, [])
    assert counts[1::2] == [1, 1, 1]
    assert written == sorted(written)
    assert written[-1] == 999
    assert len(written) + sum(counts) == 3 * 51 + 1


class Reader(threading.Thread):
    """Reads a pipe to its end; begins when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptor, self.writing = os.pipe()
        self.said = b""

    def run(self) -> None:
        with os.fdopen(self.descriptor, "rb") as pipe:
            self.said = pipe.read()

    def numbers(self) -> list[int]:
        """Close the pipe, and return what was written to it."""
        os.close(self.writing)
        self.join()
        return [event["number"] for event in events(self.said)]


def test_lines_longer_than_a_pipe_takes_arrive_whole() -> None:
    reader = Reader()
    reader.start()

    assert Stream(reader.writing, "stdout").write(lines(1, 2, 3, size=300_000)) == 0

    assert reader.numbers() == [1, 2, 3]


def test_a_pipe_that_somebody_made_non_blocking_is_waited_for() -> None:
    reader = Reader()
    fcntl.fcntl(reader.writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(reader.writing, False)
    reader.start()

    assert Stream(reader.writing, "stdout").write(lines(*range(2000), size=200)) == 0

    assert reader.numbers() == list(range(2000))


def test_processes_that_share_a_pipe_do_not_mix_their_lines() -> None:
    code, found, complaint = run("""
for name in ("a", "b", "c"):
    if os.fork() == 0:
        for nth in range(2000): log(nth, name * (nth % 150))
        writer.flush()
        os._exit(0)
for _ in range(3): os.wait()
""")

    assert (code, complaint) == (0, b"")
    assert lost(found) == 0
    assert len(found) == 6000
    for name in ("a", "b", "c"):
        own = [event for event in found if name in event["url.path"]]
        assert numbers(own) == [nth for nth in range(2000) if nth % 150]
