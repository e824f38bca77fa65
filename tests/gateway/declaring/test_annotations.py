"""Whether one type can stand where another is wanted, and how types are read and written."""

from __future__ import annotations

import datetime
import enum
import sys
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, NewType, Optional, Protocol, TypedDict, TypeVar, Union

import msgspec
import pytest

from gateway.declaring.annotations import accepts, admits, describe, hints_of, plain, without_none
from upstreams import JSON, Reply

T = TypeVar("T")
UserId = NewType("UserId", int)
AdminId = NewType("AdminId", UserId)
OrderId = NewType("OrderId", int)


class User(msgspec.Struct):
    id: int


class Admin(User):
    rights: list[str]


class Order(msgspec.Struct):
    id: int


class Box(msgspec.Struct, Generic[T]):
    inside: T


class Row(TypedDict):
    id: int


class HasId(Protocol):
    id: int


class Colour(enum.StrEnum):
    RED = "red"


class Rows(list[int]):
    """A class of its own that is a list."""


ALIASES: list[tuple[Any, Any, bool]] = []
if sys.version_info >= (3, 12):
    Ids = typing.TypeAliasType("Ids", list[int])
    Many = typing.TypeAliasType("Many", list[T], type_params=(T,))
    Perhaps = typing.TypeAliasType("Perhaps", User | None)
    ALIASES = [
        (Ids, list[int], True),
        (Sequence[int], Ids, True),
        (Ids, list[str], False),
        (Many[int], list[int], True),
        (list[str], Many[int], False),
        (Perhaps, User, True),
        (User, Perhaps, False),
    ]

STANDS_FOR: list[tuple[Any, Any, bool]] = [
    # the same, and anything
    (int, int, True),
    (int, str, False),
    (Any, User, True),
    (object, list[User], True),
    (User, Any, True),
    (int, object, False),
    (list[Any], list[User], True),
    (list[User], list[Any], True),
    # classes
    (User, Admin, True),
    (Admin, User, False),
    (User, Order, False),
    (str, Colour, True),
    (Colour, str, False),
    (datetime.date, datetime.datetime, True),
    (int, bool, True),
    (float, int, True),
    (float, bool, True),
    (int, float, False),
    (HasId, User, True),
    # None and unions
    (None, None, True),
    (None, type(None), True),
    (int, None, False),
    (User | None, User, True),
    (User, User | None, False),
    (User | None, None, True),
    (Optional[User], User | None, True),  # noqa: UP045 - both ways of writing it
    (Union[int, str], str | int, True),  # noqa: UP007 - the same
    (int | str | None, int | None, True),
    (int | None, int | str, False),
    (User | Order, Admin, True),
    (float | None, int, True),
    # collections: what is handed on is not changed, so a list of a subclass does
    (list[User], list[User], True),
    (list[User], list[Admin], True),
    (list[Admin], list[User], False),
    (list[int], list[str], False),
    (list[int], list[int | None], False),
    (list[int | None], list[int], True),
    (list, list[int], True),
    (list[int], list, True),
    (Sequence[int], list[int], True),
    (Iterable[User], list[Admin], True),
    (Collection[str], set[str], True),
    (list[int], Sequence[int], False),
    (Iterator[int], list[int], False),
    (list[int], Rows, True),
    (Rows, list[int], False),
    (Iterable[int], int, False),
    (Mapping[int, User], dict[int, User], True),
    (Mapping[int, User], Mapping[int, Admin], True),
    (Mapping[int, User], Mapping[str, User], False),
    (Mapping[int, User], Mapping[int, Order], False),
    (dict[int, User], Mapping[int, User], False),
    (Iterable[int], Mapping[int, User], True),
    (Iterable[User], Mapping[int, User], False),
    (list[list[int]], list[list[int]], True),
    (list[list[int]], list[list[str]], False),
    (Mapping[str, Sequence[User]], dict[str, list[Admin]], True),
    # tuples
    (tuple[int, str], tuple[int, str], True),
    (tuple[int, str], tuple[int, int], False),
    (tuple[int, str], tuple[int, str, str], False),
    (tuple[int, ...], tuple[int, int], True),
    (tuple[int, ...], tuple[int, str], False),
    (tuple[int, ...], tuple[bool, ...], True),
    (tuple[int, int], tuple[int, ...], False),
    (tuple[Any, Any], tuple[int, ...], False),
    (tuple, tuple[int, str], True),
    (tuple[int, ...], tuple, True),
    (Sequence[int], tuple[int, ...], True),
    (Sequence[int], tuple[int, str], False),
    (Iterable[int | str], tuple[int, str], True),
    # generic classes
    (Box[User], Box[User], True),
    (Box[User], Box[Admin], True),
    (Box[User], Box[Order], False),
    (Reply[User], Reply[User], True),
    (Reply[User], User, False),
    (User, Reply[User], False),
    (JSON, JSON, True),
    (dict[str, Any], JSON, False),
    (User, JSON, False),
    # literals
    (Literal["a", "b"], Literal["a"], True),
    (Literal["a"], Literal["a", "b"], False),
    (str, Literal["a", "b"], True),
    (int, Literal["a"], False),
    (Literal["a"], str, False),
    (Literal[1], Literal[True], False),
    (str | None, Literal["a", None], True),  # noqa: PYI061 - another way of writing it
    # names for types
    (int, UserId, True),
    (int, AdminId, True),
    (UserId, AdminId, True),
    (UserId, UserId, True),
    (UserId, int, False),
    (OrderId, UserId, False),
    (list[int], list[UserId], True),
    (Mapping[OrderId, User], Mapping[UserId, User], False),
    # what is annotated beside the type
    (int, Annotated[int, msgspec.Meta(gt=0)], True),
    (Annotated[int, msgspec.Meta(gt=0)], int, True),
    (list[int], list[Annotated[int, msgspec.Meta(gt=0)]], True),
    (Annotated[int | None, "doc"], None, True),
    (str, Annotated[int, "doc"], False),
    # dictionaries with types
    (Row, Row, True),
    (Row, User, False),
    (Mapping[str, Any], Row, True),
    (dict[str, Any], Row, True),
    # what only running could tell
    (Callable[[int], int], Callable[[int], int], True),
    (Callable[[int], int], int, False),
    (T, int, False),
    *ALIASES,
]


