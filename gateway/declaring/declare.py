"""How a page's calls are declared: decorators that leave a description on the class and change nothing else.

A declared method stays what it looks like: called on an instance it returns its request, so it can be tested alone.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, overload

import msgspec

from gateway.running.fan import Fan
from upstreams import Hedge, Request

P = ParamSpec("P")
Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")
K = TypeVar("K")
Owner = TypeVar("Owner")
Asked = TypeVar("Asked", bound=Request[Any] | None)
AskedRows = TypeVar("AskedRows", bound=Request[list[Any]] | None)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What a declaration says beside its request: what happens when there is no value, and who sees the value."""

    optional: bool
    fallback: Any
    absent: tuple[int, ...]
    passthrough: tuple[int, ...]
    internal: bool | None
    after: tuple[str, ...]
    decode: Callable[[bytes], Any] | None
    hedge: Hedge | Literal[False] | None
    coalesce: bool | None

    @property
    def has_fallback(self) -> bool:
        """Whether a fallback value was given."""
        return self.fallback is not msgspec.UNSET

    @property
    def required(self) -> bool:
        """Whether the page fails when this has no value."""
        return not self.optional and not self.has_fallback


class Declared(Generic[S, P, T]):
    """A method with what its decorator said of it. On the class it is this description, on an instance the method."""

    kind = "call"

    def __init__(
        self, function: Callable[Concatenate[S, P], T], upstream: str, name: str | None, policy: Policy
    ) -> None:
        self.function = function
        self.upstream = upstream
        self.policy = policy
        self.attribute = getattr(function, "__name__", "call")
        self.name = name or self.attribute
        self._given_name = name
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, attribute: str) -> None:
        """Take the attribute's name as the call's, unless another was given."""
        self.attribute = attribute
        self.name = self._given_name or attribute

    def standing_at(self, attribute: str) -> Self:
        """Return this as it is known at an attribute: one declaration may stand at several, of several classes."""
        if self.attribute == attribute:
            return self
        twin = copy.copy(self)
        twin.__set_name__(type(None), attribute)
        return twin

    @overload
    def __get__(self, page: None, owner: type) -> Self: ...
    @overload
    def __get__(self, page: S, owner: type) -> Callable[P, T]: ...
    def __get__(self, page: Any, owner: type) -> Any:
        """Give the description on the class, the bound method on an instance."""
        return self if page is None else self.function.__get__(page)


class Joined(Declared[S, P, T], Generic[S, P, T, K]):
    """A declared join: a method that asks for rows by key, and beside it the function that tells the keys."""

    def __init__(
        self,
        kind: str,
        function: Callable[Concatenate[S, P], T],
        upstream: str,
        name: str | None,
        policy: Policy,
        *,
        key: str | Callable[[Any], Any] | None,
        rows: str | None,
        size: int,
        concurrency: int,
    ) -> None:
        super().__init__(function, upstream, name, policy)
        self.kind = kind
        self.key = key
        self.rows = rows
        self.size = size
        self.concurrency = concurrency
        self.keys_attribute: str | None = None

    @overload
    def keys(
        self, function: Callable[Concatenate[Owner, Q], Iterable[K]]
    ) -> Callable[Concatenate[Owner, Q], Iterable[K]]: ...
    @overload
    def keys(
        self, function: Callable[Concatenate[Owner, Q], Iterable[K] | None]
    ) -> Callable[Concatenate[Owner, Q], Iterable[K] | None]: ...
    def keys(self, function: Any) -> Any:
        """Decorate the method that tells the keys; its parameters are what the join waits for.

        In a subclass a method of the same name takes its place.
        """
        name = getattr(function, "__name__", None)
        if self.keys_attribute not in {None, name}:
            raise TypeError(
                f"{self.name} has its keys from {self.keys_attribute}: override that, rather than add {name}"
            )
        self.keys_attribute = name
        return function


def call(
    upstream: str,
    *,
    optional: bool = False,
    fallback: Any = msgspec.UNSET,
    absent: tuple[int, ...] = (),
    passthrough: tuple[int, ...] = (),
    internal: bool | None = None,
    after: tuple[str, ...] = (),
    decode: Callable[[bytes], Any] | None = None,
    hedge: Hedge | Literal[False] | None = None,
    coalesce: bool | None = None,
    name: str | None = None,
) -> Callable[[Callable[Concatenate[S, P], Asked]], Declared[S, P, Asked]]:
    """Declare one call to a named upstream: a pure method that returns `Request[T]`, or None to decline.

    Its parameters name what it needs: other calls, URL kwargs, `query`, `body`, `request`. A call that fails fails the
    page, unless it is `optional` (its value is None) or has a `fallback` (its value is a fresh copy of that). `absent`
    statuses mean there is nothing there: the value is None, and the answer complete. `passthrough` statuses become the
    page's own. `internal` keeps the value out of the answer. `after` names calls that must have come to an end first.
    `decode` reads what is not JSON. `hedge` and `coalesce` take the place of the upstream's own for this call; False is
    none. `name` is the key in the answer, where the method's own name cannot be.
    """
    policy = _policy(optional, fallback, absent, passthrough, internal, after, decode, hedge, coalesce)
    return lambda function: Declared(function, upstream, name, policy)


