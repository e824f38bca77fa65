"""What several people watch is asked once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.console.recent import recent
from tests.gateway.console.ops import console
from tests.inspection.shop import request, write


async def test_who_asks_the_same_at_the_same_time_or_soon_after_shares_the_answer(tmp_path: Path) -> None:
    await asyncio.to_thread(write, tmp_path / "gateway-1.ndjson", request())
    with console(tmp_path):
        first, second = await asyncio.gather(recent("stats", "--by=minute"), recent("stats", "--by=minute"))
        third = await recent("stats", "--by=minute")
        other = await recent("stats", "--by=hour")
    assert first is second is third
    assert first.answer["total"]["count"] == 1
    assert other.answer["by"] == "hour"


async def test_who_leaves_takes_the_answer_from_nobody(tmp_path: Path) -> None:
    await asyncio.to_thread(write, tmp_path / "gateway-1.ndjson", request())
    with console(tmp_path):
        leaving = asyncio.create_task(recent("stats"))
        staying = asyncio.create_task(recent("stats"))
        await asyncio.sleep(0)
        leaving.cancel()
        found = await staying
    assert leaving.cancelled()
    assert found.answer["total"]["count"] == 1


async def test_another_log_has_other_answers(tmp_path: Path) -> None:
    for name in ("one", "two"):
        await asyncio.to_thread((tmp_path / name).mkdir)
    await asyncio.to_thread(write, tmp_path / "one" / "gateway-1.ndjson", request())
    with console(tmp_path / "one"):
        assert (await recent("stats")).answer is not None
    with console(tmp_path / "two"):
        assert (await recent("stats")).answer is None
