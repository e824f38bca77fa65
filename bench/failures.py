"""What happens when upstreams fail, in figures: each measurement starts what it needs, is bounded, and stops it all.

    python bench/failures.py [NAME ...] [--rate 100] [--minutes 10]

Without a name all are made, one after another; the soak is the one that takes minutes. Ends with a table: the figure,
what was measured, what is wanted, and whether it is `ok` or `short`. The exit code is 1 only if something could not be
measured.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import platform
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

sys.path[0] = str(Path(__file__).parent.parent)  # a script's own folder otherwise

from bench.failing import bomb, down, flaky, hedge, soak, strays  # noqa: E402 - the path comes first
from bench.failing.progress import say  # noqa: E402
from bench.figures import Figure, table  # noqa: E402

_LONGEST = 300.0  # seconds of one measurement; the soak's minutes come on top

Measure = Callable[[], Awaitable[list[Figure]]]


def main() -> int:
    """Make the measurements that are named, print a table of each, and say whether all could be made."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or what was started would go on
    measures: dict[str, tuple[Measure, float]] = {
        "flaky": (flaky.measure, _LONGEST),
        "down": (functools.partial(down.measure, options.rate), _LONGEST),
        "hedge": (hedge.measure, _LONGEST),
        "strays": (strays.measure, _LONGEST),
        "bomb": (bomb.measure, _LONGEST),
        "soak": (functools.partial(soak.measure, options.minutes), _LONGEST + options.minutes * 60),
    }
    unknown = [name for name in options.names if name not in measures]
    if unknown:
        print(f"there is no measurement {unknown[0]!r}: {', '.join(measures)}", file=sys.stderr)
        return 2
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} processors")
    return max([_made(name, *measures[name]) for name in options.names or measures])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="flaky, down, hedge, strays, bomb or soak")
    parser.add_argument("--rate", type=float, default=100.0, help="pages a second while one is down (default: 100)")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the soak takes (default: 10)")
    return parser.parse_args()


def _made(name: str, measure: Measure, limit: float) -> int:
    """Make one measurement and print its table; return 1 if it could not be made."""
    print(f"\n{name}", flush=True)
    started, load = time.monotonic(), _load()
    try:
        figures = uvloop.run(_within(limit, measure))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it was, the others are measured
        say("")
        print(f"could not be measured: {type(error).__name__}: {error}")
        return 1
    say("")
    print(table(figures))
    print(f"({time.monotonic() - started:.0f} s; load of the machine {load:.1f} before, {_load():.1f} after)")
    return 0


def _load() -> float:
    """Return how many processes wanted to run during the last minute."""
    return os.getloadavg()[0]


async def _within(limit: float, measure: Measure) -> list[Figure]:
    async with asyncio.timeout(limit):
        return await measure()


if __name__ == "__main__":
    sys.exit(main())
