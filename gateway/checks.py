"""System checks: that pages, routes, upstreams and settings fit together. They run at server start too.

What a page can get wrong by itself is an error when its class is made; here is what takes several things to see.
"""

from __future__ import annotations

import ast
import inspect
import ipaddress
import textwrap
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple, NewType, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's own name
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.converters import IntConverter, StringConverter, UUIDConverter
from django.utils.regex_helper import normalize

from gateway.conf import conf
from gateway.declaring.annotations import accepts, describe, plain
from gateway.declaring.declare import declared_in
from gateway.page import AggregateView
from upstreams import DELETE, GET, HEAD, PATCH, POST, PUT, Hedge
from upstreams.request import placeholders, template_faults
from upstreams.upstream import Upstream

_MAKERS: Final = {maker.__name__: maker for maker in (GET, HEAD, DELETE, POST, PUT, PATCH)}
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


class _Entry(NamedTuple):
    """One line of the URLconf, with what all the lines around it add."""

    pattern: str
    view: Any
    kwargs: Mapping[str, Any]


@register("gateway")
def check_gateway(**_: object) -> list[CheckMessage]:
    """Check every page that is routed, and how function views write their requests."""
    try:
        upstreams = conf().upstreams
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="Mend it in the settings.", id="gateway.E001")]
    found: list[CheckMessage] = []
    routed = list(routes())
    for page in dict.fromkeys(route.page for route in routed):
        found.extend(_page_faults(page, upstreams))
    for route in routed:
        found.extend(_route_faults(route))
    for view in dict.fromkeys(_function_views()):
        found.extend(_source_faults(view, view.__qualname__, upstreams))
    return list({(message.id, message.msg): message for message in found}.values())  # of a page at several routes, once


@register(Tags.security, "gateway", deploy=True)
def check_encryption(**_: object) -> list[CheckMessage]:
    """Warn of plain http to another machine."""
    try:
        upstreams = conf().upstreams
    except ImproperlyConfigured:
        return []  # check_gateway has told it
    return [
        Warning(
            f"{name}: {url} is plain http to another machine; what is sent can be read on the way.",
            hint="Use https, or silence gateway.W002 where the network itself is encrypted.",
            id="gateway.W002",
        )
        for name, upstream in upstreams.items()
        for url in upstream.urls
        if url.lower().startswith("http://") and not _is_this_machine(urlsplit(url).hostname or "")
    ]


def routes() -> Iterator[Route]:
    """Yield every way to a page that the URLconf knows."""
    for entry in _entries():
        for page in dict.fromkeys(getattr(entry.view, "pages", {}).values()):
            yield Route(entry.pattern, page, entry.kwargs)


def _function_views() -> Iterator[Callable[..., Any]]:
    """Yield every routed view that is no page's."""
    for entry in _entries():
        view = inspect.unwrap(entry.view)
        if inspect.isfunction(view) and not hasattr(entry.view, "pages"):
            yield view


def _entries() -> Iterator[_Entry]:
    if getattr(settings, "ROOT_URLCONF", None):
        yield from _entries_in(get_resolver().url_patterns, "", {})


def _entries_in(
    patterns: Iterable[URLPattern | URLResolver], prefix: str, given: Mapping[str, Any]
) -> Iterator[_Entry]:
    for entry in patterns:
        pattern = prefix + str(entry.pattern)
        kwargs = {**given, **_kwargs_of(entry)}
        if isinstance(entry, URLResolver):
            yield from _entries_in(entry.url_patterns, pattern, kwargs)
        else:
            yield _Entry(pattern, entry.callback, kwargs)


def _kwargs_of(entry: URLPattern | URLResolver) -> dict[str, Any]:
    """Return the types a pattern's kwargs arrive with; unknown converters may give anything."""
    converters = getattr(entry.pattern, "converters", {})
    named = getattr(getattr(entry.pattern, "regex", None), "groupindex", {})
    defaults = getattr(entry, "default_args", None) or getattr(entry, "default_kwargs", {})
    may_lack = _left_out(entry.pattern.regex.pattern) if named and not converters else frozenset()
    return {
        **{name: str | None if name in may_lack else str for name in named},
        **{name: _converted(converter) for name, converter in converters.items()},
        **{name: type(value) for name, value in defaults.items()},
    }


def _left_out(pattern: str) -> frozenset[str]:
    """Name the groups of a regular expression that may match nothing: Django leaves their kwargs out."""
    try:
        forms = [frozenset(names) for _, names in normalize(pattern)]
    except ValueError:  # there are expressions that Django cannot reverse
        return frozenset()
    return frozenset.union(*forms) - frozenset.intersection(*forms)


def _converted(converter: object) -> Any:
    return next((type_ for kind, type_ in _CONVERTED if type(converter).to_python is kind.to_python), Any)  # type: ignore[attr-defined]


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _page_faults(page: type[AggregateView], upstreams: Mapping[str, Upstream]) -> Iterator[CheckMessage]:
    for node in page.plan.nodes.values():
        where = f"{page.__qualname__}.{node.attribute}"
        if node.kind == "part":
            continue
        if node.upstream not in upstreams:
            yield _unknown_upstream(where, node.upstream, upstreams, page)
            continue
        yield from _hedge_faults(where, node.policy.hedge, upstreams[node.upstream], page)
        if upstreams[node.upstream].timeout > page.deadline:
            yield Warning(
                f"{where}: one attempt at {node.upstream!r} may take {upstreams[node.upstream].timeout} s, "
                f"but the page's deadline is {page.deadline} s.",
                hint="Shorten the upstream's timeout or give the page more time; no retry fits as it is.",
                obj=page,
                id="gateway.W001",
            )
    for attribute, declared in declared_in(page).items():
        where = f"{page.__qualname__}.{attribute}"
        yield from _source_faults(declared.function, where, upstreams, page)
        if declared.policy.hedge:
            yield from _unsafe_hedge(declared.function, where, page)


