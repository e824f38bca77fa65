"""A worker's life: check, open the fleet, serve, close. A worker that cannot start says why and does not start."""

from __future__ import annotations

import asyncio
import gc
import os
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from gateway import __version__
from gateway.conf import conf
from gateway.log import events
from gateway.log.setup import writer
from gateway.serving.admission import Admission
from gateway.serving.fleets import opened_fleet
from gateway.serving.handler import Receive, Send
from gateway.serving.holds import followed
from gateway.telemetry.opening import opened_telemetry

#: So many objects more than before, and the young ones are looked through; Python's own number is 700.
_YOUNG: Final = 10_000
#: A piece of memory above this size goes back to the system when it is freed; so does more than twice as much at the
#: heap's end.
_KEPT: Final = 16 * 1024 * 1024  # bytes


@asynccontextmanager
async def worker() -> AsyncIterator[dict[str, Any]]:
    """Yield the state that every request of this worker finds in its scope. Raises ImproperlyConfigured."""
    await asyncio.to_thread(refuse_faults)  # it reads the pages' sources
    # The fleet closes first: the last attempts of writes that outlive their page are counted and exported too.
    async with opened_telemetry() as telemetry, opened_fleet() as fleet:
        events.gateway_started(version=__version__, upstreams=list(conf().upstreams), pid=os.getpid())
        async with followed(conf().control_dir, fleet):
            admission = Admission(conf().admission_wait)
            _keep_memory()
            with _spared_collector():
                yield {"fleet": fleet, "admission": admission, **telemetry}
            admission.close()
    events.gateway_stopped(pid=os.getpid())


@contextmanager
def _spared_collector() -> Iterator[None]:
    """Have the garbage collector leave alone what lives as long as the worker, and come less often for the rest.

    Requests leave no circles behind, and its walks over modules and settings cost a fifth of all their time.
    """
    former = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *former[1:])
    try:
        yield
    finally:
        gc.set_threshold(*former)
        gc.unfreeze()


def _keep_memory() -> None:
    """Have glibc keep the memory of large bodies from one answer to the next; it learns how much from what is freed.

    To give it back and take it again, a page at a time, costs 6 % of an answer of 270 KB.
    """
    bytes(_KEPT)


async def lifespan(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Speak the ASGI lifespan protocol around `worker`."""
    await receive()
    started = False
    try:
        if "state" not in scope:
            raise ImproperlyConfigured("this server hands no lifespan state to requests; uvicorn does")  # noqa: TRY301
        async with worker() as state:
            scope["state"].update(state)
            await send({"type": "lifespan.startup.complete"})
            started = True
            await receive()
    except Exception as error:
        await send(
            {"type": "lifespan.shutdown.failed" if started else "lifespan.startup.failed", "message": str(error)}
        )
        raise
    finally:
        await asyncio.to_thread(writer.rest)
    await send({"type": "lifespan.shutdown.complete"})


def refuse_faults() -> None:
    """Run the gateway's system checks, which no server does by itself; raises ImproperlyConfigured for errors."""
    faults = [message for message in checks.run_checks(tags=["gateway"]) if message.level >= checks.ERROR]
    if faults:
        raise ImproperlyConfigured("the gateway cannot start:\n" + "\n".join(map(_sentence, faults)))


def _sentence(fault: checks.CheckMessage) -> str:
    """Say what is wrong and how to mend it, indented."""
    return textwrap.indent(f"{fault.id}: {fault.msg}\n{fault.hint or ''}".rstrip(), "  ")
