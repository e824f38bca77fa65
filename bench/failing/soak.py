"""One dead upstream beside four healthy ones, asked in every way there is, for minutes: whether anything grows."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.failing.progress import say
from bench.failing.scene import Page, scene, steadily
from bench.figures import Figure, percentile

_RATE = 60.0
_EVERY = 3.0
_DEAD = 4
_JSON, _LINES, _EVENTS = "application/json", "application/jsonl", "text/event-stream"
#: Asked for in turn. Every tenth page or so is left before its upstreams, who take 10 ms, have answered.
_TURNS = (
    ("five", _JSON),
    ("four", _JSON),
    ("shared", _JSON),
    ("large", _JSON),
    ("five", _LINES),
    ("hedged", _JSON),
    ("five", _EVENTS),
    ("shared", _JSON),
    ("once", _JSON),
)
_LEFT_AFTER = 0.005
_MEBIBYTE = 1024 * 1024
_MOST_MEMORY = 90.0  # MB
_MOST_GROWTH = 2.0  # MiB
_MOST_MORE = 2


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process holds at a moment: MiB of memory, and counts."""

    memory: float
    descriptors: int
    sockets: int
    threads: int
    tasks: int


async def measure(minutes: float) -> list[Figure]:
    """Ask for pages at a steady rate and look at the gateway, which writes its log, every few seconds.

    Every page comes on a connection of its own: those the client kept would be the client's doing, not the gateway's.
    """
    samples: list[Sample] = []
    pages: list[Page] = []
    lost: Counter[str] = Counter()
    ended = asyncio.Event()

    async def ask(number: int) -> None:
        turn = number % (len(_TURNS) + 1)
        try:
            if turn < len(_TURNS):
                pages.append(await on.page(*_TURNS[turn]))
            else:
                await on.leave("five", _LEFT_AFTER)
        except aiohttp.ClientError as error:
            lost[type(error).__name__] += 1

    with tempfile.TemporaryDirectory() as log:
        async with scene(log, _DEAD, reuse=False) as on, asyncio.TaskGroup() as group:
            group.create_task(steadily(_RATE, ask, ended))
            end = time.monotonic() + minutes * 60
            while time.monotonic() < end:
                await asyncio.sleep(_EVERY)
                samples.append(_sample(on.pid, await on.tasks()))
                say(f"soak: {(end - time.monotonic()) / 60:.1f} minutes left, {samples[-1]}")
            ended.set()
    return [
        *_figures(samples),
        Figure("pages answered, and their p99", f"{len(pages)}, {percentile((page.took for page in pages), 99):.3f} s"),
        Figure("pages that were not answered", ", ".join(f"{many} {what}" for what, many in lost.items()) or "0"),
    ]


def _figures(samples: list[Sample]) -> Iterator[Figure]:
    """Judge memory by where it stands after a third and at the end, and counts by the least of them in a third.

    The least is what is held when little is going on: what leaks is in it, and a crowded moment is not.
    """
    third = len(samples) // 3
    first, last = samples[:third], samples[-third:]
    spell = max(1, third // 3)
    before, after = (_usual("memory", part) for part in (samples[third : third + spell], samples[-spell:]))
    yield Figure(
        "memory (RSS) over the last two thirds",
        f"{before:.1f} to {after:.1f} MiB: {after - before:+.2f} MiB",
        f"below {_MOST_GROWTH:+g} MiB",
        ok=after - before < _MOST_GROWTH,
    )
    most = max(sample.memory for sample in samples) * _MEBIBYTE / 1e6
    yield Figure("memory (RSS) at its most", f"{most:.1f} MB", f"at most {_MOST_MEMORY:g} MB", ok=most <= _MOST_MEMORY)
    yield Figure("memory by tenths", " ".join(f"{_usual('memory', part):.1f}" for part in _tenths(samples)))
    for name in ("descriptors", "sockets", "threads", "tasks"):
        former, latter = ([getattr(sample, name) for sample in part] for part in (first, last))
        yield Figure(
            f"{name}: least in the first third and in the last",
            f"{min(former)} and {min(latter)} (most: {max(former)} and {max(latter)})",
            f"at most {_MOST_MORE} more",
            ok=min(latter) - min(former) <= _MOST_MORE,
        )
        yield Figure(f"{name} by tenths", " ".join(f"{_usual(name, part):g}" for part in _tenths(samples)))


def _usual(name: str, samples: list[Sample]) -> float:
    usual: float = statistics.median(getattr(sample, name) for sample in samples)
    return usual


def _tenths(samples: list[Sample]) -> Iterator[list[Sample]]:
    for tenth in range(10):
        part = samples[len(samples) * tenth // 10 : len(samples) * (tenth + 1) // 10]
        if part:
            yield part


def _sample(pid: int, tasks: int) -> Sample:
    process = Path("/proc") / str(pid)
    pages = int((process / "statm").read_text().split()[1])
    links = list(_links(process / "fd"))
    return Sample(
        memory=pages * os.sysconf("SC_PAGE_SIZE") / _MEBIBYTE,
        descriptors=len(links),
        sockets=sum(link.startswith("socket:") for link in links),
        threads=len(list((process / "task").iterdir())),
        tasks=tasks,
    )


def _links(folder: Path) -> Iterator[str]:
    """Tell where the links of a folder lead, but for those that are gone by the time they are looked at."""
    for link in folder.iterdir():
        with suppress(FileNotFoundError):
            yield str(link.readlink())
