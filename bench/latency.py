"""What a page adds to its upstreams, for one client: measured beside the upstream itself, in the same run.

    python bench/latency.py [--requests 300] [--ms 20]

Prints p50 and p99 in milliseconds of the upstream asked directly and of pages over it, and how much each page takes
beyond the waits that cannot be avoided: one upstream's for calls side by side, three for a chain of three.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
import time
from pathlib import Path

import aiohttp

sys.path[0] = str(Path(__file__).parent.parent)  # a script's own folder otherwise

from bench.figures import percentile  # noqa: E402 - the path comes first
from bench.running import free_port, running, until_answering  # noqa: E402

WARM_UP = 30


def main() -> None:
    """Start the stub and the gateway, measure, print, stop both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300, help="requests of each kind (default: 300)")
    parser.add_argument("--ms", type=int, default=20, help="how long an upstream takes (default: 20)")
    options = parser.parse_args()
    with running([sys.executable, "-m", "bench.stub"]) as stub:
        upstream = stub.stdout.readline().decode().strip() if stub.stdout else ""
        port = free_port()
        serve = [sys.executable, "manage.py", "serve", "--port", str(port)]
        with running(serve, DJANGO_SETTINGS_MODULE="bench.settings", BENCH_UPSTREAM=upstream):
            asyncio.run(_measure(upstream, f"http://127.0.0.1:{port}", options.requests, options.ms))


async def _measure(upstream: str, gateway: str, requests: int, ms: int) -> None:
    asked = {
        "the upstream itself": (f"{upstream}/item/1?ms={ms}", 1),
        "three calls side by side": (f"{gateway}/three/{ms}", 1),
        "three calls in a chain": (f"{gateway}/chain/{ms}", 3),
        "a list and a join in 3 chunks": (f"{gateway}/join/{ms}", 2),
    }
    took: dict[str, list[float]] = {name: [] for name in asked}
    async with aiohttp.ClientSession() as session:
        await until_answering(session, f"{gateway}/three/0")
        for round_ in range(requests + WARM_UP):  # in turn, so that a noisy moment is noisy for all
            for name, (url, _) in asked.items():
                started = time.perf_counter()
                async with session.get(url) as response:
                    await response.read()
                    response.raise_for_status()
                if round_ >= WARM_UP:
                    took[name].append((time.perf_counter() - started) * 1000)
    direct = percentile(took["the upstream itself"], 50)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{python}, {requests} requests each, {ms} ms upstreams\n")
    print(f"{'':32}{'p50':>9}{'p99':>9}{'beyond the waits, p50':>26}")
    for name, (_, waits) in asked.items():
        beyond = percentile(took[name], 50) - waits * direct
        print(f"{name:32}{percentile(took[name], 50):9.2f}{percentile(took[name], 99):9.2f}{beyond:26.2f}")


if __name__ == "__main__":
    main()
