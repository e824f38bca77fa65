"""System checks: that pages, routes, upstreams and settings fit together. They run at server start too.

What a page can get wrong by itself is an error when its class is made; here is what takes several things to see.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's own name
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.converters import IntConverter, StringConverter, UUIDConverter

from gateway.annotations import accepts, describe
from gateway.conf import conf
from gateway.declare import declared_in
from gateway.page import AggregateView
from upstreams.request import placeholders, template_faults
from upstreams.upstream import Upstream

_MAKERS: Final = frozenset({"GET", "HEAD", "DELETE", "POST", "PUT", "PATCH"})
_OWN_KEYWORDS: Final = frozenset({"query", "headers", "json", "form", "content", "safe"})
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_CONVERTED: Final[tuple[tuple[type, Any], ...]] = (
    (IntConverter, int),
    (UUIDConverter, uuid.UUID),
    (StringConverter, str),
)


class Route(NamedTuple):
    """One way to a page: the URL pattern as it is written, and the types its kwargs arrive with."""

    pattern: str
    page: type[AggregateView]
    kwargs: Mapping[str, Any]


@register("gateway")
def check_gateway(**_: object) -> list[CheckMessage]:
    """Check every page that is routed."""
    try:
        upstreams = conf().upstreams
    except ImproperlyConfigured as error:
        return [Error(str(error), id="gateway.E001", hint="Mend UPSTREAMS in the settings.")]
    found: list[CheckMessage] = []
    routed = list(routes())
    for page in dict.fromkeys(route.page for route in routed):
        found.extend(_page_faults(page, upstreams))
    for route in routed:
        found.extend(_route_faults(route))
    return found


@register(Tags.security, "gateway", deploy=True)
def check_encryption(**_: object) -> list[CheckMessage]:
    """Warn of plain http to another machine."""
    return [
        Warning(
            f"{name}: {url} is plain http to another machine; what is sent can be read on the way.",
            hint="Use https, or silence gateway.W002 where the network itself is encrypted.",
            id="gateway.W002",
        )
        for name, upstream in conf().upstreams.items()
        for url in upstream.urls
        if url.startswith("http://") and url.partition("//")[2].partition("/")[0].rpartition(":")[0] not in _LOCAL
    ]


def routes() -> Iterator[Route]:
    """Yield every way to a page that the URLconf knows."""
    if getattr(settings, "ROOT_URLCONF", None):
        yield from _routes_in(get_resolver().url_patterns, "", {})


def _routes_in(patterns: Iterable[Any], prefix: str, given: Mapping[str, Any]) -> Iterator[Route]:
    for entry in patterns:
        pattern = prefix + str(entry.pattern)
        kwargs = {**given, **_kwargs_of(entry)}
        if isinstance(entry, URLResolver):
            yield from _routes_in(entry.url_patterns, pattern, kwargs)
        elif isinstance(entry, URLPattern):
            for page in dict.fromkeys(getattr(entry.callback, "pages", {}).values()):
                yield Route(pattern, page, kwargs)


def _kwargs_of(entry: URLPattern | URLResolver) -> dict[str, Any]:
    """Return the types a pattern's kwargs arrive with; unknown converters may give anything."""
    converters = getattr(entry.pattern, "converters", {})
    named = getattr(getattr(entry.pattern, "regex", None), "groupindex", {})
    defaults = getattr(entry, "default_args", None) or getattr(entry, "default_kwargs", {})
    return {
        **dict.fromkeys(named, str if not converters else Any),
        **{name: _converted(converter) for name, converter in converters.items()},
        **{name: type(value) for name, value in defaults.items()},
    }


def _converted(converter: object) -> Any:
    return next((type_ for kind, type_ in _CONVERTED if type(converter).to_python is kind.to_python), Any)  # type: ignore[attr-defined]


def _page_faults(page: type[AggregateView], upstreams: Mapping[str, Upstream]) -> Iterator[CheckMessage]:
    for node in page.plan.nodes.values():
        where = f"{page.__qualname__}.{node.attribute}"
        if node.kind == "part":
            continue
        if node.upstream not in upstreams:
            known = ", ".join(sorted(upstreams)) or "none"
            yield Error(
                f"{where} names the upstream {node.upstream!r}, which UPSTREAMS does not have.",
                hint=f"Known upstreams: {known}.",
                obj=page,
                id="gateway.E002",
            )
        elif upstreams[node.upstream].timeout > page.deadline:
            yield Warning(
                f"{where}: one attempt at {node.upstream!r} may take {upstreams[node.upstream].timeout} s, "
                f"but the page's deadline is {page.deadline} s.",
                hint="Shorten the upstream's timeout or give the page more time; no retry fits as it is.",
                obj=page,
                id="gateway.W001",
            )
    yield from _source_faults(page)


def _route_faults(route: Route) -> Iterator[CheckMessage]:
    page = route.page
    for name, wanted in page.plan.kwargs.items():
        if name not in route.kwargs:
            yield Error(
                f"{page.__qualname__} has a parameter {name!r}, neither a call nor in the URL {route.pattern!r}.",
                hint=f"Known calls: {', '.join(page.plan.nodes)}; in the URL: {', '.join(route.kwargs) or 'nothing'}.",
                obj=page,
                id="gateway.E003",
            )
        elif not accepts(wanted, route.kwargs[name]):
            yield Error(
                f"{page.__qualname__} takes {name!r} as {describe(wanted)}, "
                f"but the URL {route.pattern!r} gives {describe(route.kwargs[name])}.",
                hint="Change the annotation or the path converter.",
                obj=page,
                id="gateway.E004",
            )


def _source_faults(page: type[AggregateView]) -> Iterator[CheckMessage]:
    """Look at how requests are written: a type checker lets an f-string pass where a template belongs."""
    for attribute, declared in declared_in(page).items():
        for made in _requests_in(declared.function):
            if fault := _template_fault(made):
                yield Error(
                    f"{page.__qualname__}.{attribute}: {fault}.",
                    hint='Write GET("/users/{id}", id=user_id): values go in as keyword arguments.',
                    obj=page,
                    id="gateway.E005",
                )


def _requests_in(function: Any) -> Iterator[ast.Call]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MAKERS and node.args:
            yield node


def _template_fault(made: ast.Call) -> str | None:
    template = made.args[0]
    if not (isinstance(template, ast.Constant) and isinstance(template.value, str)):
        return f"the path {ast.unparse(template)} is not a plain string"
    if fault := template_faults(template.value):
        return f"the path {template.value!r} {fault}"
    given = {keyword.arg for keyword in made.keywords}
    missing = [name for name in placeholders(template.value) if name not in given - _OWN_KEYWORDS]
    if missing and None not in given:
        return f"the path {template.value!r} names {missing[0]!r}, which is not given"
    return None
