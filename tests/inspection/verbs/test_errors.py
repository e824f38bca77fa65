"""`errors` tells each failure once, like with like, and a request to look at."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.inspection.conftest import Logs
from tests.inspection.shop import Line, at, attempt, call, line, request, text, write


def recorded(seconds: float = 0.0, level: str = "error", **fields: Any) -> Line:
    return line("log.recorded", seconds, level=level, **{"logger": "shop", "message": "it broke", **fields})


def kinds(said: Any) -> list[tuple[str, str, str | None, int]]:
    return [(row["source"], row["error"], row["message"], row["count"]) for row in said.json["errors"]]


ONCE: dict[str, tuple[list[Line], list[tuple[str, str, str | None, int]]]] = {
    "a failed attempt, and not its call and its request too": (
        [
            attempt(0, "users", "failed", error__type="http_response_status", http__response__status_code=503),
            call(0, "users", "failed", error__type="http_response_status"),
            request(0, "failed", error__type="http_response_status", calls_failed=["users"]),
        ],
        [("users", "http_response_status 503", None, 1)],
    ),
    "each attempt": (
        [attempt(number, "users", "failed", error__type="connection_refused") for number in range(3)],
        [("users", "connection_refused", None, 3)],
    ),
    "a call that made no attempt": (
        [
            call(0, "users", "failed", attempts=0, error__type="destination_unavailable"),
            request(0, "partial", calls_failed=["users"]),
        ],
        [("users", "destination_unavailable", None, 1)],
    ),
    "a request none of whose calls failed": (
        [
            request(0, "failed", error__type="deadline_exceeded"),
            request(0, "failed", error__type="x", calls_failed=None),
        ],
        [("request.finished", "deadline_exceeded", None, 1), ("request.finished", "x", None, 1)],
    ),
    "a mistake in a page, by its traceback": (
        [
            recorded(logger="gateway", message="unexpected error in /a/7", exception__type="KeyError",
                     exception__message="'user-7'"),
            request(0, "failed", error__type="proxy_internal_error"),
        ],
        [("gateway", "KeyError", "'...'", 1)],
    ),
    "what others logged as an error, or with an exception": (
        [recorded(), recorded(level="critical"), recorded(level="info", exception__type="ValueError"),
         recorded(level="warning"), line("cart.broken", level="error")],
        [("shop", "-", "it broke", 2), ("shop", "ValueError", None, 1), ("cart.broken", "-", None, 1)],
    ),
    "every request that was shed": (
        [line("requests.shed", number, level="error", http__route="home", error__type="overloaded", count=20 + number)
         for number in range(2)],
        [("requests.shed", "overloaded", None, 41)],
    ),
    "nothing that is well": (
        [attempt(), attempt(outcome="cancelled"), call(outcome="absent"), request(outcome="rejected"), line("x")],
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "expected"), ONCE.values(), ids=ONCE)
def test_counts(logs: Logs, tmp_path: Path, lines: list[Line], expected: list[Any]) -> None:
    write(tmp_path / "gateway-1.ndjson", *lines)

    said = logs("errors", "--json")

    assert (said.code, sorted(kinds(said)) if said.json else []) == (0 if expected else 1, sorted(expected))


@pytest.mark.parametrize(
    "messages",
    [
        ("took 12 ms", "took 3,500.5 ms"),
        ("no user 'ann'", "no user 'bob'"),
        ('expected "a"', 'expected "b c"'),
        ("in $.items[0].price", "in $.items[17].price"),
        ("4bf92f3577b34da6a3ce929d0e0e4736 is gone", "00f067aa0ba902b7 is gone"),
        ("0xdeadbeef", "0x1"),
        ("of 3fa85f64-5717-4562-b3fc-2c963f66afa6", "of 00000000-0000-0000-0000-000000000000"),
        ("at 10:05:01", "at 23:59:59"),
    ],
)
def test_what_differs_only_by_numbers_ids_and_quoted_parts_is_one_error(
    logs: Logs, tmp_path: Path, messages: tuple[str, str]
) -> None:
    write(tmp_path / "gateway-1.ndjson", *(attempt(0, "users", "failed", exception__message=each) for each in messages))

    assert [row["count"] for row in logs("errors", "--json").json["errors"]] == [2]


def test_an_error_has_its_first_and_last_time_its_places_and_a_request_to_trace(logs: Logs, tmp_path: Path) -> None:
    failed = {"upstream": "catalog", "outcome": "failed", "error__type": "connection_refused"}
    write(
        tmp_path / "gateway-1.ndjson",
        attempt(5, **failed, request_id="r5", trace_id="t5", http__route="home", server__address="b:1", call="prices"),
        attempt(3, **failed, request_id="r3", trace_id="t3", http__route="cart", server__address="a:1"),
        attempt(9, **failed, http__route="home"),
    )

    (row,) = logs("errors", "--json").json["errors"]

    assert (row["first"], row["last"], row["count"]) == (at(3), at(9), 3)
    assert (row["request_id"], row["trace_id"]) == ("r5", "t5")
    assert (row["routes"], row["hosts"], row["calls"]) == (["cart", "home"], ["a:1", "b:1"], ["catalog", "prices"])
    told = logs("errors").out
    assert "trace t5" in told
    assert "1 kind" in told


def test_only_new_ones_are_those_that_were_not_there_before(logs: Logs, tmp_path: Path) -> None:
    write(
        tmp_path / "gateway-1.ndjson",
        attempt(0, "users", "failed", error__type="old"),
        attempt(100, "users", "failed", error__type="old"),
        attempt(100, "users", "failed", error__type="new"),
    )

    assert [row["error"] for row in logs("errors", "--json", "--new-since", at(50)).json["errors"]] == ["new"]
    assert logs("errors", "--new-since", at(101)).code == 1


def test_the_most_frequent_come_first_and_the_others_are_counted(logs: Logs, tmp_path: Path) -> None:
    often = [attempt(0, "users", "failed", error__type=f"e{number}") for number in range(5) for _ in range(number + 1)]
    write(tmp_path / "gateway-1.ndjson", *often)

    said = logs("errors", "--top", "2", "--json").json

    assert [(row["error"], row["count"]) for row in said["errors"]] == [("e4", 5), ("e3", 4)]
    assert (said["total"], said["left_out"]) == (15, 3)


def test_nothing_in_a_message_controls_the_terminal(logs: Logs, tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", recorded(message="a\x1b[2Jb\nc", logger="x\x1by", request_id="\x1b"))

    assert "\x1b" not in logs("errors").out


def failure(**fields: Any) -> Line:
    return attempt(0, "users", "failed", **{"error__type": "connection_refused", **fields})


def test_a_failure_is_found_however_its_line_is_spaced_and_whatever_else_it_has(logs: Logs, tmp_path: Path) -> None:
    spaced = json.dumps(failure(), separators=("  ,\t", "  :  "))
    others = failure(own={"event": "x", "of": [1, {"a": None}]}, **{'a"b': 1, "c,d": "\u2028 , # '"})
    of_a_field = failure(message='it says "failed" \\', exception__message=None)
    (tmp_path / "gateway-1.ndjson").write_text(f"  {spaced}  \r\n{json.dumps(others)}\n{json.dumps(of_a_field)}")

    assert kinds(logs("errors", "--json")) == [
        ("users", "connection_refused", None, 2),
        ("users", "connection_refused", "it says '...' \\", 1),
    ]
    assert logs("errors", "--json", "-f", 'a"b=1').json["total"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"message": "no attempt.finished"},
        {"after": "request.finished"},
        {"of": {"event": "request.finished"}},
        {"message": '{"event":"call.finished"}'},
    ],
    ids=str,
)
def test_a_mistake_is_found_though_its_line_speaks_of_what_others_do(
    logs: Logs, tmp_path: Path, fields: dict[str, Any]
) -> None:
    write(tmp_path / "gateway-1.ndjson", {**fields, **recorded(logger="page")} | fields)

    assert logs("errors", "--json").json["total"] == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b'"failed"', b'{"outcome":"failed", "x', b'[{"outcome":"failed"}]', b'\x00"failed"', b'\x01"failed"\x01',
        b"null", b'\xff"failed"', text([failure(u="?")])[:-2].replace(b"?", b"\xff") + b"}",
        b'"failed"' * 700_000, b"\n\n",
    ],
    ids=lambda garbage: repr(garbage[:24]),
)  # fmt: skip
@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_failures_are_found_beside_what_is_no_line(logs: Logs, tmp_path: Path, ending: str, garbage: bytes) -> None:
    plain = text([failure()]) + garbage + b"\n" + text([failure()] * 2) + text([failure()])[:-9]
    path = tmp_path / f"gateway-1.ndjson{ending}"
    if ending == ".zst":
        if (zstd := shutil.which("zstd")) is None:
            pytest.skip("there is no zstd here")
        path.write_bytes(subprocess.run([zstd, "-qc"], input=plain, stdout=subprocess.PIPE, check=True).stdout)
    else:
        path.write_bytes(gzip.compress(plain) if ending else plain)

    assert kinds(logs("errors", "--json")) == [("users", "connection_refused", None, 3)]
