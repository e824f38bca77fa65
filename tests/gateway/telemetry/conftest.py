"""What the tests of telemetry get beside what every test gets."""

from __future__ import annotations

import pytest
from blockbuster import BlockBuster


@pytest.fixture(autouse=True)
def starting_programs_may_block(no_blocking_on_the_loop: BlockBuster) -> None:
    """A test may write a project's files and start a process: nobody else is on its loop."""
    for function in no_blocking_on_the_loop.functions.values():
        function.can_block_in("tests/program.py", {"write_project", "program"})
