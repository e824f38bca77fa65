"""Where the console is, for those who have to know it before a request has been routed."""

from __future__ import annotations

from functools import cache

from django.core.signals import setting_changed
from django.dispatch import receiver
from django.urls import NoReverseMatch, reverse

from gateway.conf import conf


def is_console(path: str) -> bool:
    """Tell whether a path is the console's: its requests are no work of the gateway's, and not logged as such."""
    prefix = _prefix()
    return prefix is not None and path.startswith(prefix)


@cache
def _prefix() -> str | None:
    if conf().ops_token is None:
        return None
    try:
        prefix = reverse("ops:live")
    except NoReverseMatch:
        return None
    return prefix if prefix != "/" else None  # all of a site is not silenced for a console on top of it


@receiver(setting_changed)
def _forget(**_: object) -> None:
    """Look again after a test has changed the URLconf."""
    _prefix.cache_clear()
