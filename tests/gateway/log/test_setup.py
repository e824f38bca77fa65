"""Logging is set up once a process; wrong options are refused with a sentence, and nothing is ever there twice."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from gateway.log import configure
from gateway.log import events as catalogue
from gateway.log.records import Records
from gateway.log.setup import writer
from tests.gateway.log.processes import ROOT, events, tidied, written
from tests.gateway.log.recording import configured
from tests.logs import Log

BYTES = "must be a whole number of bytes, 65536 or more"


@pytest.fixture
def restored(log: Log) -> Iterator[None]:
    """Whatever a test configures, the log is the tests' own afterwards."""
    yield
    configure(settings.LOGGING)
    writer.sinks[:] = [log]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"level": "loud"}, "LOGGING['level'] must be one of debug, info, warning, error, critical, not 'loud'"),
        ({"level": 20}, "LOGGING['level'] must be one of debug, info, warning, error, critical, not 20"),
        ({"level": None}, "LOGGING['level'] must be one of debug, info, warning, error, critical, not None"),
        ({"steps": "some"}, "LOGGING['steps'] must be all or problems, not 'some'"),
        ({"steps": True}, "LOGGING['steps'] must be all or problems, not True"),
        ({"file_bytes": 65535}, f"LOGGING['file_bytes'] {BYTES}, not 65535"),
        ({"file_bytes": "1M"}, f"LOGGING['file_bytes'] {BYTES}, not '1M'"),
        ({"keep_bytes": 0}, f"LOGGING['keep_bytes'] {BYTES}, not 0"),
        ({"keep_bytes": 1e9}, f"LOGGING['keep_bytes'] {BYTES}, not 1000000000.0"),
        ({"keep_days": -1}, "LOGGING['keep_days'] must be a number of days, 0 to 36525, not -1"),
        ({"keep_days": True}, "LOGGING['keep_days'] must be a number of days, 0 to 36525, not True"),
        ({"keep_days": float("nan")}, "LOGGING['keep_days'] must be a number of days, 0 to 36525, not nan"),
        ({"dir": 7}, "LOGGING['dir'] must be a directory's path or None, not 7"),
        ({"dir": ""}, "LOGGING['dir'] must be a directory's path or None, not ''"),
        ({"level": ["info"]}, "LOGGING['level'] must be one of debug, info, warning, error, critical, not ['info']"),
        (
            {"version": 1, "handlers": {}},
            "LOGGING takes level, steps, dir, file_bytes, keep_days and keep_bytes, not handlers, version",
        ),
        ({"dir": "/dev/null/logs"}, "LOG_DIR, LOGGING['dir']: /dev/null/logs cannot be made: Not a directory"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_options_that_make_no_sense_are_refused_with_a_sentence(
    options: dict[str, Any], sentence: str, log: Log
) -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        configure(options)

    assert str(refused.value) == sentence
    catalogue.client_disconnected()
    assert len(log.lines()) == 1  # it goes on as it was


def test_nothing_needs_to_be_said(log: Log, restored: None, tmp_path: Path) -> None:
    configure({})

    assert len(writer.sinks) == 1
    assert logging.getLogger().level == logging.INFO


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_set_up_again_and_again_nothing_is_there_twice(log: Log, restored: None, tmp_path: Path) -> None:
    configure({"dir": tmp_path})
    writer.sinks.pop(0)  # the tests' own standard output
    catalogue.client_disconnected()
    writer.flush()
    tidied()
    threads, opened = threading.active_count(), descriptors()

    for _ in range(20):
        configure({"dir": str(tmp_path), "level": "warning"})
        configure({"dir": str(tmp_path), "level": "info"})
        writer.sinks.pop(0)
        logging.getLogger("shop").warning("once")
        structlog.get_logger().info("mine")
    configure({})
    tidied("log-file", "log-archive")

    assert len([handler for handler in logging.getLogger().handlers if isinstance(handler, Records)]) == 1
    assert threading.active_count() == threads - 1
    assert descriptors() == opened - 3  # the file, its count, and the count's memory
    found = [event for lines in written(tmp_path).values() for event in lines]
    assert [event["event"] for event in found] == ["client.disconnected", *["log.recorded", "mine"] * 20]


def test_a_second_time_takes_the_place_of_the_first(log: Log) -> None:
    with configured(log, level="error"):
        catalogue.client_disconnected()
        catalogue.request_finished(level="error", fields={"url.path": "/"}, duration=0.0)
    catalogue.client_disconnected()

    assert [event["event"] for event in log.events()] == ["request.finished", "client.disconnected"]


def test_no_file_is_made_by_a_process_that_logs_nothing(log: Log, restored: None, tmp_path: Path) -> None:
    configure({"dir": tmp_path / "logs"})

    assert list((tmp_path / "logs").iterdir()) == []


def test_a_directory_is_found_again_from_wherever_the_process_goes(
    log: Log, restored: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configure({"dir": "logs"})
    writer.sinks.pop(0)
    monkeypatch.chdir("/")
    catalogue.client_disconnected()
    writer.flush()

    assert len(list((tmp_path / "logs").glob("*.ndjson"))) == 1


def test_handlers_that_django_and_uvicorn_bring_are_not_heard_twice() -> None:
    for name in ("django", "django.server", "uvicorn", "uvicorn.error"):
        assert logging.getLogger(name).handlers == []
        assert logging.getLogger(name).propagate


#: What uvicorn says after the log has come to rest, and before it lets the signal end the process.
LAST_WORDS = {"Application shutdown complete.", "Finished server process"}


def _message(line: bytes) -> str:
    """Return what a record says, without the process that it says it of."""
    message: str = msgspec.json.decode(line).get("message", "")
    return message.partition(" [")[0]


def test_two_workers_have_two_files_and_the_same_lines_stand_there_and_on_standard_output(tmp_path: Path) -> None:
    serving = subprocess.Popen(
        [sys.executable, "manage.py", "serve", "--port", "0", "--workers", "2"],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "settings.development",
            "LOG_DIR": str(tmp_path),
            "PYTHONDEVMODE": "",
        },
        stdout=subprocess.PIPE,
    )
    said = b""
    with serving:
        assert serving.stdout is not None
        while said.count(b'"event":"gateway.started"') < 2:
            line = serving.stdout.readline()
            assert line
            said += line
        serving.send_signal(signal.SIGTERM)
        said += serving.stdout.read()

    found = {path.name: path.read_bytes() for path in tmp_path.glob("*.ndjson")}
    in_files, heard = Counter(b"".join(found.values()).splitlines()), Counter(said.splitlines())
    assert max(in_files.values()) == max(heard.values()) == 1
    assert set(map(_message, in_files.keys() ^ heard.keys())) <= LAST_WORDS
    workers = {event["process.pid"] for event in events(said) if event["event"] == "gateway.started"}
    assert workers == {event["process.pid"] for event in events(said) if event["event"] == "gateway.stopped"}
    assert len(workers) == 2
    assert list(tmp_path.glob("*.count")) == []
    for pid in workers:
        started = [event for event in events(found[f"gateway-{pid}.ndjson"]) if event["event"] == "gateway.started"]
        assert [event["process.pid"] for event in started] == [pid]
