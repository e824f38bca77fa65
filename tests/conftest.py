"""What every test gets: Django set up, a log that is looked through, and servers that are kept account of."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

os.environ["DJANGO_SETTINGS_MODULE"] = "settings.test"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs the tests in the background has it ignored, as would every program they start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

import aiohttp
import pytest
import structlog
from blockbuster import BlockBuster, blockbuster_ctx

import gateway.asgi  # noqa: F401 - sets up Django, as a server would
from gateway.log.render import identify
from tests.logs import CANARY, Log, logged
from tests.stub import Stub, serving_stub

StartStub = Callable[[str], Awaitable[Stub]]


@pytest.fixture(autouse=True)
def no_blocking_on_the_loop() -> Iterator[BlockBuster]:
    """A call that would block the event loop fails the test that makes it."""
    with blockbuster_ctx() as blockbuster:
        for function in blockbuster.functions.values():
            function.can_block_in("tests/logs.py", {"lines", "logged"})  # a test may wait for the log's thread
            function.can_block_in("structlog/tracebacks.py", {"extract"})  # abspath of what is absolute already
            function.can_block_in("coverage/collector.py", {"lock_data"})  # it measures two threads at once
        yield blockbuster


@pytest.fixture(autouse=True)
def log() -> Iterator[Log]:
    """Everything logged during a test. Whatever a test is about, no line may hold the canary."""
    structlog.contextvars.clear_contextvars()  # a view that was called without its middleware's end leaves its ids
    identify({})
    with logged() as found:
        yield found
        assert not [line for line in found.lines() if CANARY.encode() in line]


@pytest.fixture
async def stub(log: Log) -> AsyncIterator[StartStub]:
    """Start stub servers by name. At the end, what they saw is as much as the log says was sent."""
    async with AsyncExitStack() as stack:
        started: list[Stub] = []

        async def start(name: str) -> Stub:
            started.append(await stack.enter_async_context(serving_stub(name)))
            return started[-1]

        yield start
        assert log.sent() == sum(len(server.received) for server in started)


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client that keeps no cookies and follows no redirects."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        session._retry_connection = False
        yield session
