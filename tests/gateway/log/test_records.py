"""What Django, uvicorn, asyncio, warnings and a project's modules log comes through the same renderer, and once."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from typing import Any

import pytest
import structlog
from django.http import HttpRequest, HttpResponse
from django.urls import path

from gateway import call
from gateway.log.records import Records, level_name
from tests.conftest import StartStub
from tests.gateway.log.processes import run
from tests.gateway.log.recording import configured, heard
from tests.logs import CANARY, Log
from tests.serving import PatientPage
from tests.ways import WAYS, asking
from upstreams import JSON, Request, Upstream


def recorded(log: Log) -> dict[str, Any]:
    """Return the one record there is."""
    (event,) = log.events()
    assert event["event"] == "log.recorded"
    return event


@pytest.mark.parametrize(
    "name", ["django", "django.request", "django.security.csrf", "uvicorn.error", "aiohttp", "shop"]
)
def test_a_record_of_any_logger_is_an_event(name: str, log: Log) -> None:
    logging.getLogger(name).error("%s of %d", "one", 2, exc_info=LookupError("gone"))

    event = recorded(log)
    assert (event["level"], event["logger"], event["message"]) == ("error", name, "one of 2")
    assert (event["exception.type"], event["exception.message"]) == ("LookupError", "gone")


def test_a_record_is_redacted_with_its_arguments(log: Log) -> None:
    logging.getLogger("shop").warning("GET %s by %s", f"http://u:{CANARY}@h/?q={CANARY}", {"token": CANARY})

    assert recorded(log)["message"] == "GET http://[redacted]@h/?[redacted] by {'token': [redacted]}"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError(CANARY)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("%d items", ("many",)),
        ("%s and %s", ("one",)),
        ("nothing", ("too", "many")),
        ("%(name)s", ({},)),
        ("%s", (Unprintable(),)),
        ("%", (1,)),
        (Unprintable(), ()),
        (b"\xff", ()),
        (None, ()),
    ],
    ids=str.split("type few many key unprintable percent message bytes nothing"),
)
def test_arguments_that_do_not_fit_make_a_line_and_no_noise(
    message: Any, arguments: tuple[Any, ...], log: Log, capfd: pytest.CaptureFixture[str]
) -> None:
    heard().warning(message, *arguments)

    assert recorded(log)["level"] == "warning"
    assert capfd.readouterr() == ("", "")


def test_a_traceback_tells_where_and_never_what_variables_held(log: Log) -> None:
    def fails(password: str) -> None:
        local = {"secret": password}
        raise KeyError(len(local))

    def handles() -> None:
        try:
            fails(CANARY)
        except KeyError as error:
            error.add_note(f"token={CANARY}")
            raise ValueError(f"Bearer {CANARY}") from error

    try:
        handles()
    except ValueError:
        logging.getLogger("shop").exception("failed")

    trace = recorded(log)["exception.stacktrace"].splitlines()
    assert [line for line in trace if not line.startswith("  File ")] == [
        "Traceback (most recent call last):",
        "KeyError: 1",
        "token=[redacted]",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        "ValueError: Bearer [redacted]",
    ]
    places = [line.rpartition(" in ")[2] for line in trace if line.startswith("  File ")]
    assert places[:2] == ["handles", "fails"]
    assert __file__ in trace[1]


def test_a_group_of_exceptions_is_told_of_whole(log: Log) -> None:
    group = ExceptionGroup("several", [ValueError(f"password={CANARY}"), ExceptionGroup("inner", [KeyError("deep")])])
    logging.getLogger("shop").error("failed", exc_info=group)

    trace = recorded(log)["exception.stacktrace"]
    assert "ExceptionGroup: several (2 sub-exceptions)" in trace
    assert "  | ValueError: password=[redacted]" in trace
    assert "  |   | KeyError: 'deep'" in trace


def test_a_chain_that_is_a_circle_ends(log: Log) -> None:
    one, two = ValueError("one"), ValueError("two")
    for error, other in ((one, two), (two, one)):
        try:
            raise error from other
        except ValueError:
            pass
    logging.getLogger("shop").error("failed", exc_info=one)

    assert recorded(log)["exception.stacktrace"].count("ValueError: ") == 2


def test_a_traceback_without_end_is_cut_in_its_middle(log: Log) -> None:
    def deep(left: int) -> None:
        if left == 0:
            raise RecursionError("x" * 100_000)
        deep(left - 1)

    try:
        deep(200)
    except RecursionError:
        logging.getLogger("shop").exception("failed")

    (line,) = log.lines()
    assert len(line) < 20_000
    assert "RecursionError" in recorded(log)["exception.stacktrace"]


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_exception_that_cannot_be_printed_is_named(log: Log) -> None:
    noted = ValueError("noted")
    vars(noted)["__notes__"] = 5
    for error in (Silent(), noted):
        logging.getLogger("shop").error("failed", exc_info=error)

    assert [event["exception.type"] for event in log.events()] == ["Silent", "ValueError"]


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "debug"),
        (5, "debug"),
        (10, "debug"),
        (20, "info"),
        (25, "info"),
        (30, "warning"),
        (45, "error"),
        (99, "critical"),
    ],
)
def test_a_level_of_somebodys_own_is_the_next_one_below(number: int, name: str) -> None:
    assert level_name(number) == name


def test_a_python_warning_is_an_event() -> None:
    code, (event,), complaint = run(f"""