def _hedge_faults(where: str, hedge: object, upstream: Upstream, page: type) -> Iterator[CheckMessage]:
    """Check a call's own hedge as the upstream's would be where the table is read."""
    if not hedge:
        return
    for fault in replace(upstream, hedge=cast("Hedge", hedge)).faults():
        yield Error(
            f"{where}: {fault}.",
            hint="Give hedge=Hedge(...), with a delay below the timeout.",
            obj=page,
            id="gateway.E007",
        )


def _unknown_upstream(where: str, name: str, upstreams: Collection[str], page: type | None) -> CheckMessage:
    known = ", ".join(sorted(upstreams)) or "none"
    return Error(
        f"{where} names the upstream {name!r}, which UPSTREAMS does not have.",
        hint=f"Known upstreams: {known}.",
        obj=page,
        id="gateway.E002",
    )


def _route_faults(route: Route) -> Iterator[CheckMessage]:
    page = route.page
    for name, wanted in page.plan.kwargs.items():
        if name not in route.kwargs:
            calls, given = ", ".join(page.plan.nodes) or "none", ", ".join(route.kwargs) or "nothing"
            yield Error(
                f"{page.__qualname__} has a parameter {name!r}, neither a call nor in the URL {route.pattern!r}.",
                hint=f"Known calls: {calls}; in the URL: {given}.",
                obj=page,
                id="gateway.E003",
            )
        elif not accepts(_as_written(wanted), route.kwargs[name]):
            yield Error(
                f"{page.__qualname__} takes {name!r} as {describe(wanted)}, "
                f"but the URL {route.pattern!r} gives {describe(route.kwargs[name])}.",
                hint="Change the annotation or the path converter.",
                obj=page,
                id="gateway.E004",
            )


def _as_written(type_: Any) -> Any:
    """Return what a NewType is made of: a URL knows no such names, and its values may go by them."""
    bare = plain(type_)
    return _as_written(bare.__supertype__) if isinstance(bare, NewType) else bare


def _source_faults(
    function: Callable[..., Any], where: str, upstreams: Collection[str], page: type | None = None
) -> Iterator[CheckMessage]:
    """Look at how requests are written: a type checker lets an f-string pass where a template belongs."""
    plain_function = inspect.unwrap(function)
    for made in _calls_in(plain_function):
        maker = _called(made.func, plain_function.__globals__)
        if maker in _MAKERS.values() and (fault := _template_fault(made, maker)):
            yield Error(
                f"{where}: {fault}.",
                hint='Write GET("/users/{id}", id=user_id): values go in as keyword arguments.',
                obj=page,
                id="gateway.E005",
            )
        upstream = _upstream_of(made)
        if upstream is not None and upstream not in upstreams:
            yield _unknown_upstream(where, upstream, upstreams, page)


def _unsafe_hedge(function: Callable[..., Any], where: str, page: type) -> Iterator[CheckMessage]:
    """Refuse a hedge for what must not be sent twice."""
    for made in _calls_in(function):
        maker = _called(made.func, inspect.unwrap(function).__globals__)
        if maker in _MAKERS.values() and not _is_safe(made, maker):
            yield Error(
                f"{where}: a {maker.__name__} is not hedged, for it would be sent twice.",
                hint="Leave hedge out, or say safe=True of a POST that only reads.",
                obj=page,
                id="gateway.E007",
            )


def _is_safe(made: ast.Call, maker: Callable[..., Any]) -> bool:
    """Tell whether a request that is written like this only reads."""
    says_so = any(
        keyword.arg == "safe" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        for keyword in made.keywords
    )
    return maker in {GET, HEAD} or says_so


def _calls_in(function: Callable[..., Any]) -> Iterator[ast.Call]:
    """Yield the calls in a function's source that are given something by position."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            yield node


def _upstream_of(made: ast.Call) -> str | None:
    """Name the upstream of `fan.call("upstream", ...)`."""
    match made:
        case ast.Call(ast.Attribute(ast.Name("fan"), "call"), [ast.Constant(str(upstream)), *_]):
            return upstream
    return None


def _called(expression: ast.expr, names: Mapping[str, Any]) -> Any:
    """Return what a plain name stands for, or one inside a module."""
    match expression:
        case ast.Name(name):
            return names.get(name, _MAKERS.get(name))
        case ast.Attribute(ast.Name(module), name):
            return getattr(names.get(module), name, None)
    return None


def _template_fault(made: ast.Call, maker: Callable[..., Any]) -> str | None:
    template = made.args[0]
    if not (isinstance(template, ast.Constant) and isinstance(template.value, str)):
        return f"the path {ast.unparse(template)} is not a plain string"
    if fault := template_faults(template.value):
        return f"the path {template.value!r} {fault}"
    given = {keyword.arg for keyword in made.keywords} - _own_keywords(maker)
    missing = [name for name in placeholders(template.value) if name not in given]
    if missing and None not in given:
        return f"the path {template.value!r} names {missing[0]!r}, which is not given"
    return None


def _own_keywords(maker: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(maker).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
