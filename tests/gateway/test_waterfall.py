"""The waterfall: log lines in, a drawing out that lines up."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.columns import columns
from gateway.waterfall import waterfall


def attempt(call: str, number: int, start: float, took: float, status: int | None = 200, **more: Any) -> dict[str, Any]:
    return {
        "event": "attempt.finished",
        "call": call,
        "upstream": f"{call}s",
        "attempt": number,
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
    "duration_ms": 320.0,
    "request_id": "asked-1",
}


DRAWN = """\
GET /orders/7  200 partial  320.0 ms  request asked-1
  call     upstream  try  outcome               start   took  0                         320 ms
  user     users       1  200                     0.0   10.0  █
  product  catalog     -  skipped: no review      0.0    0.0  ▏
  photo    photos      1  dns_error               5.0    1.0  ▏
  like     likes       1  body_malformed (200)    6.0   64.0  ██████
  review   reviews     1  cancelled              10.0  300.0   ██████████████████████████████
  order    orders      1  503                    20.0   80.0    ████████
  order    orders      2  200                   160.0   80.0                  ████████  after a wait of 60.0 ms
  feed     feeds       -  http_request_denied   300.0    0.1                                ▏"""


def test_a_request_is_drawn_from_its_lines() -> None:
    lines = [
        {"event": "request.started", "url.path": "/orders/7"},
        attempt("order", 2, 160.0, 80.0),
        {"event": "retry.scheduled", "call": "order", "attempt": 1, "wait_ms": 60.0},
        attempt("order", 1, 20.0, 80.0, 503, outcome="failed", **{"error.type": "http_response_status"}),
        attempt("user", 1, 0.0, 10.0),
        attempt("review", 1, 10.0, 300.0, None, outcome="cancelled"),
        attempt("photo", 1, 5.0, 1.0, None, outcome="failed", **{"error.type": "dns_error"}),
        attempt("like", 1, 6.0, 64.0, 200, outcome="failed", **{"error.type": "body_malformed"}),
        {"event": "call.skipped", "call": "product", "upstream": "catalog", "because": "review"},
        {
            "event": "call.finished",
            "call": "feed",
            "upstream": "feeds",
            "outcome": "failed",
            "attempts": 0,
            "error.type": "http_request_denied",
            "start_offset_ms": 300.0,
            "duration_ms": 0.1,
        },
        {"event": "call.finished", "call": "user", "upstream": "users", "outcome": "ok", "attempts": 1},
        WHOLE,
    ]

    assert "\n".join(waterfall(lines)) == DRAWN


def test_a_request_without_calls_is_its_title() -> None:
    assert list(waterfall([WHOLE])) == ["GET /orders/7  200 partial  320.0 ms  request asked-1"]


def test_lines_without_their_end_are_drawn_all_the_same() -> None:
    head, row = waterfall([attempt("user", 1, 0.0, 0.0)])

    assert head.split() == ["call", "upstream", "try", "outcome", "start", "took", "0", "0", "ms"]
    assert row.split() == ["user", "users", "1", "200", "0.0", "0.0", "▏"]


def test_no_lines_are_no_drawing() -> None:
    assert list(waterfall([])) == []


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