import warnings
warnings.simplefilter("always")
warnings.warn("token={CANARY}", ResourceWarning)
""")

    assert (code, complaint) == (0, b"")
    assert (event["level"], event["logger"]) == ("warning", "py.warnings")
    assert "ResourceWarning: token=[redacted]" in event["message"]


async def test_what_asyncio_complains_of_is_an_event(log: Log) -> None:
    async def fails() -> None:
        raise ValueError(f"token={CANARY}")

    task = asyncio.create_task(fails())
    await asyncio.wait([task])
    del task
    gc.collect()

    event = recorded(log)
    assert (event["logger"], event["exception.message"]) == ("asyncio", "token=[redacted]")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_nothing_below_the_level_is_logged_by_whomever(level: str, log: Log) -> None:
    names = ["debug", "info", "warning", "error", "critical"]
    with configured(log, level=level):
        for name in names:
            for logger in ("shop", "django", "uvicorn.error", "asyncio"):
                logging.getLogger(logger).log(logging.getLevelNamesMapping()[name.upper()], "said")
            structlog.get_logger("fresh").log(logging.getLevelNamesMapping()[name.upper()], "mine")

    found = [event["level"] for event in log.events() if event.get("logger") != "django"]
    assert found == [name for name in names[names.index(level) :] for _ in range(4)]
    assert {event["level"] for event in log.events(logger="django")} == {*names[max(names.index(level), 1) :]}


class Failing(PatientPage):
    @call("items")
    def item(self) -> Request[JSON]:
        raise LookupError("ours")


async def failing_view(request: HttpRequest) -> HttpResponse:
    raise LookupError("ours")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["page", "view"])
async def test_an_error_of_ours_has_its_traceback_in_the_log_once(name: str, way: str, log: Log) -> None:
    routes = [path("page", Failing.as_view()), path("view", failing_view)]
    async with asking(way, routes, {"items": Upstream("http://127.0.0.1:9")}) as ask:
        assert (await ask("GET", f"/{name}")).status == 500

    assert len([event for event in log.events() if "LookupError: ours" in event.get("exception.stacktrace", "")]) == 1
    assert log.events(logger="django.request") == []


@pytest.mark.parametrize("way", WAYS)
async def test_django_does_not_note_again_what_the_wide_line_says(way: str, stub: StartStub, log: Log) -> None:
    async with asking(way, [], {}) as ask:
        assert (await ask("GET", "/nowhere")).status == 404

    assert log.events(logger="django.request") == []
    assert log.events("request.finished")[0]["http.response.status_code"] == 404


async def test_uvicorns_access_lines_are_left_out(log: Log) -> None:
    async with asking("asgi", [], {}) as ask:
        await ask("GET", "/nowhere")
    logging.getLogger("uvicorn.access").info("%s", "GET /nowhere")

    assert log.events(logger="uvicorn.error")
    assert log.events(logger="uvicorn.access") == []


def test_a_handler_writes_nothing_to_standard_error(log: Log, capfd: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("mine", 30, "", 0, "x", None, (None, None, None))
    Records().handle(record)

    assert "exception.type" not in recorded(log)
    assert capfd.readouterr() == ("", "")
    assert logging.lastResort not in logging.getLogger().handlers
    assert sys.exc_info() == (None, None, None)
