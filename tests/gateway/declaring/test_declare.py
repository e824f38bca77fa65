"""What may be declared, what may not, and what is said of it: everything that is found when the class is made."""

from __future__ import annotations

import datetime  # noqa: F401 - the pages in the tables are made of text, in which ruff sees no names
import enum
import textwrap
import uuid  # noqa: F401 - the same
from collections.abc import AsyncIterator, Hashable, Iterable, Iterator, Mapping  # noqa: F401 - the same
from decimal import Decimal  # noqa: F401 - the same
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar  # noqa: F401 - the same

import msgspec
import pytest
from django.http import HttpRequest
from django.test import RequestFactory
from django.utils.decorators import method_decorator

from gateway import AggregateView, Answer, DeclarationError, Fan, batch, call, each, page_test, part
from upstreams import GET, JSON, POST, Reply, Request  # noqa: F401 - the same

T = TypeVar("T")


class User(msgspec.Struct):
    id: int
    name: str


class Order(msgspec.Struct):
    id: int
    product_id: int


class Product(msgspec.Struct):
    id: int
    code: str = ""

    @property
    def slug(self) -> str:
        return f"{self.code}-{self.id}"


class Numbered(msgspec.Struct):
    number: int | None


class Cat(msgspec.Struct, tag=True):
    id: int


class Dog(msgspec.Struct, tag=True):
    id: int


class Hidden(msgspec.Struct):
    id: Unheard  # type: ignore[name-defined]  # noqa: F821


class Holder(msgspec.Struct):
    inside: Custom


class Row(TypedDict):
    id: int


class Paging(msgspec.Struct):
    limit: int = 20


class OtherPaging(msgspec.Struct):
    limit: int = 10


class Point(NamedTuple):
    x: int
    y: int


class Fixed(msgspec.Struct, frozen=True):
    id: int


class Colour(enum.Enum):
    RED = "red"


UserId = NewType("UserId", int)
PairId = NewType("PairId", tuple[int, int])


class Custom:
    """A class that msgspec knows nothing of."""


class Box(msgspec.Struct, Generic[T]):
    inside: T


def declare(body: str) -> type[AggregateView]:
    """Make a page of the source of a class body, as a module would."""
    names = dict(globals())
    exec(f"from __future__ import annotations\nclass Page(AggregateView):\n{textwrap.indent(body, '    ')}", names)
    page: type[AggregateView] = names["Page"]
    return page


UNRESOLVED = (
    "cannot be resolved when the page is made; import it at the top of the module, not under TYPE_CHECKING and not "
    "inside a function"
)
UNTAGGED = (
    "If a type union contains multiple Struct types, all Struct types must be tagged (via `tag` or `tag_field` kwarg) "
    f"- type `{__name__}.User | {__name__}.Order` is not supported"
)
USER = """
@call("users")
def user(self, user_id: int) -> Request[User]: ...
"""
MAYBE = """
@call("users", optional=True)
def user(self, user_id: int) -> Request[User]: ...
"""
ORDERS = """
@call("orders")
def orders(self, user_id: int) -> Request[list[Order]]: ...
"""
KEYS = """
@products.keys
def product_ids(self, orders: list[Order]) -> Iterable[int]: ...
"""
#: What cannot be the name of a member of a JSON object, and what of it is told.
WRONG_KEYS = {
    "tuple[int, str]": "tuple[int, str]",
    "tuple[int, ...]": "tuple[int, ...]",
    "Point": "Point",
    "frozenset[int]": "frozenset[int]",
    "Decimal": "Decimal",
    "bool": "bool",
    "int | None": "int | None",
    "str | tuple[int, str]": "str | tuple[int, str]",
    "Annotated[Decimal, 'price']": "Decimal",
    "PairId": "PairId",
    "Literal['a', True]": "Literal['a', True]",
    "Fixed": "Fixed",
}

