"""Python programs that log, run as processes of their own: for what only the end of a process can show."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, Final

import msgspec

ROOT: Final = Path(__file__).parents[3]
_BEGINNING: Final = """
import json, os, sys, threading
from gateway.log import configure, events
from gateway.log.setup import writer
def log(number, text=""):
    events.request_started(method=str(number), path=text)
configure({"dir": os.environ.get("LOG_DIR"), **json.loads(os.environ.get("LOG_OPTIONS", "{}"))})
def tidied():
    for thread in threading.enumerate():
        if thread.name == "log-archive": thread.join()
"""


def start(program: str, *, stdout: int | IO[bytes] = subprocess.PIPE, **environment: str) -> subprocess.Popen[bytes]:
    """Start a program in which `log(number, text)` logs one event, and logging is set up.

    LOG_DIR is its `dir`, LOG_OPTIONS the rest as JSON. `tidied()` waits until files set aside have been seen to.
    """
    return subprocess.Popen(
        command(program),
        cwd=ROOT,
        env={**os.environ, "PYTHONDEVMODE": "", **environment},  # which would double the time they take to start
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def command(program: str) -> list[str]:
    """Return the command that `start` starts."""
    return [sys.executable, "-W", "ignore", "-c", _BEGINNING + program]


def run(program: str, **environment: str) -> tuple[int, list[dict[str, Any]], bytes]:
    """Run a program to its end; returns its exit code, the events on its standard output, and its standard error."""
    with start(program, stdout=subprocess.PIPE, **environment) as process:
        said, complaint = process.communicate(timeout=60)
    return process.returncode, events(said), complaint


def events(said: bytes) -> list[dict[str, Any]]:
    """Read lines, each of which must be whole."""
    return [msgspec.json.decode(line) for line in said.splitlines()]


def numbers(found: list[dict[str, Any]]) -> list[int]:
    """Return the numbers of the events that `log` made, as they come."""
    return [int(event["http.request.method"]) for event in found if event["event"] == "request.started"]


def written(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read a folder's files, the oldest of a process first, each as its whole lines: a kill may cut the last one."""
    texts = {
        path.name: gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in sorted(folder.glob("*.ndjson*"), key=lambda path: path.name.replace(".", "~", 1))
    }
    return {name: events(text[: text.rfind(b"\n") + 1]) for name, text in texts.items()}


def counts(folder: Path) -> dict[str, int]:
    """Read a folder's counts."""
    return {path.name: int.from_bytes(path.read_bytes(), "little") for path in folder.glob("*.count")}


def tidied(*threads: str) -> None:
    """Wait until this process's threads of these names have ended: by default, what sees to files set aside."""
    for thread in threading.enumerate():
        if thread.name in (threads or ("log-archive",)):
            thread.join(10)


def lost(found: list[dict[str, Any]]) -> int:
    """Add up the losses reported."""
    return sum(event["count"] for event in found if event["event"] == "log.dropped")
