"""One line that says how far a measurement is: on a terminal only."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Show where things stand, in place of what was shown before."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
