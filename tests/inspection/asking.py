"""The command as people use it: in this process for most questions, or as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import pytest

from inspection.cli import main

ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    """What a question came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


def asked(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Ended:
    """Ask, in this process."""
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return Ended(code, said.out, said.err)


def started(*arguments: str | Path, stdin: int | IO[bytes] = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a process that asks; its standard output and standard error are pipes."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "inspection", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONDEVMODE": ""},  # which would double the time it takes to start
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
