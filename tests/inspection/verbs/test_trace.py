"""`trace`: a request is found by whatever its reader has of its ids, and its story told in the form they want."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inspection.search import containing, lines_of
from tests.inspection.asking import asked
from tests.inspection.shop import START, Line, attempt, line, text, write

Capture = pytest.CaptureFixture[str]


def request_lines(request_id: str, trace: str, seconds: float = 0.0, **fields: Any) -> list[Line]:
    ids = {"request_id": request_id, "trace_id": trace, "service__instance__id": "web-1-7"}
    asked_for = {"http__request__method": "GET", "url__path": "/demo/home/7"}
    failed = {"error__type": "http_response_status", "http__response__status_code": 503, "span_id": f"{trace[:15]}f"}
    wide = {"duration_ms": 30.0, "outcome": "ok", "http__response__status_code": 200, "calls_failed": [], **fields}
    return [
        line("request.started", seconds, **ids, **asked_for),
        attempt(seconds + 0.01, "reviews", "failed", **ids, **failed, start_offset_ms=1.0, server__address="a:80"),
        attempt(seconds + 0.03, "reviews", **ids, attempt=2, kind="retry", start_offset_ms=18.0),
        line("request.finished", seconds + 0.031, **ids, **asked_for, span_id=f"{trace[:15]}a", **wide),
    ]


ONE, TWO, THREE = "1" * 31 + "a", "1" * 31 + "b", "3" * 32


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    write(tmp_path / "gateway-7.ndjson", *request_lines("asked-1", ONE), *request_lines("asked-2", TWO, 1.0))
    older = request_lines("asked-3", THREE, -100.0, outcome="failed")
    (tmp_path / "gateway-7-20260504T085820.000000Z.ndjson.gz").write_bytes(gzip.compress(text(older)))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("asked-1", "asked-1"),
        ("asked-3", "asked-3"),
        (TWO, "asked-2"),
        (THREE[:4], "asked-3"),
        (f"00-{ONE}-00f067aa0ba902b7-01", "asked-1"),
        (f"  {ONE} ", "asked-1"),
    ],
    ids=["request id", "one in a compressed file", "trace id", "its first four characters", "traceparent", "spaces"],
)
def test_a_request_is_found_by_an_id_or_its_beginning(logs: Path, capsys: Capture, given: str, found: str) -> None:
    ended = asked(capsys, "trace", given, "--dir", logs)

    assert ended.code == 0
    assert f"request {found}  " in ended.out
    assert "2 attempts for 1 call" in ended.out


def test_the_very_id_goes_before_others_that_begin_so(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "a.ndjson", *request_lines("order", ONE), *request_lines("order-2", TWO))

    assert asked(capsys, "trace", "order-", "--dir", tmp_path, "--json").json["request"]["request_id"] == "order-2"
    assert asked(capsys, "trace", "order", "--dir", tmp_path, "--json").json["request"]["request_id"] == "order"


def test_of_several_all_are_listed_and_the_latest_can_be_taken(logs: Path, capsys: Capture) -> None:
    several = asked(capsys, "trace", "asked", "--dir", logs)
    assert several.code == 2
    sentence, _, _, *rows = several.out.splitlines()
    assert sentence == "3 requests bear asked: give more of the id, or take the latest with --last."
    assert [row.split()[-2] for row in rows] == ["asked-3", "asked-1", "asked-2"]
    listed = asked(capsys, "trace", "asked", "--dir", logs, "--json").json
    assert (listed["matched"], [match["status"] for match in listed["matches"]]) == (3, [200, 200, 200])

    assert "request asked-2  " in asked(capsys, "trace", "asked", "--last", "--dir", logs).out


def test_a_client_that_repeats_its_id_gets_the_list(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "a.ndjson", *request_lines("same", ONE), *request_lines("same", ONE, 5.0))

    assert asked(capsys, "trace", "same", "--dir", tmp_path, "--json").json["matched"] == 2
    span = f"00-{ONE}-{ONE[:15]}a-01"
    assert asked(capsys, "trace", span, "--dir", tmp_path).code == 2  # both have that span here
    assert asked(capsys, "trace", "same", "--dir", tmp_path, "--last", "--json").json["rows"][0]["start_ms"] == 1.0


def test_a_window_and_filters_narrow_it(logs: Path, capsys: Capture) -> None:
    late = START.isoformat()

    assert asked(capsys, "trace", "asked", "--dir", logs, "--since", late, "--json").json["matched"] == 2
    failed = asked(capsys, "trace", "asked", "--dir", logs, "-f", "outcome=failed", "-f", "path~HOME", "--json").json
    assert failed["matched"] == 3  # each has a failed attempt
    only = asked(capsys, "trace", "asked", "--dir", logs, "-f", "span_id=" + "3" * 15 + "a", "--json").json
    assert only["request"]["request_id"] == "asked-3"


def test_nothing_found_and_no_id_are_told_apart(logs: Path, capsys: Capture) -> None:
    missing = asked(capsys, "trace", "nobody", "--dir", logs)
    assert (missing.code, missing.out) == (1, "Nothing found in 2 files (all of the log).\n")
    for wrong in ("abc", "a b c d", 'a"b\\c', "../../x/y"):
        ended = asked(capsys, "trace", wrong, "--dir", logs)
        assert (ended.code, ended.out) == (2, "")
        assert "is no id: give a request id" in ended.err


def test_the_story_as_json_markdown_and_tree_is_the_same(logs: Path, capsys: Capture) -> None:
    plain = asked(capsys, "trace", "asked-1", "--dir", logs, "--json").json
    assert plain == asked(capsys, "trace", "asked-1", "--dir", logs, "--format", "json").json
    assert [(row["attempt"], row["status"], row["critical"]) for row in plain["rows"]] == [
        (1, 503, True),
        (2, None, True),
    ]
    assert plain["request"]["duration_ms"] == 30.0
    markdown = asked(capsys, "trace", "asked-1", "--dir", logs, "--format", "md").out
    assert markdown.startswith("### GET /demo/home/7: 200 ok in 30.0 ms\n")
    assert "| reviews | a:80 | 1 | 503 |" in markdown


def test_curl_repeats_the_request_as_far_as_the_log_knows_it(tmp_path: Path, capsys: Capture) -> None:
    lines = request_lines("asked-1", ONE)
    for number in (0, -1):
        lines[number] |= {"url.path": "/a b/'; rm -rf ~ #", "http.request.method": "POST"}
    write(tmp_path / "a.ndjson", *lines)
    curl = asked(capsys, "trace", "asked-1", "--dir", tmp_path, "--curl", "--json").json["curl"]

    assert curl[1] == (
        "curl -i -X POST -H 'X-Request-ID: asked-1-again' "
        "\"${GATEWAY:-http://127.0.0.1:8000}\"'/a%20b/'\"'\"';%20rm%20-rf%20%7E%20%23'"
    ).replace("%7E", "~")
    assert curl[2] == (
        f"# reviews at a:80, reviews, try 1: http_response_status, status 503, after 10.0 ms, sent, "
        f"traceparent 00-{ONE}-{ONE[:15]}f-.."
    )
    assert "X-Request-ID: asked-1-again" in asked(capsys, "trace", "asked-1", "--dir", tmp_path, "--curl").out


def test_the_attempts_of_the_leader_and_the_open_breaker_come_from_other_requests(
    tmp_path: Path, capsys: Capture
) -> None:
    ids = {"request_id": "asked-9", "trace_id": THREE, "service__instance__id": "web-1-7"}
    opened = {"upstream": "users", "from": "closed", "to": "open", "service__instance__id": "web-1-7"}
    refusal = {"call": "users", "upstream": "users", "outcome": "failed", "error__type": "destination_unavailable"}
    own = [
        line("request.started", 0.002, **ids),
        line("flight.joined", 0.003, **ids, call="mine", upstream="reviews", leader="reviews", leader__trace_id=ONE),
        line("call.finished", 0.03, **ids, call="mine", upstream="reviews", attempts=0, start_offset_ms=1.0,
             duration_ms=27.0, outcome="ok"),
        line("call.finished", 0.004, **ids, **refusal, attempts=0, start_offset_ms=1.0, duration_ms=0.1),
        line("request.finished", 0.031, **ids, duration_ms=29.0, outcome="partial"),
    ]  # fmt: skip
    write(tmp_path / "a.ndjson", line("breaker.changed", -3.0, **opened), *request_lines("asked-1", ONE))
    write(tmp_path / "b.ndjson", *own)
    rows = asked(capsys, "trace", "asked-9", "--dir", tmp_path, "--json").json["rows"]

    assert [(row["what"], row["call"], row["of"]) for row in rows] == [
        ("shared", "mine", ONE), ("attempt", "mine", ONE), ("attempt", "mine", ONE), ("refused", "users", None),
    ]  # fmt: skip
    assert rows[-1]["note"] == "breaker open since 08:59:57.000Z"


def test_nothing_in_a_log_reaches_the_terminal_as_a_control_character(tmp_path: Path, capsys: Capture) -> None:
    lines = request_lines("asked-1", ONE)
    for one in lines:
        for name, value in list(one.items()):
            if isinstance(value, str) and not name.endswith("id") and name not in {"event", "timestamp"}:
                one[name] = f"{value}\x1b[2J\x07"
    write(tmp_path / "a.ndjson", *lines, *request_lines("asked-2", TWO))
    for options in ([], ["--format", "md"], ["--curl"], ["--format", "md", "--curl"]):
        assert not {"\x1b", "\x07"} & set(asked(capsys, "trace", "asked-1", "--dir", tmp_path, *options).out)
    assert not {"\x1b", "\x07"} & set(asked(capsys, "trace", "asked", "--dir", tmp_path).out)


# How lines are found


def test_a_text_is_found_in_every_line_that_has_it_across_the_pieces_that_a_file_is_read_in(tmp_path: Path) -> None:
    rows = [b'{"n":%d,"text":"%s"}' % (n, b"needle" if n % 500 == 0 else b"hay" * 400) for n in range(5000)]
    (tmp_path / "a.ndjson").write_bytes(b"\n".join(rows))
    packed = gzip.compress(b"\n".join(rows[:2500]) + b"\n") + gzip.compress(b"\n".join(rows[2500:]) + b"\n")
    (tmp_path / "b.ndjson.gz").write_bytes(packed)
    wanted = [row for row in rows if b"needle" in row]

    assert list(containing([tmp_path / "a.ndjson", tmp_path / "b.ndjson.gz"], "needle")) == wanted * 2
    assert list(lines_of(tmp_path / "b.ndjson.gz")) == rows


def test_what_cannot_be_read_is_read_as_far_as_it_can_be(tmp_path: Path) -> None:
    whole = gzip.compress(msgspec.json.encode(list(range(100_000))).replace(b",", b"\n"))
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.gz").write_bytes(b"no gzip")

    assert len(list(lines_of(tmp_path / "cut.gz"))) > 10_000
    assert list(lines_of(tmp_path / "none.gz")) == list(lines_of(tmp_path / "gone.ndjson")) == []
    assert len(list(containing([tmp_path / "cut.gz", tmp_path / "none.gz", tmp_path / "gone"], "999"))) > 10


def test_a_file_that_was_rotated_away_is_read_under_its_new_name(tmp_path: Path) -> None:
    (tmp_path / "gateway-7-20260504T090000.000000Z.ndjson").write_bytes(b"found\n")
    assert list(lines_of(tmp_path / "gateway-7.ndjson")) == [b"found"]
