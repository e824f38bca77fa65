"""What the gateway logged, as a test reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gateway.log.setup import writer

#: Put into headers, queries and bodies by the tests: never to be seen in a log line or an error.
CANARY = "canary-7f3a-secret"


class Log:
    """A sink that keeps lines; `events()` waits until all that was logged has arrived."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        self._lines.append(line)

    def lines(self) -> list[bytes]:
        writer.flush()
        return list(self._lines)

    def events(self, name: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Return the logged events, those of one name only, or with certain fields only."""
        found = [json.loads(line, object_pairs_hook=_named_once) for line in self.lines()]
        return [
            event
            for event in found
            if name in {None, event["event"]} and all(event.get(key) == value for key, value in fields.items())
        ]

    def sent(self) -> int:
        """Count the attempts that the log says went out."""
        return len(self.events("attempt.finished", sent=True))


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members; none may be there twice, which readers take differently (RFC 8259 section 4)."""
    members = dict(pairs)
    assert len(members) == len(pairs), [name for name, _ in pairs]
    return members


@contextmanager
def logged() -> Iterator[Log]:
    """Collect what is logged meanwhile, instead of printing it."""
    writer.flush()
    log, sinks = Log(), writer.sinks[:]
    writer.sinks[:] = [log]
    try:
        yield log
    finally:
        writer.flush()
        writer.sinks[:] = sinks
