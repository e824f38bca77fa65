"""Takes secrets out of what other people's code logs: by the name of a field, and by what a text looks like."""

from __future__ import annotations

import re
from typing import Any, Final

MASK: Final = "[redacted]"
_NAMES: Final = re.compile(
    r"authorization|cookie|token|secret|passw|api[-_]?key|session|credential|card|cvv|ssn", re.IGNORECASE
)
_TEXTS: Final = re.compile(
    r"(?P<scheme>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){1,2}"
    r"|\bAKIA[A-Z0-9]{16}\b"
    r"|(?<=://)[^/@\s:]+:[^/@\s]+(?=@)"
    r"|(?P<query>\?[^\s\"'>]+)",
    re.IGNORECASE,
)


def redact(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields with secrets masked, nested ones too."""
    return {name: MASK if _NAMES.search(name) else _value(value) for name, value in fields.items()}


def redact_text(text: str) -> str:
    """Mask tokens, credentials in URLs, and the query of every URL in a text."""
    return _TEXTS.sub(_mask, text)


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        return redact(value)
    if isinstance(value, (list, tuple)):
        return [_value(item) for item in value]
    return value


def _mask(match: re.Match[str]) -> str:
    if match["query"]:
        return f"?{MASK}"
    return f"{match['scheme'] or ''}{MASK}"
