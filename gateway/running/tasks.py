"""The one place that creates a fan-out's tasks and reaps them.

Whatever ends a fan-out (its last value, the first required failure, a client that left), nothing of it runs on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, Final, TypeVar

T = TypeVar("T")

_GRACE: Final = 0.01  # what an author's code may still take when its calls have told it that time is up
_AUTHORS_TIME: Final = 0.25
_OUR_TIME: Final = 1.0  # more than an author's, whose end our own tasks may be waiting for
logger = logging.getLogger(__name__)


class Overdue(Exception):
    """A coroutine has not ended by the moment it was given."""


async def together(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines as tasks until all have ended or one has raised; cancel and reap the others before leaving."""
    create = asyncio.get_running_loop().create_task  # which asyncio.create_task would look up for each
    tasks = [create(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        await reap(tasks)
        raise


async def until(
    moment: float, coroutine: Coroutine[Any, Any, T], name: str, calls: Callable[[], Collection[asyncio.Task[Any]]]
) -> T:
    """Run an author's coroutine until it ends, or raise Overdue at a moment on the loop's clock.

    The calls that it has under way end at that moment too; it hears of them first, and may make something of it. It is
    a task of its own, so that one that resists cancellation holds up nobody. Cancelling itself is its mistake, and
    raised as such: only a cancellation from outside may look like one.
    """
    task = asyncio.create_task(coroutine, name=name)
    try:
        await asyncio.wait([task], timeout=moment - asyncio.get_running_loop().time())
        if not task.done():
            await _hear(task, calls())
        if not task.done():
            raise Overdue
        return task.result()
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise RuntimeError(f"{name} raised CancelledError by itself") from error
    finally:
        await reap([task], _AUTHORS_TIME)


async def _hear(task: asyncio.Task[Any], calls: Collection[asyncio.Task[Any]]) -> None:
    """Wait for a task's calls to end, and a little longer for what it makes of that."""
    if calls:
        await asyncio.wait(calls, timeout=_OUR_TIME)
    await asyncio.wait([task], timeout=_GRACE)


def is_cancelled() -> bool:
    """Tell whether somebody has cancelled the current task; if not, a CancelledError in it is its own doing."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def reap(tasks: Iterable[asyncio.Task[Any]], seconds: float = _OUR_TIME) -> None:
    """Cancel what still runs and wait for it to end; what resists is named in the log and left.

    To be cancelled meanwhile does not shorten the wait, or what is being reaped would run on unseen.
    """
    reaped = list(tasks)
    running = {task for task in reaped if not task.done()}
    for task in running:
        task.cancel()
    interruption = None
    end = asyncio.get_running_loop().time() + seconds
    while running and (left := end - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.wait(running, timeout=left)
        except asyncio.CancelledError as error:
            interruption = error
        running = {task for task in running if not task.done()}
    for task in running:
        logger.error("%s resists cancellation and is left to itself", task.get_name())
    for task in reaped:
        if task.done() and not task.cancelled():
            task.exception()  # looked at, for asyncio complains of those that nobody was there to be told
    if interruption is not None:
        raise interruption
