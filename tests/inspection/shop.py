"""A log as a shop's gateways would write it: lines of requests, and files of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

START = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
HOSTS = {"catalog": ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"), "users": (None,), "reviews": (None,)}
Line = dict[str, Any]
_LEVELS = {"failed": "warning", "partial": "warning"}


def at(seconds: float) -> str:
    """Return the timestamp so many seconds after START."""
    return (START + timedelta(seconds=seconds)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def line(event: str, seconds: float = 0.0, /, level: str = "info", **fields: Any) -> Line:
    """Return a line; underscores in a field's name that are dots there are written twice."""
    named = {name.replace("__", "."): value for name, value in fields.items()}
    return {"timestamp": at(seconds), "level": level, "event": event, "schema": 1, **named}


def attempt(seconds: float = 0.0, /, upstream: str = "catalog", outcome: str = "ok", **fields: Any) -> Line:
    """Return an attempt's line."""
    told: Line = {"call": upstream, "attempt": 1, "kind": "first", "sent": True, "duration_ms": 10.0, "conn": "reused"}
    told |= {"level": _LEVELS.get(outcome, "info"), "upstream": upstream, "outcome": outcome}
    return line("attempt.finished", seconds, **{**told, **fields})


def call(seconds: float = 0.0, /, upstream: str = "catalog", outcome: str = "ok", **fields: Any) -> Line:
    """Return a call's line."""
    told: Line = {"call": upstream, "attempts": 1, "duration_ms": 10.0}
    told |= {"level": _LEVELS.get(outcome, "info"), "upstream": upstream, "outcome": outcome}
    return line("call.finished", seconds, **{**told, **fields})


def request(seconds: float = 0.0, /, outcome: str = "ok", **fields: Any) -> Line:
    """Return a request's wide line."""
    told: Line = {"http__route": "home", "duration_ms": 20.0, "calls_failed": [], "http__response__status_code": 200}
    told |= {"level": "error" if outcome == "failed" else _LEVELS.get(outcome, "info"), "outcome": outcome}
    return line("request.finished", seconds, **{**told, **fields})


def text(lines: Iterable[Mapping[str, Any]]) -> bytes:
    """Return lines as a file holds them."""
    return b"".join(msgspec.json.encode(one) + b"\n" for one in lines)


def write(path: Path, *lines: Mapping[str, Any]) -> Path:
    """Write a file of lines; returns its path."""
    path.write_bytes(text(lines))
    return path


def traffic(
    chance: random.Random, seconds: int, per_second: int, sick: str | None = None, begin: int = 0
) -> Iterator[Line]:
    """Yield the lines of some seconds of requests; a sick host fails half of its attempts and slows the others."""
    for number in range(seconds * per_second):
        second = begin + number / per_second
        route, instance = chance.choice(["home", "home", "product"]), chance.choice(["web-1-7", "web-1-8"])
        same = {"trace_id": f"{chance.getrandbits(128):032x}", "http__route": route, "service__instance__id": instance}
        slowest, worst = 0.0, "ok"
        for upstream in ("catalog", "users", "reviews"):
            took, outcome = 0.0, "failed"
            for nth in (1, 2):
                host = chance.choice(HOSTS[upstream])
                status, time = (503, 4.0) if chance.random() < 0.01 else (200, 5 + chance.expovariate(1 / 10))
                if sick is not None and host == sick:
                    status, time = (503, 3.0) if chance.random() < 0.5 else (200, time + 250)
                took, outcome = took + time, "ok" if status == 200 else "failed"
                told: Line = {"http__response__status_code": status, "duration_ms": round(time, 3), "attempt": nth}
                if host is not None:
                    told["server__address"] = host
                if status != 200:
                    told["error__type"] = "http_response_status"
                yield attempt(second, upstream, outcome, **same, **told, kind="first" if nth == 1 else "retry")
                if status == 200:
                    break
            yield call(second, upstream, outcome, **same, duration_ms=round(took, 3), attempts=nth)
            slowest, worst = max(slowest, took), "partial" if outcome == "failed" else worst
        yield request(second, worst, **same, duration_ms=round(slowest + 1, 3), user_id=chance.randrange(1000))
