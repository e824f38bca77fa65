"""A folder's files are read together, whatever is in them, and whatever becomes of them meanwhile."""

from __future__ import annotations

import gzip
import io
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inspection.database import Logs
from inspection.fault import Unanswerable
from inspection.fields import Fields
from inspection.files import decoded, extent, found, sample, spooled, within
from inspection.sources import Sources
from inspection.times import Window
from tests.inspection.shop import START, at, line, text, write

LINES = [line("x", number, seq=number) for number in range(20)]


def numbers(*paths: Path, window: Window | None = None) -> list[Any]:
    """Return the `seq` of all lines that are read of some files."""
    logs = Logs(paths, Fields(sample(paths)), window or Window())
    return [row["seq"] for row in logs.rows("SELECT seq FROM {logs} ORDER BY seq")]


def test_a_folder_is_its_plain_gzip_and_zstd_files_the_latest_written_last(tmp_path: Path) -> None:
    names = ["gateway-1-20260504T090000.000000Z.ndjson.gz", "gateway-2.ndjson.zst", "gateway-1.ndjson"]
    for age, name in enumerate([*names, "gateway-1.count", "gateway-1-x.part", "notes.txt", ".ndjson.swp"]):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    (tmp_path / "old.ndjson").mkdir()

    assert [path.name for path in found([tmp_path])] == names
    assert found([tmp_path, tmp_path / "gateway-1.ndjson"]) == found([tmp_path])
    assert found([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
    with pytest.raises(Unanswerable, match=r"there is no .*nowhere: name the log's folder with --dir"):
        found([tmp_path / "nowhere"])


def test_plain_and_packed_files_are_read_as_one_log(tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", *LINES[10:])
    (tmp_path / "gateway-1-a.ndjson.gz").write_bytes(gzip.compress(text(LINES[:10])))

    assert numbers(*found([tmp_path])) == list(range(20))
    assert extent(found([tmp_path])) == (at(0), at(19))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_file_that_is_just_being_packed_is_read_once_and_whole(tmp_path: Path, ending: str) -> None:
    (tmp_path / "gateway-1.ndjson").write_bytes(b"{}")
    (tmp_path / f"gateway-1.ndjson{ending}").write_bytes(b"half")
    (tmp_path / f"gateway-2.ndjson{ending}").write_bytes(b"packed")

    assert {path.name for path in found([tmp_path])} == {"gateway-1.ndjson", f"gateway-2.ndjson{ending}"}


def test_files_that_were_last_written_to_before_a_window_are_not_read(tmp_path: Path) -> None:
    old, new = write(tmp_path / "gateway-1.ndjson", *LINES), write(tmp_path / "gateway-2.ndjson", *LINES)
    os.utime(old, (START.timestamp() - 1,) * 2)
    os.utime(new, (START.timestamp(),) * 2)
    gone = tmp_path / "gateway-3.ndjson"

    assert within([old, new, gone], Window(START)) == [new]
    assert within([old, new], Window()) == [old, new]


GARBAGE: dict[str, bytes] = {
    "half a line at the end": text(LINES)[:-20] + b"",
    "half a line, begun anew": text(LINES[:19]) + b'{"timestamp":"2026-05\n' + text(LINES[19:]),
    "bytes that are no text": text(LINES) + b"\x00\xff\xfe\n\x80" + b"\0" * 5000 + b"\n",
    "invalid UTF-8 in a value": text(LINES) + b'{"timestamp":"2026-05-04T09:00:00Z","seq":99,"message":"\xff"}\n',
    "JSON that is no line": text(LINES) + b'[1,2]\n"x"\n5\nnull\n{}\n',
    "timestamps that are none": text(LINES)
    + b'{"timestamp":5,"seq":99}\n{"timestamp":"soon","seq":99}\n{"timestamp":null}\n',
    "no timestamp": text(LINES) + b'{"seq":99,"event":"x"}\n',
    "deep nesting": text(LINES)
    + b'{"timestamp":"2026-05-04T09:00:00Z","a":'
    + b"[" * 100_000
    + b"]" * 100_000
    + b"}\n",
    "carriage returns": text(LINES).replace(b"\n", b"\r\n"),
    "empty lines": text(LINES).replace(b"\n", b"\n\n"),
    "a line of 5 MB": text(LINES) + b'{"timestamp":"' + b"x" * 5_000_000 + b'"}\n',
    "a line of 40 MB": text(LINES[:10]) + b"x" * 40_000_000 + b"\n" + text(LINES[10:]),
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_line_is_passed_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "gateway-1.ndjson"
    path.write_bytes(content)
    whole = 19 if content == GARBAGE["half a line at the end"] else 20

    read = [number for number in numbers(path) if number is not None]

    assert read[:whole] == list(range(whole))
    assert set(read[whole:]) <= {99}
    assert len(list(decoded(path.read_bytes().splitlines()))) <= whole + 2


def test_values_of_other_types_are_no_values_of_that_field(tmp_path: Path) -> None:
    path = write(
        tmp_path / "gateway-1.ndjson",
        {**line("x", 1, seq=1), "event": None, "level": 5},
        line("x", 2, seq=2, duration_ms="slow", attempts="many"),
        line("x", 3, seq=3, duration_ms=1e300, upstream=["a"], complete="yes"),
        {**line("x", 4, seq="four"), "calls_failed": {"a": 1}, "new": [1]},
    )
    rows = Logs([path], Fields(sample([path]))).rows("SELECT * FROM {logs} ORDER BY timestamp")

    assert [row["seq"] for row in rows] == [1, 2, 3, None]
    assert [row["event"] for row in rows] == [None, "x", "x", "x"]
    assert [row["duration_ms"] for row in rows] == [None, None, 1e300, None]
    assert (rows[0]["level"], rows[2]["upstream"], rows[3]["calls_failed"]) == ("5", '["a"]', '{"a":1}')


DAMAGED: dict[str, tuple[bytes, list[int]]] = {
    "cut off": (gzip.compress(text(LINES) + os.urandom(200_000))[:-100_000], list(range(20))),
    "no gzip at all": (b"hello\n", []),
    "empty": (b"", []),
    "garbage after a head": (gzip.compress(text(LINES))[:20] + b"\0" * 100, []),
}


@pytest.mark.parametrize(("content", "some"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_packed_file_is_read_as_far_as_it_goes_and_the_others_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, some: list[int]
) -> None:
    broken = tmp_path / "gateway-1-a.ndjson.gz"
    broken.write_bytes(content)
    whole = write(tmp_path / "gateway-1.ndjson", *(line("x", seq=number) for number in range(100, 110)))

    read = numbers(broken, whole)

    assert read[-10:] == list(range(100, 110))
    assert read[:-10] == some
    assert capsys.readouterr().err == ("" if some else f"Left out, for it cannot be read: {broken}\n")


def test_lines_are_found_in_a_damaged_file_too(tmp_path: Path) -> None:
    broken = tmp_path / "gateway-1-a.ndjson.gz"
    broken.write_bytes(DAMAGED["cut off"][0])

    (found_,) = Logs([broken], Fields()).texts('"seq":13')

    assert msgspec.json.decode(found_)["seq"] == 13


@pytest.mark.parametrize("ending", ["ndjson", "ndjson.gz"])
def test_a_file_that_rotation_renames_meanwhile_is_read_under_its_new_name(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / "gateway-7.ndjson", *LINES)
    write(tmp_path / "gateway-77.ndjson", line("x", seq=77))
    logs = Logs([path], Fields())
    path.unlink()
    written = gzip.compress(text(LINES)) if ending.endswith("gz") else text(LINES)
    (tmp_path / f"gateway-7-20260504T090019.000000Z.{ending}").write_bytes(written)

    assert [row["seq"] for row in logs.rows("SELECT seq FROM {logs} ORDER BY seq")] == list(range(20))


def test_a_file_that_rotation_renames_and_begins_anew_meanwhile_is_read_under_both_names(tmp_path: Path) -> None:
    path = write(tmp_path / "gateway-7.ndjson", *LINES)
    logs = Logs([path], Fields())
    path.rename(tmp_path / "gateway-7-20260504T090019.000000Z.ndjson")
    write(path, line("x", seq=20))

    assert [row["seq"] for row in logs.rows("SELECT seq FROM {logs} ORDER BY seq")] == list(range(21))
    assert {row["file"] for row in logs.rows("SELECT DISTINCT file FROM {logs}")} == set(map(str, tmp_path.iterdir()))


def test_a_file_that_is_gone_for_good_takes_nothing_else_with_it(tmp_path: Path) -> None:
    path, other = write(tmp_path / "gateway-7.ndjson", *LINES), write(tmp_path / "gateway-8.ndjson", *LINES)
    logs = Logs([path, other], Fields())
    path.unlink()

    assert logs.rows("SELECT count(*) AS lines FROM {logs}") == [{"lines": 20}]
    other.unlink()
    assert logs.rows("SELECT count(*) AS lines FROM {logs}") == [{"lines": 0}]


def test_of_a_large_file_only_the_end_is_read_that_has_the_window(tmp_path: Path) -> None:
    filler = "x" * 2000
    path = write(
        tmp_path / "gateway-1.ndjson", *(line("x", number, seq=number, filler=filler) for number in range(6000))
    )
    window = Window(START + timedelta(seconds=5000), START + timedelta(seconds=5500))
    sources = Sources([path], window)

    assert sources.copies == {sources.paths[0]: path}
    assert sources.paths[0].stat().st_size < path.stat().st_size / 5
    assert numbers(path, window=window) == list(range(5000, 5500))
    (row,) = Logs([path], Fields(), window).rows("SELECT DISTINCT file FROM {logs}")
    assert row == {"file": str(path)}
    folder = sources.paths[0].parent.parent
    del sources
    assert not folder.exists()
    assert Sources([path], Window(START)).paths == [path]


def test_what_comes_in_is_cut_to_where_its_lines_begin() -> None:
    come_in = b"May 04 09:00:00 web-1 gateway[7]: " + text(LINES[:1]) + text(LINES[1:2]) + b"no brace\n"
    with spooled(io.BytesIO(come_in)) as path:
        assert numbers(path) == [0, 1]
    assert not path.exists()
