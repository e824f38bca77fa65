"""What the services know: their records, and how they are read from `demo/data`."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

DATA = Path(__file__).parent.parent / "data"

CUTS = ("Fair", "Good", "Very Good", "Premium", "Ideal")  # worst to best
COLORS = ("J", "I", "H", "G", "F", "E", "D")
CLARITIES = ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF")

Record = TypeVar("Record", bound=Struct)
Money = Decimal  # US dollars, always with two places; a JSON number on the wire


class User(Struct, frozen=True):
    """A customer."""

    id: int
    name: str
    email: str
    city: str
    country: str  # ISO 3166, two letters
    tier: Literal["standard", "silver", "gold"]
    joined: date


class Product(Struct):
    """A stone for sale. `x`, `y`, `z` are millimetres, `depth` and `table` per cent; `stock` is what is left of it."""

    sku: str
    carat: float
    cut: str
    color: str
    clarity: str
    depth: float
    table: float
    x: float
    y: float
    z: float
    list_price: Money
    price: Money  # what it costs today: below the list price while it is on sale
    stock: int
    title: str = ""

    def __post_init__(self) -> None:
        self.title = f"{self.carat:.2f} ct {self.cut}, {self.color}, {self.clarity}"


class Line(Struct):
    """One position of an order."""

    sku: str
    quantity: int
    unit_price: Money
    amount: Money = Money("0.00")

    def __post_init__(self) -> None:
        self.amount = self.quantity * self.unit_price


class Order(Struct):
    """What a customer bought. Amounts are computed, so that they always add up."""

    id: int
    customer: int
    status: Literal["placed", "paid", "shipped", "delivered", "returned", "cancelled"]
    placed: datetime
    lines: list[Line]
    shipping: Money = Money("14.90")
    total: Money = Money("0.00")

    def __post_init__(self) -> None:
        goods = sum((line.amount for line in self.lines), Money("0.00"))
        if goods >= 500:
            self.shipping = Money("0.00")
        self.total = goods + self.shipping


class Review(Struct, frozen=True):
    """What a customer thinks of a stone they bought. `rating` is 1 to 5."""

    id: int
    product: str
    author: int
    rating: int
    written: date
    text: str


class Recommendation(Struct, frozen=True):
    """A stone a customer may like. `because` is the sku it resembles, None for a bestseller; `score` is 0 to 1."""

    sku: str
    title: str
    price: Money
    because: str | None
    score: float


def read(table: str, record: type[Record]) -> list[Record]:
    """The records of one file, in its order."""
    return [msgspec.convert(row, record, strict=False) for row in rows(table)]


def read_orders() -> list[Order]:
    """The orders, oldest first, each with its lines."""
    lines = defaultdict(list)
    for line in rows("order_lines"):
        lines[line["order"]].append(line)
    return [msgspec.convert({**row, "lines": lines[row["id"]]}, Order, strict=False) for row in rows("orders")]


def rows(table: str) -> Iterator[dict[str, str]]:
    """One file's rows as they are written."""
    with (DATA / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
