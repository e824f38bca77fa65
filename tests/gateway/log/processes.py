"""Python programs that log, run as processes of their own: for what only the end of a process can show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Final

import msgspec

ROOT: Final = Path(__file__).parents[3]
_BEGINNING: Final = """
import os, sys
from gateway.log import configure, events
from gateway.log.setup import writer
def log(number, text=""):
    events.request_started(method=str(number), path=text)
configure({"dir": os.environ.get("LOG_DIR")})
"""


def start(program: str, *, stdout: int | IO[bytes] = subprocess.PIPE, **environment: str) -> subprocess.Popen[bytes]:
    """Start a program in which `log(number, text)` logs one event, and logging is set up (LOG_DIR is its `dir`)."""
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


def lost(found: list[dict[str, Any]]) -> int:
    """Add up the losses reported."""
    return sum(event["count"] for event in found if event["event"] == "log.dropped")
