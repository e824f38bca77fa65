"""Where every logger's lines go: to the writer, or into the hands of a request that may yet turn out to be healthy."""

from __future__ import annotations

import contextvars
from collections import deque
from functools import partialmethod
from typing import Final

from gateway.log.writer import Writer

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_HEALTHY: Final = frozenset({"debug", "info"})
_MOST_HELD: Final = 200


class Lines:
    """The logger under structlog's: takes rendered lines, one method a level. `level` is the least that is taken."""

    def __init__(self) -> None:
        self.level = LEVELS["info"]

    def put(self, level: str, line: bytes) -> None:
        """Pass a line on, unless its request holds it back."""
        held = _held.get()
        if held is None or not held.take(level, line):
            writer.put(line)

    debug = partialmethod(put, "debug")
    info = partialmethod(put, "info")
    warning = partialmethod(put, "warning")
    error = partialmethod(put, "error")
    critical = partialmethod(put, "critical")
    msg = info


class Apart:
    """The logger for lines that are not a request's own, though one may have led to them: they are not held back."""

    def put(self, _: str, line: bytes) -> None:
        """Pass a line on."""
        writer.put(line)

    @property
    def level(self) -> int:
        """The least that is taken: that of all lines."""
        return lines.level


class Holding:
    """Whether the steps of a request are held back until it is known to have had a problem (LOG_STEPS=problems)."""

    def __init__(self) -> None:
        self.enabled = False

    def begin(self) -> None:
        """Start holding this context's lines back, and those of every task started in it."""
        _held.set(_Held() if self.enabled else None)

    def end(self, *, healthy: bool) -> None:
        """Drop the held lines of a request in which all went well, or let them go."""
        held = _held.get()
        _held.set(None)
        if held is not None:
            held.end(healthy=healthy)


class _Held:
    """The lines of one request, shared by its tasks, until something goes wrong: from then on nothing is held.

    A task may outlive its request: its lines are judged as before. Holding ends too when there are very many lines.
    """

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._holding = True

    def take(self, level: str, line: bytes) -> bool:
        """Hold a line and return True, unless it tells of a problem or no more are held."""
        if self._holding and level in _HEALTHY and len(self._lines) < _MOST_HELD:
            self._lines.append(line)
            return True
        self.end(healthy=False)
        return False

    def end(self, *, healthy: bool) -> None:
        if healthy:
            self._lines.clear()
            return
        self._holding = False
        while self._lines:
            writer.put(self._lines.popleft())


_held: Final[contextvars.ContextVar[_Held | None]] = contextvars.ContextVar("held_steps", default=None)
writer: Final = Writer()
holding: Final = Holding()
lines: Final = Lines()
