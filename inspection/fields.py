"""The fields of a log line: those of the catalogue with their types, and whatever else the lines at hand have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from inspection.fault import Unanswerable, nearest

#: DuckDB's types for the catalogue's fields. A value of another type reads as NULL where a number is expected, and as
#: its JSON text elsewhere: no line makes a query fail.
CATALOGUE: Final[Mapping[str, str]] = {
    "timestamp": "VARCHAR",
    "level": "VARCHAR",
    "event": "VARCHAR",
    "schema": "BIGINT",
    "trace_id": "VARCHAR",
    "request_id": "VARCHAR",
    "span_id": "VARCHAR",
    "parent_span_id": "VARCHAR",
    "service.instance.id": "VARCHAR",
    "service.version": "VARCHAR",
    "process.pid": "BIGINT",
    "seq": "BIGINT",
    "http.request.method": "VARCHAR",
    "http.route": "VARCHAR",
    "http.response.status_code": "BIGINT",
    "url.path": "VARCHAR",
    "server.address": "VARCHAR",
    "outcome": "VARCHAR",
    "error.type": "VARCHAR",
    "exception.type": "VARCHAR",
    "exception.message": "VARCHAR",
    "exception.stacktrace": "VARCHAR",
    "duration_ms": "DOUBLE",
    "start_offset_ms": "DOUBLE",
    "queued_ms": "DOUBLE",
    "page": "VARCHAR",
    "calls": "BIGINT",
    "calls_failed": "VARCHAR",
    "attempts": "BIGINT",
    "complete": "BOOLEAN",
    "bytes_out": "BIGINT",
    "body_bytes": "BIGINT",
    "upstream": "VARCHAR",
    "upstreams": "VARCHAR",
    "call": "VARCHAR",
    "attempt": "BIGINT",
    "kind": "VARCHAR",
    "sent": "BOOLEAN",
    "conn": "VARCHAR",
    "wait_ms": "DOUBLE",
    "open_ms": "DOUBLE",
    "out_ms": "DOUBLE",
    "reason": "VARCHAR",
    "because": "VARCHAR",
    "leader": "VARCHAR",
    "leader.trace_id": "VARCHAR",
    "from": "VARCHAR",
    "to": "VARCHAR",
    "action": "VARCHAR",
    "client.address": "VARCHAR",
    "logger": "VARCHAR",
    "message": "VARCHAR",
    "count": "BIGINT",
    "sink": "VARCHAR",
}
#: Words that people say for a field.
ALIASES: Final[Mapping[str, str]] = {
    "error": "error.type",
    "host": "server.address",
    "id": "request_id",
    "instance": "service.instance.id",
    "method": "http.request.method",
    "path": "url.path",
    "request": "request_id",
    "route": "http.route",
    "status": "http.response.status_code",
    "trace": "trace_id",
    "version": "service.version",
}
_NUMBERS: Final = frozenset({"BIGINT", "DOUBLE"})


class Fields:
    """The fields there are, with their types. Frozen."""

    def __init__(self, seen: Iterable[Mapping[str, Any]] = ()) -> None:
        """`seen` are lines whose fields are known beside the catalogue's."""
        self.types: Mapping[str, str] = {**_types(seen), **CATALOGUE}

    @classmethod
    def of(cls, types: Mapping[str, str]) -> Fields:
        """Return fields of certain types, as others' `types` tell them."""
        fields = cls()
        fields.types = types
        return fields

    def __repr__(self) -> str:
        """Show the names."""
        return f"<Fields {' '.join(self.types)}>"

    def named(self, word: str) -> str:
        """Return the field that somebody means by a word. Raises Unanswerable when there is none of that name."""
        if word in self.types:
            return word
        field = ALIASES.get(word, "")
        if not field:
            known = [*self.types, *ALIASES]
            raise Unanswerable(f"no line has a field {word!r}{nearest(word, known)}")
        return field

    def is_number(self, field: str) -> bool:
        """Tell whether a field's values are numbers."""
        return self.types[field] in _NUMBERS


def quoted(name: str) -> str:
    """Return a field's name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def _types(lines: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the types of what lines hold beside the catalogue's fields; SQL does not tell `User` from `user`."""
    found: dict[str, set[type]] = {}
    names = {name.casefold(): name for name in CATALOGUE}
    for line in lines:
        for name, value in line.items():
            if names.setdefault(name.casefold(), name) == name and name not in CATALOGUE:
                found.setdefault(name, set()).update([type(value)] if value is not None else [])
    return {name: _type(kinds) for name, kinds in found.items()}


def _type(kinds: set[type]) -> str:
    if kinds and kinds <= {int, float}:
        return "DOUBLE" if float in kinds else "BIGINT"
    return "BOOLEAN" if kinds == {bool} else "VARCHAR"
