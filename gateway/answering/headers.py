"""A response's headers, as Django keeps them."""

from __future__ import annotations

from django.http import HttpResponseBase


def stored(response: HttpResponseBase) -> dict[str, tuple[str, str]]:
    """Return a response's own headers: their names and values by the name in lower case.

    Only what is known to be sendable may be written here. Django's own way looks at every character of every name and
    value, and raises a KeyError to find out that there is no such header: a third of what a response costs.
    """
    headers: dict[str, tuple[str, str]] = response.headers._store  # noqa: SLF001 - see above
    return headers
