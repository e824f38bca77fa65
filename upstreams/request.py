"""What is asked of an upstream, rendered so that no value can change the request's shape."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import re
import uuid
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Generic, LiteralString, TypeVar
from urllib.parse import quote, unquote

import msgspec

from upstreams.upstream import RESERVED_HEADERS, is_token
from upstreams.values import encode

T_co = TypeVar("T_co", covariant=True)

SAFE_METHODS = frozenset({"GET", "HEAD"})
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LITERAL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_FORBIDDEN = re.compile("[\0\r\n]")
_CONTROL = re.compile("[\0-\x1f\x7f]")
_URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"
_AS_IT_IS = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*").fullmatch  # most values: they need no quoting, and are no ..


class InvalidParameter(ValueError):
    """A value that cannot stand where a request puts it. `name` and `value` say which, `reason` why."""

    def __init__(self, name: str, value: object, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.value = value
        self.reason = reason


class Body(msgspec.Struct, frozen=True):
    """The bytes of a request's body and their media type."""

    content: bytes
    type: str

    def __repr__(self) -> str:
        """Show type and size only: a body may hold secrets."""
        return f"<{len(self.content)} bytes of {self.type}>"


class Request(msgspec.Struct, Generic[T_co], frozen=True):
    """One request to one upstream whose answer is a `T`. Made by GET, POST and the others, never by hand.

    `target` is the path and query as they are sent, after the upstream's own base path; `template` is the path it was
    made from, with names for values. `link` is set by FOLLOW alone. `safe` requests may be repeated.
    Equal requests put the same bytes on the wire.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: Body | None
    safe: bool
    link: str | None
    template: str

    def __eq__(self, other: object) -> bool:
        """Compare what is sent, not the template it was made from."""
        if not isinstance(other, Request):
            return NotImplemented
        return self._wire() == other._wire()

    def __hash__(self) -> int:
        """Hash what is sent."""
        return hash((self.method, self.target, self.link))

    def __repr__(self) -> str:
        """Show the request line only: headers and bodies may hold secrets."""
        return f"<{self.method} {self.link or self.target}>"

    def _wire(self) -> tuple[object, ...]:
        return self.method, self.target, dict(self.headers), self.body, self.safe, self.link


def GET(
    path: LiteralString,
    /,
    *,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **params: Any,
) -> Request[Any]:
    """Ask for `path`, a template whose `{names}` are filled from `params`; the other params become the query.

    None is left out of the query, a list repeats its name, booleans are `true` and `false`. `query` takes names that
    are not Python identifiers. Raises InvalidParameter for a value that could change the path's shape, ValueError for
    a template that is wrong itself.
    """
    return _request("GET", path, query, headers, params)


def HEAD(
    path: LiteralString,
    /,
    *,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **params: Any,
) -> Request[Any]:
    """Ask for the headers of `path`; parameters as in GET. Its value is a `Reply[None]`."""
    return _request("HEAD", path, query, headers, params)


def DELETE(
    path: LiteralString,
    /,
    *,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **params: Any,
) -> Request[Any]:
    """Delete `path`; parameters as in GET. A write: see POST."""
    return _request("DELETE", path, query, headers, params)


def POST(
    path: LiteralString,
    /,
    *,
    json: Any = None,
    form: Mapping[str, Any] | None = None,
    content: tuple[bytes, str] | None = None,
    safe: bool = False,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **params: Any,
) -> Request[Any]:
    """Post one body to `path`: `json` (anything msgspec encodes), `form` fields, or `content` as (bytes, media type).

    `safe=True` says it only reads (a search, say): it may then be retried and cancelled like a GET. Parameters else as
    in GET.
    """
    return _request("POST", path, query, headers, params, _body(json, form, content), safe=safe)


def PUT(
    path: LiteralString,
    /,
    *,
    json: Any = None,
    form: Mapping[str, Any] | None = None,
    content: tuple[bytes, str] | None = None,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **params: Any,
) -> Request[Any]:
    """Put one body at `path`; bodies as in POST, parameters as in GET."""
    return _request("PUT", path, query, headers, params, _body(json, form, content))


def PATCH(
    path: LiteralString,
    /,
    *,
    json: Any = None,
    form: Mapping[str, Any] | None = None,
    content: tuple[bytes, str] | None = None,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **params: Any,
) -> Request[Any]:
    """Patch `path` with one body; bodies as in POST, parameters as in GET."""
    return _request("PATCH", path, query, headers, params, _body(json, form, content))


def FOLLOW(url: str, /, *, headers: Mapping[str, str] | None = None) -> Request[Any]:
    """Get a link that an upstream gave, absolute or relative to the upstream's base URL.

    A link to any other origin is not followed: the call fails with `http_request_denied`. What may not stand in a URL,
    a space say, is percent-encoded; raises InvalidParameter for an empty link and for control characters in it.
    """
    if not url or _CONTROL.search(url) or not _is_unicode(url):
        raise InvalidParameter("url", url, "not a link that can be followed")
    link = quote(url, safe=_URL_CHARACTERS)
    return Request("GET", "", _headers(headers or {}), None, safe=True, link=link, template="(link)")


def template_faults(path: str) -> str | None:
    """Say in half a sentence what is wrong with a path template, or None if nothing is."""
    literal = _PLACEHOLDER.sub("x", path)
    if not path.startswith("/"):
        return "must start with /"
    if "?" in path or "#" in path:
        return "must hold no query or fragment: give those as keyword arguments"
    if not _LITERAL.fullmatch(literal):
        return "has a character that must be percent-encoded, or a brace without its pair"
    segments = [unquote(segment) for segment in literal.split("/")[1:]]
    if any(segment in {".", ".."} for segment in segments) or "" in segments[:-1]:
        return "must hold no empty, . or .. segment"
    return None


def placeholders(path: str) -> tuple[str, ...]:
    """Return the names a path template is filled from, in order."""
    return tuple(_PLACEHOLDER.findall(path))


def header_value(name: str, value: object) -> str:
    """Return a header's value as it is, or raise InvalidParameter for what no header can hold."""
    if not isinstance(value, str):
        message = f"header {name!r} must be text, not {type(value).__name__}"
        raise TypeError(message)
    if _CONTROL.search(value.replace("\t", " ")):
        raise InvalidParameter(name, value, "holds a control character")
    if not _is_unicode(value):
        raise InvalidParameter(name, value, "is not text that UTF-8 can carry")
    return value


