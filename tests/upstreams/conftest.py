"""What the tests of asking get: servers below HTTP, kept account of like the stubs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import hypothesis
import pytest

from tests.chaos import Raw, serving_raw
from tests.logs import Log

# A busy machine is no failure, and what a run found is told by its output.
hypothesis.settings.register_profile(
    "patient", deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@pytest.fixture
async def raw(log: Log) -> AsyncIterator[Raw]:
    """A raw server. At the end, the requests it read are as many as the log says were sent."""
    async with serving_raw() as server:
        yield server
        assert log.sent() == len(server.requests)
