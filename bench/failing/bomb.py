"""A small gzip body that inflates to much: what memory and time it takes from the process that reads it."""

from __future__ import annotations

import asyncio
import sys
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import uvloop

from bench.failing.calling import Silence, call
from bench.failing.progress import say
from bench.figures import Figure
from bench.running import ROOT
from upstreams import GET, JSON, Outcome, Upstream, open_fleet

_MEBIBYTE = 1024 * 1024
_INFLATED = 200  # MiB
_TIMES = 20
_MOST_GROWTH = 8.0  # MiB
_LONGEST_HOLD = 50.0  # ms
_TICK = 0.001


class Toll(msgspec.Struct):
    """What reading cost: MiB at the peak beyond those before, ms for which nothing else ran, and how calls ended."""

    growth: float
    hold: float
    faults: list[str | None]


async def measure() -> list[Figure]:
    """Serve the body, and have a process of its own read it."""
    say("bomb: making the body")
    body = await asyncio.to_thread(_bomb)
    async with _serving(body) as url:
        say("bomb: reading it")
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.failing.bomb", url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await child.communicate()
    toll = msgspec.json.decode(output, type=Toll)
    return [
        Figure(
            "growth of the peak RSS",
            f"{toll.growth:.2f} MiB",
            f"below {_MOST_GROWTH:g} MiB",
            ok=toll.growth < _MOST_GROWTH,
        ),
        Figure(
            "longest hold of the loop",
            f"{toll.hold:.1f} ms",
            f"below {_LONGEST_HOLD:g} ms",
            ok=toll.hold < _LONGEST_HOLD,
        ),
        Figure("the body", f"{len(body) / 1024:.0f} KiB for {_INFLATED} MiB, read {_TIMES} times"),
        Figure("the calls ended in", ", ".join(sorted({str(fault) for fault in toll.faults}))),
    ]


async def read(url: str) -> Toll:
    """Read a harmless body, then the other one several times."""
    async with open_fleet({"service": Upstream(url, breaker=None, retry=None)}, Silence()) as fleet:

        async def ask(path: str) -> Outcome:
            return await fleet.send("service", call(GET(path), JSON, within=10.0))

        await ask("/harmless")
        _forget_peak()
        before = _peak()
        watching = asyncio.create_task(_longest_hold())
        await asyncio.sleep(0.1)
        outcomes = [await ask("/bomb") for _ in range(_TIMES)]
        watching.cancel()
        faults = [outcome.fault.value if outcome.fault else None for outcome in outcomes]
        return Toll(_peak() - before, await watching * 1000, faults)


async def _longest_hold() -> float:
    """Return, when cancelled, the longest time in seconds for which the loop did not come round."""
    longest = 0.0
    last = time.perf_counter()
    try:
        while True:
            await asyncio.sleep(_TICK)
            now = time.perf_counter()
            longest = max(longest, now - last - _TICK)
            last = now
    except asyncio.CancelledError:
        return longest


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    return b"".join([*(packer.compress(bytes(_MEBIBYTE)) for _ in range(_INFLATED)), packer.flush()])


@asynccontextmanager
async def _serving(bomb: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = bomb if b" /bomb " in head else zlib.compress(b"{}", wbits=zlib.MAX_WBITS | 16)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()


if __name__ == "__main__":
    print(msgspec.json.encode(uvloop.run(read(sys.argv[1]))).decode())