@lru_cache(maxsize=4096)
def _template(path: str) -> tuple[str, tuple[str, ...]]:
    """Return a path as a template for `%`, and the names it is filled from; refuses a wrong one once, at first use."""
    if fault := template_faults(path):
        message = f"path {path!r} {fault}"
        raise ValueError(message)
    return _PLACEHOLDER.sub("%s", path.replace("%", "%%")), placeholders(path)


def _request(
    method: str,
    path: str,
    query: Mapping[str, Any] | None,
    headers: Mapping[str, str] | None,
    params: dict[str, Any],
    body: Body | None = None,
    *,
    safe: bool = False,
) -> Request[Any]:
    target = _path(path, params)
    if (params or query) and (pairs := _query({**params, **query} if query else params)):
        target = f"{target}?{pairs}"
    plain = _headers(headers) if headers else {}
    return Request(method, target, plain, body, safe or method in SAFE_METHODS, None, path)


def _path(path: str, params: dict[str, Any]) -> str:
    """Fill a template, taking from `params` what it uses, so that the rest is the query."""
    template, names = _template(path)
    try:
        values = [params[name] for name in names]
    except KeyError as missing:
        message = f"path {path!r} names {{{missing.args[0]}}}, which is not given"
        raise TypeError(message) from None
    for name in names:
        params.pop(name, None)
    return template % tuple(map(_segment, names, values))


def _segment(name: str, value: object) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is str and _AS_IT_IS(value):
        return value
    text = _plain(name, value)
    if text in {"", ".", ".."}:
        raise InvalidParameter(name, value, "cannot stand in a path: it is empty, . or ..")
    return _quoted(name, text)


def _query(params: Mapping[str, Any]) -> str:
    pairs: list[str] = []
    for name, value in params.items():
        if value is None:
            continue
        values = value if isinstance(value, (list, tuple, set, frozenset)) else (value,)
        pairs.extend(f"{_quoted(name, name)}={_quoted(name, _plain(name, item))}" for item in values)
    return "&".join(pairs)


def _quoted(name: str, text: str) -> str:
    if _FORBIDDEN.search(text):
        raise InvalidParameter(name, text, "holds NUL, CR or LF")
    return _encoded(name, text)


def _encoded(name: str, text: str) -> str:
    if not _is_unicode(text):
        raise InvalidParameter(name, text, "is not text that UTF-8 can carry")
    return quote(text, safe="")


def _is_unicode(text: str) -> bool:
    """Tell whether text is free of lone surrogates, which no UTF-8 can carry."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _plain(name: str, value: object) -> str:  # noqa: PLR0911 - one line a type
    """Return a value as the text that stands for it in a URL."""
    if isinstance(value, enum.Enum):
        return _plain(name, value.value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (float, decimal.Decimal)):
        if not is_finite(value):
            raise InvalidParameter(name, value, "is not a finite number")
        return str(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    message = f"{name}: a {type(value).__name__} cannot be put into a URL"
    raise TypeError(message)


def is_finite(value: float | decimal.Decimal) -> bool:
    """Tell whether a number is one: a decimal, too, may be NaN or infinite."""
    return value.is_finite() if isinstance(value, decimal.Decimal) else math.isfinite(value)


def _headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {_header_name(name): header_value(name, value) for name, value in headers.items()}


def _header_name(name: str) -> str:
    if not is_token(name):
        message = f"{name!r} is not a header name"
        raise ValueError(message)
    if name.lower() in RESERVED_HEADERS:
        message = f"header {name!r} cannot be set by a request: it belongs to the connection or to the gateway"
        raise ValueError(message)
    return name.lower()


def _body(json: Any, form: Mapping[str, Any] | None, content: tuple[bytes, str] | None) -> Body | None:
    if sum(part is not None for part in (json, form, content)) > 1:
        message = "a request has one body: json, form or content"
        raise TypeError(message)
    if content is not None:
        data, media_type = content
        return Body(data, header_value("content", media_type))
    if form is not None:
        return Body(_form(form.items()), "application/x-www-form-urlencoded")
    if json is not None:
        return Body(encode(json), "application/json")
    return None


def _form(fields: Iterable[tuple[str, Any]]) -> bytes:
    """Encode form fields as application/x-www-form-urlencoded; unlike a URL's query they may hold line breaks."""
    pairs: list[str] = []
    for name, value in fields:
        if value is None:
            continue
        values = value if isinstance(value, (list, tuple, set, frozenset)) else (value,)
        pairs.extend(f"{_encoded(name, name)}={_encoded(name, _plain(name, item))}" for item in values)
    return "&".join(pairs).encode("ascii")
