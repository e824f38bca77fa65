"""What becomes of good answers when more is asked than can be answered: 1, 2, 5 and 10 times the capacity.

    python bench/overload.py [--seconds 10] [--times 1 2 5 10] [--patience 1.0]

Requests come at a constant rate, whether or not earlier ones have been answered, as they do from many clients who know
nothing of each other; who has no answer within `--patience` seconds closes the connection. Good is a 200 in that time.
Capacity is what 32 clients get who each ask again when they have an answer. After each overload half the capacity is
asked for, which shows whether a server recovers. Server and load are pinned as in `compare.py`, and so are the needs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import uvloop

sys.path[0] = str(Path(__file__).parent.parent)  # a script's own folder otherwise

from bench.comparing.idle import allow_descriptors  # noqa: E402 - the path comes first
from bench.comparing.load import load  # noqa: E402
from bench.comparing.measuring import Cores, Work, run  # noqa: E402
from bench.comparing.needs import missing  # noqa: E402
from bench.comparing.servers import FLOOR, STOCK, TRIBUTARY  # noqa: E402
from bench.comparing.upstreams import Upstreams, serving  # noqa: E402
from bench.failing.progress import say  # noqa: E402
from bench.figures import Figure, percentile, table  # noqa: E402

_CONTENDERS = (TRIBUTARY, FLOOR, STOCK)
_CLIENTS = 32
_WANTED = 0.85


class Came(NamedTuple):
    """What came of a rate: requests sent, seconds of each good answer, of each refusal, and how many gave up."""

    sent: int
    good: list[float]
    refused: list[float]
    lost: int


class _Visitors:
    """All the clients: a new one connects where all that are connected wait. Live: `good`, `refused`, `lost`."""

    def __init__(self, host: str, port: int, path: str, patience: float) -> None:
        self.address = host, port
        self.request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self.patience = patience
        self.idle: list[_Client] = []
        self.waiting: deque[tuple[float, _Client]] = deque()
        self.good: list[float] = []
        self.refused: list[float] = []
        self.lost = 0

    async def send(self, rate: float, seconds: float) -> Came:
        """Send at a rate for some seconds, then wait until everybody has an answer or has given up."""
        self.good, self.refused, self.lost = [], [], 0
        sent, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            while sent < rate * passed:
                self._ask()
                sent += 1
            self._give_up()
            await asyncio.sleep(0.001)
        while self.waiting:
            self._give_up()
            await asyncio.sleep(0.01)
        return Came(sent, self.good, self.refused, self.lost)

    def leave(self) -> None:
        """Close all connections."""
        for client in self.idle:
            client.close()

    def _ask(self) -> None:
        client = self.idle.pop() if self.idle else _Client(self)
        client.ask()
        self.waiting.append((client.asked, client))

    def _give_up(self) -> None:
        latest = time.perf_counter() - self.patience
        while self.waiting and (self.waiting[0][0] < latest or self.waiting[0][1].asked != self.waiting[0][0]):
            asked, client = self.waiting.popleft()
            if client.asked == asked:
                self.lost += 1
                client.close()


class _Client(asyncio.Protocol):
    """One connection. `asked` is when its request was sent, 0 when it has none under way."""

    def __init__(self, visitors: _Visitors) -> None:
        self.asked = 0.0
        self._visitors = visitors
        self._transport: asyncio.Transport | None = None
        self._read = b""
        self._closed = False

    def ask(self) -> None:
        """Send a request, now or when the connection is there."""
        self.asked = time.perf_counter()
        if self._transport is None:
            self._connecting = asyncio.ensure_future(self._connect())
        else:
            self._transport.write(self._visitors.request)

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, *self._visitors.address)
        except OSError:
            self.connection_lost(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what was to be sent."""
        self._transport = transport  # type: ignore[assignment]
        if self._closed:
            transport.close()
        else:
            transport.write(self._visitors.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Count an answer that is there whole."""
        self._read += data
        head, end, body = self._read.partition(b"\r\n\r\n")
        if not (end and self.asked) or len(body) < int(head.lower().partition(b"content-length:")[2].split()[0]):
            return
        answers = self._visitors.good if head.startswith(b"HTTP/1.1 200") else self._visitors.refused
        answers.append(time.perf_counter() - self.asked)
        self._read, self.asked = b"", 0.0
        self._visitors.idle.append(self)

    def connection_lost(self, _: Exception | None) -> None:
        """Count a request that was under way as lost."""
        if self in self._visitors.idle:
            self._visitors.idle.remove(self)
        elif self.asked and not self._closed:
            self._visitors.lost += 1
        self.asked, self._closed = 0.0, True

    def close(self) -> None:
        """Leave."""
        self.asked, self._closed = 0.0, True
        if self._transport is not None:
            self._transport.abort()


def main() -> None:
    """Start one server after another, overload it, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="how long each rate lasts (default: 10)")
    parser.add_argument("--times", type=float, nargs="+", default=[1, 2, 5, 10], help="multiples of the capacity")
    parser.add_argument("--patience", type=float, default=1.0, help="seconds until a client gives up (default: 1)")
    options = parser.parse_args()
    if sentence := missing():
        sys.exit(sentence)
    cores = Cores.shared_out()
    os.sched_setaffinity(0, map(int, cores.load.split(",")))
    allow_descriptors()
    figures: list[Figure] = []
    with serving(cores.load) as upstreams:
        for contender in _CONTENDERS:
            figures += _overloaded(Work("overload", (contender,)), upstreams, cores, options)
    print(table(figures))


def _overloaded(work: Work, upstreams: Upstreams, cores: Cores, options: argparse.Namespace) -> Iterator[Figure]:
    """Measure one server, at one rate after another."""
    with ExitStack() as stack:
        ((contender, server),) = run(stack, work, upstreams, cores)
        url = server.url + work.page(contender)
        load(url, _CLIENTS, 2, {}, cores.load)
        capacity = load(url, _CLIENTS, options.seconds, {}, cores.load).rate
        yield Figure(f"{contender.server}: capacity", f"{capacity:.0f} answers a second")
        for times in options.times:
            say(f"{contender.server}: {times:g} x")
            over, after = uvloop.run(_asked(url, capacity, times, options))
            share = len(over.good) / options.seconds / capacity
            yield Figure(
                f"{contender.server}: {times:g} x",
                f"good {share:.0%} of capacity ({_times(over.good)}); refused {len(over.refused) / over.sent:.0%} "
                f"({_times(over.refused)}); gave up {over.lost / over.sent:.0%}; "
                f"then, asked for half of it, good {len(after.good) / after.sent:.1%}",
                *(("good 85 %", share >= _WANTED) if contender is TRIBUTARY else ()),
            )
        say("")


async def _asked(url: str, capacity: float, times: float, options: argparse.Namespace) -> tuple[Came, Came]:
    """Ask for so many times the capacity, then for half of it."""
    address, _, path = url.removeprefix("http://").partition("/")
    host, port = address.split(":")
    visitors = _Visitors(host, int(port), f"/{path}", options.patience)
    over = await visitors.send(capacity * times, options.seconds)
    after = await visitors.send(capacity / 2, options.seconds / 2)
    visitors.leave()
    return over, after


def _times(seconds: list[float]) -> str:
    return (
        f"p50 {percentile(seconds, 50) * 1000:.0f} p99 {percentile(seconds, 99) * 1000:.0f} ms" if seconds else "none"
    )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
