"""The bodies that upstreams answer with, and what each kind of page has to make of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

PARTS = {"user": "user.json", "orders": "orders.json", "products": "products.json"}
SIZES = {"5k": 5_000, "30k": 30_000, "270k": 270_000, "3m": 3_000_000}  # merged, in bytes
_WORDS = ("river", "brook", "delta", "source", "bridge", "ferry", "harbour", "island", "crème", "Fluß", "ręka")


def write(folder: Path) -> None:
    """Write the three bodies of each size, always the same ones."""
    for size, merged in SIZES.items():
        (folder / size).mkdir(parents=True)
        for part, file in PARTS.items():
            draw = random.Random(f"{size} {part}")
            (folder / size / file).write_bytes(_body(draw, part, merged // len(PARTS)))


def merged(folder: Path, size: str) -> dict[str, Any]:
    """Return the data of a page of three."""
    return {part: _read(folder, size, file) for part, file in PARTS.items()}


def projected(folder: Path, size: str) -> dict[str, Any]:
    """Return the data of a page that takes two fields of each row."""
    return {
        part: [{"id": row["id"], "name": row["name"]} for row in rows] for part, rows in merged(folder, size).items()
    }


def wide(folder: Path, size: str, width: int) -> dict[str, Any]:
    """Return the data of a page of so many."""
    rows = _read(folder, size, PARTS["user"])
    return {f"part{part}": rows for part in range(width)}


def _body(draw: random.Random, part: str, wanted: int) -> bytes:
    """Return a list of rows of at most so many bytes."""
    rows, length = [], 2
    for row in _rows(draw, part):
        encoded = msgspec.json.encode(row)
        length += len(encoded) + 1
        if length > wanted:
            break
        rows.append(encoded)
    return b"[" + b",".join(rows) + b"]"


def _rows(draw: random.Random, part: str) -> Iterator[dict[str, Any]]:
    number = 0
    while True:
        number += 1
        yield {
            "id": number,
            "name": f"{part} {number}",
            "price": draw.randrange(1000) + draw.choice((0.25, 0.5, 0.75)),  # JavaScript writes 1.0 as 1
            "tags": draw.sample(_WORDS, 2),
            "stock": draw.random() < 0.5,
            "text": " ".join(draw.choices(_WORDS, k=10)),
        }


def _read(folder: Path, size: str, file: str) -> Any:
    return msgspec.json.decode((folder / size / file).read_bytes())
