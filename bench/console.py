"""What watching costs: pages of a loaded gateway with nobody at the console's live tail, and with twenty.

    python bench/console.py [--rounds 20] [--seconds 3] [--rate 60] [--tails 20]

The demo's home page is asked at a constant rate, whether or not answers come in time; the tails are read in a process
of their own. With and without take turns in short rounds, so that a noisy moment is noisy for both; printed are the
percentiles of all pages, and the median of the rounds' ratios. Needs Linux, whose /proc tells of CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import aiohttp

sys.path[0] = str(Path(__file__).parent.parent)  # a script's own folder otherwise

from bench.figures import Figure, percentile, table  # noqa: E402 - the path comes first
from bench.running import free_port, running, until_answering  # noqa: E402

_SERVICES = ("users", "reviews", "recommendations", "orders", "catalog")
_TOKEN = "bench" * 8
_TICK = 1_000_000 / os.sysconf("SC_CLK_TCK")
_MOST_CHANGE = 0.15


class Round(NamedTuple):
    """What one round came to: milliseconds of every page that was answered, CPU time in microseconds a page, errors."""

    times: list[float]
    cpu: float
    errors: int


def main() -> None:
    """Start the services and the gateway, measure, print, stop them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="rounds with and without (default: 20)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each takes (default: 3)")
    parser.add_argument("--rate", type=int, default=60, help="pages a second (default: 60)")
    parser.add_argument("--tails", type=int, default=20, help="how many watch (default: 20)")
    parser.add_argument("--watch", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        asyncio.run(_watch(options.watch, options.tails))
        return
    with ExitStack() as stack:
        environment = {"DJANGO_SETTINGS_MODULE": "settings.development", "OPS_TOKEN": _TOKEN}
        for name in _SERVICES:
            service = stack.enter_context(running([sys.executable, "-m", "demo.services", name]))
            said = service.stdout.readline().decode().split() if service.stdout else []
            environment[f"{name.upper()}_URL"] = said[-1]
        environment["LOG_DIR"] = stack.enter_context(tempfile.TemporaryDirectory())
        port = free_port()
        gateway = stack.enter_context(
            running([sys.executable, "manage.py", "serve", "--port", str(port)], **environment)
        )
        asyncio.run(_measure(f"http://127.0.0.1:{port}", gateway.pid, options))


async def _measure(base: str, pid: int, options: argparse.Namespace) -> None:
    without: list[Round] = []
    watched: list[Round] = []
    watch = [sys.executable, __file__, "--watch", base, "--tails", str(options.tails)]
    async with aiohttp.ClientSession() as session:
        await until_answering(session, f"{base}/demo/home/1")
        watching = await asyncio.create_subprocess_exec(*watch, stdin=PIPE, stdout=PIPE)
        for number in range(options.rounds + 1):
            for tails in (0, options.tails) if number % 2 else (options.tails, 0):
                await _turn(watching, tails)
                found = await _round(session, base, pid, options)
                if number:  # the first warms up
                    (watched if tails else without).append(found)
        watching.terminate()
        await watching.wait()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{python}, {options.rounds} rounds of {options.seconds:g} s, {options.rate} pages a second\n")
    print(table(_figures(without, watched, options.tails)))


async def _turn(watching: asyncio.subprocess.Process, tails: int) -> None:
    """Have so many tails read, and wait until it is so."""
    if watching.stdin is None or watching.stdout is None:
        raise RuntimeError("it was started with pipes")
    watching.stdin.write(b"%d\n" % tails)
    if await watching.stdout.readline() != b"%d\n" % tails:
        sys.exit("the tails could not be opened")


async def _round(session: aiohttp.ClientSession, base: str, pid: int, options: argparse.Namespace) -> Round:
    """Ask for pages at a constant rate; a page's time counts from when it was due."""
    count = int(options.rate * options.seconds)
    started, before = time.perf_counter(), _cpu(pid)
    asking = []
    for number in range(count):
        due = started + number / options.rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        asking.append(asyncio.create_task(_ask(session, f"{base}/demo/home/{number % 90 + 1}", due)))
    times = await asyncio.gather(*asking)
    good = [took for took in times if took is not None] or [0.0]
    return Round(good, (_cpu(pid) - before) / count, times.count(None))


async def _ask(session: aiohttp.ClientSession, url: str, due: float) -> float | None:
    async with session.get(url) as response:
        await response.read()
        return (time.perf_counter() - due) * 1000 if response.ok else None


async def _watch(base: str, most: int) -> None:
    """Come in, and read as many tails as standard input says, until there is no more to do."""
    timeout = aiohttp.ClientTimeout()
    connector = aiohttp.TCPConnector(limit=most + 1)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), connector=connector) as session:
        async with session.get(f"{base}/ops/door", params={"token": _TOKEN}, allow_redirects=False) as door:
            door.raise_for_status()
        reading: list[asyncio.Task[None]] = []
        while wanted := await asyncio.to_thread(sys.stdin.readline):
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
            opened = [await session.get(f"{base}/ops/tail", timeout=timeout) for _ in range(int(wanted))]
            for tail in opened:
                await tail.content.readuntil(b"event: latest")
            reading = [asyncio.create_task(_drain(tail)) for tail in opened]
            print(int(wanted), flush=True)


async def _drain(tail: aiohttp.ClientResponse) -> None:
    async with tail:
        async for _ in tail.content.iter_any():
            pass


def _figures(without: list[Round], watched: list[Round], tails: int) -> list[Figure]:
    figures = []
    for percent in (50, 99):
        alone, beside = ([percentile(one.times, percent) for one in rounds] for rounds in (without, watched))
        ratio = statistics.median(two / one for one, two in zip(alone, beside, strict=True))
        wanted = (f"<= {1 + _MOST_CHANGE:.2f}", ratio <= 1 + _MOST_CHANGE) if percent == 99 else ("", None)
        figures += [
            Figure(f"p{percent}, ms, nobody watches", _all(without, percent)),
            Figure(f"p{percent}, ms, {tails} watch", _all(watched, percent)),
            Figure(f"p{percent}, median ratio of rounds", f"{ratio:.2f}", *wanted),
        ]
    cpu = [statistics.median(one.cpu for one in rounds) for rounds in (without, watched)]
    errors = sum(one.errors for one in (*without, *watched))
    return [
        *figures,
        Figure("CPU a page, us, nobody watches", f"{cpu[0]:.0f}"),
        Figure(f"CPU a page, us, {tails} watch", f"{cpu[1]:.0f}"),
        Figure("pages without an answer", str(errors), "0", errors == 0),
    ]


def _all(rounds: list[Round], percent: int) -> str:
    """Return a percentile of the pages of all rounds."""
    return f"{percentile(chain.from_iterable(one.times for one in rounds), percent):.1f}"


def _cpu(pid: int) -> float:
    """Return the CPU time of a process and its threads, in microseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


if __name__ == "__main__":
    main()
