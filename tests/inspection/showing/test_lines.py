"""At a terminal a line is there to be read: in columns, in colour where that is wanted, and never in control of it."""

from __future__ import annotations

import os
import pty
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from inspection.showing.lines import terminal
from tests.gateway.log.processes import events, start

ESCAPE = "\x1b"
PAINT = re.compile("\x1b\\[[0-9;]*m")
BASE = {"timestamp": "2026-05-04T09:12:31.204518Z", "level": "info", "schema": 1}
OURS = {**BASE, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "request_id": "r1", "http.route": "a/<b>"}
FAILED = {
    **OURS, "level": "warning", "event": "attempt.finished", "upstream": "catalog", "call": "products",
    "http.request.method": "GET", "attempt": 2,
    "sent": True, "outcome": "failed", "start_offset_ms": 4.5, "duration_ms": 399.5, "conn": "reused",
    "http.response.status_code": None, "body_bytes": 0, "span_id": "00f067aa0ba902b7",
    "error.type": "http_response_timeout", "exception.message": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal without colours, unless a test says otherwise."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")


def shown(event: dict[str, Any]) -> str:
    return terminal()(msgspec.json.encode(event)).decode()


LINES: dict[str, tuple[dict[str, Any], str]] = {
    "an attempt that failed": (
        FAILED,
        "warn attempt.finished catalog products #2 failed http_response_timeout 399.5 ms start=4.5 bytes=0 request=r1",
    ),
    "an attempt that was not sent, at a call called like its upstream": (
        {**FAILED, "call": "catalog", "sent": False, "conn": None, "error.type": "connection_refused"},
        "warn attempt.finished catalog #2 failed connection_refused 399.5 ms sent=false start=4.5 bytes=0 request=r1",
    ),
    "an attempt at a write": (
        {**FAILED, "http.request.method": "POST", "error.type": "dns_error"},
        "warn attempt.finished POST catalog products #2 failed dns_error 399.5 ms start=4.5 bytes=0 request=r1",
    ),
    "an answer that was an error": (
        {**FAILED, "http.response.status_code": 503, "error.type": "http_response_status", "conn": "new"},
        "warn attempt.finished catalog products #2 failed 503 399.5 ms start=4.5 conn=new bytes=0 request=r1",
    ),
    "a wide line": (
        {
            **OURS, "event": "request.finished", "http.request.method": "GET", "url.path": "/demo/home/7",
            "user_id": 7, "page": "HomePage", "calls_failed": [], "complete": True,
            "http.response.status_code": 200, "bytes_out": 806, "outcome": "ok", "duration_ms": 34.2,
        },
        "info request.finished GET /demo/home/7 ok 200 34.2 ms user_id=7 page=HomePage bytes=806 request=r1",
    ),
    "a wait": (
        {**FAILED, "event": "retry.scheduled", "wait_ms": 20.5, "outcome": None, "error.type": None},
        "warn retry.scheduled catalog products #2 399.5 ms start=4.5 bytes=0 wait_ms=20.5 request=r1",
    ),
    "pages that were shed": (
        {**BASE, "level": "error", "event": "requests.shed", "http.route": "a/<b>", "error.type": "overloaded",
         "count": 324, "waiting": 0},
        "error requests.shed a/<b> overloaded count=324 waiting=0",
    ),
    "a start": (
        {**BASE, "event": "gateway.started", "service.version": "0.1.0", "process.pid": 7, "upstreams": ["a", "b"]},
        "info gateway.started version=0.1.0 pid=7 upstreams=a,b",
    ),
    "a record": (
        {**BASE, "level": "error", "event": "log.recorded", "logger": "uvicorn.error", "message": "Started on 8000"},
        "error log.recorded uvicorn.error: Started on 8000",
    ),
    "a traceback": (
        {
            **BASE, "level": "critical", "event": "log.recorded", "logger": "shop", "message": "failed",
            "exception.type": "X", "exception.message": "gone",
            "exception.stacktrace": 'Traceback:\n  File "a", line 1, in b\nX: gone',
        },
        'crit log.recorded shop: failed\n Traceback:\n File "a", line 1, in b\n X: gone',
    ),
    "an event of a project's own": (
        {**BASE, "level": "debug", "event": "cart.abandoned", "items": 3, "note": None, "more": {"a": 1}, "price": 1.5},
        'debug cart.abandoned items=3 more={"a":1} price=1.5',
    ),
    "an event without a name": ({**BASE, "event": None}, "info null"),
    "one without a level": ({"timestamp": BASE["timestamp"], "event": "x", "seq": 7}, "x"),
    "one of another's level": ({**BASE, "level": "notice", "event": "x"}, "notic x"),
    "one with values of other types": (
        {**OURS, "event": ["x"], "level": {"a": 1}, "duration_ms": 10**99, "outcome": {}, "exception.stacktrace": None},
        '{"a": ["x"] {} request=r1',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("event", "line"), LINES.values(), ids=LINES)
def test_an_operator_reads_when_how_grave_what_whom_how_it_ended_and_how_long_it_took(
    event: dict[str, Any], line: str
) -> None:
    assert re.sub(" +", " ", shown(event)) == f"09:12:31.204 {line}"


@pytest.mark.parametrize("timestamp", [None, "", "yesterday", 17, {"a": 1}, "2026-05-04"])
def test_a_line_without_a_time_is_shown_all_the_same(timestamp: object) -> None:
    assert shown({**BASE, "timestamp": timestamp, "event": "x"})[12:].split() == ["info", "x"]
    assert shown({"event": "x"}).split() == ["null", "x"]


def test_what_is_compared_stands_below_each_other() -> None:
    found = [shown({**FAILED, **other}) for other in ({}, {"call": "x", "outcome": "ok"}, {"duration_ms": 1.0})]

    assert len({line.index("#2") for line in found}) == 2
    assert len({re.search(" (ok|failed) ", line).start() for line in found}) == 1  # type: ignore[union-attr]
    merged = shown({**OURS, "event": "merge.finished", "duration_ms": 0.02})
    assert len({line.index(" ms ") for line in (*found, merged)}) == 1


@pytest.mark.parametrize(
    "field",
    ["event", "url.path", "call", "upstream", "outcome", "error.type", "message", "logger", "exception.message",
     "exception.stacktrace", "request_id", "anything", "http.request.method"],
)  # fmt: skip
def test_no_value_controls_the_terminal(field: str) -> None:
    for text in ("\x1b[2J", "\x1b]0;title\x07", "\x9b2J", "a\nb", "a\rb", "\x08", "\x00", "\x7f", "\u202e", "\u2028"):
        line = shown({**BASE, "event": "x", "url.path": "/", "call": "c", field: f"<{text}>"})

        assert len(line.splitlines()) == 1 + len(f"<{text}>".splitlines()) * (field == "exception.stacktrace")
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", line)
        assert "<" in line


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm"}, "coloured"),
        ({"TERM": "xterm", "NO_COLOR": ""}, "coloured"),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "plain"),
        ({"TERM": "dumb"}, "plain"),
        ({}, "plain"),
    ],
    ids=["a terminal", "NO_COLOR empty", "NO_COLOR", "a dumb terminal", "no terminal known"],
)
def test_colours_are_for_terminals_that_have_them_and_people_who_want_them(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncoloured = shown(FAILED)
    monkeypatch.delenv("TERM")
    monkeypatch.delenv("NO_COLOR")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert (shown(FAILED) == uncoloured) is (expected == "plain")
    assert PAINT.sub("", shown(FAILED)) == uncoloured


@contextmanager
def terminal_device() -> Iterator[tuple[int, int]]:
    """A terminal: the end its owner reads, and the end that programs write to."""
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def test_a_process_at_a_terminal_shows_lines_for_reading_and_writes_json_to_its_file(tmp_path: Any) -> None:
    with terminal_device() as (ours, theirs):
        with os.fdopen(theirs, "wb") as device:
            process = start(
                'log(1, "/caf\\u00e9\\x1b[2J")', stdout=device, LOG_DIR=str(tmp_path), TERM="xterm", NO_COLOR=""
            )
        process.communicate(timeout=60)
        said = os.read(ours, 4096).decode()
    (file,) = tmp_path.iterdir()

    assert "1 /caf\u00e9\\x1b[2J" in PAINT.sub("", said)
    assert ESCAPE in said
    assert f"{ESCAPE}[2J" not in said
    assert [event["url.path"] for event in events(file.read_bytes())] == ["/caf\u00e9\x1b[2J"]


def test_a_terminal_that_was_closed_stops_nothing() -> None:
    with terminal_device() as (_, theirs), os.fdopen(theirs, "wb") as device:
        process = start("sys.stdin.readline()\nfor nth in range(1000): log(nth)", stdout=device)
    process.communicate(b"\n", timeout=60)

    assert process.returncode == 0
