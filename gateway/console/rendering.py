"""HTML of the console: by its own template engine, whatever TEMPLATES says, and with headers that let nothing in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.csrf import get_token
from django.template import Context, Engine
from django.urls import NoReverseMatch, reverse

from gateway import __version__
from gateway.conf import conf
from gateway.console.questions import WINDOWS, since

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"
#: Nothing from elsewhere, and nothing inline: neither scripts nor styles.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with none, browsers call the origin of a form `null`, and it is refused
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PAGES: Final = ("live", "requests", "upstreams", "errors", "latency", "pages", "about")
#: Read when a worker starts, for it may not wait for a disk later on.
_TEMPLATES: Final = {path.name: path.read_text() for path in (_HERE / "templates").iterdir()}
_engine: Final = Engine(
    loaders=[("django.template.loaders.cached.Loader", [("django.template.loaders.locmem.Loader", _TEMPLATES)])],
    builtins=["gateway.console.formats"],
)

Answered = TypeVar("Answered", bound=HttpResponseBase)


class Tab(NamedTuple):
    """One page of the console as the navigation shows it."""

    title: str
    url: str
    current: bool


def rendered(request: HttpRequest, template: str, context: Mapping[str, Any], status: int = 200) -> HttpResponse:
    """Return a page of the console."""
    return secured(HttpResponse(html(request, template, context), status=status))


def html(request: HttpRequest, template: str, context: Mapping[str, Any]) -> str:
    """Render a template: of a page, or of a part of one."""
    known = {
        "request": request,
        "csrf_token": get_token(request),
        "version": __version__,
        "gateway": conf().name,
        "pages": list(_tabs(request)),
        "windows": WINDOWS,
        "since": since(request),
    }
    return str(_engine.get_template(template).render(Context({**known, **context})))


def secured(response: Answered) -> Answered:
    """Put the headers on a response that keep it to this console, unless it has others."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _tabs(request: HttpRequest) -> Iterator[Tab]:
    """Yield the pages there are, each with the window that is looked at."""
    here = request.resolver_match.url_name if request.resolver_match else None
    window = {name: value for name in ("since", "until") if (value := request.GET.get(name))}
    for name in _PAGES:
        try:
            url = reverse(f"ops:{name}")
        except NoReverseMatch:
            continue
        yield Tab(name.capitalize(), f"{url}?{urlencode(window)}" if window else url, here == name)
