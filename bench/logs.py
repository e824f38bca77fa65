"""How fast the log answers: the command as people use it, over a log of so many lines.

    python bench/logs.py [--lines 2000000] [--rounds 3]

Writes a log of a gateway under load, an incident at its end, into a temporary folder; asks each question as a process
of its own, cold start and all, and prints wall time, CPU time and peak memory: the best of the rounds, for others use
the machine too. The first row is what DuckDB takes to read the lines, whatever is asked. The last rows ask of the last
15 minutes, and of 256 MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
UPSTREAMS = ("users", "orders", "catalog", "reviews", "recommendations")
ROUTES = ("demo/home/<int:user_id>", "demo/orders/<int:user_id>", "demo/product/<str:sku>")
HOSTS = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
SMALLER = 256 * 1024 * 1024
START = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)


class Took(NamedTuple):
    """What a question cost: seconds, CPU seconds, and MB of memory at its peak."""

    wall: float
    cpu: float
    memory: float


def main() -> None:
    """Write the log, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=2_000_000, help="(default: 2000000, about 1 GB)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each question (default: 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-logs-") as folder:
        whole, smaller = Path(folder, "whole"), Path(folder, "smaller")
        sought = _write(whole, smaller, options.lines)
        size = sum(path.stat().st_size for path in whole.iterdir())
        python = f"{platform.python_implementation()} {platform.python_version()}"
        print(f"{python}, {options.lines:,} lines, {size / 1e6:,.0f} MB, the best of {options.rounds}\n")
        print(f"{'':44}{'s':>8}{'CPU s':>8}{'MB':>8}")
        for name, place, arguments in _questions(whole, smaller, sought, options.lines):
            took = min(_ask([*arguments, "--dir", str(place)]) for _ in range(options.rounds))
            print(f"{name:44}{took.wall:8.2f}{took.cpu:8.2f}{took.memory:8.0f}")


def _questions(whole: Path, smaller: Path, sought: str, lines: int) -> Iterator[tuple[str, Path, list[str]]]:
    end = START + timedelta(seconds=lines / 160)
    bad = f"{end - timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}..{end:%Y-%m-%dT%H:%M:%SZ}"
    yield "reading alone: SELECT count(event)", whole, ["sql", "SELECT count(event) FROM logs", "--timeout", "60"]
    yield "stats", whole, ["stats"]
    yield "stats --by minute", whole, ["stats", "--by", "minute"]
    yield "stats --by user_id", whole, ["stats", "--by", "user_id"]
    yield "errors", whole, ["errors"]
    yield "trace ID", whole, ["trace", sought]
    yield "compare --bad, five minutes and the hour before", whole, ["compare", "--bad", bad]
    yield "logs, of the last 15 minutes", whole, ["summary"]
    yield "256 MiB: stats", smaller, ["stats"]
    yield "256 MiB: stats -f status=503", smaller, ["stats", "-f", "status=503"]


def _ask(arguments: Sequence[str]) -> Took:
    """Run the command; returns what it cost. Exits when it found nothing."""
    began = time.perf_counter()
    process = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "inspection", *arguments],
        {**os.environ, "PYTHONPATH": str(ROOT)},
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(process, 0)
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(f"logs {' '.join(arguments)} ended with exit code {code}.")
    peak = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return Took(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, peak)


def _write(whole: Path, smaller: Path, count: int) -> str:
    """Write so many lines into four files of one folder, and 256 MiB of them at most into another; returns an id."""
    chance = random.Random(7)
    whole.mkdir()
    smaller.mkdir()
    sought, written = "", 0
    with (smaller / "gateway-1.ndjson").open("wb") as less:
        for number in range(4):
            with (whole / f"gateway-{number + 1}.ndjson").open("wb") as file:
                while written < count * (number + 1) // 4:
                    lines = list(_request(chance, written / 160, sick=written > count - 160 * 300))
                    text = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
                    sought = lines[0]["request_id"] if written < count / 2 else sought
                    file.write(text)
                    if less.tell() + len(text) <= SMALLER:
                        less.write(text)
                    written += len(lines)
    return sought


def _request(chance: random.Random, second: float, *, sick: bool) -> Iterator[dict[str, Any]]:
    """Yield the lines of one request; while one host of the catalog is sick, its attempts are slow, or fail."""
    id_ = f"{chance.getrandbits(128):032x}"
    route = chance.choice(ROUTES)

    def line(event: str, level: str = "info", **fields: Any) -> dict[str, Any]:
        stamp = (START + timedelta(seconds=second)).isoformat(timespec="microseconds").replace("+00:00", "Z")
        head = {"timestamp": stamp, "level": level, "event": event, "schema": 1, "trace_id": id_, "request_id": id_}
        return {**head, "http.route": route, **fields, "service.instance.id": "web-1-7", "seq": 1}

    yield line("request.started", **{"http.request.method": "GET", "url.path": "/demo/home/7"})
    slowest, failed = 0.0, []
    for upstream in chance.sample(UPSTREAMS, 3):
        duration, host = 2 + chance.expovariate(1 / 15), chance.choice(HOSTS) if upstream == "catalog" else None
        bad = chance.random() < (0.5 if sick and host == HOSTS[1] else 0.01)
        duration += 300 if sick and host == HOSTS[1] and not bad else 0
        told: dict[str, Any] = {
            "upstream": upstream,
            "call": upstream,
            "outcome": "failed" if bad else "ok",
            "start_offset_ms": 1.0,
        }
        told |= {"duration_ms": round(duration, 3)} | ({"error.type": "http_response_status"} if bad else {})
        status: dict[str, Any] = {
            "http.response.status_code": 503 if bad else 200,
            "body_bytes": chance.randrange(9000),
            "conn": "reused",
        }
        status |= {"span_id": f"{chance.getrandbits(64):016x}", "exception.message": None} | (
            {"server.address": host} if host else {}
        )
        level = "warning" if bad else "info"
        yield line("attempt.finished", level, attempt=1, kind="first", sent=True, **told, **status)
        yield line("call.finished", level, attempts=1, **told)
        slowest = max(slowest, duration)
        failed += [upstream] if bad else []
    fields = {"http.request.method": "GET", "url.path": "/demo/home/7", "http.response.status_code": 200}
    yield line(
        "request.finished", "warning" if failed else "info", outcome="partial" if failed else "ok", page="HomePage",
        duration_ms=round(slowest + 1, 3), bytes_out=5123, calls=3, calls_failed=failed, attempts=3,
        complete=not failed, user_id=chance.randrange(5000), **fields,
    )  # fmt: skip


if __name__ == "__main__":
    main()
