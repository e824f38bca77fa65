"""`manage.py` as a process of its own, over a project of two files."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from django.core.management import CommandError, call_command

ROOT: Final = Path(__file__).parent.parent
PATIENCE: Final = 60.0

SETTINGS = """
from settings.test import *

ROOT_URLCONF = "small_urls"
UPSTREAMS = {{name: Upstream(url, timeout=60.0) for name, url in {upstreams!r}.items()}}
"""

URLS = """
from django.urls import path

from gateway import AggregateView, call
from gateway.urls import handler400, handler403, handler404, handler500
from upstreams import GET, JSON, POST, Request


class Item(AggregateView):
    \"\"\"One item of the shop.\"\"\"

    deadline = 60.0

    @call("shop")
    def item(self, item_id: int) -> Request[JSON]:
        return GET("/items/{id}", id=item_id)


urlpatterns = [path("items/<int:item_id>", Item.as_view())]
"""


class Ended(NamedTuple):
    """How a process ended, and all that it wrote."""

    code: int
    out: str
    err: str


class Program:
    """A running process, and the lines it has written so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out: list[str] = []
        self.err: list[str] = []
        self._ended = 0
        self._more = asyncio.Condition()
        self._reading = [asyncio.create_task(self._read(process.stdout, self.out)),
                         asyncio.create_task(self._read(process.stderr, self.err))]  # fmt: skip

    async def says(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until that many of its lines match; returns the last of them."""
        async with asyncio.timeout(PATIENCE), self._more:
            await self._more.wait_for(lambda: len(self.said(pattern)) >= times or self._silent())
        found = self.said(pattern)
        assert len(found) >= times, f"it never said {pattern!r}:\n" + "\n".join(self.out + self.err)
        return found[times - 1]

    async def base(self, times: int = 1) -> str:
        """Wait until it listens, for the nth time; returns the base URL."""
        return (await self.says(r"(?:Uvicorn running|serving) on (http://[0-9.:]+)", times))[1]

    async def ends(self) -> Ended:
        """Wait until it has ended by itself."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._reading)
            return Ended(await self.process.wait(), "\n".join(self.out), "\n".join(self.err))

    def told(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def interrupted(self) -> None:
        """Do what Ctrl-C in a terminal does: all processes that the command started are told."""
        os.killpg(self.process.pid, signal.SIGINT)

    def events(self, name: str) -> list[dict[str, object]]:
        """Return the events of one name that it has logged."""
        lines = [msgspec.json.decode(line) for line in self.out if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def said(self, pattern: str) -> list[re.Match[str]]:
        """Return the lines so far that match."""
        return [found for line in (*self.out, *self.err) if (found := re.search(pattern, line))]

    def _silent(self) -> bool:
        return self._ended == len(self._reading)

    async def _read(self, stream: asyncio.StreamReader | None, lines: list[str]) -> None:
        assert stream is not None
        async for line in stream:
            async with self._more:
                lines.append(line.decode().rstrip("\n"))
                self._more.notify_all()
        async with self._more:
            self._ended += 1
            self._more.notify_all()


def write_project(folder: Path, upstreams: Mapping[str, str], urls: str = URLS, settings: str = "") -> dict[str, str]:
    """Write a project's settings and URLs; returns the environment in which `manage.py` runs it."""
    (folder / "small_settings.py").write_text(SETTINGS.format(upstreams=dict(upstreams)) + settings)
    (folder / "small_urls.py").write_text(urls)
    return {"DJANGO_SETTINGS_MODULE": "small_settings", "PYTHONPATH": str(folder)}


@asynccontextmanager
async def program(*arguments: str, environment: Mapping[str, str]) -> AsyncIterator[Program]:
    """Run Python with these arguments in the project's root; what still runs at the end is killed."""
    inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONDEVMODE", "NO_COLOR"}}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=ROOT,
        env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
        start_new_session=True,
    )
    running = Program(process)
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await running.ends()


def ran(*arguments: str, **options: Any) -> Ended:
    """Run a command to its end in this process."""
    out, err = StringIO(), StringIO()
    code: Any = 0
    try:
        call_command(*arguments, stdout=out, stderr=err, **options)
    except CommandError as error:
        code = error.returncode
        err.write(f"CommandError: {error}")
    except SystemExit as exit_:
        code = exit_.code
    return Ended(code, out.getvalue(), err.getvalue())
