"""Measuring: the servers of a work side by side, asked in turn, so that a noisy moment is noisy for all."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.comparing import answers, bodies, processes
from bench.comparing.load import Load, load
from bench.comparing.rows import Row
from bench.comparing.servers import FLOOR, UPSTREAM, Contender, Server, started
from bench.comparing.upstreams import Upstreams
from bench.failing.progress import say
from bench.running import until_answering

_LONGEST_QUIET = 10.0


@dataclass(frozen=True, slots=True)
class Work:
    """What servers are asked: pages of so many calls, bodies of a size, upstreams that take `upstream_ms`."""

    name: str
    contenders: tuple[Contender, ...]
    size: str = "5k"
    width: int = 3
    upstream_ms: int = 0
    connections: int = 8
    rounds: int = 3
    seconds: int = 2

    def page(self, contender: Contender) -> str:
        """Return the path that a contender is asked for."""
        folder = f"{self.size}.{self.upstream_ms}ms" if self.upstream_ms else self.size
        return contender.page.format(size=folder, width=self.width)


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores are whose, as taskset takes them. Of two, two workers have both, and share one with the load."""

    one: str
    two: str
    load: str

    @classmethod
    def shared_out(cls) -> Cores:
        """Share out the cores that there are."""
        there = [str(core) for core in sorted(os.sched_getaffinity(0))]
        return cls(one=there[0], two=",".join(there[:2]), load=",".join(there[2:] or there[1:]))


@dataclass(frozen=True, slots=True)
class _Round:
    """What a server came to in a round: CPU time in microseconds, peak memory and log in bytes, requests upstream.

    `busiest` is the CPU time of the one of its processes that had the most.
    """

    load: Load
    cpu: float
    busiest: float
    memory: float
    asked: int
    logged: int | None

    @property
    def cpu_us(self) -> float:
        return self.cpu / self.load.answered


def measured(work: Work, upstreams: Upstreams, cores: Cores) -> list[Row]:
    """Start the servers of a work, see that they answer the same, and measure them. Raises Differs if they do not."""
    with ExitStack() as stack:
        servers = run(stack, work, upstreams, cores)
        rounds: dict[str, list[_Round]] = {contender.server: [] for contender in work.contenders}
        for number in range(work.rounds + 1):
            for contender, server in servers:
                say(f"{work.name}: round {number} of {work.rounds}, {contender.server}")
                one = _round(work, contender, server, upstreams, cores, work.seconds if number else 1)
                if number:  # the first warms up
                    rounds[contender.server].append(one)
        say("")
    return [_row(work, contender, rounds) for contender in work.contenders]


