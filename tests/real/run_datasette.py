"""Datasette (datasette.io) over the shop's tables in SQLite, with three canned queries."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from .server import serving
from .shop import write_sqlite

SQL_TIME_LIMIT = 2000
"""Milliseconds after which Datasette gives up a query, with a 400."""

QUERIES = {
    "cheapest": "select sku, title, price from products where cut = :cut and price <= :most order by price limit 10",
    "rating": "select count(*) as reviews, round(avg(rating), 2) as average from reviews where product = :sku",
    "endless": "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n",
}


@contextmanager
def run_datasette(folder: Path) -> Iterator[str]:
    """Serve the shop at `/shop/{table}.json` for the length of the block; give the base URL."""
    if find_spec("datasette") is None:
        pytest.skip("Datasette is not installed: pip install -r tests/requirements.txt")
    write_sqlite(folder / "shop.db")
    queries = {name: {"sql": sql} for name, sql in QUERIES.items()}
    (folder / "metadata.json").write_text(json.dumps({"databases": {"shop": {"queries": queries}}}))
    with serving(command, folder, ready="/-/versions.json") as url:
        yield url


def command(port: int) -> list[str]:
    options = ["--setting", "sql_time_limit_ms", str(SQL_TIME_LIMIT), "--metadata", "metadata.json"]
    return [sys.executable, "-m", "datasette", "serve", "--host", "127.0.0.1", "--port", str(port), *options, "shop.db"]
