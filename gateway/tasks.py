"""The one place that creates a fan-out's tasks and reaps them.

Whatever ends a fan-out (its last value, the first required failure, a client that left), nothing of it runs on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any, Final

_REAPING_TIME: Final = 0.25
logger = logging.getLogger(__name__)


async def together(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines as tasks until all have ended or one has raised; cancel and reap the others before leaving."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        await reap(tasks)


async def reap(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel what still runs and wait for it to end; what resists is named in the log and left."""
    running = [task for task in tasks if not task.done()]
    if not running:
        return
    for task in running:
        task.cancel()
    _, resisting = await asyncio.wait(running, timeout=_REAPING_TIME)
    for task in resisting:
        logger.error("a task resists cancellation: %s", task)