def run(stack: ExitStack, work: Work, upstreams: Upstreams, cores: Cores) -> list[tuple[Contender, Server]]:
    """Start the servers of a work for as long as the stack is open; each has given the right answer once."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    folder.chmod(0o755)
    servers = []
    for number, contender in enumerate(work.contenders):
        mine = cores.one if contender.workers == 1 else cores.two
        server = stack.enter_context(started(contender, mine, folder / str(number), upstreams.urls))
        servers.append((contender, server))
    for contender, server in servers:
        say(f"{work.name}: starting {contender.server}")
        raw = asyncio.run(_answer(server.url + work.page(contender), contender.headers))
        try:
            _check(work, contender, raw, upstreams.files)
        except answers.Differs as error:
            sys.exit(f"{contender.server} does not answer {work.page(contender)} as it has to: {error}")
    return servers


async def _answer(url: str, headers: Mapping[str, str]) -> bytes:
    async with aiohttp.ClientSession(headers=headers) as session:
        await until_answering(session, url)
        async with session.get(url) as response:
            return await response.read()


def _check(work: Work, contender: Contender, raw: bytes, files: Path) -> None:
    data: dict[str, dict[str, Any]] = {
        "merged": bodies.merged(files, work.size),
        "streamed": bodies.merged(files, work.size),
        "projected": bodies.projected(files, work.size),
        "wide": bodies.wide(files, work.size, work.width),
    }
    if contender.shape in data:
        answers.check(raw, data[contender.shape], streamed=contender.shape == "streamed")


def _round(
    work: Work, contender: Contender, server: Server, upstreams: Upstreams, cores: Cores, seconds: int
) -> _Round:
    pids = processes.tree(server.pid) if server.pid else []
    asked, before, logged = upstreams.count(), processes.cpu(pids), _logged(server)
    came = load(server.url + work.page(contender), work.connections, seconds, contender.headers, cores.load)
    used = [now - then for now, then in zip(processes.cpu(pids), before, strict=True)]
    _quiet(pids)
    wrote = None if logged is None else (_logged(server) or 0) - logged
    memory = processes.memory(pids, peak=True)
    return _Round(came, sum(used), max(used, default=0.0), memory, upstreams.count() - asked - 1, wrote)


def _logged(server: Server) -> int | None:
    """Return how many bytes of log a server has written; None of one that writes none to files."""
    return sum(file.stat().st_size for file in server.logs.glob("*.ndjson")) if server.logs else None


def _quiet(pids: list[int]) -> None:
    """Wait until a server is through with what wrk no longer waits for, or the next one would share its core."""
    until = time.monotonic() + _LONGEST_QUIET
    before = -1.0
    while (now := sum(processes.cpu(pids))) > before and time.monotonic() < until:
        before = now
        time.sleep(0.05)


def _row(work: Work, contender: Contender, every: Mapping[str, list[_Round]]) -> Row:
    """Return what the rounds of a server came to; costs only if there was a good answer in each of them."""
    rounds = every[contender.server]
    row = Row(
        server=contender.server,
        work=work.name,
        rps=_median(one.load.rate for one in rounds),
        p50_ms=_median(one.load.p50 / 1000 for one in rounds),
        p99_ms=_median(one.load.p99 / 1000 for one in rounds),
        seconds=work.seconds,
        connections=work.connections,
        workers=contender.workers,
        width=work.width,
        size=work.size,
        upstream_ms=work.upstream_ms,
        refused=sum(one.load.refused for one in rounds),
        lost=sum(one.load.lost for one in rounds),
    )
    if contender.start is not None:
        row.core = _median(one.cpu / one.load.duration for one in rounds)
        row.rss_mb = round(max(one.memory for one in rounds) / 1e6, 1)
        if _answered(rounds):
            _add_costs(row, every)
        if alone := every.get(UPSTREAM.server):
            row.over_p50_ms = _median(a.load.p50 / 1000 - b.load.p50 / 1000 for a, b in zip(rounds, alone, strict=True))
            row.over_p99_ms = _median(a.load.p99 / 1000 - b.load.p99 / 1000 for a, b in zip(rounds, alone, strict=True))
    return row


def _add_costs(row: Row, every: Mapping[str, list[_Round]]) -> None:
    """Say what an answer costs, and how that is to the others of the same work."""
    rounds = every[row.server]
    row.rounds = [round(one.cpu_us, 1) for one in rounds]
    row.cpu_us, row.spread = _median(row.rounds), (min(row.rounds), max(row.rounds))
    row.upstream_requests = _median(one.asked / one.load.answered for one in rounds)
    if row.workers > 1:
        row.busiest = _median(one.busiest / one.cpu for one in rounds)
    if all(one.logged is not None for one in rounds):
        row.log_bytes = _median((one.logged or 0) / one.load.answered for one in rounds)
    row.ratios = {
        name: _median(mine.cpu_us / other.cpu_us for mine, other in zip(rounds, theirs, strict=True))
        for name, theirs in every.items()
        if name not in {row.server, UPSTREAM.server} and _answered(theirs)
    }
    row.ratio_to_floor = 1.0 if row.server == FLOOR.server else row.ratios.get(FLOOR.server)


def _answered(rounds: Iterable[_Round]) -> bool:
    """Tell whether there was a good answer, and CPU time to be seen, in each of the rounds."""
    return all(one.load.answered and one.cpu for one in rounds)


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 4)
