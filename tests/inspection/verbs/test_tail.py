"""`tail`: the last lines of all files together, and those that come, for people and for programs."""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.inspection.asking import Ended, asked, started
from tests.inspection.shop import START, Line, line, text, write


def numbered(*numbers: int, level: str = "info", **fields: object) -> list[Line]:
    return [line("x", number, level=level, n=number, **fields) for number in numbers]


def numbers(ended: Ended) -> list[int]:
    return [int(row.split("n=")[1].split()[0]) for row in ended.out.splitlines()]


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Three hundred lines in three files by turns, one of them compressed."""
    write(tmp_path / "a.ndjson", *numbered(*range(0, 300, 3)))
    write(tmp_path / "b.ndjson", *numbered(*range(1, 300, 3)))
    (tmp_path / "c.ndjson.gz").write_bytes(gzip.compress(text(numbered(*range(2, 300, 3)))))
    return tmp_path


def test_the_last_lines_of_all_files_come_by_their_time(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert numbers(asked(capsys, "tail", "--dir", logs)) == list(range(250, 300))
    assert numbers(asked(capsys, "tail", "--dir", logs, "-n", "4")) == [296, 297, 298, 299]
    assert numbers(asked(capsys, "tail", "--dir", logs, "-n", "1000")) == list(range(300))


def test_a_file_that_was_written_long_before_is_not_opened(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(logs / "old.ndjson", *numbered(*range(300, 310)))
    os.utime(logs / "old.ndjson", (0, 0))

    assert numbers(asked(capsys, "tail", "--dir", logs, "-n", "2")) == [298, 299]


def test_lines_are_asked_for_by_level_and_field_and_the_last_that_fit_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        *numbered(*range(2000), upstream="a"),
        *numbered(2001, 2002, level="warning", upstream="b"),
        *numbered(2003, level="error", upstream="b"),
        *numbered(*range(3000, 9000), upstream="a"),
    ]
    write(tmp_path / "a.ndjson", *lines)

    assert numbers(asked(capsys, "tail", "--dir", tmp_path, "-l", "warn")) == [2001, 2002, 2003]
    assert numbers(asked(capsys, "tail", "--dir", tmp_path, "-l", "error")) == [2003]
    assert numbers(asked(capsys, "tail", "--dir", tmp_path, "-f", "upstream=b", "-n", "2")) == [2002, 2003]
    assert numbers(asked(capsys, "tail", "--dir", tmp_path, "-f", "n>8997")) == [8998, 8999]
    assert asked(capsys, "tail", "--dir", tmp_path, "-l", "crit").code == 1


def test_since_gives_all_from_then_on_also_of_files_that_are_large(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shuffled = random.Random(1)
    for name in "ab":
        write(tmp_path / f"{name}.ndjson", *numbered(*sorted(shuffled.sample(range(9000), 4000)), note="y" * 50))
    both = [*(tmp_path / "a.ndjson").read_bytes().splitlines(), *(tmp_path / "b.ndjson").read_bytes().splitlines()]
    since, until = START.replace(hour=10, minute=40), START.replace(hour=11)
    ended = asked(capsys, "tail", "--dir", tmp_path, "--since", since.isoformat(), "--until", until.isoformat())

    wanted = sorted(int(row.split(b'"n":')[1].split(b",")[0]) for row in both)
    assert numbers(ended) == [number for number in wanted if 6000 <= number < 7200]
    few = asked(capsys, "tail", "--dir", tmp_path, "--since", since.isoformat(), "-n", "3")
    assert numbers(few) == [number for number in wanted if number >= 6000][-3:]


def test_as_json_the_lines_are_as_they_are_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = b'{"timestamp": "2026-05-04T09:00:00.000000Z", "big": 12345678901234567890123, "x": 1.50}\n'
    (tmp_path / "a.ndjson").write_bytes(b"garbage\n" + written + b'{"timest')

    assert asked(capsys, "tail", "--dir", tmp_path, "--json").out.encode() == written


def test_what_is_no_json_is_shown_in_its_place_and_controls_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (text(numbered(number)) for number in (1, 2))
    (tmp_path / "a.ndjson").write_bytes(first + b"\x1b[2Joops\xff\n[1,2]\n" + second + b'{"half')
    ended = asked(capsys, "tail", "--dir", tmp_path)

    assert [row.split(" ")[0] for row in ended.out.splitlines()] == [
        "09:00:01.000", "\\x1b[2Joops\ufffd", "[1,2]", "09:00:02.000",
    ]  # fmt: skip


def test_a_compressed_file_that_is_cut_off_or_none_gives_what_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = gzip.compress(text([line("x", n, n=n, seq=n, noise=os.urandom(60).hex()) for n in range(2000)]))
    (tmp_path / "a.ndjson.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.ndjson.gz").write_bytes(b"none")
    ended = asked(capsys, "tail", "--dir", tmp_path, "-n", "2000", "-f", "seq>=0")

    assert ended.code == 0
    assert len(numbers(ended)) > 500


def test_a_level_that_is_none_and_a_folder_that_is_not_there_are_usage_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = asked(capsys, "tail", "--dir", tmp_path, "-l", "waning")

    none = asked(capsys, "tail", "--dir", tmp_path, "-n", "-5")

    assert (none.code, none.err) == (2, "logs: -n is a number of lines, 1 at least\n")
    assert (wrong.code, wrong.err) == (2, "logs: there is no level 'waning'; did you mean warning?\n")
    assert asked(capsys, "tail", "--dir", tmp_path / "none").code == 2
    assert asked(capsys, "tail", "--dir", tmp_path).code == 1


def test_followed_lines_come_until_it_is_interrupted_which_ends_it_quietly(tmp_path: Path) -> None:
    path = write(tmp_path / "gateway-7.ndjson", *numbered(1, 2, 3))
    with started("tail", "-F", "-n", "2", "--dir", tmp_path) as process:
        assert process.stdout is not None
        assert [b"n=2" in process.stdout.readline(), b"n=3" in process.stdout.readline()] == [True, True]
        path.rename(tmp_path / "gateway-7-20260504T090000.000000Z.ndjson")
        write(path, *numbered(4))
        assert b"n=4" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert (process.returncode, out, err) == (130, b"", b"")


def test_standard_input_is_shown_as_it_comes_when_it_is_followed_and_at_its_end_when_not() -> None:
    with started("tail", "-F", "-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"May 04 web-1 gateway[7]: " + text(numbered(1)))
        process.stdin.flush()
        assert b"n=1" in process.stdout.readline()  # before standard input has ended
        process.communicate(timeout=60)
    with started("tail", "-n", "1", "-", stdin=subprocess.PIPE) as process:
        out, _ = process.communicate(text(numbered(1, 2)), timeout=60)

    assert b"n=2" in out
    assert out.count(b"\n") == 1


def test_a_reader_who_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    write(tmp_path / "a.ndjson", *numbered(*range(5000)))
    with started("tail", "-n", "5000", "--dir", tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert (process.wait(60), process.stderr.read()) == (0, b"")
