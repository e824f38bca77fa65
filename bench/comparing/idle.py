"""What a connection costs that asks nothing: memory of servers with thousands of them."""

from __future__ import annotations

import asyncio
import resource
from contextlib import ExitStack, suppress

from bench.comparing import processes
from bench.comparing.measuring import Cores, Work, run
from bench.comparing.rows import Row
from bench.comparing.servers import Contender, Server
from bench.comparing.upstreams import Upstreams
from bench.failing.progress import say

_AT_ONCE = 4
_SPARE = 500  # descriptors for everything else


def allow_descriptors() -> int:
    """Let this process and those it starts have as many descriptors as they may; returns how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def measured(work: Work, upstreams: Upstreams, cores: Cores) -> list[Row]:
    """Open connections to one server after another; each has had one answer and stays."""
    connections = min(work.connections, allow_descriptors() - _SPARE)
    rows = []
    with ExitStack() as stack:
        for contender, server in run(stack, work, upstreams, cores):
            say(f"{work.name}: {contender.server}")
            rows.append(asyncio.run(_opened(work, contender, server, connections)))
        say("")
    return rows


async def _opened(work: Work, contender: Contender, server: Server, connections: int) -> Row:
    host, port = server.url.removeprefix("http://").split(":")
    asking = f"GET {work.page(contender)} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    turns = asyncio.Semaphore(_AT_ONCE)
    writers: list[asyncio.StreamWriter] = []

    async def ask() -> None:
        async with turns:
            reader, writer = await asyncio.open_connection(host, int(port))
            writers.append(writer)
            writer.write(asking)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))

    try:
        await asyncio.gather(*(ask() for _ in range(_AT_ONCE * 4)))  # what a server makes once
        pids = processes.tree(server.pid)
        before = processes.memory(pids, peak=False)
        await asyncio.gather(*(ask() for _ in range(connections)))
        grown = processes.memory(pids, peak=False) - before
        return Row(
            server=contender.server,
            work=work.name,
            connections=connections,
            size=work.size,
            rss_mb=round(processes.memory(pids, peak=True) / 1e6, 1),
            kb_per_connection=round(grown / connections / 1000, 2),
        )
    finally:
        for writer in writers:
            writer.close()
        for writer in writers:
            with suppress(ConnectionError):
                await writer.wait_closed()
