"""A server below HTTP: it answers each request with the very bytes a test scripts, and keeps account of the wire."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Final

#: What to do for a request: bytes to write, or something to do with the peer.
Step = bytes | Callable[["Peer"], Awaitable[None]]
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def answer(body: bytes = b"{}", status: str = "200 OK", *fields: str) -> bytes:
    """Write one whole answer; without a Content-Type among `fields` it is JSON."""
    if not any(field.lower().startswith("content-type:") for field in fields):
        fields = (*fields, "Content-Type: application/json")
    return head(status, *fields, f"Content-Length: {len(body)}") + body


def head(status: str = "200 OK", *fields: str) -> bytes:
    """Write a status line and header fields, with the empty line that ends them."""
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("utf-8", "surrogateescape")


def chunked(*chunks: bytes) -> bytes:
    """Write a body in chunks, without the last chunk that would end it."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


class Peer:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.left = asyncio.Event()

    async def request(self) -> bytes:
        """Read one request, head and body; raises IncompleteReadError when the peer has left."""
        text = await self.reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(text)
        return text + (await self.reader.readexactly(int(length[1])) if length else b"")


async def fin(peer: Peer) -> None:
    """Close the connection in good order."""
    peer.writer.close()


async def rst(peer: Peer) -> None:
    """Reset the connection."""
    raw: socket.socket = peer.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.writer.transport.abort()


async def silence(peer: Peer) -> None:
    """Do nothing more, until the peer leaves."""
    while await peer.reader.read(1024):
        pass
    peer.left.set()


def endlessly(chunk: bytes, pause: float = 0.0) -> Callable[[Peer], Awaitable[None]]:
    """Write a chunk again and again, seconds apart, until the peer leaves."""

    async def write(peer: Peer) -> None:
        leaving = asyncio.ensure_future(silence(peer))
        try:
            while not leaving.done():
                peer.writer.write(chunk)
                await peer.writer.drain()
                await asyncio.sleep(pause)
        finally:
            leaving.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await leaving

    return write


class Raw:
    """`on(path, *steps)` scripts a path; `requests` are those read, `connections` how many were made."""

    def __init__(self, greeting: tuple[Step, ...] = ()) -> None:
        self.port = 0
        self.scheme = "http"
        self.greeting = greeting
        self.connections = 0
        self.requests: list[bytes] = []
        self.peers: list[Peer] = []
        self._scripts: dict[str, list[tuple[Step, ...]]] = {}
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Raw {self.url} requests={[asked.split(b' HTTP', 1)[0] for asked in self.requests]}>"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def on(self, path: str, *steps: Step) -> Raw:
        """Script a path, or `*` for every other one; several scripts are taken in turn, the last for ever."""
        self._scripts.setdefault(path, []).append(steps)
        return self

    def push(self, text: bytes) -> None:
        """Write bytes that nobody asked for on every open connection."""
        for peer in self.peers:
            peer.writer.write(text)

    async def asked(self, count: int) -> None:
        """Wait until that many requests have been read."""
        while len(self.requests) < count:
            self._changed.clear()
            await self._changed.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until either side has had enough of it."""
        self.connections += 1
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            for step in self.greeting:
                await self._take(step, peer)
            while not writer.is_closing():
                request = await peer.request()
                self.requests.append(request)
                self._changed.set()
                for step in self._script(request.split(b" ")[1].decode()):
                    await self._take(step, peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.peers.remove(peer)
            peer.left.set()
            writer.close()

    async def _take(self, step: Step, peer: Peer) -> None:
        if isinstance(step, bytes):
            peer.writer.write(step)
            await peer.writer.drain()
        else:
            await step(peer)

    def _script(self, target: str) -> tuple[Step, ...]:
        scripts = self._scripts.get(target.partition("?")[0]) or self._scripts["*"]
        return scripts.pop(0) if len(scripts) > 1 else scripts[0]


@asynccontextmanager
async def serving_raw(*greeting: Step, tls: ssl.SSLContext | None = None) -> AsyncIterator[Raw]:
    """Run a raw server on a free port of this machine; it greets each connection before it reads a request."""
    raw = Raw(greeting)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await raw.serve(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls, limit=1 << 20)
    raw.port = server.sockets[0].getsockname()[1]
    raw.scheme = "https" if tls else "http"
    try:
        yield raw
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


@contextmanager
def deaf_port() -> Iterator[int]:
    """Yield a port of this machine on which nobody answers, not even the kernel: its queue is full."""
    with ExitStack() as sockets:
        deaf = sockets.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(3):
            queued = sockets.enter_context(socket.socket())
            queued.settimeout(0)
            queued.connect_ex(deaf.getsockname())
        yield deaf.getsockname()[1]


def refused_port() -> int:
    """Return a port of this machine on which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port
