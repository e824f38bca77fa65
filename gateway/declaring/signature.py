"""What one declaration says by itself: what its method takes, and the type, the decoder and the fallback of its value.

Whatever is wrong with it is told to `report`, a sentence at a time.
"""

from __future__ import annotations

import copy
import inspect
import operator
import types
import typing
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple, get_args, get_origin

import msgspec

from gateway.declaring.annotations import (
    accepts,
    classes_of,
    describe,
    hints_of,
    is_union,
    plain,
    type_variables,
    without_none,
)
from gateway.declaring.declare import Declared, Joined
from upstreams import Decoder, Reply, Request
from upstreams.values import convert, undecodable

Report = Callable[[str], None]

_UNFILLED: Final = frozenset(
    {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
)
_SELF_EVIDENT: Final = frozenset({"request", "fan"})
#: Hashable, but not what msgspec writes as the name of an object's member; a Decimal it writes without quotes.
_NO_NAMES: Final = (bool, Decimal, frozenset, tuple, types.NoneType, msgspec.Struct)


class Signature(NamedTuple):
    """What a method takes and gives. `lead` is its first parameter, where that can be given by position."""

    takes: Mapping[str, Any]
    gives: Any
    lead: str | None


class Reading(NamedTuple):
    """A declaration as its annotations tell it.

    `takes` is what its method is given by name. `type` is its value's as others see it, `answer` that of what its
    upstream sends. A join also has the types of one `key` and one `row`.
    """

    takes: Mapping[str, Any]
    type: Any
    answer: Any
    may_be_none: bool
    key: Any = None
    row: Any = None


def read_signature(
    method: Any, owner: type, report: Report, *, returns: str, is_async: bool = False
) -> Signature | None:
    """Read a method that stands in `owner` and is to return `returns`; None where its annotations do not say enough."""
    function = getattr(method, "__func__", method)
    if inspect.iscoroutinefunction(function) is not is_async:
        report(
            "a part is a coroutine: write it with async def" if is_async else "only a part may wait: write it with def"
        )
    hints = _hints(function, owner, report)
    if hints is None:
        return None
    parameters = list(inspect.signature(function).parameters.values())[0 if isinstance(method, staticmethod) else 1 :]
    for parameter in parameters:
        _check_parameter(parameter, hints, report)
    if "return" not in hints:
        report(f"must say what it returns: annotate it -> {returns}")
        return None
    names = [parameter.name for parameter in parameters]
    return Signature(
        takes={name: hints.get(name, Any) for name in names if name in hints or name in _SELF_EVIDENT},
        gives=hints["return"],
        lead=names[0] if names and parameters[0].kind is parameters[0].POSITIONAL_OR_KEYWORD else None,
    )


def read_declaration(declared: Declared[Any, ..., Any], owner: type, report: Report) -> Reading | None:
    """Read a declaration that stands in `owner`; None where it is nothing a page can use."""
    if declared.kind == "part":
        return _read_part(declared, owner, report)
    signature = read_signature(declared.function, owner, report, returns="Request[T]")
    if signature is None:
        return None
    answer, declines = without_none(signature.gives)
    if get_origin(answer) is not Request:
        report(f"must return Request[T], not {describe(signature.gives)}")
        return None
    (type_,) = get_args(answer)
    if isinstance(declared, Joined):
        return _read_join(declared, signature, type_, report)
    policy = declared.policy
    may_be_none = policy.optional or bool(policy.absent) or declines
    return Reading(signature.takes, type_, type_, may_be_none)


def read_decoder(declared: Declared[Any, ..., Any], reading: Reading, report: Report) -> Decoder | None:
    """Make what reads the upstream's answer; None for a part, which has no upstream of its own."""
    if declared.kind == "part":
        return None
    parse = declared.policy.decode
    rows = declared.rows if isinstance(declared, Joined) else None
    if parse is not None and rows is not None:
        report("rows= names a member of JSON: with decode=, let that return the rows themselves")
    if parse is None and (fault := decoding_fault(_body_type(reading.answer))):
        report(fault)
        return None
    if rows is not None:
        return Decoder(msgspec.defstruct("Rows", [("rows", reading.answer, msgspec.field(name=rows))]), parse)
    return Decoder(reading.answer, parse)


def read_fallback(declared: Declared[Any, ..., Any], reading: Reading, report: Report) -> Callable[[], Any]:
    """Return what makes a fresh value where there is none."""
    policy = declared.policy
    if not policy.has_fallback:
        return dict if isinstance(declared, Joined) else _none
    if policy.optional:
        report("is optional and has a fallback: give one of the two")
    try:
        given = convert(policy.fallback, reading.type)
    except (msgspec.ValidationError, TypeError) as error:
        report(f"the fallback is no {describe(reading.type)}: {error}")
        return _none
    return lambda: copy.deepcopy(given)


def read_row_key(declared: Joined[Any, ..., Any, Any], reading: Reading, report: Report) -> Callable[[Any], Any] | None:
    """Return what finds a row's key; None for each, whose rows come one by one."""
    key = declared.key
    if not isinstance(key, str):
        return key
    row = plain(reading.row)
    members = [plain(member) for member in (get_args(row) if is_union(row) else (row,))]
    for member in members:
        found = _member_type(member, key)
        if found is None:
            report(f"key={key!r} is no attribute of {describe(member)}: name one, or give a function of the row")
        elif not accepts(reading.key, found) and not accepts(found, reading.key):
            report(f"key={key!r} is {describe(found)}, the keys are {describe(reading.key)}: no row would be found")
    return operator.itemgetter(key) if all(map(_is_mapping, members)) else operator.attrgetter(key)


def key_fault(key: Any) -> str | None:
    """Say why a join's keys cannot stand in an answer, or None if they can or do not say what they are."""
    if not any(issubclass(class_, _NO_NAMES) for class_ in classes_of(key)):
        return None
    return (
        f"{describe(key)} is no key in JSON: ask by str or int, or take it out of the answer with internal=True and "
        "have merge make something of it"
    )


def decoding_fault(type_: Any) -> str | None:
    """Say why msgspec cannot decode a type, or None if it can."""
    if _holds_reply(type_):
        return "Reply stands around the whole answer: write Request[Reply[T]]"
    if variables := type_variables(type_):
        return f"{describe(type_)} leaves {variables[0].__name__} open: say what it is, as nothing else can be decoded"
    try:
        msgspec.inspect.type_info(type_)
    except NameError as error:
        return _unresolved(error)
    except TypeError as error:
        return f"{describe(type_)} is nothing msgspec decodes: {error}"
    unknown = undecodable(type_)
    return f"{unknown} is nothing msgspec decodes; use a type it knows, or decode=" if unknown else None


def _hints(function: Callable[..., Any], owner: type, report: Report) -> dict[str, Any] | None:
    try:
        return hints_of(function, owner)
    except NameError as error:
        report(_unresolved(error))
    except (TypeError, AttributeError, SyntaxError) as error:
        report(f"has an annotation that is no type: {error}")
    return None


def _unresolved(error: NameError) -> str:
    return (
        f"the annotation {error.name!r} cannot be resolved when the page is made; import it at the top of the module, "
        "not under TYPE_CHECKING and not inside a function"
    )


def _check_parameter(parameter: inspect.Parameter, hints: Mapping[str, Any], report: Report) -> None:
    if parameter.kind in _UNFILLED:
        report(f"parameter {str(parameter).partition(':')[0]!r} cannot be filled: parameters are given by name")
    elif parameter.name not in hints and parameter.name not in _SELF_EVIDENT:
        report(f"parameter {parameter.name!r} needs an annotation")


def _read_part(declared: Declared[Any, ..., Any], owner: type, report: Report) -> Reading | None:
    signature = read_signature(declared.function, owner, report, returns="T", is_async=True)
    if signature is None:
        return None
    if signature.lead != "fan":
        report("its first parameter is the fan: async def f(self, fan: Fan, ...)")
    return Reading(_without(signature, "fan"), signature.gives, None, declared.policy.optional)


def _read_join(
    declared: Joined[Any, ..., Any, Any], signature: Signature, type_: Any, report: Report
) -> Reading | None:
    if signature.lead is None:
        report("its first parameter takes the keys: add it")
        return None
    if signature.lead not in signature.takes:
        return None
    key, row = plain(signature.takes[signature.lead]), plain(type_)
    if declared.kind == "batch":
        if not (get_origin(key) is get_origin(row) is list):
            report("must take list[K] and return Request[list[T]]")
            return None
        (key,), (row,) = get_args(key), get_args(row)
    if plain(key).__hash__ is None:
        report(f"{describe(key)} has no hash, and cannot be a key")
    mapping: Any = Mapping
    takes = _without(signature, signature.lead)
    return Reading(takes, mapping[key, row], type_, may_be_none=False, key=key, row=row)


def _without(signature: Signature, lead: str | None) -> Mapping[str, Any]:
    return {name: type_ for name, type_ in signature.takes.items() if name != lead}


def _body_type(type_: Any) -> Any:
    """Return the type inside Reply[T], else the type itself."""
    return get_args(type_)[0] if get_origin(type_) is Reply else type_


def _holds_reply(type_: Any) -> bool:
    return type_ is Reply or get_origin(type_) is Reply or any(map(_holds_reply, get_args(type_)))


def _member_type(row: Any, key: str) -> Any:
    """Return the type of a row's attribute or member; None if it has none of that name."""
    if _is_mapping(row) and get_args(row):
        return get_args(row)[-1]
    try:
        hints = typing.get_type_hints(row)
    except (TypeError, NameError):  # a type without annotations, or one whose fault is told where it is decoded
        hints = {}
    return hints.get(key, Any if _is_mapping(row) or hasattr(row, key) else None)


def _is_mapping(type_: Any) -> bool:
    class_ = get_origin(type_) or type_
    return isinstance(class_, type) and issubclass(class_, Mapping)


def _none() -> None:
    return None
