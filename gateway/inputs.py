"""What the client gives a page: query and body, decoded into the types its calls declare, or a 400 naming the field."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, get_args, get_origin

import msgspec
from django.http import HttpRequest

from gateway.annotations import is_union
from gateway.answer import Problem
from gateway.plan import Plan

_WHERE: Final = re.compile(r"^(?P<reason>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD: Final = re.compile(r"field `([^`]+)`")


def read_inputs(plan: Plan, request: HttpRequest, kwargs: Mapping[str, Any], max_body: int) -> dict[str, Any]:
    """Return the page's inputs by name. Raises Problem: 400 for a wrong value, 413 and 415 for a wrong body."""
    inputs: dict[str, Any] = {**kwargs, "request": request}
    if plan.query is not None:
        inputs["query"] = _query(request, plan.query)
    if plan.body is not None:
        inputs["body"] = _body(request, plan.body, max_body)
    return inputs


def _query(request: HttpRequest, type_: Any) -> Any:
    """Decode the query string; a name given twice is an error unless its field takes several."""
    lists = _list_fields(type_)
    found: dict[str, Any] = {}
    for name, values in request.GET.lists():
        if name in lists:
            found[name] = values
        elif len(values) == 1:
            found[name] = values[0]
        elif name in lists.known:
            raise _invalid("query", f"given {len(values)} times", name)
    return _checked("query", lambda: msgspec.convert(found, type_, strict=False))


def _body(request: HttpRequest, type_: Any, max_body: int) -> Any:
    if int(request.META.get("CONTENT_LENGTH") or 0) > max_body:
        raise Problem(413, detail=f"the body may have {max_body} bytes")
    if request.content_type != "application/json" and not (request.content_type or "").endswith("+json"):
        raise Problem(415, detail="the body must be application/json")
    content = request.body
    if len(content) > max_body:
        raise Problem(413, detail=f"the body may have {max_body} bytes")
    return _checked("body", lambda: _decoder(type_).decode(content))


def _checked(where: str, decode: Callable[[], Any]) -> Any:
    try:
        return decode()
    except msgspec.ValidationError as error:
        found = _WHERE.match(str(error))
        reason, path = (found["reason"], found["path"]) if found else (str(error), None)
        missing = _FIELD.search(reason)
        field = ".".join(part for part in (path, missing[1] if missing else None) if part)
        raise _invalid(where, reason, field) from None
    except RecursionError:
        raise _invalid(where, "nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid(where, str(error) if isinstance(error, msgspec.DecodeError) else "not UTF-8") from None


def _invalid(where: str, reason: str, field: str = "") -> Problem:
    name = f"{where}.{field}" if field else where
    return Problem(400, "The request is not valid", kind="invalid_request", invalid={name: reason})


class _ListFields(frozenset[str]):
    """The names of fields that take several values; `known` are all the names there are."""

    known: frozenset[str]


@cache
def _list_fields(type_: Any) -> _ListFields:
    fields = msgspec.structs.fields(type_)
    lists = _ListFields(field.encode_name for field in fields if _takes_several(field.type))
    lists.known = frozenset(field.encode_name for field in fields)
    return lists


def _takes_several(type_: Any) -> bool:
    if is_union(type_):
        return any(_takes_several(member) for member in get_args(type_))
    origin = get_origin(type_) or type_
    return isinstance(origin, type) and issubclass(origin, (list, tuple, set, frozenset))


@cache
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)
