"""The gateway's settings, read once from Django's and checked as they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

from upstreams import Upstream, UpstreamTableError, check_table
from upstreams.upstream import is_token

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Conf:
    """The gateway's settings.

    `upstreams` is UPSTREAMS; `name` (GATEWAY_NAME) is this deployment's in Via and Proxy-Status; `server_timing`
    (GATEWAY_SERVER_TIMING) adds the header of that name; `page_middleware` (PAGE_MIDDLEWARE) are the dotted paths of
    the native async middleware around pages; `deadline_header` (GATEWAY_DEADLINE_HEADER) is the header, in lower case,
    by which a client says how many milliseconds it will wait.
    """

    upstreams: Mapping[str, Upstream]
    name: str
    server_timing: bool
    page_middleware: tuple[str, ...]
    deadline_header: str


@cache
def conf() -> Conf:
    """Return the settings; raises ImproperlyConfigured for the first that is wrong, with all that is wrong in it."""
    try:
        upstreams = check_table(_setting("UPSTREAMS", {}))
    except UpstreamTableError as error:
        raise ImproperlyConfigured(str(error)) from None
    name = _setting("GATEWAY_NAME", "tributary")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        message = f"GATEWAY_NAME must be letters, digits, '.', '_' and '-', beginning with a letter, not {name!r}"
        raise ImproperlyConfigured(message)
    page_middleware = _setting("PAGE_MIDDLEWARE", ("gateway.middleware.Edge",))
    if not isinstance(page_middleware, (list, tuple)) or not all(isinstance(path, str) for path in page_middleware):
        message = f"PAGE_MIDDLEWARE must be a list of dotted paths, not {page_middleware!r}"
        raise ImproperlyConfigured(message)
    deadline_header = _setting("GATEWAY_DEADLINE_HEADER", "X-Request-Timeout-Ms")
    if not is_token(deadline_header):
        message = f"GATEWAY_DEADLINE_HEADER must be the name of a header, not {deadline_header!r}"
        raise ImproperlyConfigured(message)
    return Conf(
        upstreams=upstreams,
        name=name,
        server_timing=bool(_setting("GATEWAY_SERVER_TIMING", default=False)),
        page_middleware=tuple(page_middleware),
        deadline_header=deadline_header.lower(),
    )


def _setting(name: str, default: Any) -> Any:
    return getattr(settings, name, default)


@receiver(setting_changed)
def _forget(**_: object) -> None:
    """Read the settings again after a test has overridden one."""
    conf.cache_clear()
