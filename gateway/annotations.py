"""Reading annotations: what a function takes and gives, and whether one type can stand where another is wanted."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin


def hints_of(function: Callable[..., Any], owner: type) -> dict[str, Any]:
    """Resolve a method's annotations; names may also be classes nested in its page. Raises NameError for the rest."""
    nested: dict[str, Any] = {}
    for base in reversed(owner.__mro__):
        nested.update({name: value for name, value in vars(base).items() if isinstance(value, type)})
    hints = typing.get_type_hints(function, localns=nested)
    return {name: _none_type_as_none(hint) for name, hint in hints.items()}


def without_none(type_: Any) -> tuple[Any, bool]:
    """Split `T | None` into (T, True); anything else is (itself, False)."""
    if not is_union(type_):
        return type_, False
    members = [arg for arg in get_args(type_) if arg is not type(None)]
    if len(members) == len(get_args(type_)):
        return type_, False
    return (Union[tuple(members)] if members else None), True  # noqa: UP007 - built, not written


def admits(type_: Any) -> bool:
    """Tell whether None is a value of the type."""
    return type_ in {None, type(None)} or type_ is Any or type_ is object or type(None) in get_args(type_)


def is_union(type_: Any) -> bool:
    """Tell whether a type is written `A | B`, `Union` or `Optional`."""
    return get_origin(type_) in {Union, types.UnionType}


def accepts(wanted: Any, given: Any) -> bool:
    """Tell whether every value of `given` is one of `wanted`, as far as can be seen without running anything."""
    if wanted is Any or wanted is object or given is Any or wanted == given:
        return True
    if is_union(given):
        return all(accepts(wanted, member) for member in get_args(given))
    if is_union(wanted):
        return any(accepts(member, given) for member in get_args(wanted))
    wanted_class, given_class = get_origin(wanted) or wanted, get_origin(given) or given
    if not (isinstance(wanted_class, type) and isinstance(given_class, type)):
        return False
    if not issubclass(given_class, wanted_class):
        return False
    pairs = zip(get_args(wanted), get_args(given), strict=False)
    return all(accepts(inner, outer) for inner, outer in pairs)


def describe(type_: Any) -> str:
    """Return a type as one would write it, without module names."""
    if type_ is None or type_ is type(None):
        return "None"
    if is_union(type_):
        return " | ".join(describe(arg) for arg in get_args(type_))
    name = getattr(get_origin(type_) or type_, "__name__", str(type_))
    args = get_args(type_)
    return f"{name}[{', '.join(map(describe, args))}]" if args else name


def _none_type_as_none(hint: Any) -> Any:
    return None if hint is type(None) else hint
