"""What the client gives a page: query and body, decoded into the types its calls declare, or a 400 naming the field."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Final
from urllib.parse import unquote_plus, unquote_to_bytes

import msgspec
from django.http import HttpRequest

from gateway.answering.answer import Problem
from gateway.declaring.plan import Plan
from upstreams.request import is_finite
from upstreams.values import typed

_WHERE: Final = re.compile(r"^(?P<reason>.*?)(?: - at (?:`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD: Final = re.compile(r"^Object .* field `(.+)`$", re.DOTALL)
_ECHO: Final = re.compile(r"(?<=^Invalid enum value) .*|(?<=^Invalid value) .*", re.DOTALL)
_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii"})
_SEVERAL: Final = (
    msgspec.inspect.ListType,
    msgspec.inspect.SetType,
    msgspec.inspect.FrozenSetType,
    msgspec.inspect.VarTupleType,
    msgspec.inspect.TupleType,
)


def read_inputs(plan: Plan, request: HttpRequest, kwargs: Mapping[str, Any], max_body: int) -> dict[str, Any]:
    """Return the page's inputs by name. Raises Problem: 400 for a wrong value, 413 and 415 for a wrong body."""
    inputs: dict[str, Any] = {**kwargs, "request": request}
    if (lacking := plan.kwargs.keys() - kwargs.keys()) and not plan.not_in(kwargs):
        inputs.update(dict.fromkeys(lacking))  # Django leaves out what an optional group of the URL did not match
    if plan.query is not None:
        inputs["query"] = _query(request, plan.query)
    if plan.body is not None:
        inputs["body"] = _body(request, plan.body, max_body)
    return inputs


def _query(request: HttpRequest, type_: Any) -> Any:
    """Decode the query string; a name given twice is an error unless its field takes several."""
    fields = _fields(type_)
    found: dict[str, Any] = {}
    for name, values in request.GET.lists():
        if fields.get(name):
            found[name] = values
        elif len(values) > 1 and name in fields:
            raise _invalid("query", f"given {len(values)} times", f".{name}")
        else:
            found[name] = values[0]
    _check_percent_encoding(request.META.get("QUERY_STRING", ""), fields)
    query = _checked("query", lambda: msgspec.convert(found, type_, strict=False))
    for name, field in zip(type_.__struct_encode_fields__, type_.__struct_fields__, strict=True):
        if name in found and not _is_finite(getattr(query, field)):
            raise _invalid("query", "Expected a finite number", f".{name}")
    return query


def _is_finite(value: object) -> bool:
    """Tell whether a query's value can be handed on: "nan" is read as a float."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_finite, value))
    return not isinstance(value, (float, Decimal)) or is_finite(value)


def _check_percent_encoding(query: str, fields: Mapping[str, bool]) -> None:
    """Refuse a value that is not UTF-8, which Django would mend with replacement characters."""
    for pair in query.split("&") if "%" in query else ():
        name, _, value = pair.partition("=")
        if unquote_plus(name) in fields:
            _checked(f"query.{unquote_plus(name)}", unquote_to_bytes(value).decode)


def _body(request: HttpRequest, type_: Any, max_body: int) -> Any:
    if _content_length(request) > max_body:
        raise _too_large(max_body)
    if request.content_type != "application/json" and not (request.content_type or "").endswith("+json"):
        raise Problem(415, detail="the body must be application/json")
    if (request.content_params or {}).get("charset", "utf-8").lower() not in _UTF8:
        raise Problem(415, detail="the body must be in UTF-8")
    if request.META.get("HTTP_CONTENT_ENCODING", "identity") != "identity":
        raise Problem(415, detail="the body must not be compressed")
    content = request.body
    if len(content) > max_body:
        raise _too_large(max_body)
    return _checked("body", lambda: _decoded(content, type_))


def _content_length(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        raise Problem(400, detail="Content-Length is no number") from None


def _too_large(max_body: int) -> Problem:
    return Problem(413, detail=f"the body may have {max_body} bytes")


def _decoded(content: bytes, type_: Any) -> Any:
    if not content.isascii():
        content.decode("utf-8")  # msgspec does not look into the strings it skips
    return _decoder(type_)(content)


def _checked(where: str, decode: Callable[[], Any]) -> Any:
    try:
        return decode()
    except msgspec.ValidationError as error:
        raise _mismatch(where, str(error)) from None
    except TypeError:  # which msgspec raises as it puts a set together
        raise _invalid(where, "a set has an array or an object in it") from None
    except RecursionError:
        raise _invalid(where, "nested too deeply") from None
    except UnicodeDecodeError:
        raise _invalid(where, "not UTF-8") from None
    except msgspec.DecodeError as error:
        raise _invalid(where, str(error)) from None


def _mismatch(where: str, message: str) -> Problem:
    """Turn msgspec's message into the field's path and the reason, which repeats nothing the client sent."""
    found = _WHERE.match(message)
    reason, path = (found["reason"], found["path"] or "") if found else (message, "")
    field = _FIELD.match(reason)
    return _invalid(where, _ECHO.sub("", reason), f"{path}.{field[1]}" if field else path)


def _invalid(where: str, reason: str, path: str = "") -> Problem:
    return Problem(400, "The request is not valid", kind="invalid_request", invalid={where + path: reason})


@cache
def _fields(type_: Any) -> Mapping[str, bool]:
    """Name the fields as clients do, and tell of each whether it takes several values."""
    info: Any = msgspec.inspect.type_info(type_)
    return {field.encode_name: _takes_several(field.type) for field in info.fields}


def _takes_several(type_: msgspec.inspect.Type) -> bool:
    if isinstance(type_, msgspec.inspect.UnionType):
        return any(_takes_several(member) for member in type_.types)
    return isinstance(type_, _SEVERAL)


@cache
def _decoder(type_: Any) -> Callable[[bytes], Any]:
    return typed(type_)
