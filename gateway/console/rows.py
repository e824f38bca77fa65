"""A line of the log as a row of the live tail: what the terminal shows, in HTML, with a way to its request."""

from __future__ import annotations

from html import escape
from typing import Any, Final
from urllib.parse import quote

import msgspec

from inspection.showing.lines import safe, shown
from inspection.showing.paint import BOLD, DIM, GREEN, RED, YELLOW

#: Control characters, which no text of a line has any more: they stand for tags until that text has been escaped.
_BEGIN, _NAMED, _END = "\x01", "\x02", "\x03"
_CLASSES: Final = {DIM: "muted", BOLD: "strong", RED: "bad", f"1;{RED}": "bad", GREEN: "ok", YELLOW: "warn"}
_GRAVE: Final = frozenset({"warning", "error", "critical"})


def row(line: bytes, trace: str) -> str:
    """Return a line's row, given the address of the trace page; one that is no JSON is shown as it is."""
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return f"<li>{escape(safe(line.decode(errors='replace')))}</li>"
    level = fields.get("level")
    kind = f' class="{level}"' if isinstance(level, str) and level in _GRAVE else ""
    return f"<li{kind}{_key(fields)}>{_linked(_text(fields), fields, trace)}</li>"


def _text(fields: dict[str, Any]) -> str:
    text = escape(shown(fields, _paint))
    for code, name in _CLASSES.items():
        text = text.replace(f"{_BEGIN}{code}{_NAMED}", f'<span class="{name}">')
    return text.replace(f"{_BEGIN}0{_NAMED}", "<span>").replace(_END, "</span>")


def _paint(code: str, text: str) -> str:
    return f"{_BEGIN}{code}{_NAMED}{text}{_END}"


def _key(fields: dict[str, Any]) -> str:
    """Return the attribute by which a line is known again."""
    process, number = fields.get("service.instance.id"), fields.get("seq")
    return f' data-key="{escape(safe(process))}/{number:d}"' if isinstance(number, int) else ""


def _linked(text: str, fields: dict[str, Any], trace: str) -> str:
    """Make the time of day, with which a row begins, a link to the line's request."""
    identity = fields.get("request_id") or fields.get("trace_id")
    if not isinstance(identity, str):
        return text
    end = text.index("</span>") + len("</span>")
    return f'<a href="{escape(trace)}?id={quote(identity, safe="")}">{text[:end]}</a>{text[end:]}'
