"""A server that counts on the wire: a request is one as soon as its first byte arrives, whoever leaves after that."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RESET: Final = struct.pack("ii", 1, 0)
_PATIENCE: Final = 20.0  # seconds after which what a test waits for will not come


class Wire(asyncio.Protocol):
    """One connection, and the request that is read from it or waits for its answer."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self.method = ""
        self.path = ""
        self.query = ""
        self.left = asyncio.get_running_loop().create_future()
        self._transport: Any = None
        self._unread = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.tap.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.tap.open.discard(self)
        self.left.set_result(None)

    def data_received(self, data: bytes) -> None:
        if not self._unread:
            self.tap.begun += 1
        self._unread += data
        head, end, body = bytes(self._unread).partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and len(body) >= (int(length[1]) if length else 0):
            self._unread.clear()
            self.method, target, _ = head.decode("latin-1").split(" ", 2)
            self.path, _, self.query = target.partition("?")
            self.tap.paths[self.path] += 1
            self.tap.script(self.path)(self)

    def write(self, data: bytes) -> None:
        """Write bytes, unless there is nobody left to read them."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close in good order."""
        self._transport.close()

    def reset(self) -> None:
        """Close with a reset."""
        if not self._transport.is_closing():
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()


Script = Callable[[Wire], None]


def written(body: Any, status: int = 200) -> bytes:
    """Write a whole answer: JSON of `body`, or the bytes it is."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    head = f"HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def answer(body: Any, status: int = 200) -> Script:
    """Answer at once."""
    text = written(body, status)
    return lambda wire: wire.write(text)


class Held:
    """Holds requests until the test lets them go; `arrive` waits for the next one and returns its wire."""

    def __init__(self, then: Script) -> None:
        self._then = then
        self._arrived: asyncio.Queue[Wire] = asyncio.Queue()

    def __call__(self, wire: Wire) -> None:
        self._arrived.put_nowait(wire)

    async def arrive(self) -> Wire:
        """Wait for the next request."""
        async with asyncio.timeout(_PATIENCE):
            return await self._arrived.get()

    def release(self, wire: Wire) -> None:
        """Answer a request that was held."""
        self._then(wire)


class Tap:
    """`begun` counts the requests whose first byte arrived, `paths` those read whole, `open` holds the connections."""

    def __init__(self) -> None:
        self.url = ""
        self.begun = 0
        self.paths: Counter[str] = Counter()
        self.open: set[Wire] = set()
        self._scripts: dict[str, Script] = {}

    def __repr__(self) -> str:
        return f"<Tap {self.url} begun={self.begun} open={len(self.open)}>"

    def on(self, path: str, script: Script) -> Tap:
        """Script a path; `*` is every other one."""
        self._scripts[path] = script
        return self

    def script(self, path: str) -> Script:
        """Return what is to be done for a request to a path."""
        return self._scripts.get(path) or self._scripts["*"]

    async def drained(self) -> None:
        """Wait until every connection made so far has been accepted, read and closed; their clients have left."""
        async with asyncio.timeout(_PATIENCE):
            host, port = self.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))  # accepted after all the others
            writer.write_eof()
            await reader.read()
            writer.close()
            while self.open:
                await asyncio.wait([wire.left for wire in self.open])


@asynccontextmanager
async def tapping() -> AsyncIterator[Tap]:
    """Run a tap on a free port of this machine."""
    tap = Tap()
    server = await asyncio.get_running_loop().create_server(lambda: Wire(tap), "127.0.0.1", 0, backlog=1024)
    tap.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield tap
    finally:
        server.close()
        for wire in list(tap.open):
            wire.close()
        if tap.open:
            await asyncio.wait([wire.left for wire in tap.open])


async def until(condition: Callable[[], Any]) -> None:
    """Let the loop turn until something is so that nobody tells of."""
    async with asyncio.timeout(_PATIENCE):
        while not condition():  # noqa: ASYNC110 - it is looked at from outside, and sets no event
            await asyncio.sleep(0)


async def ended(before: set[asyncio.Task[Any]]) -> None:
    """Wait until every task has ended that was not there before."""
    while tasks := asyncio.all_tasks() - before - {asyncio.current_task()}:
        done, _ = await asyncio.wait(tasks, timeout=_PATIENCE)
        assert done
