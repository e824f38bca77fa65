"""A server that sends an answer nobody asked for after each that somebody did: whether it reaches the next caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from bench.failing.calling import Silence, call
from bench.failing.progress import say
from bench.figures import Figure
from upstreams import GET, Upstream, open_fleet

_REQUESTS = 1000
_PAUSE = 0.002  # seconds, after which the unasked answer has been read from the socket
_STRAY = -1


class Row(msgspec.Struct):
    """What the server answers: the number that it was asked for."""

    id: int


class Server:
    """Sends each answer and one more: in one piece with it, or a moment later, when the connection is idle."""

    def __init__(self) -> None:
        self.connections = 0
        self.strayed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                number = int(head.split(b" ", 2)[1].removeprefix(b"/"))
                writer.write(_answer(number))
                if number % 3:
                    await asyncio.sleep(0.001)
                writer.write(_answer(_STRAY))
                self.strayed.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def measure() -> list[Figure]:
    """Ask for one number after another, with the gateway's client and with aiohttp as it comes."""
    async with _serving() as (server, url), open_fleet({"service": Upstream(url)}, Silence()) as fleet:

        async def ask(number: int) -> int | None:
            outcome = await fleet.send("service", call(GET("/{id}", id=number), Row, within=2.0))
            return outcome.value.id if outcome.ok else None

        right, wrong = await _ask(server, ask)
        connections = server.connections
    async with _serving() as (server, url), aiohttp.ClientSession() as session:

        async def ask_plainly(number: int) -> int | None:
            async with session.get(f"{url}/{number}") as response:
                return msgspec.json.decode(await response.read(), type=Row).id

        _, mixed = await _ask(server, ask_plainly)
    return [
        Figure(f"wrong answers, of {_REQUESTS}", str(wrong), "0", ok=wrong == 0),
        Figure("right answers", f"{right}, on {connections} connections", str(_REQUESTS), ok=right == _REQUESTS),
        Figure("aiohttp as it comes: wrong answers", str(mixed)),
    ]


async def _ask(server: Server, ask: Callable[[int], Awaitable[int | None]]) -> tuple[int, int]:
    """Ask, each time when the last unasked answer is on its way; return how many answers were right and wrong."""
    right = wrong = 0
    for number in range(_REQUESTS):
        say(f"strays: request {number}")
        server.strayed.clear()
        found = await ask(number)
        right += found == number
        wrong += found not in {number, None}
        async with asyncio.timeout(1.0):
            await server.strayed.wait()
        if number % 2:  # else it waits in the socket, not read yet
            await asyncio.sleep(_PAUSE)
    return right, wrong


@asynccontextmanager
async def _serving() -> AsyncIterator[tuple[Server, str]]:
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield server, f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()


def _answer(number: int) -> bytes:
    body = msgspec.json.encode(Row(number))
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
