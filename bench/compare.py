"""The gateway beside its peers: CPU time for an answer, answers a second, latency, memory, in one run.

    python bench/compare.py [--full] [--rounds 3] [--seconds 2] [WORK ...]
    python bench/compare.py --draw

Every server merges the same three upstreams into the same answer, which is checked. The server under test is alone on
one core; upstreams and load are on the others. Servers take turns, round by round, so that a noisy moment is noisy for
all; printed are medians of the rounds. Without names, rounds or seconds the figures also go to bench/results/, and
from there into docs/performance.md and its pictures. Needs Linux, and what --check says is missing.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec

sys.path[0] = str(Path(__file__).parent.parent)  # a script's own folder otherwise

from bench.comparing import (  # noqa: E402 - the path comes first
    idle,
    machine,
    matrix,
    measuring,
    needs,
    page,
    results,
    rows,
    upstreams,
)
from bench.comparing.measuring import Cores, Work  # noqa: E402
from bench.comparing.results import Run  # noqa: E402


def main() -> None:
    """Measure what is asked for; print a table of each work, write them all, and draw."""
    options = _options()
    if options.draw:
        page.write(results.read())
        return
    works = [*matrix.FULL, matrix.IDLE] if options.full else [*matrix.SHORT]
    if options.list:
        print("\n".join(work.name for work in works))
        return
    if sentence := needs.missing():
        sys.exit(sentence)
    if options.check:
        return
    if unknown := set(options.works) - {work.name for work in works}:
        sys.exit(f"there is no work {min(unknown)!r}; --list names them")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or what was started would go on
    run = msgspec.convert({"run": "bench-full" if options.full else "bench", **machine.described()}, Run)
    found = _measured([_changed(work, options) for work in works if work.name in (options.works or [work.name])])
    if not (options.works or options.rounds or options.seconds):
        results.write(results.read().with_run(run, found))
        page.write(results.read())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", metavar="WORK", help="only these, by name")
    parser.add_argument("--full", action="store_true", help="all works instead of those for every day")
    parser.add_argument("--rounds", type=int, help="so many instead of each work's own number")
    parser.add_argument("--seconds", type=int, help="so long instead of each work's own time")
    parser.add_argument("--list", action="store_true", help="name the works, and measure none")
    parser.add_argument("--draw", action="store_true", help="draw what bench/results/ has, and measure nothing")
    parser.add_argument("--check", action="store_true", help="say what is missing here, and measure nothing")
    return parser.parse_args()


def _changed(work: Work, options: argparse.Namespace) -> Work:
    """Return a work with the rounds and seconds that were asked for."""
    return replace(work, rounds=options.rounds or work.rounds, seconds=options.seconds or work.seconds)


def _measured(works: list[Work]) -> list[rows.Row]:
    found: list[rows.Row] = []
    started = time.monotonic()
    cores = Cores.shared_out()
    os.sched_setaffinity(0, map(int, cores.load.split(",")))
    idle.allow_descriptors()
    with upstreams.serving(cores.load) as served:
        for work in works:
            measure = idle.measured if work.name == matrix.IDLE.name else measuring.measured
            found += (these := measure(work, served, cores))
            print(f"\n{_title(work)}\n{rows.table(these)}", flush=True)
    print(f"\n({time.monotonic() - started:.0f} s)")
    return found


def _title(work: Work) -> str:
    """Return what a table shows; idle connections are no load, and have no rounds."""
    if work.name == matrix.IDLE.name:
        return work.name
    return f"{work.name}: {work.connections} at a time, {work.rounds} rounds of {work.seconds} s"


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
