"""The command line: verbs and options are found as they are meant, and scripts can rely on how it ends."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from inspection.cli import VERBS
from tests.inspection.asking import ROOT, started
from tests.inspection.conftest import Logs
from tests.inspection.shop import at, attempt, request, text, write

COLOUR = re.compile("\x1b\\[[0-9;]+m")


def test_help_names_every_verb_and_says_what_it_is_for(logs: Logs, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        logs("--help")
    told = capsys.readouterr().out

    assert ended.value.code == 0
    for verb in VERBS:
        assert re.search(rf"^    {verb}\s", told, re.MULTILINE)
    assert "exit codes: 0 found" in told


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_of_its_own(logs: Logs, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as ended:
        logs(verb, "--help")

    assert ended.value.code == 0
    assert f"logs {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:30Z"])
def test_a_window_may_begin_with_all_time(logs: Logs, tmp_path: Path, since: str) -> None:
    write(tmp_path / "gateway-1.ndjson", request(0))

    assert "1 request " in logs("stats", "--since", since).out
    assert logs("tail", "--since", since).out


@pytest.mark.parametrize("value", ["/{everything}", "/{logs}"])
def test_a_filter_may_ask_for_any_text(logs: Logs, tmp_path: Path, value: str) -> None:
    write(tmp_path / "gateway-1.ndjson", request(0, url__path=value), request(1))

    said = logs("stats", "--json", "-f", f"path={value}")

    assert said.json["total"]["count"] == 1
    assert said.err == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("stat",), "there is no 'stat'; did you mean stats"),
        (("eror",), "there is no 'eror'; did you mean errors"),
        (("frobnicate",), "there is no 'frobnicate': it is one of summary, stats"),
        (("stats", "--sinc", "-1h"), "unrecognized arguments: --sinc -1h; did you mean --since"),
        (("stats", "--since", "soon"), "'soon' is no time; write it as -15m, 14:05"),
        (("stats", "--since"), "argument --since: expected one argument"),
        (("stats", "--since", "-5m", "--until", "-1h"), "the window ends (-1h) before it begins (-5m)"),
        (("stats", "-f", "upstream"), "'upstream' is no filter; write key=value"),
        (("stats", "--top", "many"), "argument --top: invalid int value: 'many'"),
        (("stats", "--dir", "/nowhere/at/all"), "there is no /nowhere/at/all: name the log's folder with --dir"),
    ],
)
def test_what_cannot_be_understood_is_told_in_one_sentence(
    logs: Logs, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    write(tmp_path / "gateway-1.ndjson", request())

    said = logs(*arguments)

    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert sentence in said.err


def test_the_log_is_where_dir_says_else_log_dir_else_logs_here(
    logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "logs"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "gateway-1.ndjson", *[request()] * (["a", "b", "logs"].index(name) + 1))

    def count(*arguments: str) -> int:
        return int(logs("stats", "--json", *arguments).json["total"]["count"])

    assert count("--dir", str(tmp_path / "a")) == 1
    assert count("--dir", str(tmp_path / "a"), "--dir", str(tmp_path / "b")) == 3
    assert count("--dir", str(tmp_path / "b" / "gateway-1.ndjson")) == 2
    monkeypatch.setenv("LOG_DIR", str(tmp_path / "b"))
    assert count() == 2
    monkeypatch.delenv("LOG_DIR")
    monkeypatch.chdir(tmp_path)
    assert count() == 3


@pytest.mark.parametrize("verb", ["summary", "stats", "errors", "breakers", "compare"])
def test_a_folder_without_a_log_yet_is_said_to_be_empty(logs: Logs, verb: str) -> None:
    more = ("--bad", "-5m..") if verb == "compare" else ()

    said = logs(verb, *more)

    assert (said.code, said.err) == (1, "")
    assert said.out == "There are no log files (*.ndjson, .gz, .zst) there yet.\n"
    assert (logs(verb, *more, "--json").code, logs(verb, *more, "--json").json) == (1, None)


def test_it_works_as_a_process_and_through_manage(tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", request())
    environment = {**os.environ, "LOG_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "no.such.settings"}
    process = started("stats", "--json", "--dir", tmp_path)
    out, err = process.communicate(timeout=60)
    through = subprocess.run(
        [sys.executable, "manage.py", "logs", "stats", "--json"],
        cwd=ROOT, env=environment, capture_output=True, timeout=60, check=False,
    )  # fmt: skip

    assert (process.returncode, err) == (0, b"")
    assert (through.returncode, through.stderr) == (0, b"")
    assert msgspec.json.decode(out) == msgspec.json.decode(through.stdout)


def test_lines_come_from_standard_input(tmp_path: Path) -> None:
    process = started("stats", "-", "--json", stdin=subprocess.PIPE)
    out, _ = process.communicate(b"<30>May 04 web-1 gateway: " + text([request(0), request(5)]), timeout=60)

    assert (process.returncode, msgspec.json.decode(out)["total"]["count"]) == (0, 2)


def test_a_reader_that_has_seen_enough_ends_it_without_a_word(tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", *(request(number, user_id=number) for number in range(3000)))
    process = started("stats", "--by", "user_id", "--top", "3000", "--dir", tmp_path)
    assert process.stdout
    assert process.stderr
    process.stdout.read(10)
    process.stdout.close()

    assert (process.wait(timeout=60), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    process = started("stats", "-", stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(text([request(0)]) * 100_000)  # more than a pipe holds: it is reading by now
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize(("no_color", "expected"), [("", "coloured"), ("1", "plain")])
def test_colours_are_for_terminals(tmp_path: Path, no_color: str, expected: str) -> None:
    write(tmp_path / "gateway-1.ndjson", attempt(0, outcome="failed"))
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "wb") as device:
        process = subprocess.Popen(
            [sys.executable, "-m", "inspection", "stats", "--dir", str(tmp_path)],
            cwd=ROOT, stdout=device, env={**os.environ, "TERM": "xterm", "NO_COLOR": no_color},
        )  # fmt: skip
    assert process.wait(timeout=60) == 0
    said = os.read(ours, 65_536).decode()
    os.close(ours)

    assert "catalog" in said
    assert bool(COLOUR.search(said)) is (expected == "coloured")


def test_watching_redraws_in_place_on_a_terminal_until_interrupted(tmp_path: Path) -> None:
    path = write(tmp_path / "gateway-1.ndjson", request(0))
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "wb") as device:
        process = subprocess.Popen(
            [sys.executable, "-m", "inspection", "stats", "--watch", "--dir", str(tmp_path)],
            cwd=ROOT, stdout=device, env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
        )  # fmt: skip
        said = ""
        while "1 request " not in said:
            said += os.read(ours, 65_536).decode()
        write(path, request(0), request(1))
        while "2 requests " not in said:
            said += os.read(ours, 65_536).decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    os.close(ours)

    assert said.count("\x1b[H") >= 2
    assert "\x1b[2J" not in said


def test_watching_without_a_terminal_answers_once(logs: Logs, tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", request(0))

    assert logs("stats", "--watch").code == 0


def test_a_time_with_a_minus_is_no_option(logs: Logs, tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", request(0))

    assert logs("stats", "--since", "-2h", "--until", "-1h").code == 1
    assert logs("stats", "--since=-2h").code == 1
    assert logs("stats", "--until", at(1)).code == 0
