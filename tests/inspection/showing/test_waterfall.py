"""The waterfall: a request's lines in, a drawing out that lines up, for a terminal and as Markdown."""

from __future__ import annotations

from typing import Any

import pytest

from inspection.showing.columns import columns
from inspection.showing.paint import coloured
from inspection.showing.waterfall import markdown, waterfall
from inspection.story import Other, told


def attempt(call: str, number: int, start: float, took: float, status: int | None = 200, **more: Any) -> dict[str, Any]:
    return {
        "event": "attempt.finished",
        "call": call,
        "upstream": f"{call}s",
        "attempt": number,
        "kind": "retry" if number > 1 else "first",
        "outcome": "ok",
        "start_offset_ms": start,
        "duration_ms": took,
        "http.response.status_code": status,
        **more,
    }


WHOLE = {
    "event": "request.finished",
    "http.request.method": "GET",
    "url.path": "/orders/7",
    "http.response.status_code": 200,
    "outcome": "partial",
    "complete": False,
    "calls_failed": ["order", "feed"],
    "duration_ms": 320.0,
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "request_id": "asked-1",
    "service.instance.id": "web-1-7",
    "user_id": 7,
}
LINES = [
    {"event": "request.started", "url.path": "/orders/7"},
    attempt("order", 2, 160.0, 80.0),
    {"event": "retry.scheduled", "call": "order", "attempt": 1, "wait_ms": 60.0},
    attempt("order", 1, 20.0, 80.0, 503, outcome="failed", **{"error.type": "http_response_status"}),
    attempt("user", 1, 0.0, 10.0),
    attempt("review", 1, 10.0, 300.0, None, outcome="cancelled"),
    attempt("photo", 1, 5.0, 1.0, None, outcome="failed", **{"error.type": "dns_error", "exception.message": "gone"}),
    attempt("like", 1, 6.0, 64.0, 200, outcome="failed", **{"error.type": "body_malformed"}),
    attempt("like", 2, 30.0, 40.0, kind="hedge"),
    {"event": "call.skipped", "call": "product", "upstream": "catalog", "because": "review"},
    {
        "event": "call.finished",
        "call": "feed",
        "upstream": "feeds",
        "outcome": "failed",
        "attempts": 0,
        "error.type": "http_request_denied",
        "start_offset_ms": 318.0,
        "duration_ms": 0.1,
    },
    {"event": "call.finished", "call": "user", "upstream": "users", "outcome": "ok", "attempts": 1},
    WHOLE,
    {"event": "log.recorded", "level": "error", "timestamp": "2026-05-04T09:12:31.204518Z", "message": "a \x1b[2J"},
]

DRAWN = """\
GET /orders/7  200 partial  320 ms
request asked-1  trace 4bf92f3577b34da6a3ce929d0e0e4736  process web-1-7  user_id 7

  call     upstream  try      outcome               wait  start  took  0       100     200  320 ms
  user     users     1        200                           0.0  10.0  █ ◄
  photo    photos    1        dns_error                     5.0   1.0  ▏
  like     likes     1        body_malformed (200)          6.0  64.0  ▒▒▒▒▒
  like     likes     2 hedge  200                          30.0  40.0    ███
  review   reviews   1        cancelled                    10.0   300  ░░░░░░░░░░░░░░░░░░░░░░░░░
  order    orders    1        503                          20.0  80.0   ▒▒▒▒▒▒▒ ◄
  order    orders    2        200                   60.0    160  80.0          ·····███████ ◄
  feed     feeds              http_request_denied           318   0.1                            ⊘ ◄
  product  catalog            skipped                                   no review

  7 attempts for 7 calls · slowest: review 300 ms (94%) · missing in the answer: order, feed
  ◄ critical path: user 10.0 → order 80.0 → wait 60.0 → order #2 80.0 → feed 0.1
  photo #1: gone

  09:12:31.204 error log.recorded      a \\x1b[2J"""


def test_a_request_is_drawn_from_its_lines() -> None:
    assert "\n".join(waterfall(told(LINES))) == DRAWN