@pytest.mark.parametrize(
    ("wanted", "given", "fits"), STANDS_FOR, ids=[f"{given!r} as {wanted!r}" for wanted, given, _ in STANDS_FOR]
)
def test_a_type_stands_where_another_is_wanted(wanted: Any, given: Any, fits: bool) -> None:  # noqa: FBT001
    assert accepts(wanted, given) is fits


@pytest.mark.parametrize("type_", [None, type(None), Any, object, int | None, Annotated[None, "doc"]], ids=repr)
def test_a_type_that_none_is_a_value_of(type_: Any) -> None:
    assert admits(type_)


@pytest.mark.parametrize("type_", [int, list[None], Mapping[str, None], UserId, Literal["None"], tuple[()]], ids=repr)
def test_a_type_that_none_is_no_value_of(type_: Any) -> None:
    assert not admits(type_)


@pytest.mark.parametrize(
    ("type_", "without", "had"),
    [
        (User | None, User, True),
        (Optional[User], User, True),  # noqa: UP045 - both ways of writing it
        (Annotated[User | None, "doc"], User, True),
        (int | str | None, int | str, True),
        (int | str, int | str, False),
        (list[int | None], list[int | None], False),
        (type(None), type(None), False),
        (User, User, False),
    ],
    ids=repr,
)
def test_none_is_taken_out_of_a_union(type_: Any, without: Any, had: bool) -> None:  # noqa: FBT001
    assert without_none(type_) == (without, had)


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (None, "None"),
        (type(None), "None"),
        (int, "int"),
        (User, "User"),
        (User | None, "User | None"),
        (list[User | None], "list[User | None]"),
        (Mapping[int, list[User]], "Mapping[int, list[User]]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Literal["a", 1], "Literal['a', 1]"),
        (UserId, "UserId"),
        (Box[User], "Box[User]"),
        (Callable[[int], str], "Callable[[int], str]"),
        (Any, "Any"),
        (T, "T"),
        (JSON, "JSON"),
    ],
)
def test_a_type_is_written_as_its_author_would(type_: Any, text: str) -> None:
    assert describe(type_) == text


def test_annotations_of_a_method_may_name_what_is_nested_in_its_class() -> None:
    class Page:
        class Inner(msgspec.Struct):
            id: int

        def method(self, inner: Inner) -> list[Inner] | None:
            return [inner]

    assert hints_of(Page.method, Page) == {"inner": Page.Inner, "return": list[Page.Inner] | None}


def test_annotations_keep_what_is_written_beside_the_type() -> None:
    def method(number: Annotated[int, "doc"]) -> None: ...

    hints = hints_of(method, object)
    assert hints == {"number": Annotated[int, "doc"], "return": type(None)}
    assert plain(hints["number"]) is int


def test_an_annotation_that_nobody_knows_is_a_name_error_that_tells_the_name() -> None:
    def method(user: Nobody) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(NameError) as unknown:
        hints_of(method, object)
    assert unknown.value.name == "Nobody"