def batch(
    upstream: str,
    *,
    key: str | Callable[[Any], Any],
    rows: str | None = None,
    size: int = 50,
    concurrency: int = 4,
    optional: bool = False,
    fallback: Any = msgspec.UNSET,
    absent: tuple[int, ...] = (),
    passthrough: tuple[int, ...] = (),
    internal: bool | None = None,
    after: tuple[str, ...] = (),
    decode: Callable[[bytes], Any] | None = None,
    hedge: Hedge | Literal[False] | None = None,
    coalesce: bool | None = None,
    name: str | None = None,
) -> Callable[[Callable[Concatenate[S, list[K], P], AskedRows]], Joined[S, Concatenate[list[K], P], AskedRows, K]]:
    """Declare a join over a bulk endpoint: the method asks for a list of keys, and gets rows in any order.

    The keys come from the method decorated with `@<name>.keys`; they are de-duplicated, cut into chunks of `size`, and
    asked for with at most `concurrency` requests at once. `key` names a row's key (an attribute, or a function of the
    row); `rows` names the member of the answer that holds the rows, where the answer is not the list itself. The value
    is a `Mapping[key, row]`; a key without a row is not in it. When optional, only the keys of a failed chunk are lost.
    """
    policy = _policy(optional, fallback, absent, passthrough, internal, after, decode, hedge, coalesce)
    return lambda function: Joined(
        "batch", function, upstream, name, policy, key=key, rows=rows, size=size, concurrency=concurrency
    )


def each(
    upstream: str,
    *,
    concurrency: int = 8,
    optional: bool = False,
    fallback: Any = msgspec.UNSET,
    absent: tuple[int, ...] = (),
    passthrough: tuple[int, ...] = (),
    internal: bool | None = None,
    after: tuple[str, ...] = (),
    decode: Callable[[bytes], Any] | None = None,
    hedge: Hedge | Literal[False] | None = None,
    coalesce: bool | None = None,
    name: str | None = None,
) -> Callable[[Callable[Concatenate[S, K, P], Asked]], Joined[S, Concatenate[K, P], Asked, K]]:
    """Declare a join over a single-item endpoint: one call per distinct key, at most `concurrency` at once.

    Keys and value as in `batch`. A key whose answer has an `absent` status is not in the mapping.
    """
    policy = _policy(optional, fallback, absent, passthrough, internal, after, decode, hedge, coalesce)
    return lambda function: Joined(
        "each", function, upstream, name, policy, key=None, rows=None, size=1, concurrency=concurrency
    )


class Part(Declared[S, Concatenate[Fan, P], Awaitable[T]]):
    """A declared coroutine inside the graph."""

    kind = "part"


@overload
def part(function: Callable[Concatenate[S, Fan, P], Awaitable[T]], /) -> Part[S, P, T]: ...
@overload
def part(
    *,
    optional: bool = False,
    fallback: Any = msgspec.UNSET,
    internal: bool | None = None,
    after: tuple[str, ...] = (),
    name: str | None = None,
) -> Callable[[Callable[Concatenate[S, Fan, P], Awaitable[T]]], Part[S, P, T]]: ...
def part(
    function: Any = None,
    /,
    *,
    optional: bool = False,
    fallback: Any = msgspec.UNSET,
    internal: bool | None = None,
    after: tuple[str, ...] = (),
    name: str | None = None,
) -> Any:
    """Declare ordinary async code inside the graph, for what one request cannot say: pagination, polling.

    The coroutine's first parameter is `fan`, through which it calls upstreams with the page's client, deadline and
    policies; the others are as in `call`. Its value is what it returns. It fails when a required `fan.call` in it does.
    """
    policy = _policy(optional, fallback, (), (), internal, after, None)
    if function is not None:
        return Part(function, "", name, policy)
    return lambda function: Part(function, "", name, policy)


def _policy(
    optional: bool,  # noqa: FBT001
    fallback: Any,
    absent: tuple[int, ...],
    passthrough: tuple[int, ...],
    internal: bool | None,  # noqa: FBT001
    after: tuple[str, ...],
    decode: Callable[[bytes], Any] | None,
    hedge: Hedge | Literal[False] | None = None,
    coalesce: bool | None = None,  # noqa: FBT001
) -> Policy:
    return Policy(
        optional=optional,
        fallback=fallback,
        absent=tuple(absent),
        passthrough=tuple(passthrough),
        internal=internal,
        after=tuple(after),
        decode=decode,
        hedge=hedge,
        coalesce=coalesce,
    )


def declared_in(page: type) -> Mapping[str, Declared[Any, ..., Any]]:
    """Collect a page's declarations by attribute, its bases' first; a later one of that name takes its place.

    None in a declaration's place removes it. Whatever else stands there leaves it, for the plan to refuse.
    """
    found: dict[str, Declared[Any, ..., Any]] = {}
    for owner in reversed(page.__mro__):
        for attribute, value in vars(owner).items():
            if isinstance(value, Declared):
                found[attribute] = value.standing_at(attribute)
            elif value is None:
                found.pop(attribute, None)
    return found
