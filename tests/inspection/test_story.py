"""A request's lines come to a story: each attempt in its place, what was waited for, and why it took so long."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import aiohttp
import pytest
from django.urls import path
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import call
from inspection.files import decoded
from inspection.showing.waterfall import markdown, waterfall
from inspection.story import Other, Row, Story, arrival, divided, leaders, told
from tests.conftest import StartStub
from tests.inspection.shop import Line, line
from tests.logs import Log
from tests.serving import PatientPage, Table, asking, gateway
from tests.stub import Answered, Gate, Turns
from upstreams import GET, JSON, Breaker, Hedge, Request, Retry, Upstream

IDS = {"trace_id": "a" * 32, "request_id": "asked-1", "service__instance__id": "web-1-7"}


def started(seconds: float = 0.0, **fields: Any) -> Line:
    return line("request.started", seconds, **{**IDS, "http__request__method": "GET", "url__path": "/home", **fields})


def tried(call: str, start: float, took: float, **fields: Any) -> Line:
    """One attempt, by milliseconds from the arrival."""
    told: Line = {
        **IDS,
        "call": call,
        "upstream": f"{call}s",
        "attempt": 1,
        "kind": "first",
        "sent": True,
        "outcome": "ok",
    }
    said = {**told, "start_offset_ms": start, "duration_ms": took, "http__response__status_code": 200, **fields}
    return line("attempt.finished", (start + took) / 1000, **said)


def ended(call: str, start: float, took: float, attempts: int = 1, **fields: Any) -> Line:
    told: Line = {**IDS, "call": call, "upstream": f"{call}s", "outcome": "ok", "attempts": attempts}
    return line(
        "call.finished", (start + took) / 1000, **{**told, "start_offset_ms": start, "duration_ms": took, **fields}
    )


def waited(call: str, at: float, wait: float, attempt: int = 1) -> Line:
    told: Line = {**IDS, "call": call, "upstream": f"{call}s", "attempt": attempt, "wait_ms": wait, "reason": "x"}
    return line("retry.scheduled", at / 1000, **told)


def finished(took: float, seconds: float | None = None, **fields: Any) -> Line:
    told: Line = {**IDS, "http__request__method": "GET", "url__path": "/home", "outcome": "ok", "duration_ms": took}
    said = {**told, "http__response__status_code": 200, "calls": 2, "complete": True, "calls_failed": [], **fields}
    return line("request.finished", took / 1000 if seconds is None else seconds, **said)


def rows(story: Story) -> list[tuple[str, str, int | None, float, float | None]]:
    return [(row.what, row.call, row.attempt, row.start_ms, row.wait_ms) for row in story.rows]


def path_of(story: Story) -> list[tuple[str, int | None]]:
    critical = sorted((row for row in story.rows if row.critical), key=lambda row: row.start_ms)
    return [(row.call, row.attempt) for row in critical]


FAILED = {"outcome": "failed", "http__response__status_code": 503, "error__type": "http_response_status"}


def test_a_retry_has_the_wait_before_it_and_follows_its_call() -> None:
    story = told(
        [
            started(),
            tried("b", 1.0, 10.0, **FAILED),
            tried("a", 0.5, 30.0),
            waited("b", 11.0, 20.0),
            tried("b", 31.5, 10.0, attempt=2, kind="retry"),
            finished(42.0),
        ]
    )

    assert rows(story) == [
        ("attempt", "a", 1, 0.5, None),
        ("attempt", "b", 1, 1.0, None),
        ("attempt", "b", 2, 31.5, 20.0),
    ]
    assert (story.attempts, story.calls) == (3, 2)
    assert story.slowest is not None
    assert (story.slowest.call, story.slowest.took_ms, story.slowest.share) == ("b", 40.5, 0.9643)


def test_the_critical_path_goes_back_from_the_end_over_retries_and_what_a_call_began_after() -> None:
    story = told(
        [
            started(),
            tried("user", 0.5, 10.0),
            ended("user", 0.4, 10.2),
            tried("other", 0.5, 25.0),
            tried("orders", 10.8, 10.0, **FAILED),
            waited("orders", 20.8, 5.0),
            tried("orders", 26.0, 14.0, attempt=2, kind="retry"),
            line("merge.finished", 0.0405, **IDS, duration_ms=0.4),
            finished(41.0),
        ]
    )

    assert path_of(story) == [("user", 1), ("orders", 1), ("orders", 2), ("merge", None)]


def test_what_was_cancelled_is_on_the_critical_path_only_when_the_client_left() -> None:
    lines = [started(), tried("a", 0.5, 5.0), tried("b", 0.5, 19.0, outcome="cancelled"), finished(20.0)]

    assert path_of(told(lines)) == [("a", 1)]
    assert path_of(told([*lines[:-1], finished(20.0, outcome="disconnected")])) == [("b", 1)]


def test_a_hedge_that_won_leads_back_to_the_attempt_it_stood_beside() -> None:
    story = told(
        [
            started(),
            tried("a", 1.0, 29.0, outcome="cancelled"),
            tried("a", 20.0, 10.0, attempt=2, kind="hedge"),
            finished(30.5),
        ]
    )

    assert [row.kind for row in story.rows if row.critical] == ["first", "hedge"]


def test_a_join_has_each_wait_before_the_retry_it_led_to() -> None:
    story = told(
        [
            started(),
            tried("rows", 1.0, 5.0, **FAILED),
            waited("rows", 6.0, 30.0),
            tried("rows", 1.0, 7.0, **FAILED),
            waited("rows", 8.0, 4.0),
            tried("rows", 12.2, 3.0, attempt=2, kind="retry"),
            tried("rows", 36.1, 3.0, attempt=2, kind="retry"),
            finished(40.0),
        ]
    )

    assert [row.wait_ms for row in story.rows if row.attempt == 2] == [4.0, 30.0]


def test_a_call_that_stood_in_a_queue_waited() -> None:
    story = told([started(), ended("a", 1.0, 30.0), tried("a", 21.0, 10.0), finished(32.0)])

    assert [(row.start_ms, row.wait_ms) for row in story.rows] == [(21.0, 20.0)]


def test_a_call_that_was_refused_says_since_when_the_breaker_is_open() -> None:
    opened: Line = {
        "upstream": "as",
        "from": "closed",
        "to": "open",
        "open_ms": 5000.0,
        "service__instance__id": "web-1-7",
    }
    changes = [
        line("breaker.changed", -2.0, **opened),
        line("breaker.changed", 2.0, **{**opened, "to": "half_open", "open_ms": None}),
        line("breaker.changed", -1.0, **{**opened, "service__instance__id": "web-1-8", "to": "closed"}),
    ]
    refusal = ended("a", 1.0, 0.1, attempts=0, outcome="failed", error__type="destination_unavailable")
    story = told([started(), refusal, finished(2.0, outcome="failed")], Other(breakers=changes))

    (row,) = story.rows
    assert (row.what, row.error, row.note) == (
        "refused",
        "destination_unavailable",
        "breaker open since 08:59:58.000Z, for 5000 ms",
    )


def test_a_retry_that_was_waited_for_and_never_made_is_shown() -> None:
    story = told(
        [
            started(),
            tried("a", 1.0, 10.0, **FAILED),
            waited("a", 11.0, 20.0),
            ended("a", 0.5, 31.0, outcome="failed", error__type="http_response_status"),
            finished(32.0, outcome="failed"),
        ]
    )

    assert [(row.what, row.attempt, row.outcome, row.wait_ms) for row in story.rows] == [
        ("attempt", 1, "failed", None),
        ("refused", 2, "not made", 20.0),
    ]


def test_calls_that_were_skipped_or_had_nothing_to_ask_are_shown() -> None:
    skipped = line("call.skipped", 0.01, **IDS, call="c", upstream="cs", because="a")
    story = told([started(), ended("b", 1.0, 0.1, attempts=0, outcome="absent"), skipped, finished(12.0)])

    assert [(row.what, row.call, row.note) for row in story.rows] == [("absent", "b", None), ("skipped", "c", "no a")]


def test_a_shared_answer_has_its_leaders_attempts_at_this_requests_time() -> None:
    other = {"trace_id": "b" * 32, "request_id": "b" * 32}
    joined = line("flight.joined", 0.001, **IDS, upstream="as", call="a", leader="first", leader__trace_id="b" * 32)
    led = tried("first", 30.0, 25.0, **other) | {"timestamp": line("x", 0.020)["timestamp"]}
    early = tried("first", 1.0, 10.0, **other) | {"timestamp": line("x", -0.010)["timestamp"]}
    story = told([started(), joined, ended("a", 0.5, 20.0, attempts=0), finished(21.0)], Other([early, led]))

    assert [(row.what, row.call, row.start_ms, row.took_ms, row.of) for row in story.rows] == [
        ("shared", "a", 1.0, 19.5, "b" * 32),
        ("attempt", "a", -5.0, 25.0, "b" * 32),
    ]
    assert story.attempts == 0
    assert leaders([started(), joined]) == {"b" * 32}


REMARKS: dict[str, tuple[list[Line], str | None]] = {
    "a healthy request of which only the wide line was kept": (
        [finished(20.0, attempts=3)],
        "Its steps were not kept: 3 attempts for 2 calls (LOG_STEPS=problems).",
    ),
    "one under way": (
        [started(), tried("a", 1.0, 2.0)],
        "It has not finished by the log: it is under way, or its process ended or lost lines.",
    ),
    "one whose client left": (
        [started(), tried("a", 1.0, 2.0, outcome="cancelled"), finished(3.0, outcome="disconnected", attempts=1)],
        "The client left before its answer was ready: reads were cancelled.",
    ),
    "one with a write that outlived it": (
        [started(), finished(20.0, outcome="failed", attempts=1), tried("pay", 1.0, 500.0)],
        "Went on after the answer: pay.",
    ),
    "one with a write that goes on": (
        [started(), finished(20.0, outcome="failed", attempts=1)],
        "Attempts without a line: they are still under way, below LOG_LEVEL, or were lost.",
    ),
    "an ordinary one": ([started(), tried("a", 1.0, 2.0), finished(3.0, attempts=1)], None),
}


@pytest.mark.parametrize(("lines", "remark"), REMARKS.values(), ids=REMARKS)
def test_what_the_log_does_not_have_is_said(lines: list[Line], remark: str | None) -> None:
    assert told(lines).remarks == ([remark] if remark else [])


def test_other_lines_of_the_request_stand_below() -> None:
    own = [line("cart.abandoned", 0.1, **IDS, items=3), line("log.recorded", 0.2, **IDS, message="hm")]

    assert told([started(), *own, finished(300.0)]).lines == own


def test_an_id_that_comes_again_is_divided_by_arrival_also_when_both_are_under_way_at_once() -> None:
    first = [started(0.0), tried("a", 1.0, 90.0), finished(95.0)]
    second = [
        started(0.05),
        {**tried("a", 2.0, 10.0), "timestamp": line("x", 0.062)["timestamp"]},
        line("log.recorded", 0.055, **IDS),
        finished(20.0, seconds=0.07),
    ]
    lines = [*first, *second]
    random.Random(3).shuffle(lines)
    found = divided(lines)

    assert [len(request) for request in found] == [3, 4]
    assert [{id(one) for one in request} for request in found] == [set(map(id, first)), set(map(id, second))]
    assert arrival(found[1]) - arrival(found[0]) == pytest.approx(50.0, abs=0.01)


def test_a_request_that_waited_to_begin_arrived_before_that() -> None:
    assert arrival([{**started(0.2), "queued_ms": 150.0}]) == pytest.approx(arrival([started(0.05)]))


JUNK = st.sampled_from([None, 17, -3.5, "x", "\x1b[2J", [1, "a"], {"a": 1}, True, 10**30, 1e300, "", -1, 0])
NAMES = ("event", "timestamp", "call", "upstream", "attempt", "outcome", "start_offset_ms", "duration_ms", "attempts",
         "error.type", "kind", "queued_ms", "wait_ms", "trace_id", "request_id", "url.path", "calls_failed",
         "level")  # fmt: skip
WHOLE = [
    started(), tried("a", 1.0, 5.0, **FAILED), waited("a", 6.0, 3.0), tried("a", 9.0, 2.0, attempt=2, kind="retry"),
    ended("a", 0.5, 10.0), ended("b", 0.5, 1.0, attempts=0, outcome="failed", error__type="destination_unavailable"),
    line("flight.joined", 0.001, **IDS, upstream="as", call="c", leader="a", leader__trace_id="b" * 32),
    line("call.skipped", 0.001, **IDS, call="d", because="a"), line("merge.finished", 0.012, **IDS, duration_ms=0.1),
    line("breaker.changed", 0.001, **IDS, upstream="as", to="open"), finished(12.0),
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.sampled_from(NAMES), JUNK), max_size=12), st.booleans())
def test_whatever_the_lines_hold_there_is_a_story_and_nothing_in_it_controls_a_terminal(
    changes: list[tuple[int, str, Any]], drop: object
) -> None:
    lines = [dict(one) for one in WHOLE]
    for nth, name, value in changes:
        lines[nth][name] = value
        if drop:
            del lines[nth][name]
    for request in divided(lines):
        story = told(request, Other(lines, lines))
        assert "\x1b" not in "\n".join([*waterfall(story), *markdown(story)])


# With lines that the gateway wrote


class Home(PatientPage):
    @call("users")
    def user(self) -> Request[JSON]:
        return GET("/user")

    @call("reviews", optional=True)
    def reviews(self, user: Any) -> Request[JSON]:
        return GET("/reviews")


async def asked(table: Table, log: Log) -> Story:
    with asking([path("home", Home.as_view())], table) as client:
        await client.get("/home")
    (request,) = divided(one for one in decoded(log.lines()) if "trace_id" in one)
    return told(request)


def short(row: Row) -> tuple[str, str, int | None, str | None, int | None, str | None]:
    return row.what, row.call, row.attempt, row.outcome, row.status, row.kind


async def test_what_the_gateway_logs_of_a_retry_is_told(stub: StartStub, log: Log) -> None:
    users, reviews = await stub("users"), await stub("reviews")
    users.on("/user", {"id": 7})
    reviews.on("/reviews", Turns([Answered({}, 503), ["fine"]]))
    story = await asked({"users": users, "reviews": Upstream(reviews.url, retry=Retry(attempts=2))}, log)

    assert [short(row) for row in story.rows] == [
        ("attempt", "user", 1, "ok", 200, "first"),
        ("attempt", "reviews", 1, "failed", 503, "first"),
        ("attempt", "reviews", 2, "ok", 200, "retry"),
    ]
    assert story.rows[2].wait_ms is not None
    assert path_of(story) == [("user", 1), ("reviews", 1), ("reviews", 2)]
    assert (story.request.method, story.request.path, story.request.outcome) == ("GET", "/home", "ok")
    assert story.remarks == []


async def test_what_the_gateway_logs_of_an_open_breaker_is_told(
    stub: StartStub, log: Log, client: aiohttp.ClientSession
) -> None:
    users, reviews = await stub("users"), await stub("reviews")
    users.on("/user", {"id": 7})
    reviews.on("/reviews", Answered({}, 500))
    quick = Upstream(reviews.url, breaker=Breaker(minimum_calls=1, open_time=60.0))
    async with gateway([path("home", Home.as_view())], {"users": users, "reviews": quick}) as url:
        await client.get(f"{url}/home")
        await client.get(f"{url}/home")
    _, request = divided(one for one in decoded(log.lines()) if "trace_id" in one)
    story = told(request, Other(breakers=log.events("breaker.changed")))

    assert [short(row) for row in story.rows] == [
        ("attempt", "user", 1, "ok", 200, "first"),
        ("refused", "reviews", None, "failed", None, None),
    ]
    assert story.rows[1].error == "destination_unavailable"
    assert (story.rows[1].note or "").startswith("breaker open since ")
    assert story.missing == ["reviews"]


async def test_what_the_gateway_logs_of_a_hedge_is_told(stub: StartStub, log: Log) -> None:
    users, reviews = await stub("users"), await stub("reviews")
    gate = Gate({"from": "first"})
    users.on("/user", {"id": 7})
    reviews.on("/reviews", Turns([gate, {"from": "hedge"}]))
    table: Table = {"users": users, "reviews": Upstream(reviews.url, hedge=Hedge(after=0.02))}
    story = await asyncio.wait_for(asked(table, log), 20)

    assert [short(row) for row in story.rows[1:]] == [
        ("attempt", "reviews", 1, "cancelled", None, "first"),
        ("attempt", "reviews", 2, "ok", 200, "hedge"),
    ]
