"""`breakers`: when upstreams were shut off and let in again, hosts left out, and how it is now."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from inspection.question import Question, Verb
from inspection.showing.columns import clipped, table
from inspection.showing.lines import safe
from inspection.showing.paint import BOLD, GREEN, RED, YELLOW, Paint
from inspection.times import Window, parsed, shown, stamp
from inspection.verbs.stats import gravity, state_of

_COLOURS: Final = {"open": RED, "half_open": YELLOW, "closed": GREEN}
_SELECT: Final = """
    SELECT timestamp AS "at", event, upstream, "service.instance.id" AS process, "from", "to", reason, open_ms,
        "server.address" AS host, out_ms, request_id
    FROM {logs} WHERE event IN ('breaker.changed', 'host.ejected', 'gateway.stopped') ORDER BY timestamp, seq
"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--top", type=int, default=200, metavar="N", help="the last so many changes (default: 200)")


def answer(question: Question) -> dict[str, Any] | None:
    """Return what breakers did, and what they are. None when none ever changed and no host was left out.

    - `states`: of each upstream and process in which it ever changed, the gravest first: `upstream`, `process`, `state`
      (`closed`, `open`, `half_open`, with ` (forced)` where it is held there), `since`, `reason`, `until` (when it lets
      a probe through; null unless it opened by itself), `running` (false when the process has stopped)
    - `changes`: in the window, in order: `at`, `upstream`, `process`, `from`, `to`, `reason`, `open_ms`, `request_id`
    - `ejections`: in the window, in order: `at`, `upstream`, `process`, `host`, `reason`, `out_ms`, `until`, and `out`:
      whether it is left out yet at the end of the window

    States are those at the end of the window, whatever its beginning. Moments are timestamps, times milliseconds.
    """
    found = question.logs(Window(None, question.window.until)).rows(_SELECT)
    last = -question.options.top
    stopped = {row["process"]: row["at"] for row in found if row["event"] == "gateway.stopped"}
    changes = [row for row in found if row["event"] == "breaker.changed"]
    ejections = [row for row in found if row["event"] == "host.ejected"]
    if not changes and not ejections:
        return None
    now = stamp(question.window.until or question.now)
    latest = {(str(row["upstream"]), str(row["process"])): row for row in changes}
    states = [
        {**_state(row), "running": stopped.get(row["process"], "") < row["at"]} for _, row in sorted(latest.items())
    ]
    states.sort(key=lambda state: (not state["running"], gravity(state["state"])))
    return {
        "states": states,
        "changes": [
            _only(row, "at", "upstream", "process", "from", "to", "reason", "open_ms", "request_id")
            for row in changes
            if question.window.has(row["at"])
        ][last:],
        "ejections": [_ejection(row, now) for row in ejections if question.window.has(row["at"])][last:],
    }


def _state(change: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "upstream": change["upstream"],
        "process": change["process"],
        "state": state_of(change),
        "since": change["at"],
        "reason": change["reason"],
        "until": _later(change["at"], change["open_ms"]),
    }


def _ejection(row: Mapping[str, Any], now: str) -> dict[str, Any]:
    until = _later(row["at"], row["out_ms"])
    found = _only(row, "at", "upstream", "process", "host", "reason", "out_ms")
    return {**found, "until": until, "out": until is not None and until > now}


def _only(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _later(at: str, time: float | None) -> str | None:
    """Return the timestamp so many milliseconds after another."""
    begin = parsed(at)
    if begin is None or time is None:
        return None
    try:
        return stamp(begin + timedelta(milliseconds=time))
    except (OverflowError, ValueError):
        return None


def _show(answer: Any, question: Question, paint: Paint) -> Iterator[str]:
    yield from states_of(answer["states"], paint)
    for title, rows in (("Changes", _changes(answer["changes"])), ("Hosts left out", _ejections(answer["ejections"]))):
        if len(rows) > 1:
            head, *lines = table(rows[0], rows[1:], set(rows[0]))
            yield from ("", f"{title} ({question.window})", paint(BOLD, head), *lines)


def states_of(states: list[Mapping[str, Any]], paint: Paint) -> Iterator[str]:
    """Yield a table of what breakers are, a head first; nothing without any."""
    if not states:
        return
    head = ("upstream", "process", "state", "since", "until", "why")
    rows = [
        (
            safe(state["upstream"]),
            safe(state["process"] or "-") + ("" if state["running"] else " (stopped)"),
            safe(state["state"]),
            _moment(state["since"]),
            _moment(state["until"]),
            clipped(safe(state["reason"] or "-"), 40),
        )
        for state in states
    ]
    first, *lines = table(head, rows, set(head))
    yield paint(BOLD, first)
    for state, line in zip(states, lines, strict=True):
        yield paint(_COLOURS.get(state["state"].split()[0], YELLOW), line) if state["running"] else line


def _changes(changes: list[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    head = ("when", "upstream", "process", "from", "to", "for", "why")
    cells = [
        (
            _moment(row["at"]),
            *(safe(row[name] or "-") for name in ("upstream", "process", "from", "to")),
            _seconds(row["open_ms"]),
            clipped(safe(row["reason"] or "-"), 40),
        )
        for row in changes
    ]
    return [head, *cells]


def _ejections(ejections: list[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    head = ("when", "upstream", "host", "process", "for", "now", "why")
    cells = [
        (
            _moment(row["at"]),
            *(safe(row[name] or "-") for name in ("upstream", "host", "process")),
            _seconds(row["out_ms"]),
            "out" if row["out"] else "back",
            clipped(safe(row["reason"] or "-"), 40),
        )
        for row in ejections
    ]
    return [head, *cells]


def _moment(timestamp: str | None) -> str:
    when = parsed(timestamp) if timestamp else None
    return shown(when)[:19] if when else "-"


def _seconds(time: float | None) -> str:
    return f"{time / 1000:.1f} s" if time is not None else "-"


BREAKERS: Final = Verb(
    "breakers",
    "What breakers did, when and why, hosts that were left out, and how it is now.",
    _arguments,
    answer,
    _show,
)