REFUSED = {
    "a call that needs itself": (
        '@call("users")\ndef user(self, user: User) -> Request[User]: ...',
        "user: waits for itself (user -> user): one must do without the next",
    ),
    "two calls that need each other": (
        '@call("a")\ndef a(self, b: int) -> Request[int]: ...\n@call("b")\ndef b(self, a: int) -> Request[int]: ...',
        "a: waits for itself (a -> b -> a): one must do without the next",
    ),
    "three calls in a ring": (
        (
            '@call("a")\ndef a(self, c: int) -> Request[int]: ...\n'
            '@call("b")\ndef b(self, a: int) -> Request[int]: ...\n'
            '@call("c")\ndef c(self, b: int) -> Request[int]: ...'
        ),
        "a: waits for itself (a -> c -> b -> a): one must do without the next",
    ),
    "a call after itself": (
        '@call("a", after=("a",))\ndef a(self) -> Request[int]: ...',
        "a: waits for itself (a -> a): one must do without the next",
    ),
    "a ring through the keys of a join": (
        ORDERS.replace("user_id: int", "products: Mapping[int, Product]")
        + '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[list[Product]]: ...'
        + KEYS,
        "orders: waits for itself (orders -> products -> orders): one must do without the next",
    ),
    "two rings, each told": (
        '@call("a")\ndef a(self, a: int) -> Request[int]: ...\n@call("b")\ndef b(self, b: int) -> Request[int]: ...',
        "a: waits for itself (a -> a): one must do without the next",
        "b: waits for itself (b -> b): one must do without the next",
    ),
    "a parameter of another type than the call's": (
        USER + '@call("orders")\ndef orders(self, user: Order) -> Request[list[Order]]: ...',
        "orders: parameter 'user' is Order, but the call 'user' gives User",
    ),
    "a parameter of merge of another type than the call's": (
        ORDERS + "def merge(self, orders: list[User]) -> None: ...",
        "merge: parameter 'orders' is list[User], but the call 'orders' gives list[Order]",
    ),
    "a parameter of the keys of another type than the call's": (
        ORDERS
        + '@each("catalog")\ndef products(self, id: int) -> Request[Product]: ...\n'
        + "@products.keys\ndef ids(self, orders: list[User]) -> list[int]: ...",
        "ids: parameter 'orders' is list[User], but the call 'orders' gives list[Order]",
    ),
    "a parameter of another type than the call's, which may be None too": (
        MAYBE + '@call("orders")\ndef orders(self, user: Order) -> Request[list[Order]]: ...',
        "orders: parameter 'user' is Order, but the call 'user' gives User | None",
    ),
    "the value of a join taken as a list": (
        (
            '@each("catalog")\ndef products(self, id: int) -> Request[Product]: ...\n'
            "@products.keys\ndef ids(self, id: int) -> list[int]: ...\n"
            "def merge(self, products: list[Product]) -> None: ..."
        ),
        "merge: parameter 'products' is list[Product], but the call 'products' gives Mapping[int, Product]",
    ),
    "a parameter without annotation": (
        '@call("users")\ndef user(self, user_id) -> Request[User]: ...',
        "user: parameter 'user_id' needs an annotation",
    ),
    "a parameter without annotation, of a call's name": (
        USER + '@call("orders")\ndef orders(self, user) -> Request[list[Order]]: ...',
        "orders: parameter 'user' needs an annotation",
    ),
    "parameters of merge and keys without annotation": (
        ORDERS
        + '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[list[Product]]: ...\n'
        + "@products.keys\ndef product_ids(self, orders) -> Iterable[int]: ...\n"
        + "def merge(self, orders) -> None: ...",
        "product_ids: parameter 'orders' needs an annotation",
        "merge: parameter 'orders' needs an annotation",
    ),
    "an annotation that is nowhere": (
        '@call("users")\ndef user(self, user_id: int) -> Request[Nowhere]: ...',
        f"user: the annotation 'Nowhere' {UNRESOLVED}",
    ),
    "an annotation of the keys that is nowhere, told once": (
        (
            '@each("catalog")\ndef products(self, id: int) -> Request[Product]: ...\n'
            "@products.keys\ndef ids(self, user_id: Nowhere, other: int) -> list[int]: ..."
        ),
        f"ids: the annotation 'Nowhere' {UNRESOLVED}",
    ),
    "an annotation inside the answer that is nowhere": (
        '@call("users")\ndef user(self) -> Request[Hidden]: ...',
        f"user: the annotation 'Unheard' {UNRESOLVED}",
    ),
    "an annotation that is no type": (
        '@call("users")\ndef user(self, user_id: int[str]) -> Request[User]: ...',
        "user: has an annotation that is no type: type 'int' is not subscriptable",
    ),
    "an annotation of a module that does not have it": (
        '@call("users")\ndef user(self, since: datetime.dat) -> Request[User]: ...',
        "user: has an annotation that is no type: module 'datetime' has no attribute 'dat'",
    ),
    "a call that does not say what it returns": (
        '@call("users")\ndef user(self, user_id: int): ...',
        "user: must say what it returns: annotate it -> Request[T]",
    ),
    "a merge that does not say what it returns": (
        USER + "def merge(self, user: User): ...",
        "merge: must say what it returns: annotate it -> T",
    ),
    "keys that do not say what they are": (
        (
            '@each("catalog")\ndef products(self, id: int) -> Request[Product]: ...\n'
            "@products.keys\ndef ids(self, user_id: int): ..."
        ),
        "ids: must say what it returns: annotate it -> Iterable[int]",
    ),
    "a part that does not say what it returns": (
        "@part\nasync def feed(self, fan: Fan): ...",
        "feed: must say what it returns: annotate it -> T",
    ),
    "a call that returns its value": (
        '@call("users")\ndef user(self, user_id: int) -> User: ...',
        "user: must return Request[T], not User",
    ),
    "a call that returns a request of nothing in particular": (
        '@call("users")\ndef user(self, user_id: int) -> Request: ...',
        "user: must return Request[T], not Request",
    ),
    "a call that returns nothing": (
        '@call("users")\ndef user(self, user_id: int) -> None: ...',
        "user: must return Request[T], not None",
    ),
    "a call that waits": (
        '@call("users")\nasync def user(self, user_id: int) -> Request[User]: ...',
        "user: only a part may wait: write it with def",
    ),
    "a merge that waits": (
        USER + "async def merge(self, user: User) -> User: ...",
        "merge: only a part may wait: write it with def",
    ),
    "keys that wait": (
        (
            '@each("catalog")\ndef products(self, id: int) -> Request[Product]: ...\n'
            "@products.keys\nasync def ids(self, user_id: int) -> list[int]: ..."
        ),
        "ids: only a part may wait: write it with def",
    ),
    "a part that cannot wait": (
        "@part\ndef feed(self, fan: Fan) -> list[int]: ...",
        "feed: a part is a coroutine: write it with async def",
    ),
    "a part that yields": (
        "@part\nasync def feed(self, fan: Fan) -> AsyncIterator[int]:\n    yield 1",
        "feed: a part is a coroutine: write it with async def",
    ),
    "a part without a fan": (
        USER + "@part\nasync def feed(self, user: User) -> list[int]: ...",
        "feed: its first parameter is the fan: async def f(self, fan: Fan, ...)",
    ),
    "a fan in a call": (
        '@call("users")\ndef user(self, fan: Fan, user_id: int) -> Request[User]: ...',
        "user: only a part has a fan: decorate it with @part",
    ),
    "an optional value that a required call cannot do without": (
        MAYBE + '@call("orders")\ndef orders(self, user: User) -> Request[list[Order]]: ...',
        "orders: needs 'user', which may have no value: annotate it with | None, or make this call optional",
    ),
    "a value that a status may take away": (
        MAYBE.replace("optional=True", "absent=(404,)")
        + '@call("orders")\ndef orders(self, user: User) -> Request[list[Order]]: ...',
        "orders: needs 'user', which may have no value: annotate it with | None, or make this call optional",
    ),
    "a value that is declined": (
        USER.replace("Request[User]", "Request[User] | None")
        + '@call("orders")\ndef orders(self, user: User) -> Request[list[Order]]: ...',
        "orders: needs 'user', which may have no value: annotate it with | None, or make this call optional",
    ),
    "two optional values, each told": (
        MAYBE
        + MAYBE.replace("def user", "def friend")
        + '@call("orders")\ndef orders(self, user: User, friend: User) -> Request[list[Order]]: ...',
        "orders: needs 'user', which may have no value: annotate it with | None, or make this call optional",
        "orders: needs 'friend', which may have no value: annotate it with | None, or make this call optional",
    ),
    "an optional value that the keys of a required join cannot do without": (
        MAYBE
        + '@each("catalog")\ndef products(self, id: int) -> Request[Product]: ...\n'
        + "@products.keys\ndef ids(self, user: User) -> list[int]: ...",
        "products: needs 'user', which may have no value: annotate it with | None, or make this call optional",
    ),
    "a value that may be skipped, taken as sure": (
        MAYBE
        + '@call("orders", optional=True)\ndef orders(self, user: User) -> Request[list[Order]]: ...\n'
        + '@call("stock")\ndef stock(self, orders: list[Order]) -> Request[int]: ...',
        "stock: needs 'orders', which may have no value: annotate it with | None, or make this call optional",
    ),
    "an optional value that merge takes as sure": (
        MAYBE + "def merge(self, user: User) -> None: ...",
        "merge: parameter 'user' may have no value: annotate it User | None",
    ),
    "an optional part that merge takes as sure": (
        (
            "@part(optional=True)\nasync def feed(self, fan: Fan) -> list[int]: ...\n"
            "def merge(self, feed: list[int]) -> None: ..."
        ),
        "merge: parameter 'feed' may have no value: annotate it list[int] | None",
    ),
    "an answer that may be null, taken as sure": (
        USER.replace("Request[User]", "Request[User | None]") + "def merge(self, user: User) -> None: ...",
        "merge: parameter 'user' is User, but the call 'user' gives User | None",
    ),
    "a fallback of another type": (
        '@call("orders", fallback={})\ndef orders(self) -> Request[list[Order]]: ...',
        "orders: the fallback is no list[Order]: Expected `array`, got `object`",
    ),
    "a fallback that lacks a field": (
        '@call("users", fallback={"id": 1})\ndef user(self) -> Request[User]: ...',
        "user: the fallback is no User: Object missing required field `name`",
    ),
    "None as the fallback of what is never None": (
        '@call("users", fallback=None)\ndef user(self) -> Request[User]: ...',
        "user: the fallback is no User: Expected `object`, got `null`",
    ),
    "a fallback for a value where a Reply is wanted": (
        '@call("orders", fallback=[])\ndef orders(self) -> Request[Reply[list[Order]]]: ...',
        "orders: the fallback is no Reply[list[Order]]: Expected `object`, got `array`",
    ),
    "the rows of a join as its fallback": (
        (
            '@each("catalog", fallback=[])\ndef products(self, id: int) -> Request[Product]: ...\n'
            "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
        ),
        "products: the fallback is no Mapping[int, Product]: Expected `object`, got `array`",
    ),
    "a fallback that is not of the class that decode= makes": (
        '@call("custom", decode=bytes, fallback=1)\ndef custom(self) -> Request[Custom]: ...',
        "custom: the fallback is no Custom: Expected `Custom`, got `int`",
    ),
    "optional, and a fallback": (
        '@call("orders", optional=True, fallback=[])\ndef orders(self) -> Request[list[Order]]: ...',
        "orders: is optional and has a fallback: give one of the two",
    ),
    "a key method under the view's name": (
        (
            '@each("catalog")\ndef products(self, id: int) -> Request[Product]: ...\n'
            "@products.keys\ndef setup(self, user_id: int) -> list[int]: ..."
        ),
        "setup: would shadow the view's own 'setup': rename it",
    ),
    "a name that is no name": (
        '@call("users", name="top sellers")\ndef user(self) -> Request[User]: ...',
        "user: 'top sellers' is no name: letters, digits, '_' and '-', please",
    ),
    "one name twice": (
        USER + '@call("friends", name="user")\ndef friend(self) -> Request[User]: ...',
        "friend: the name 'user' is taken by user: give the call another name",
    ),
    "a join without keys": (
        '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[list[Product]]: ...',
        "products: has no keys: add a method decorated with @products.keys",
    ),
    "a join whose keys have been taken away": (
        (
            '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[list[Product]]: ...\n'
            "@products.keys\ndef ids(self, user_id: int) -> list[int]: ...\n"
            "ids = None"
        ),
        "products: has no keys: add a method decorated with @products.keys",
    ),
    "keys of another type": (
        (
            '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[list[Product]]: ...\n'
            "@products.keys\ndef ids(self, name: str) -> list[str]: ..."
        ),
        "ids: gives list[str], but products takes Iterable[int]",
    ),
    "a key where keys are wanted": (
        (
            '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[list[Product]]: ...\n'
            "@products.keys\ndef ids(self, id: int) -> int: ..."
        ),
        "ids: gives int, but products takes Iterable[int]",
    ),
    "a batch that takes one key": (
        '@batch("catalog", key="id")\ndef products(self, id: int) -> Request[list[Product]]: ...',
        "products: must take list[K] and return Request[list[T]]",
    ),
    "a batch that gives one row": (
        '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[Product]: ...',
        "products: must take list[K] and return Request[list[T]]",
    ),
    "a batch that gives its rows in a Reply": (
        '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[Reply[list[Product]]]: ...',
        "products: must take list[K] and return Request[list[T]]",
    ),
    "a join that takes nothing": (
        '@each("catalog")\ndef products(self) -> Request[Product]: ...',
        "products: its first parameter takes the keys: add it",
    ),
    "a join that takes its key by name only": (
        '@each("catalog")\ndef products(self, *, id: int) -> Request[Product]: ...',
        "products: its first parameter takes the keys: add it",
    ),
    "a join that takes its keys unannotated": (
        '@each("catalog")\ndef products(self, id) -> Request[Product]: ...',
        "products: parameter 'id' needs an annotation",
    ),
    "keys that cannot be told apart": (
        (
            '@each("catalog")\ndef products(self, id: list[int]) -> Request[Product]: ...\n'
            "@products.keys\ndef ids(self, user_id: int) -> list[list[int]]: ..."
        ),
        "products: list[int] has no hash, and cannot be a key",
    ),
    "a key that the rows do not have": (
        (
            '@batch("catalog", key="sku")\ndef products(self, ids: list[int]) -> Request[list[Product]]: ...\n'
            "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
        ),
        "products: key='sku' is no attribute of Product: name one, or give a function of the row",
    ),
    "a key that some of the rows do not have": (
        (
            '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[list[Product | None]]: ...\n'
            "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
        ),
        "products: key='id' is no attribute of None: name one, or give a function of the row",
    ),
    "a key of rows that are anything": (
        (
            '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[list[Any]]: ...\n'
            "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
        ),
        "products: key='id' is no attribute of Any: name one, or give a function of the row",
    ),
    "a key of rows that are no objects": (
        (
            '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[list[Literal["a"]]]: ...\n'
            "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
        ),
        "products: key='id' is no attribute of Literal['a']: name one, or give a function of the row",
    ),
    "a key of rows with an annotation that is nowhere, told once": (
        (
            '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[list[Hidden]]: ...\n'
            "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
        ),
        f"products: the annotation 'Unheard' {UNRESOLVED}",
    ),
    "a key of another type than the keys": (
        (
            '@batch("catalog", key="code")\ndef products(self, ids: list[int]) -> Request[list[Product]]: ...\n'
            "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
        ),
        "products: key='code' is str, the keys are int: no row would be found",
    ),
    "a key of a typed dict of another type than the keys": (
        (
            '@batch("catalog", key="id")\ndef products(self, ids: list[str]) -> Request[list[Row]]: ...\n'
            "@products.keys\ndef ids(self, user_id: int) -> list[str]: ..."
        ),
        "products: key='id' is int, the keys are str: no row would be found",
    ),
    "chunks of nothing": (
        (
            '@batch("catalog", key="id", size=0)\ndef products(self, ids: list[int]) -> Request[list[Product]]: ...\n'
            "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
        ),
        "products: size and concurrency must be 1 or more",
    ),
    "no request at once": (
        (
            '@each("catalog", concurrency=0)\ndef products(self, id: int) -> Request[Product]: ...\n'
            "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
        ),
        "products: size and concurrency must be 1 or more",
    ),
    **{
        f"{wrong} as a key of the answer": (
            (
                f'@each("catalog")\ndef products(self, key: {wrong}) -> Request[Product]: ...\n'
                f"@products.keys\ndef ids(self, user_id: int) -> list[{wrong}]: ..."
            ),
            (
                f"products: {told} is no key in JSON: ask by str or int, or take it out of the answer with "
                "internal=True and have merge make something of it"
            ),
        )
        for wrong, told in WRONG_KEYS.items()
    },
    "a join by pairs that merge leaves in the answer": (
        (
            '@batch("catalog", key=id, internal=False)\n'
            "def products(self, ids: list[tuple[int, str]]) -> Request[list[Product]]: ...\n"
            "@products.keys\ndef ids(self, user_id: int) -> list[tuple[int, str]]: ...\n"
            "def merge(self) -> int: ..."
        ),
        (
            "products: tuple[int, str] is no key in JSON: ask by str or int, or take it out of the answer with "
            "internal=True and have merge make something of it"
        ),
    ),
    "rows= beside decode=": (
        (
            '@batch("catalog", key=id, rows="items", decode=list)\n'
            "def products(self, ids: list[int]) -> Request[list[Custom]]: ...\n"
            "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
        ),
        "products: rows= names a member of JSON: with decode=, let that return the rows themselves",
    ),
    "after names nobody": (
        USER + '@call("orders", after=("usr",))\ndef orders(self) -> Request[list[Order]]: ...',
        "orders: after names 'usr', but this page's calls are user, orders",
    ),
    "a query that is no Struct": (
        '@call("users")\ndef user(self, query: dict[str, str]) -> Request[User]: ...',
        "user: parameter 'query': what the client gives is read into a msgspec.Struct, not into dict[str, str]",
    ),
    "a body that is no Struct, told once": (
        (
            '@call("users")\ndef user(self, body: int) -> Request[User]: ...\n'
            '@call("orders")\ndef orders(self, body: int) -> Request[list[Order]]: ...'
        ),
        "user: parameter 'body': what the client gives is read into a msgspec.Struct, not into int",
    ),
    "a body that nothing can be read into": (
        '@call("users")\ndef user(self, body: Holder) -> Request[User]: ...',
        "user: parameter 'body': Custom is nothing msgspec decodes; use a type it knows, or decode=",
    ),
    "two types of query": (
        (
            '@call("users")\ndef user(self, query: Paging) -> Request[User]: ...\n'
            '@call("orders")\ndef orders(self, query: OtherPaging) -> Request[list[Order]]: ...'
        ),
        "orders: parameter 'query' is OtherPaging here, but Paging elsewhere",
    ),
    "two types of one URL kwarg": (
        USER + "def merge(self, user: User, user_id: str) -> None: ...",
        "merge: parameter 'user_id' is str here, but int elsewhere",
    ),
    "an answer that is nothing msgspec decodes": (
        '@call("custom")\ndef custom(self) -> Request[Custom]: ...',
        "custom: Custom is nothing msgspec decodes; use a type it knows, or decode=",
    ),
    "an answer with something inside that msgspec does not decode": (
        '@call("custom")\ndef custom(self) -> Request[dict[str, list[Holder]]]: ...',
        "custom: Custom is nothing msgspec decodes; use a type it knows, or decode=",
    ),
    "an answer with opaque JSON inside": (
        '@call("custom")\ndef custom(self) -> Request[list[JSON]]: ...',
        "custom: JSON is nothing msgspec decodes; use a type it knows, or decode=",
    ),
    "an answer that could be either of two": (
        '@call("custom")\ndef custom(self) -> Request[User | Order]: ...',
        f"custom: User | Order is nothing msgspec decodes: {UNTAGGED}",
    ),
    "an answer that is a type variable": (
        '@call("custom")\ndef custom(self) -> Request[list[T]]: ...',
        "custom: list[T] leaves T open: say what it is, as nothing else can be decoded",
    ),
    "a body that is generic in something": (
        '@call("custom")\ndef custom(self, body: Box) -> Request[int]: ...',
        "custom: parameter 'body': Box leaves T open: say what it is, as nothing else can be decoded",
    ),
    "a Reply of nothing in particular": (
        '@call("users")\ndef user(self) -> Request[Reply]: ...',
        "user: Reply stands around the whole answer: write Request[Reply[T]]",
    ),
    "a Reply that may be none": (
        '@call("users")\ndef user(self) -> Request[Reply[User] | None]: ...',
        "user: Reply stands around the whole answer: write Request[Reply[T]]",
    ),
    "Replies inside the answer": (
        '@call("users")\ndef user(self) -> Request[list[Reply[User]]]: ...',
        "user: Reply stands around the whole answer: write Request[Reply[T]]",
    ),
    "claims": (
        '@call("users")\ndef user(self, claims: User) -> Request[User]: ...',
        "user: there are no claims: this gateway verifies no tokens",
    ),
    "parameters of any name": (
        '@call("users")\ndef user(self, *ids: int, **rest: int) -> Request[User]: ...',
        "user: parameter '*ids' cannot be filled: parameters are given by name",
        "user: parameter '**rest' cannot be filled: parameters are given by name",
    ),
    "a parameter without a name to give it by": (
        '@call("users")\ndef user(self, user_id: int, /) -> Request[User]: ...',
        "user: parameter 'user_id' cannot be filled: parameters are given by name",
    ),
    **{
        f"a call named {name}": (
            f'@call("users")\ndef {name}(self) -> Request[User]: ...',
            f"{name}: would shadow the view's own {name!r}: rename it and give name={name!r}",
        )
        for name in (
            *("get", "head", "post", "put", "patch", "delete", "options", "trace", "dispatch", "setup", "as_view"),
            *("http_method_not_allowed", "http_method_names", "args", "kwargs", "view_is_async"),
            *("deadline", "envelope", "methods", "plan", "answer", "outcome", "fan_out", "allowed", "log_fields"),
        )
    },
    **{
        f"a call named {name}": (
            f'@call("users")\ndef {name}(self) -> Request[User]: ...',
            f"{name}: {name!r} names an input: give the call another name",
        )
        for name in ("request", "query", "body", "claims", "fan", "self")
    },
    "a call whose name= is an input's": (
        '@call("users", name="body")\ndef user(self) -> Request[User]: ...',
        "user: 'body' names an input: give the call another name",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_declaration_is_refused_when_the_class_is_made_naming_class_method_and_mend(case: str) -> None:
    body, *sentences = REFUSED[case]

    with pytest.raises(DeclarationError) as refused:
        declare(body)

    wanted = [f"Page.{sentence}" for sentence in sentences]
    assert list(refused.value.faults) == wanted
    assert str(refused.value).splitlines() == ["Page cannot be a page:", *(f"  {sentence}" for sentence in wanted)]


def test_all_faults_of_a_class_are_told_at_once() -> None:
    bodies = [
        REFUSED[case][0] for case in ("a call that waits", "claims", "a join without keys", "Replies inside the answer")
    ]
    renamed = [body.replace("user(", f"user{nth}(") for nth, body in enumerate(bodies)]

    with pytest.raises(DeclarationError) as refused:
        declare("\n".join(renamed))

    assert list(refused.value.faults) == [
        "Page.user0: only a part may wait: write it with def",
        "Page.user1: there are no claims: this gateway verifies no tokens",
        "Page.products: has no keys: add a method decorated with @products.keys",
        "Page.user3: Reply stands around the whole answer: write Request[Reply[T]]",
    ]


def test_a_type_that_is_local_to_a_function_is_refused_with_the_mend() -> None:
    class Local(msgspec.Struct):
        id: int

    with pytest.raises(DeclarationError, match=r"'Local' cannot be resolved .* not inside a function"):

        class Page(AggregateView):
            @call("users")
            def user(self) -> Request[Local]:
                return GET("/user")


def test_a_second_method_of_keys_is_refused_where_it_stands() -> None:
    body = (
        '@each("catalog")\ndef products(self, id: int) -> Request[Product]: ...\n'
        "@products.keys\ndef ids(self, user_id: int) -> list[int]: ...\n"
        "@products.keys\ndef more(self, user_id: int) -> list[int]: ..."
    )

    with pytest.raises(TypeError, match="products has its keys from ids: override that, rather than add more"):
        declare(body)


RIGHT_KEYS = (
    "str", "int", "float", "bytes", "UserId", "Literal['a', 1]", "Colour", "uuid.UUID", "datetime.date", "int | str",
    "Any", "object", "Hashable", "Annotated[int, 'id']",
)  # fmt: skip

ACCEPTED = {
    **{
        f"{right} as a key of the answer": (
            f'@each("catalog")\ndef products(self, key: {right}) -> Request[Product]: ...\n'
            f"@products.keys\ndef ids(self, user_id: int) -> list[{right}]: ..."
        )
        for right in RIGHT_KEYS
    },
    "pairs as keys of what merge makes something of": (
        '@each("catalog")\ndef products(self, key: tuple[int, str]) -> Request[Product]: ...\n'
        "@products.keys\ndef ids(self, user_id: int) -> list[tuple[int, str]]: ...\n"
        "def merge(self, products: Mapping[tuple[int, str], Product]) -> list[Product]: ..."
    ),
    "a call with a bool": '@call("users")\ndef user(self) -> Request[bool]: ...',
    "an optional value where None is taken": (
        MAYBE + '@call("orders")\ndef orders(self, user: User | None) -> Request[list[Order]]: ...'
    ),
    "an optional value where an optional call is skipped": (
        MAYBE + '@call("orders", optional=True)\ndef orders(self, user: User) -> Request[list[Order]]: ...'
    ),
    "an optional value where a call with a fallback is skipped": (
        MAYBE + '@call("orders", fallback=[])\ndef orders(self, user: User) -> Request[list[Order]]: ...\n'
        "def merge(self, orders: list[Order]) -> None: ..."
    ),
    "a chain of skipped calls": (
        MAYBE + '@call("orders", optional=True)\ndef orders(self, user: User) -> Request[list[Order]]: ...\n'
        '@call("stock", optional=True)\ndef stock(self, orders: list[Order]) -> Request[int]: ...\n'
        "def merge(self, user: User | None, orders: list[Order] | None, stock: int | None) -> None: ..."
    ),
    "an optional value taken as Any": MAYBE + "def merge(self, user: Any) -> None: ...",
    "an optional join, which loses rows but is there": (
        '@each("catalog", optional=True)\ndef products(self, id: int) -> Request[Product]: ...\n'
        "@products.keys\ndef ids(self, user_id: int) -> list[int] | None: ...\n"
        "def merge(self, products: Mapping[int, Product]) -> None: ..."
    ),
    "None as the fallback of what may be None": (
        '@call("users", fallback=None)\ndef user(self) -> Request[User | None]: ...\n'
        "def merge(self, user: User | None) -> None: ..."
    ),
    "a Reply as the fallback of one": (
        '@call("users", fallback=Reply([], 200, {}))\ndef orders(self) -> Request[Reply[list[Order]]]: ...'
    ),
    "a fallback of opaque JSON": '@call("users", fallback={"n": [1]})\ndef user(self) -> Request[JSON]: ...',
    "opaque JSON that may be none": '@call("users", optional=True)\ndef user(self) -> Request[JSON | None]: ...',
    "a Reply": '@call("users")\ndef user(self) -> Request[Reply[User]]: ...',
    "a Reply of opaque JSON": '@call("users")\ndef user(self) -> Request[Reply[JSON]]: ...',
    "any class that decode= makes": '@call("c", decode=Custom)\ndef custom(self) -> Request[dict[str, Custom]]: ...',
    "a tagged union": '@call("pets")\ndef pets(self) -> Request[list[Cat | Dog]]: ...',
    "a generic struct of something": '@call("boxes")\ndef box(self) -> Request[Box[User]]: ...',
    "dict rows": (
        '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[list[dict[str, int]]]: ...\n'
        "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
    ),
    "typed dict rows": (
        '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[list[Row]]: ...\n'
        "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
    ),
    "rows of two kinds with one key": (
        '@batch("catalog", key="id")\ndef products(self, ids: list[int]) -> Request[list[Cat | Dog]]: ...\n'
        "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
    ),
    "rows of a generic struct": (
        '@batch("catalog", key="inside")\ndef boxes(self, ids: list[int]) -> Request[list[Box[int]]]: ...\n'
        "@boxes.keys\ndef ids(self, user_id: int) -> list[int]: ..."
    ),
    "a key that a row need not have": (
        '@batch("catalog", key="number")\ndef products(self, ids: list[int]) -> Request[list[Numbered]]: ...\n'
        "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
    ),
    "a key that a property tells": (
        '@batch("catalog", key="slug")\ndef products(self, ids: list[str]) -> Request[list[Product]]: ...\n'
        "@products.keys\ndef ids(self, user_id: int) -> list[str]: ..."
    ),
    "a key that a function tells": (
        '@batch("catalog", key=lambda row: row[0])\n'
        "def products(self, ids: list[int]) -> Request[list[tuple[int, str]]]: ...\n"
        "@products.keys\ndef ids(self, user_id: int) -> list[int]: ..."
    ),
    "keys in any iterable": (
        '@each("catalog")\ndef products(self, id: int) -> Request[Product]: ...\n'
        "@products.keys\ndef ids(self, user_id: int) -> Iterator[int] | set[int] | dict[int, str]: ..."
    ),
    "a query and a body": (
        '@call("users")\ndef user(self, query: Paging, body: User) -> Request[User]: ...\n'
        '@call("orders")\ndef orders(self, query: Paging) -> Request[list[Order]]: ...'
    ),
    "the request, with and without annotation": (
        '@call("a")\ndef a(self, request: HttpRequest) -> Request[int]: ...\n'
        '@call("b")\ndef b(self, request) -> Request[int]: ...'
    ),
    "parameters that go by name only": '@call("users")\ndef user(self, *, user_id: int) -> Request[User]: ...',
    "methods that need no page": (
        '@call("users")\n@staticmethod\ndef user(user_id: int) -> Request[User]: ...\n'
        '@each("catalog")\n@staticmethod\ndef products(id: int) -> Request[Product]: ...\n'
        "@products.keys\n@classmethod\ndef ids(cls, user: User) -> list[int]: ...\n"
        "@staticmethod\ndef merge(user: User, products: Mapping[int, Product]) -> None: ..."
    ),
    "the view's own name in the answer": '@call("o", name="options")\ndef choices(self) -> Request[list[int]]: ...',
    "a name that only the answer knows": '@call("o", name="top-sellers")\ndef top(self) -> Request[list[int]]: ...',
    "no calls at all": "deadline = 1.0",
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_is_right_is_accepted(case: str) -> None:
    assert declare(ACCEPTED[case]).plan.page == "Page"


class HasUser:
    """A mixin: no page itself."""

    class Address(msgspec.Struct):
        city: str

    @call("users")
    def user(self, user_id: int) -> Request[User]:
        """Ask who it is."""
        return GET("/users/{id}", id=user_id)

    @call("addresses", optional=True)
    def address(self, user_id: int) -> Request[Address]:
        return GET("/addresses/{id}", id=user_id)


class Base(AggregateView):
    """An abstract page: a setting, and a call whose input a subclass provides."""

    deadline = 0.5

    @call("orders")
    def orders(self, user: User) -> Request[list[Order]]:
        return GET("/orders", customer=user.id)


class OrderPage(HasUser, Base):
    @batch("catalog", key="id", size=2)
    def products(self, ids: list[int]) -> Request[list[Product]]:
        return GET("/products", id=ids)

    @products.keys
    def product_ids(self, orders: list[Order]) -> Iterable[int]:
        return (order.product_id for order in orders)


class FriendPage(HasUser, AggregateView):
    class Address(msgspec.Struct):
        """Not what the mixin's call means by that name."""

        street: str

    @each("users", concurrency=2)
    def friends(self, friend_id: int, user: User) -> Request[User]:
        return GET("/users/{id}/friends/{friend}", id=user.id, friend=friend_id)

    @friends.keys
    def friend_ids(self, user: User) -> list[int]:
        return [user.id + 1]


ANSWERS: Mapping[str, Any] = {
    "user": {"id": 7, "name": "Ada"},
    "address": {"city": "Paris"},
    "orders": [{"id": 1, "product_id": 3}],
    "products": [{"id": 3}],
    "friends": {"id": 8, "name": "Bob"},
}


def test_one_call_is_tested_alone() -> None:
    assert OrderPage().user(7) == GET("/users/{id}", id=7)
    assert OrderPage().orders(user=User(7, "Ada")) == GET("/orders", customer=7)
    assert OrderPage().products([1, 2]) == GET("/products", id=[1, 2])
    assert list(OrderPage().product_ids([Order(1, 3)])) == [3]
    assert FriendPage().friends(8, user=User(7, "Ada")) == GET("/users/7/friends/8")


def test_a_declared_call_keeps_its_documentation() -> None:
    assert HasUser.user.__doc__ == "Ask who it is."


def test_calls_are_inherited_those_of_the_bases_first() -> None:
    assert list(OrderPage.plan.nodes) == ["orders", "user", "address", "products"]
    assert page_test(OrderPage, user_id=7, answers=ANSWERS).data == {
        "orders": [{"id": 1, "product_id": 3}],
        "user": {"id": 7, "name": "Ada"},
        "address": {"city": "Paris"},
        "products": {"3": {"id": 3, "code": ""}},
    }


def test_mixins_share_their_calls_between_pages() -> None:
    assert list(FriendPage.plan.nodes) == ["user", "address", "friends"]
    assert FriendPage.plan.nodes["user"].type is OrderPage.plan.nodes["user"].type is User


def test_a_base_page_leaves_an_input_open_that_a_subclass_declares_as_a_call() -> None:
    assert Base.plan.kwargs == {"user": User}
    assert OrderPage.plan.kwargs == {"user_id": int}
    assert OrderPage.plan.nodes["orders"].needs == ("user",)
    assert OrderPage.deadline == 0.5


def test_an_annotation_means_the_class_nested_where_it_is_written() -> None:
    assert FriendPage.plan.nodes["address"].type is HasUser.Address


def test_an_overridden_call_keeps_its_place_in_the_answer() -> None:
    class Page(OrderPage):
        @call("accounts", optional=True)
        def orders(self, user: User) -> Request[list[Order]]:
            return GET("/accounts/{id}/orders", id=user.id)

        @OrderPage.products.keys
        def product_ids(self, orders: list[Order] | None) -> Iterable[int]:
            return () if orders is None else [order.product_id + 1 for order in orders]

    assert list(Page.plan.nodes) == list(OrderPage.plan.nodes)
    assert Page.plan.nodes["orders"].upstream == "accounts"
    made = page_test(Page, user_id=7, answers=ANSWERS).requests
    assert made["orders"] == [GET("/accounts/7/orders")]
    assert made["products"] == [GET("/products", id=[4])]
    assert page_test(OrderPage, user_id=7, answers=ANSWERS).requests["products"] == [GET("/products", id=[3])]


def test_none_in_a_calls_place_removes_it() -> None:
    class Page(OrderPage):
        address = None  # type: ignore[assignment]

    assert list(Page.plan.nodes) == ["orders", "user", "products"]


def test_a_plain_method_in_a_calls_place_is_refused() -> None:
    with pytest.raises(DeclarationError) as refused:

        class Page(OrderPage):
            def user(self, user_id: int) -> Request[User]:
                return GET("/v2/users/{id}", id=user_id)

    (fault,) = refused.value.faults
    assert fault.endswith(
        "Page.user: takes a call's place and is none: decorate it, or set it to None to be without that call"
    )


def test_none_in_the_place_of_merge_brings_the_calls_back_into_the_answer() -> None:
    class Merged(HasUser, AggregateView):
        def merge(self, user: User) -> str:
            return user.name

    class Plain(Merged):
        merge = None  # type: ignore[assignment]

    assert page_test(Merged, user_id=7, answers=ANSWERS).data == "Ada"
    assert page_test(Plain, user_id=7, answers=ANSWERS).data == {
        "user": {"id": 7, "name": "Ada"},
        "address": {"city": "Paris"},
    }


def test_a_call_goes_by_its_name_everywhere_and_by_its_attribute_in_python() -> None:
    class Page(AggregateView):
        @call("choices", name="options")
        def choices(self) -> Request[list[int]]:
            return GET("/choices")

        @call("sums")
        def total(self, options: list[int]) -> Request[int]:
            return GET("/sums", n=options)

        @call("tops", name="top-sellers", after=("options",))
        def top(self) -> Request[list[int]]:
            return GET("/tops")

    done = page_test(Page, answers={"options": [1, 2], "total": 3, "top-sellers": []})
    assert done.data == {"options": [1, 2], "total": 3, "top-sellers": []}
    assert done.requests["total"] == [GET("/sums", n=[1, 2])]
    assert Page().choices() == GET("/choices")


async def test_a_decorated_page_and_settings_given_to_as_view_are_djangos_as_ever() -> None:
    seen: list[str] = []

    def counted(view: Any) -> Any:
        async def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            seen.append(request.path)
            return await view(request, *args, **kwargs)

        return wrapper

    @method_decorator(counted, name="dispatch")
    class Page(AggregateView):
        def merge(self, number: int) -> int:
            return number

    view: Any = Page.as_view(envelope=False)
    answer = await view(RequestFactory().get("/here"), number=3)

    assert seen == ["/here"]
    assert answer.content == b"3"
    with pytest.raises(TypeError, match="received an invalid keyword 'enveloped'"):
        Page.as_view(enveloped=False)


def test_what_an_annotation_demands_beyond_its_type_is_demanded_of_the_upstream() -> None:
    class Page(AggregateView):
        @call("numbers")
        def numbers(self) -> Request[list[Annotated[int, msgspec.Meta(gt=0)]]]:
            return GET("/numbers")

        def merge(self, numbers: list[int]) -> int:
            return sum(numbers)

    assert page_test(Page, answers={"numbers": [1, 2]}).data == 3
    failed = page_test(Page, answers={"numbers": [1, -2]})
    assert (failed.status, failed.errors["numbers"]["error"]) == (502, "body_mismatch")


def test_a_fallback_is_copied_for_every_request() -> None:
    class Page(AggregateView):
        @call("orders", fallback=[])
        def orders(self) -> Request[list[int]]:
            return GET("/orders")

        def merge(self, orders: list[int]) -> list[int]:
            orders.append(1)
            return orders

    answers = {"orders": b"?"}
    assert page_test(Page, answers=answers).data == page_test(Page, answers=answers).data == [1]


def test_a_part_takes_its_place_in_the_graph() -> None:
    class Page(AggregateView):
        @call("users")
        def user(self, user_id: int) -> Request[User]:
            return GET("/users/{id}", id=user_id)

        @part
        async def feed(self, fan: Fan, user: User) -> list[int]:
            return await fan.call("feed", GET("/feed", user=user.id), list[int])

        @part(optional=True, internal=True, after=("feed",))
        async def later(self, fan: Fan) -> str:
            return "later"

        @call("likes", fallback=JSON(b"[]"))
        def likes(self, feed: list[int], later: str | None) -> Request[JSON]:
            return POST("/likes", json=feed, safe=True)

    assert Page.plan.nodes["feed"].needs == ("user",)
    assert Page.plan.nodes["later"].needs == ("feed",)
    done = page_test(Page, user_id=7, answers={"user": ANSWERS["user"], "feed.feed": [5], "likes": {"5": 1}})
    assert done.data == {"user": {"id": 7, "name": "Ada"}, "feed": [5], "likes": {"5": 1}}


def test_what_merge_returns_as_answer_decides_on_more_than_the_body() -> None:
    class Page(AggregateView):
        def merge(self, number: int) -> Answer[int]:
            return Answer(number, status=201, headers={"Location": "/n"}, cookies={"n": "3"})

    done = page_test(Page, number=3, answers={})
    assert (done.status, done.data, done.headers["Location"], done.cookies) == (201, 3, "/n", {"n": "3"})
