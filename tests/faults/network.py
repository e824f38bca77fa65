"""A network and a name service of a test's own: Linux namespaces that one thread is in, and nobody else.

The thread of the event loop can move into a network of its own, in which it may make routes and queues, and back again:
sockets stay in the network they were made in. The thread that looks names up can have its own /etc/hosts and
/etc/resolv.conf. What is not permitted here skips the test.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import pytest

_NEW_MOUNTS: Final = 0x00020000
_NEW_NETWORK: Final = 0x40000000
_THIS_NETWORK: Final = "/proc/thread-self/ns/net"


@contextmanager
def own_network(*commands: str) -> Iterator[None]:
    """Be in a network of one's own meanwhile: a loopback device, and what the commands make of it."""
    home = os.open(_THIS_NETWORK, os.O_RDONLY)
    try:
        _enter(_NEW_NETWORK)
        try:
            for command in ("ip link set lo up", *commands):
                run(command)
            yield
        finally:
            _check(_libc.setns(home, _NEW_NETWORK))
    finally:
        os.close(home)


def run(command: str) -> None:
    """Run a command in the network of this thread; one that cannot be run here skips the test."""
    words = command.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"the command {words[0]} is not there")
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    if ended.returncode:
        pytest.skip(f"this kernel does not do `{command}`: {ended.stderr.strip()}")


class Names:
    """A name service: `leads(name, *addresses)` says where a name leads from now on; other names are never answered."""

    def __init__(self, directory: Path) -> None:
        self._hosts = directory / "hosts"
        self._resolv = directory / "resolv.conf"
        self._mute: list[socket.socket] = []
        self._hosts.touch()
        self._resolv.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")

    def leads(self, name: str, *addresses: str) -> None:
        """Let a name lead to these addresses, and to no others."""
        self._hosts.write_text("".join(f"{address} {name}\n" for address in addresses))

    def move_in(self) -> None:
        """Have this thread look names up here: by a file, and by a server that takes questions and answers none."""
        _check(_libc.unshare(_NEW_MOUNTS | _NEW_NETWORK))
        for command in (
            "mount --make-rprivate /",
            f"mount --bind {self._hosts} /etc/hosts",
            f"mount --bind {self._resolv} /etc/resolv.conf",
            "ip link set lo up",
        ):
            subprocess.run(command.split(), check=True, capture_output=True)
        mute = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        mute.bind(("127.0.0.1", 53))
        self._mute.append(mute)

    def close(self) -> None:
        """Close the servers that answer none."""
        for mute in self._mute:
            mute.close()


@asynccontextmanager
async def naming(directory: Path) -> AsyncIterator[Names]:
    """Have the threads of the running loop, which look names up, do so in a name service of the test's own."""
    _permitted()
    names = Names(directory)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(4, initializer=names.move_in))
    try:
        yield names
    finally:
        await loop.shutdown_default_executor()
        names.close()


def _permitted() -> None:
    """Skip the test where namespaces cannot be made: tried in a process of its own."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "--mount", "--net", "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("namespaces, which this case needs, are for the superuser of a Linux machine")


def _enter(kind: int) -> None:
    if not hasattr(_libc, "unshare") or _libc.unshare(kind):
        pytest.skip("namespaces, which this case needs, are for the superuser of a Linux machine")


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_libc = ctypes.CDLL(None, use_errno=True)
