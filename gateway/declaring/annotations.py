"""Reading annotations: what a function takes and gives, and whether one type can stand where another is wanted."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, get_args, get_origin


def hints_of(function: Callable[..., Any], owner: type) -> dict[str, Any]:
    """Resolve a method's annotations; names may also be classes nested in the class that it stands in.

    Raises NameError for a name that is not there, and whatever an annotation that is no type raises.
    """
    nested = {name: value for name, value in vars(owner).items() if isinstance(value, type)}
    return typing.get_type_hints(function, localns=nested, include_extras=True)


def plain(type_: Any) -> Any:
    """Return the type that an alias or an Annotated stands for."""
    alias = get_origin(type_) or type_
    if alias is Annotated:
        return plain(get_args(type_)[0])
    if hasattr(alias, "__value__"):  # made by a `type` statement, which Python 3.11 does not have
        return plain(alias.__value__[get_args(type_)] if get_args(type_) else alias.__value__)
    return type(None) if type_ is None else type_


def without_none(type_: Any) -> tuple[Any, bool]:
    """Split `T | None` into (T, True); anything else is (itself, False)."""
    bare = plain(type_)
    members = tuple(arg for arg in get_args(bare) if plain(arg) is not type(None))
    if not is_union(bare) or len(members) == len(get_args(bare)):
        return type_, False
    return Union[members], True  # noqa: UP007 - built, not written


def with_none(type_: Any) -> Any:
    """Return `T | None`."""
    return Union[type_, None]  # noqa: UP007 - built, not written


def admits(type_: Any) -> bool:
    """Tell whether None is a value of the type."""
    return accepts(type_, None)


def is_union(type_: Any) -> bool:
    """Tell whether a type is written `A | B`, `Union` or `Optional`."""
    return get_origin(type_) in {Union, types.UnionType}


def classes_of(type_: Any) -> Iterator[type]:
    """Yield the classes that values of a type are of, as far as it says which."""
    bare = plain(type_)
    if is_union(bare):
        for member in get_args(bare):
            yield from classes_of(member)
    elif get_origin(bare) is Literal:
        yield from map(type, get_args(bare))
    elif isinstance(bare, NewType):
        yield from classes_of(bare.__supertype__)
    elif isinstance(class_ := get_origin(bare) or bare, type):
        yield class_


def accepts(wanted: Any, given: Any) -> bool:
    """Tell whether every value of `given` is one of `wanted`, as far as can be seen without running anything.

    Values are handed on and not changed, so a list[bool] does where a list[int] is wanted.
    """
    wanted, given = plain(wanted), plain(given)
    if wanted is Any or wanted is object or given is Any or wanted == given:
        return True
    if alternatives := _alternatives(given):
        return all(accepts(wanted, alternative) for alternative in alternatives)
    if alternatives := _alternatives(wanted):
        return any(accepts(alternative, given) for alternative in alternatives)
    if get_origin(given) is Literal:
        return get_origin(wanted) is not Literal and accepts(wanted, type(get_args(given)[0]))
    if isinstance(given, NewType):
        return accepts(wanted, given.__supertype__)
    return _accepts_class(wanted, given) and _accepts_arguments(wanted, given)


def type_variables(type_: Any) -> tuple[TypeVar, ...]:
    """Return the type variables that stand open in a type."""
    return (type_,) if isinstance(type_, TypeVar) else getattr(type_, "__parameters__", ())


def describe(type_: Any) -> str:
    """Return a type as one would write it, without module names."""
    if type_ is None or type_ is type(None):
        return "None"
    if type_ is Ellipsis:
        return "..."
    if is_union(type_):
        return " | ".join(describe(arg) for arg in get_args(type_))
    if isinstance(type_, list):
        return f"[{', '.join(map(describe, type_))}]"
    name = getattr(get_origin(type_) or type_, "__name__", str(type_))
    args = get_args(type_)
    write = repr if get_origin(type_) is Literal else describe
    return f"{name}[{', '.join(map(write, args))}]" if args else name


def _alternatives(type_: Any) -> tuple[Any, ...]:
    """Return the types that a type is one of: a union's members, or each of several literals."""
    args = get_args(type_)
    if get_origin(type_) is Literal and len(args) > 1:
        return tuple(Literal[value] for value in args)
    return args if is_union(type_) else ()


def _accepts_class(wanted: Any, given: Any) -> bool:
    wanted_class, given_class = get_origin(wanted) or wanted, get_origin(given) or given
    if not (isinstance(wanted_class, type) and isinstance(given_class, type)):
        return False
    if wanted_class is float:
        return issubclass(given_class, (int, float))  # as type checkers have it
    if typing.is_typeddict(wanted_class):
        return issubclass(given_class, dict)
    try:
        return issubclass(given_class, wanted_class)
    except TypeError:  # a Protocol: whether a class fits it is for a type checker to see
        return True


def _accepts_arguments(wanted: Any, given: Any) -> bool:
    """Compare what generic types are made of; where one of them does not say, it fits."""
    outer, inner = get_args(wanted), get_args(given)
    if get_origin(given) is tuple and outer:
        return _accepts_items(wanted, inner)
    return all(accepts(*pair) for pair in zip(outer, inner, strict=False))


def _accepts_items(wanted: Any, items: tuple[Any, ...]) -> bool:
    """Compare a tuple's items with those of a collection, or of a tuple of a certain or of any length."""
    outer = get_args(wanted)
    if get_origin(wanted) is not tuple or outer[-1] is Ellipsis:
        return all(accepts(outer[0], item) for item in items if item is not Ellipsis)
    return len(outer) == len(items) and Ellipsis not in items and all(map(accepts, outer, items))
