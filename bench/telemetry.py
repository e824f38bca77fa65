"""What metrics and spans cost: CPU time per page of three calls, of gateways that differ in nothing else.

    python bench/telemetry.py [--rounds 15] [--requests 400]

The gateways are asked in turn, round by round, so that a noisy moment is noisy for all; printed is the median over the
rounds of each gateway's CPU time per request, threads included, and of its distance from the one with everything off.
Needs Linux, whose /proc tells of CPU time, and the extras.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from aiohttp import web

sys.path[0] = str(Path(__file__).parent.parent)  # a script's own folder otherwise

from bench.running import free_port, running, until_answering  # noqa: E402 - the path comes first

_CLIENTS = 8
_TICK = 1_000_000 / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Start the stub, a collector and the gateways, measure, print, stop them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds (default: 15)")
    parser.add_argument("--requests", type=int, default=400, help="requests to each gateway a round (default: 400)")
    options = parser.parse_args()
    asyncio.run(_measure(options.rounds, options.requests))


async def _measure(rounds: int, requests: int) -> None:
    async with AsyncExitStack() as stack:
        stub = stack.enter_context(running([sys.executable, "-m", "bench.stub"]))
        upstream = stub.stdout.readline().decode().strip() if stub.stdout else ""
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        metrics = {"GATEWAY_METRICS": "yes"}
        variants = {
            "off": {},
            "metrics": metrics,
            "metrics, as with several workers": metrics | {"PROMETHEUS_MULTIPROC_DIR": folder},
            "spans": {"GATEWAY_OTLP_ENDPOINT": await _collector(stack)},
        }
        session = await stack.enter_async_context(aiohttp.ClientSession())
        gateways: dict[str, tuple[int, str]] = {}
        for name, wanted in variants.items():
            port = free_port()
            environment = {"DJANGO_SETTINGS_MODULE": "bench.settings", "BENCH_UPSTREAM": upstream, **wanted}
            serve = [sys.executable, "manage.py", "serve", "--port", str(port)]
            process = stack.enter_context(running(serve, **environment))
            gateways[name] = process.pid, f"http://127.0.0.1:{port}/three/0"
            await until_answering(session, gateways[name][1])
        taken = await _rounds(session, gateways, rounds, requests)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{python}, {rounds} rounds of {requests} requests, {_CLIENTS} at a time\n")
    print(f"{'CPU time per request, us':36}{'median':>9}{'more than off':>16}")
    for name, times in taken.items():
        more = statistics.median(time - off for time, off in zip(times, taken["off"], strict=True))
        print(f"{name:36}{statistics.median(times):9.0f}{more:16.0f}")


async def _rounds(
    session: aiohttp.ClientSession, gateways: dict[str, tuple[int, str]], rounds: int, requests: int
) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in gateways}
    for round_ in range(rounds + 1):
        for name, (pid, url) in gateways.items():
            before = _cpu(pid)
            await asyncio.gather(*(_ask(session, url, requests // _CLIENTS) for _ in range(_CLIENTS)))
            if round_:  # the first warms up
                taken[name].append((_cpu(pid) - before) / requests)
    return taken


async def _ask(session: aiohttp.ClientSession, url: str, requests: int) -> None:
    for _ in range(requests):
        async with session.get(url) as response:
            await response.read()
            response.raise_for_status()


async def _collector(stack: AsyncExitStack) -> str:
    """Start what takes spans and keeps none; returns its base URL."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


def _cpu(pid: int) -> float:
    """Return the CPU time of a process and its threads, in microseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


if __name__ == "__main__":
    main()