@pytest.mark.parametrize("width", [1, 80, 100, 120, 400])
def test_a_table_fits_a_terminal_from_80_to_120_columns(width: int) -> None:
    _, table, *_ = "\n".join(waterfall(told(LINES), width=width)).split("\n\n")

    assert max(map(len, table.splitlines())) <= min(max(width, 80), 120)


def test_names_that_are_long_are_cut_and_bars_keep_their_room() -> None:
    long = "a_call_of_a_very_long_name_for_recommendations"
    _, table, *_ = "\n".join(waterfall(told([attempt(long, 1, 1.0, 9.0), WHOLE]), width=80)).split("\n\n")

    assert "a_call_of_a_v…" in table
    assert max(map(len, table.splitlines())) <= 80


def test_colours_change_nothing_but_colours() -> None:
    painted = "\n".join(waterfall(told(LINES), coloured))
    for code in ("0", "1", "2", "31", "32", "33", "1;31"):
        painted = painted.replace(f"\x1b[{code}m", "")

    assert painted == "\n".join(waterfall(told(LINES)))
    assert painted != "\n".join(waterfall(told(LINES), coloured))


def test_what_is_anothers_is_marked_as_such_and_breakers_beside_the_lines_below() -> None:
    joined = {"event": "flight.joined", "call": "a", "upstream": "as", "leader": "b", "leader.trace_id": "c" * 32}
    other = [{**attempt("b", 1, 0.0, 5.0), "trace_id": "c" * 32, "timestamp": "2026-05-04T09:00:00.010000Z"}]
    begun = {"event": "request.started", "timestamp": "2026-05-04T09:00:00.000000Z", "trace_id": "d" * 32}
    changed = {"event": "breaker.changed", "timestamp": "2026-05-04T09:00:00.001000Z", "upstream": "as", "to": "open"}
    drawn = "\n".join(waterfall(told([begun, {**begun, **joined}, changed], Other(attempts=other))))

    assert "shared: waiting" in drawn
    assert "shares b of trace cccccccc" in drawn
    assert "└ a" in drawn
    assert "! 09:00:00.001" in drawn


def test_a_request_without_calls_is_its_title() -> None:
    assert list(waterfall(told([WHOLE]))) == [
        "GET /orders/7  200 partial  320 ms",
        "request asked-1  trace 4bf92f3577b34da6a3ce929d0e0e4736  process web-1-7  user_id 7",
    ]


def test_what_a_request_waited_before_it_began_is_told_beside_how_long_it_took() -> None:
    waited = {**WHOLE, "queued_ms": 207.0}

    assert next(waterfall(told([waited]))) == "GET /orders/7  200 partial  320 ms, 207 of them before it began"
    assert next(markdown(told([waited]))).endswith(" in 320 ms, 207 of them before it began")


def test_lines_without_their_end_are_drawn_all_the_same() -> None:
    title, _, head, row, *_ = waterfall(told([attempt("user", 1, 0.0, 0.0)]))

    assert title == "a request  not finished"
    assert head.split() == ["call", "upstream", "try", "outcome", "start", "took", "0", "0.0", "ms"]
    assert row.split() == ["user", "users", "1", "200", "0.0", "0.0", "▏"]


def test_as_markdown_it_is_a_table_that_values_cannot_break() -> None:
    written = list(markdown(told([attempt("a|b<c>`d`", 1, 1.0, 2.0, 200, **{"exception.message": "x\ny"}), WHOLE])))

    assert written[0] == "### GET /orders/7: 200 partial in 320 ms"
    assert "| call | upstream | try | outcome | start | took | |" in written
    row = next(line for line in written if line.startswith("| a"))
    assert row.startswith("| a\\|b&lt;c>\\`d\\` |")
    assert row.endswith("x\\\\ny |")
    assert not any("\n" in line for line in written)


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ([], []),
        ([("a", "b")], ["a  b"]),
        ([("long", "1", "x"), ("a", "1000", "")], ["long     1  x", "a     1000"]),
    ],
)
def test_columns_line_up_and_leave_nothing_behind_them(rows: list[tuple[str, ...]], lines: list[str]) -> None:
    assert list(columns(rows, right={1} if rows and len(rows[0]) > 2 else ())) == lines
