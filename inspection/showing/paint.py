"""Colours, where somebody sees them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Any, Final

#: Puts a text into a colour, by its SGR code.
Paint = Callable[[str, str], str]

DIM: Final = "2"
BOLD: Final = "1"
RED: Final = "31"
GREEN: Final = "32"
YELLOW: Final = "33"


def paint_for(stream: IO[Any]) -> Paint:
    """Return what paints for a stream: nothing unless it is a terminal with colours, and NO_COLOR is not set."""
    return coloured if stream.isatty() and wanted() else plain


def wanted() -> bool:
    """Tell whether a terminal here is to have colours (no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def coloured(code: str, text: str) -> str:
    """Paint."""
    return f"\x1b[{code}m{text}\x1b[0m"


def plain(_: str, text: str) -> str:
    """Leave it as it is."""
    return text
