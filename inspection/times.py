"""Moments and windows as people write them: `-15m`, `14:05`, ISO 8601, `14:05..14:12`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from inspection.fault import Unanswerable

_AGO: Final = re.compile(r"-?\s*(\d+(?:\.\d+)?)\s*(ms|s|sec|m|min|h|d|w)(?:\s*ago)?")
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?")
_SECONDS: Final = {
    "ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0,
}  # fmt: skip
_FORMS: Final = "write it as -15m, 14:05, 2026-01-31T14:05 (this machine's time) or 2026-01-31T14:05:00Z"


class Window(NamedTuple):
    """A stretch of time, in UTC: from `since` on and before `until`; None is open."""

    since: datetime | None = None
    until: datetime | None = None

    def __str__(self) -> str:
        """Show it as people read it, in this machine's time."""
        if self.since is None and self.until is None:
            return "all of the log"
        return f"{shown(self.since) if self.since else 'the beginning'} .. {shown(self.until) if self.until else 'now'}"

    @property
    def texts(self) -> tuple[str | None, str | None]:
        """Both ends as log lines write their timestamp, which sorts as text."""
        return stamp(self.since) if self.since else None, stamp(self.until) if self.until else None

    def has(self, timestamp: str) -> bool:
        """Tell whether a line of this timestamp is in the window."""
        since, until = self.texts
        return (since is None or timestamp >= since) and (until is None or timestamp < until)


ALWAYS: Final = Window()


def moment(text: str, now: datetime) -> datetime:
    """Return the moment meant by a text, in UTC; what has no zone is this machine's time. Raises Unanswerable."""
    text = text.strip()
    if text in {"now", ""}:
        return now
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(seconds=float(ago[1]) * _SECONDS[ago[2]])
        if clock := _CLOCK.fullmatch(text):
            return _today(clock, now)
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Unanswerable(f"{text!r} is no time; {_FORMS}") from None


def window(since: str | None, until: str | None, now: datetime) -> Window:
    """Return the window between two moments, either of which may be left out. Raises Unanswerable."""
    found = Window(moment(since, now) if since else None, moment(until, now) if until else None)
    if found.since and found.until and found.since >= found.until:
        raise Unanswerable(f"the window ends ({until}) before it begins ({since})")
    return found


def between(text: str, now: datetime) -> Window:
    """Return the window written as `A..B`; B may be left out for now. Raises Unanswerable."""
    since, dots, until = text.partition("..")
    if not dots or not since:
        raise Unanswerable(f"{text!r} is no window; write it as A..B, such as 14:05..14:12 or -20m..-10m")
    return window(since, until or "now", now)


def seconds(text: str) -> float:
    """Return the seconds of a length of time such as `30m`. Raises Unanswerable."""
    length = _AGO.fullmatch(text.strip())
    if length is None or text.strip().startswith("-"):
        raise Unanswerable(f"{text!r} is no length of time; write it as 90s, 30m or 2h")
    return float(length[1]) * _SECONDS[length[2]]


def stamp(when: datetime) -> str:
    """Return a moment as log lines write it."""
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parsed(timestamp: str) -> datetime | None:
    """Return the moment of a line's timestamp, or None if it is none."""
    try:
        when = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def shown(when: datetime) -> str:
    """Return a moment for reading: this machine's time with its offset, to the second."""
    return when.astimezone().isoformat(sep=" ", timespec="seconds")


def _today(clock: re.Match[str], now: datetime) -> datetime:
    """Return the latest moment, not after now, at which this machine's clock showed that."""
    local = now.astimezone()
    second = float(clock[3] or 0)
    at = local.replace(
        hour=int(clock[1]), minute=int(clock[2]), second=int(second), microsecond=int(second % 1 * 1_000_000)
    )
    return (at if at <= local else at - timedelta(days=1)).astimezone(UTC)
