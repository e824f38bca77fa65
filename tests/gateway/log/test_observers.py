"""Observers hear of what the catalogue logs, whatever the level, and can harm nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.log import events
from gateway.log.observers import observers
from tests.gateway.log.recording import configured
from tests.logs import Log

Heard = list[tuple[str, dict[str, Any]]]


def hearing(heard: Heard) -> Any:
    def hear(event: str, fields: Mapping[str, Any]) -> None:
        heard.append((event, dict(fields)))

    return hear


def test_an_observer_hears_of_an_event_and_its_fields_for_as_long_as_it_is_told(log: Log) -> None:
    heard: Heard = []
    events.merge_finished(duration=0.001)
    with observers.telling(hearing(heard)):
        events.merge_finished(duration=0.002)
    events.merge_finished(duration=0.003)

    assert heard == [("merge.finished", {"duration_ms": 2.0})]
    assert len(log.events("merge.finished")) == 3
    assert observers.all == ()


def test_observers_are_told_one_after_another_and_leave_one_by_one(log: Log) -> None:
    first: Heard = []
    second: Heard = []
    with observers.telling(hearing(first)):
        with observers.telling(hearing(second)):
            events.client_disconnected()
        events.merge_finished(duration=0.0)

    assert [event for event, _ in first] == ["client.disconnected", "merge.finished"]
    assert [event for event, _ in second] == ["client.disconnected"]


def test_what_is_below_the_logs_level_is_heard_all_the_same(log: Log) -> None:
    heard: Heard = []
    with configured(log, level="error"), observers.telling(hearing(heard)):
        events.request_started(method="GET", path="/")

    assert heard == [("request.started", {"http.request.method": "GET", "url.path": "/"})]
    assert log.events() == []


def test_one_that_raises_harms_nobody_and_is_logged_once(log: Log) -> None:
    heard: Heard = []

    def failing(event: str, fields: Mapping[str, Any]) -> None:
        raise ValueError(event)

    with observers.telling(failing), observers.telling(hearing(heard)):
        for _ in range(3):
            events.client_disconnected()

    assert [event for event, _ in heard].count("client.disconnected") == 3
    assert len(log.events("client.disconnected")) == 3
    (said,) = log.events("log.recorded")
    assert (said["level"], said["exception.type"]) == ("error", "ValueError")
