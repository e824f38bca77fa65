"""What the tests of asking get: servers below HTTP, kept account of like the stubs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.logs import Log
from tests.upstreams.raw import Raw, serving_raw


@pytest.fixture
async def raw(log: Log) -> AsyncIterator[Raw]:
    """A raw server. At the end, the requests it read are as many as the log says were sent."""
    async with serving_raw() as server:
        yield server
        assert log.sent() == len(server.requests)
