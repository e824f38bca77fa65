"""Upstreams and networks that fail as they are told to, on real sockets, and that keep account of the wire.

`serving_raw` is a server below HTTP: it answers each request with the very bytes a test scripts. `proxying` is a TCP
proxy between a client and such a server: a network that can be slow, or go silent without a word.
"""

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
_PATIENCE: Final = 20.0  # seconds after which what a test waits for will not come
_PIECE: Final = 512  # bytes that a slow network passes on at a time


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

    async def begin(self) -> bytes:
        """Wait for the first byte of a request; raises IncompleteReadError when the peer has left."""
        return await self.reader.readexactly(1)

    async def head(self) -> bytes:
        """Read the rest of a request's head."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def body(self, head: bytes) -> bytes:
        """Read the body that a head announces."""
        length = _LENGTH.search(head)
        return await self.reader.readexactly(int(length[1])) if length else b""


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
    """`on(path, *steps)` scripts a path; `requests` are those read, `connections` how many were made.

    `begun` counts requests whose first byte has come, whatever became of them.
    """

    def __init__(self, greeting: tuple[Step, ...] = (), address: str = "127.0.0.1") -> None:
        self.address = address
        self.port = 0
        self.scheme = "http"
        self.host = address  # or a name that leads to it
        self.greeting = greeting
        self.connections = 0
        self.begun = 0
        self.requests: list[bytes] = []
        self.peers: list[Peer] = []
        self._scripts: dict[str, list[tuple[Step, ...]]] = {}
        self._early: set[str] = set()
        self._changed = asyncio.Event()
        self._last: object = None

    def __repr__(self) -> str:
        return f"<Raw {self.url} requests={[asked.split(b' HTTP', 1)[0] for asked in self.requests]}>"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def on(self, path: str, *steps: Step) -> Raw:
        """Script a path, or `*` for every other one; several scripts are taken in turn, the last for ever."""
        self._scripts.setdefault(path, []).append(steps)
        return self

    def mend(self, path: str, *steps: Step) -> Raw:
        """Script a path from now on, whatever it did before."""
        self._scripts[path] = [steps]
        return self

    def early(self, path: str, *steps: Step) -> Raw:
        """Script a path whose requests are answered as soon as their heads are read; nobody reads their bodies."""
        self._early.add(path)
        return self.on(path, *steps)

    def push(self, text: bytes) -> None:
        """Write bytes that nobody asked for on every open connection."""
        for peer in self.peers:
            peer.writer.write(text)

    async def asked(self, count: int) -> None:
        """Wait until that many requests have been read."""
        await self._until(lambda: len(self.requests) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until either side has had enough of it."""
        self.connections += 1
        self._last = writer.get_extra_info("peername")
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self._changed.set()
        try:
            for step in self.greeting:
                await self.take(step, peer)
            while not writer.is_closing():
                await self._answer(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.peers.remove(peer)
            peer.left.set()
            writer.close()
            self._changed.set()

    async def drained(self) -> None:
        """Wait until all that was ever sent here has been read, and every connection has been closed."""
        async with asyncio.timeout(_PATIENCE):
            if self.scheme == "http":
                _, writer = await asyncio.open_connection(self.address, self.port)  # accepted after all the others
                writer.write_eof()
                await self._until(lambda: self._last == writer.get_extra_info("sockname"))
                writer.close()
            await self._until(lambda: not self.peers)

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._changed.clear()
            await self._changed.wait()

    async def _answer(self, peer: Peer) -> None:
        first = await peer.begin()
        self.begun += 1
        request = first + await peer.head()
        path = request.split(b" ")[1].decode().partition("?")[0]
        if path not in self._early:
            request += await peer.body(request)
        self.requests.append(request)
        self._changed.set()
        for step in self._script(path):
            await self.take(step, peer)

    async def take(self, step: Step, peer: Peer) -> None:
        """Do one step of a script."""
        if isinstance(step, bytes):
            peer.writer.write(step)
            await peer.writer.drain()
        else:
            await step(peer)

    def _script(self, path: str) -> tuple[Step, ...]:
        scripts = self._scripts.get(path) or self._scripts["*"]
        return scripts.pop(0) if len(scripts) > 1 else scripts[0]


@asynccontextmanager
async def serving_raw(
    *greeting: Step, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Raw]:
    """Run a raw server on a free port of this machine; it greets each connection before it reads a request."""
    raw = Raw(greeting, address)
    async with _listening(raw.serve, tls, address, port) as raw.port:
        raw.scheme = "https" if tls else "http"
        yield raw


class Proxy:
    """A network between a client and a server, in user space.

    `rate` is how many bytes a second it passes back (None: as many as come). `begun` counts the connections on which a
    client has sent something, `open` those that are there.
    """

    def __init__(self, server: int, rate: float | None = None) -> None:
        self.port = 0
        self.rate = rate
        self.begun = 0
        self.open = 0
        self._server = server
        self._forgotten: set[asyncio.StreamWriter] = set()
        self._ends: set[asyncio.StreamWriter] = set()

    def forget(self) -> None:
        """Let nothing pass any more on the connections made so far; neither side hears that the other is gone."""
        self._forgotten = set(self._ends)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection's bytes on, both ways, until either side has ended it."""
        self.open += 1
        back, forth = await asyncio.open_connection("127.0.0.1", self._server)
        self._ends |= {writer, forth}
        ways = [asyncio.ensure_future(self._forward(reader, forth)), asyncio.ensure_future(self._return(back, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            for end in (forth, writer):
                self._ends.discard(end)
                end.close()
            self.open -= 1

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = True
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                self.begun += first
                first = False
                await self._pass(data, writer)

    async def _return(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_PIECE if self.rate else 65536):
                if self.rate:
                    await asyncio.sleep(len(data) / self.rate)
                await self._pass(data, writer)

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if writer not in self._forgotten:
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def proxying(server: int, rate: float | None = None) -> AsyncIterator[Proxy]:
    """Run a proxy before a port of this machine."""
    proxy = Proxy(server, rate)
    async with _listening(proxy.serve) as proxy.port:
        yield proxy


@asynccontextmanager
async def _listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
    address: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[int]:
    """Serve connections on a port of this machine; whatever still runs at the end is ended."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except asyncio.CancelledError:
            writer.close()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(run, address, port, ssl=tls, limit=1 << 20)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


@contextmanager
def deaf_port(address: str = "127.0.0.1") -> Iterator[int]:
    """Yield a port of an address of this machine on which nobody answers, not even the kernel: its queue is full."""
    with ExitStack() as sockets:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        deaf = sockets.enter_context(socket.socket(family))
        deaf.bind((address, 0))
        deaf.listen(0)
        for _ in range(3):
            queued = sockets.enter_context(socket.socket(family))
            queued.settimeout(0)
            queued.connect_ex(deaf.getsockname())
        yield deaf.getsockname()[1]
