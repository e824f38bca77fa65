"""The gateway's settings, read once from Django's and checked as they are read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

from upstreams import Upstream, UpstreamTableError, check_table
from upstreams.upstream import is_token

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750's b64token
_LEAST_TOKEN: Final = 32
#: What an extra brings: one module of it that shows whether it is there.
_EXTRAS: Final = {"metrics": "prometheus_client", "otel": "opentelemetry.exporter.otlp.proto.http"}


@dataclass(frozen=True, slots=True)
class Conf:
    """The gateway's settings.

    `upstreams` is UPSTREAMS; `name` (GATEWAY_NAME) is this deployment's in Via and Proxy-Status; `server_timing`
    (GATEWAY_SERVER_TIMING) adds the header of that name; `page_middleware` (PAGE_MIDDLEWARE) are the dotted paths of
    the native async middleware around pages; `deadline_header` (GATEWAY_DEADLINE_HEADER) is the header, in lower case,
    by which a client says how many milliseconds it will wait; `admission_wait` (GATEWAY_ADMISSION_WAIT) is how many
    seconds a page may wait to begin where more is asked than a worker can make. `metrics` (GATEWAY_METRICS) answers
    /metrics, to those who have the `metrics_token` (GATEWAY_METRICS_TOKEN) if there is one; `otlp_endpoint`
    (GATEWAY_OTLP_ENDPOINT) is the base URL of the collector that spans go to; `log_dir` is LOGGING's `dir`, where the
    console reads; `control_dir` (GATEWAY_CONTROL_DIR, else the same) is where operators' holds on breakers are written;
    `ops_token` (OPS_TOKEN) opens the console.
    """

    upstreams: Mapping[str, Upstream]
    name: str
    server_timing: bool
    page_middleware: tuple[str, ...]
    deadline_header: str
    admission_wait: float
    metrics: bool
    metrics_token: str | None = field(repr=False)
    otlp_endpoint: str | None
    log_dir: Path | None
    control_dir: Path | None
    ops_token: str | None = field(repr=False)


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
        server_timing=_switch("GATEWAY_SERVER_TIMING", _setting("GATEWAY_SERVER_TIMING", default=False)),
        page_middleware=tuple(page_middleware),
        deadline_header=deadline_header.lower(),
        admission_wait=_admission_wait(),
        metrics=_metrics(),
        metrics_token=_metrics_token(),
        otlp_endpoint=_otlp_endpoint(),
        log_dir=_log_dir(),
        control_dir=_folder("GATEWAY_CONTROL_DIR", _setting("GATEWAY_CONTROL_DIR", None)) or _log_dir(),
        ops_token=_ops_token(),
    )


def _switch(name: str, wanted: Any) -> bool:
    if not isinstance(wanted, bool):
        raise ImproperlyConfigured(f"{name} must be True or False, not {wanted!r}")
    return wanted


def _admission_wait() -> float:
    seconds = _setting("GATEWAY_ADMISSION_WAIT", 0.5)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise ImproperlyConfigured(f"GATEWAY_ADMISSION_WAIT must be a number of seconds above 0, not {seconds!r}")
    return float(seconds)


def _metrics() -> bool:
    wanted = _switch("GATEWAY_METRICS", _setting("GATEWAY_METRICS", default=False))
    if wanted:
        _need("metrics", "GATEWAY_METRICS")
    return wanted


def _metrics_token() -> str | None:
    token = _setting("GATEWAY_METRICS_TOKEN", None) or None
    if token is not None and not (isinstance(token, str) and _BEARER.fullmatch(token)):
        message = "GATEWAY_METRICS_TOKEN must be letters, digits and '-._~+/', with '=' at the end only"
        raise ImproperlyConfigured(message)
    return token


def _otlp_endpoint() -> str | None:
    endpoint = _setting("GATEWAY_OTLP_ENDPOINT", None) or None
    if endpoint is None:
        return None
    if not isinstance(endpoint, str) or not _is_base_url(endpoint):
        message = "GATEWAY_OTLP_ENDPOINT must be a base URL like http://collector:4318, without user, query or fragment"
        raise ImproperlyConfigured(message)
    _need("otel", "GATEWAY_OTLP_ENDPOINT")
    return endpoint.rstrip("/")


def _is_base_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        known = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return known and not (parts.query or parts.fragment or "@" in parts.netloc or not text.isprintable() or " " in text)


def _log_dir() -> Path | None:
    logging = _setting("LOGGING", {})
    return _folder("LOGGING['dir']", logging.get("dir")) if isinstance(logging, Mapping) else None


def _folder(name: str, place: Any) -> Path | None:
    if place is not None and not isinstance(place, (str, Path)):
        raise ImproperlyConfigured(f"{name} must be a folder's path, not {place!r}")
    return Path(place).absolute() if place else None


def _ops_token() -> str | None:
    token = _setting("OPS_TOKEN", None) or None
    if token is not None and not (isinstance(token, str) and len(token) >= _LEAST_TOKEN and token.isprintable()):
        raise ImproperlyConfigured(f"OPS_TOKEN must have {_LEAST_TOKEN} characters or more: it opens the console")
    return token


def _need(extra: str, setting: str) -> None:
    """Raise ImproperlyConfigured if what a setting switches on is not installed."""
    try:
        there = find_spec(_EXTRAS[extra]) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        message = f"{setting} needs {_EXTRAS[extra]}: install tributary[{extra}]"
        raise ImproperlyConfigured(message)


def _setting(name: str, default: Any) -> Any:
    return getattr(settings, name, default)


@receiver(setting_changed)
def _forget(**_: object) -> None:
    """Read the settings again after a test has overridden one."""
    conf.cache_clear()
