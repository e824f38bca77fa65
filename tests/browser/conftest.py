"""A browser is driven by calls that wait: what is right on the gateway's loop is not asked of the test's."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_blocking_on_the_loop() -> None:
    """Let a test wait for its browser, whose driver has a loop of its own in the test's thread."""
