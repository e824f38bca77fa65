"""A moment is understood as people write it, by this machine's clock; what is none is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from inspection.fault import Unanswerable
from inspection.times import Window, between, moment, parsed, seconds, shown, stamp, window

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)


@pytest.fixture(params=["UTC", "Asia/Kolkata", "America/Los_Angeles"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "ago"),
    [("-15m", 900), ("15m", 900), ("90s", 90), ("-1.5h", 5400), ("2 d ago", 172_800), ("1w", 604_800),
     ("250ms", 0.25), ("now", 0), ("", 0), (" -15m ", 900), ("3min", 180)],
)  # fmt: skip
def test_a_time_ago_counts_from_now(text: str, ago: float) -> None:
    assert moment(text, NOW) == NOW - timedelta(seconds=ago)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-05-04T09:00:00Z", "2026-05-04T09:00:00.000000Z"),
        ("2026-05-04T09:00:00+02:00", "2026-05-04T07:00:00.000000Z"),
        ("2026-05-04T09:00:00.250000Z", "2026-05-04T09:00:00.250000Z"),
    ],
)
def test_a_moment_with_a_zone_is_that_moment(text: str, meant: str, zone: str) -> None:
    assert stamp(moment(text, NOW)) == meant


@pytest.mark.parametrize(
    ("zone", "text", "meant"),
    [
        ("UTC", "09:05", "2026-05-04T09:05"),
        ("UTC", "09:05:30.5", "2026-05-04T09:05:30.500"),
        ("UTC", "12:31", "2026-05-03T12:31"),
        ("UTC", "2026-05-04", "2026-05-04T00:00"),
        ("Asia/Kolkata", "18:00", "2026-05-04T12:30"),
        ("Asia/Kolkata", "18:01", "2026-05-03T12:31"),
        ("Asia/Kolkata", "00:10", "2026-05-03T18:40"),
        ("America/Los_Angeles", "23:50", "2026-05-04T06:50"),
        ("Asia/Kolkata", "2026-05-04T05:30", "2026-05-04T00:00"),
    ],
    indirect=["zone"],
)
def test_a_clock_time_is_the_latest_at_which_this_machines_clock_showed_it(zone: str, text: str, meant: str) -> None:
    assert moment(text, NOW) == datetime.fromisoformat(meant).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["yesterday", "25:00", "12:60", "-15", "15 parsecs", "2026-13-01", "9999999999d", "-"])
def test_what_is_no_time_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(Unanswerable, match=r"is no time; write it as -15m, 14:05"):
        moment(text, NOW)


def test_a_window_is_from_a_moment_on_and_before_another() -> None:
    asked = window("2026-05-04T09:00:00Z", "2026-05-04T10:00:00Z", NOW)

    assert [asked.has(f"2026-05-04T{at}.000000Z") for at in ("08:59:59", "09:00:00", "09:59:59", "10:00:00")] == [
        False, True, True, False,
    ]  # fmt: skip
    assert window(None, None, NOW).has("2026-05-04T09:00:00.000000Z")
    assert window("-1h", None, NOW) == Window(NOW - timedelta(hours=1), None)


@pytest.mark.parametrize(("since", "until"), [("-5m", "-10m"), ("-5m", "-5m")])
def test_a_window_that_ends_before_it_begins_is_refused(since: str, until: str) -> None:
    with pytest.raises(Unanswerable, match="ends"):
        window(since, until, NOW)


def test_a_window_is_written_with_two_dots() -> None:
    assert between("-20m..-10m", NOW) == Window(NOW - timedelta(minutes=20), NOW - timedelta(minutes=10))
    assert between("-20m..", NOW) == Window(NOW - timedelta(minutes=20), NOW)
    for text in ("-20m", "..", "..-10m", "", "a..b"):
        with pytest.raises(Unanswerable):
            between(text, NOW)


def test_a_length_of_time_is_in_seconds() -> None:
    assert [seconds(text) for text in ("90s", "30m", "2h", "250ms")] == [90, 1800, 7200, 0.25]
    for text in ("-5m", "5", "soon", ""):
        with pytest.raises(Unanswerable):
            seconds(text)


def test_a_timestamp_is_read_back_as_the_moment_it_was_made_of() -> None:
    assert parsed(stamp(NOW)) == NOW
    assert parsed("2026-05-04T12:30:00") == NOW
    assert parsed("nonsense") is None


def test_moments_are_shown_by_this_machines_clock_with_its_offset(zone: str) -> None:
    expected = {
        "UTC": "2026-05-04 12:30:00+00:00",
        "Asia/Kolkata": "2026-05-04 18:00:00+05:30",
        "America/Los_Angeles": "2026-05-04 05:30:00-07:00",
    }

    assert shown(NOW) == expected[zone]
    assert str(Window(NOW, None)) == f"{expected[zone]} .. now"
    assert str(Window()) == "all of the log"
