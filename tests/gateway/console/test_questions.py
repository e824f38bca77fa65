"""Asking the log on behalf of a page: whatever becomes of the question, nothing of it is left."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.console.questions import asked
from tests.gateway.console.ops import log_folder
from tests.inspection.shop import line, write
from tests.serving import project


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process makes its temporary files."""
    folder = tmp_path / "copies"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log so large that a question copies its end."""
    folder = tmp_path / "log"
    folder.mkdir()
    write(folder / "gateway-1.ndjson", *(line("x", number, filler="x" * 2000) for number in range(6000)))
    return folder


async def test_a_question_that_is_broken_off_leaves_no_copy_of_the_log(copies: Path, log: Path) -> None:
    with log_folder(log), project([], {}):
        asking = asyncio.create_task(asked("stats", f"--since={line('x', 5000)['timestamp']}"))
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(lambda: list(copies.glob("*/tributary-logs-*/*/*"))):
                assert not asking.done()
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking

    assert await asyncio.to_thread(lambda: list(copies.iterdir())) == []
