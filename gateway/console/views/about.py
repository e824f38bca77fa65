"""About: what this gateway is set up as, what its log takes on disk, and whether the log is whole."""

from __future__ import annotations

import asyncio
import dataclasses
import platform
import ssl
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from gateway import __version__
from gateway.conf import conf
from gateway.console.entry import guarded
from gateway.console.questions import asked
from gateway.console.rendering import rendered
from gateway.log.redact import MASK, redact, redact_text
from upstreams import Upstream

_PACKAGES: Final = ("django", "uvicorn", "aiohttp", "tenacity", "structlog", "msgspec", "duckdb")
_SHOWN: Final = (
    *("DEBUG", "ALLOWED_HOSTS", "ROOT_URLCONF", "MIDDLEWARE", "PAGE_MIDDLEWARE", "INSTALLED_APPS"),
    *("SECURE_SSL_REDIRECT", "SECURE_PROXY_SSL_HEADER", "CSRF_TRUSTED_ORIGINS"),
)
#: Settings whose names sound like a secret's, and whose values are shown all the same: only whether there is one.
_KEPT: Final = frozenset({"metrics_token", "ops_token"})


def _versions() -> Iterator[tuple[str, str]]:
    yield "tributary", __version__
    yield "python", platform.python_version()
    for package in _PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"


#: Looked up when a worker starts, for each is in a file.
_VERSIONS: Final = dict(_versions())


class LogFile(NamedTuple):
    """A file of the log: its size in bytes, and how many seconds ago it was written to."""

    name: str
    size: int
    age: float


@guarded
async def about(request: HttpRequest) -> HttpResponse:
    """Show the settings as they are in effect, secrets masked, and the log's files."""
    directory = conf().log_dir
    files = await asyncio.to_thread(log_files, directory) if directory is not None else []
    context = {
        "versions": _VERSIONS,
        "settings": dict(_gateway_settings()),
        "logging": redact(settings.LOGGING),
        "djangos": redact({name: getattr(settings, name) for name in _SHOWN if hasattr(settings, name)}),
        "upstreams": {name: dict(_upstream(upstream)) for name, upstream in conf().upstreams.items()},
        "directory": directory,
        "files": files,
        "size": sum(file.size for file in files),
    }
    return rendered(request, "about.html", context)


@guarded
async def doctor(request: HttpRequest) -> HttpResponse:
    """Show what `doctor` says of the log: a part of the page, for it may take long."""
    found = await asked("doctor")
    return rendered(request, "doctor.html", {"found": found.answer, "fault": found.fault})


def log_files(directory: Path) -> list[LogFile]:
    """Return the log's files, the one written to last first."""
    now = time.time()
    found = []
    for path in directory.glob("*.ndjson*"):
        try:
            status = path.stat()
        except FileNotFoundError:  # rotated away meanwhile
            continue
        found.append(LogFile(path.name, status.st_size, max(now - status.st_mtime, 0.0)))
    return sorted(found, key=lambda file: file.age)


def _gateway_settings() -> Iterator[tuple[str, Any]]:
    """Yield the gateway's own settings; of a secret only that there is one."""
    current = conf()
    for field in dataclasses.fields(current):
        value = getattr(current, field.name)
        if field.name in _KEPT:
            yield field.name, MASK if value else None
        elif field.name != "upstreams":
            yield field.name, _plain(value)


def _upstream(upstream: Upstream) -> Iterator[tuple[str, Any]]:
    """Yield how an upstream is spoken to: of headers the names, of policies what they say."""
    for field in dataclasses.fields(upstream):
        value = getattr(upstream, field.name)
        if field.name == "url":
            yield "url", [redact_text(url) for url in upstream.urls]
        elif field.name == "headers":
            yield "headers", dict.fromkeys(value, MASK)
        elif isinstance(value, ssl.SSLContext):
            yield field.name, "an SSLContext of its own"
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield field.name, {below.name: getattr(value, below.name) for below in dataclasses.fields(value)}
        else:
            yield field.name, _plain(value)


def _plain(value: Any) -> Any:
    return [str(item) for item in value] if isinstance(value, tuple) else value
