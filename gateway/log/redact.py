"""Takes secrets out of what other people's code logs: by the name of a field, and by what a text looks like.

What comes out is plain JSON values of bounded size: names and texts are cut, nesting ends somewhere. Every pattern
runs in time proportional to the text.
"""

from __future__ import annotations

import datetime
import decimal
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any, Final

MASK: Final = "[redacted]"
LONGEST_TEXT: Final = 8192
_LONGEST_NAME: Final = 256
_DEEPEST: Final = 6
_MOST_ITEMS: Final = 100
_LARGEST_INT: Final = 2**63

_NAMES: Final = re.compile(
    r"authori[sz]ation|auth(?!or)|cookie|token|secret|passw|passphrase|pwd|(?:api|private|access)[-_]?key|session"
    r"|credential|signature|jwt|cvv|cvc|(?<![a-z])(?:card(?!inal)|ssn|pin(?![a-z])|otp(?![a-z]))",
    re.IGNORECASE,
)
_TEXTS: Final = re.compile(
    r"(?P<kept>\b(?:bearer|basic|digest)\s++)[^\s\"',;]{8,}"
    r"|(?<![\w-])eyJ[\w-]{8,}+(?:\.[\w-]++)*+"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|(?<=://)[^\s/?#\"'<>]+(?=@)"
    r"|(?P<query>\?)[^\s\"'<>]++",
    re.IGNORECASE,
)
#: `password=x`, `"password": "x"`, also inside a JSON string, `password => x`, `<password>x`, `--password x`.
_PAIRS: Final = re.compile(
    r"(?<![\w-])(?:([\w-]++)(?:\\*+[\"']\s*+[:=,]|\s*+[:=]>?|>(?!\s))|(--[\w-]++)(?=\s))\s*+b?(?=\S)"
)
_VALUE: Final = re.compile(
    r"\[redacted\]|(?P<quote>\\++[\"'])(?:(?!(?<!\\)(?P=quote))[^\r\n])*+(?P=quote)?"
    r"|\"(?:[^\"\\]++|\\.)*+\"|'(?:[^'\\]++|\\.)*+'|[\"'][^\r\n]*+|[\[({][^\])}]*+|[^\s,;&\"')\]}]++",
    re.DOTALL,
)
_HEADER: Final = re.compile(r"\[redacted\]|\"[^\"\r\n]*+\"?|'[^'\r\n]*+'?|[^\r\n]++")
_HEADERS: Final = re.compile(r"cookie|authori[sz]ation", re.IGNORECASE)
_AS_THEY_ARE: Final = (datetime.date, datetime.time, decimal.Decimal, uuid.UUID)


def redact(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """Return fields as plain JSON values with secrets masked, nested ones too. Never raises."""
    return _mapping(fields, _DEEPEST)


def redact_text(text: str) -> str:
    """Mask tokens, credentials in URLs, their queries, and the value of every name that sounds like a secret."""
    return "".join(_masked_pairs(_TEXTS.sub(_mask, _cut(text))))


def safe_repr(value: object) -> str:
    """Return `repr(value)`, or the name of its type where that fails."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - somebody's repr
        return f"<{type(value).__name__}>"


def _value(value: Any, depth: int) -> Any:
    try:
        return _readable(value, depth)
    except Exception:  # noqa: BLE001 - somebody's mapping or sequence
        return f"<{type(value).__name__}>"


def _readable(value: Any, depth: int) -> Any:  # noqa: PLR0911 - one line a kind of value
    if value is None or isinstance(value, (bool, float, *_AS_THEY_ARE)):
        return value
    if isinstance(value, int):
        return value if -_LARGEST_INT <= value < _LARGEST_INT else hex(value)[:_LONGEST_NAME]
    if isinstance(value, str):
        return redact_text(str.__str__(value))
    if depth == 0:
        return f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        return _mapping(value, depth - 1)
    if isinstance(value, (Sequence, AbstractSet)) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_value(item, depth - 1) for item in islice(value, _MOST_ITEMS)]
    return redact_text(safe_repr(value))


def _mapping(fields: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    plain = {}
    for key, value in islice(fields.items(), _MOST_ITEMS):
        name = _plain(key if isinstance(key, str) else safe_repr(key))[:_LONGEST_NAME]
        plain[name] = MASK if _NAMES.search(name) else _value(value, depth)
    return plain


def _cut(text: str) -> str:
    """Shorten a text at a blank, so that no half of a secret is left at its end to go unrecognised."""
    text = _plain(text)
    if len(text) <= LONGEST_TEXT:
        return text
    kept = text[:LONGEST_TEXT]
    whole = kept[: max(kept.rfind(" "), kept.rfind("\n"), 0)]
    return f"{whole} [{len(text) - len(whole)} characters cut]"


def _plain(text: str) -> str:
    """Write lone surrogates as text, for no encoder takes them."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _mask(match: re.Match[str]) -> str:
    return f"{match['kept'] or match['query'] or ''}{MASK}"


def _masked_pairs(text: str) -> Iterator[str]:
    """Yield the text in pieces, the values of secret names (`password=x`, `"token": "x"`, `Cookie: x`) masked."""
    end = 0
    for pair in _PAIRS.finditer(text):
        name = pair[1] or pair[2]
        if pair.start() < end or not _NAMES.search(name):
            continue
        value = (_HEADER if _HEADERS.search(name) else _VALUE).match(text, pair.end())
        if value is not None:
            yield text[end : pair.end()]
            yield MASK
            end = value.end()
    yield text[end:]
