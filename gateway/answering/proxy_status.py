"""The Proxy-Status header (RFC 9209) of answers that are partial or failed: one member, for this gateway."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import http_sf

from gateway.answering.answer import Failure
from gateway.conf import conf

_UNPRINTABLE: Final = re.compile(r"[^ -~]")  # a function view may name its calls as it likes; a header may not


def proxy_status(errors: Mapping[str, Failure]) -> str:
    """Return the header's value: the last failure's error and upstream, and all calls without a value.

    The failure that decides a failed page is its last; upstreams are named as in the settings, never by address.
    """
    failure = list(errors.values())[-1]
    params: dict[str, Any] = {"error": http_sf.Token(failure.error.word)}
    if failure.upstream:
        params["next-hop"] = failure.upstream
    if failure.status is not None:
        params["received-status"] = failure.status
    params["details"] = _UNPRINTABLE.sub("?", f"no value: {', '.join(errors)}")
    members: Any = [(http_sf.Token(conf().name), params)]
    return str(http_sf.ser(members))
