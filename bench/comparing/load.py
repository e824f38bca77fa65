"""Load from wrk: as many connections as wished, each of which asks again as soon as it is answered."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec

_REPORT = Path(__file__).with_name("report.lua")


class Load(msgspec.Struct, frozen=True):
    """What came of it: answers, errors among them, requests without an answer; times in microseconds."""

    requests: int
    duration: int
    refused: int
    lost: int
    p50: int
    p99: int

    @property
    def answered(self) -> int:
        """How many answers were good."""
        return self.requests - self.refused

    @property
    def rate(self) -> float:
        """How many good answers there were in a second."""
        return self.answered / self.duration * 1e6


def load(url: str, connections: int, seconds: int, headers: Mapping[str, str], cores: str) -> Load:
    """Ask a URL for some seconds. Raises msgspec's error if wrk says anything but what it measured."""
    command = ["taskset", "-c", cores, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    ran = subprocess.run([*command, "-s", str(_REPORT), url], capture_output=True, text=True, check=True)
    return msgspec.json.decode(ran.stdout.splitlines()[-1], type=Load)
