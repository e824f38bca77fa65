"""What the console asks of the log: the same as `manage.py logs`, in a process of its own.

So a question costs the worker neither its loop nor its memory, and one that runs away can be ended.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import msgspec
from django.http import HttpRequest

import inspection
from gateway.conf import conf

_AT_ONCE: Final = 2
_LONGEST: Final = 20.0
_LOW_PRIORITY: Final = 5
_FOUND_BY: Final = ("PYTHONPATH", "LD_LIBRARY_PATH")  # which may lead to what is imported
_ROOT: Final = Path(inspection.__file__).parent.parent
#: The windows that are offered, as `?since=` names them. Any other that `--since` takes may stand there too.
WINDOWS: Final[Mapping[str, str]] = {"15m": "15 min", "1h": "1 h", "6h": "6 h", "24h": "24 h", "all": "all"}
_DEFAULT_WINDOW: Final = "1h"
#: A loop's own, for one belongs to the loop it was waited for in.
_asking: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]] = WeakKeyDictionary()


class Found(NamedTuple):
    """What was found: `answer` is the verb's, or None; `fault` says in a sentence why it could not be asked so."""

    answer: Any = None
    fault: str = ""


def since(request: HttpRequest) -> str:
    """Return the window that a page was asked for: a key of WINDOWS, or what somebody wrote."""
    return request.GET.get("since", "").strip() or _DEFAULT_WINDOW


def window(request: HttpRequest) -> list[str]:
    """Return the options that ask for a page's window: `?since=` and `?until=`."""
    begin, end = since(request), request.GET.get("until", "").strip()
    return [*([f"--since={begin}"] if begin != "all" else []), *([f"--until={end}"] if end else [])]


def filters(request: HttpRequest) -> list[str]:
    """Return the conditions that a page was asked for, `?f=` each, as they are written."""
    return [written for f in request.GET.getlist("f") if (written := f.strip())]


async def asked(verb: str, *options: str, words: Sequence[str] = ()) -> Found:
    """Put one question to the log's files.

    What a person wrote goes into an option as `--name=value`, or into `words`, so that it is never taken for an option.
    """
    directory = conf().log_dir
    if directory is None:
        return Found(fault="There are no log files: set LOG_DIR.")
    if any("\0" in text for text in (*options, *words)):
        return Found(fault="There is a NUL in what was asked for, and in no line of the log.")
    if "-" in words:
        return Found()  # alone it would stand for standard input
    try:
        async with (
            asyncio.timeout(_LONGEST),
            _asking.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE)),
        ):
            return await _run(verb, "--json", f"--dir={directory}", *options, *(["--", *words] if words else []))
    except TimeoutError:
        return Found(fault=f"That took longer than {_LONGEST:.0f} seconds: ask for less, or in the terminal.")


async def _run(*arguments: str) -> Found:
    """Ask, in a process whose copies of the log are removed here: it may be killed before it can do so."""
    folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="tributary-console-")
    try:
        return await _said(folder, *arguments)
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


async def _said(folder: str, *arguments: str) -> Found:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "inspection", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        env={"TZ": "UTC", "TMPDIR": folder, **{name: os.environ[name] for name in _FOUND_BY if name in os.environ}},
    )
    try:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _LOW_PRIORITY)
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if out.strip():
        return Found(answer=msgspec.json.decode(out))
    return Found(fault=_sentence(err.decode(errors="replace")))


def _sentence(said: str) -> str:
    """Return the last line of what a command said, without its own name."""
    lines = said.strip().splitlines() or ["The question could not be asked."]
    return lines[-1].removeprefix("inspection: ")
