"""How metrics and spans name what happened to a request or an attempt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

OTHER_METHOD: Final = "_OTHER"
#: Those of RFC 9110 and RFC 5789.
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


def known_method(method: str) -> str:
    """Return a method that is known, and `_OTHER` for what a client made up."""
    return method if method in METHODS else OTHER_METHOD


def server_error(fields: Mapping[str, Any]) -> str | None:
    """Return the error of a `request.finished`: the fault that decided a 5xx, or else its status.

    None for any other; a client's own mistake is no error of the server's.
    """
    status = fields["http.response.status_code"]
    if status is None or status < 500:
        return None
    word: str = fields.get("error.type") or str(status)
    return word
