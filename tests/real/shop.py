"""The demo's shop, as the servers here publish it: the same rows as SQLite, as json-server's database, as files."""

import sqlite3
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from demo.services.records import Order, Product, Review, User, read, read_orders

JSON = msgspec.json.Encoder(decimal_format="number")
"""Writes money as the data has it: two places, not rounded through a float."""

FILES_A_TABLE = 100
"""How many records of each table get a file of their own."""

RELATED = 300
"""How many orders and reviews json-server gets: at each DELETE it looks for the owner of every one, one by one."""

SCHEMA = """
    create table users (
        id integer primary key, name text, email text, city text, country text, tier text, joined text);
    create table products (
        sku text primary key, title text, carat real, cut text, color text, clarity text, depth real, "table" real,
        x real, y real, z real, list_price real, price real, stock integer);
    create table orders (
        id integer primary key, customer integer references users(id), status text, placed text, shipping real,
        total real);
    create table order_lines (
        order_id integer references orders(id), sku text references products(sku), quantity integer, unit_price real,
        amount real);
    create table reviews (
        id integer primary key, product text references products(sku), author integer references users(id),
        rating integer, written text, text text);
    create index orders_customer on orders(customer);
    create index order_lines_order on order_lines(order_id);
    create index order_lines_sku on order_lines(sku);
    create index reviews_product on reviews(product);
"""


@cache
def products() -> list[Product]:
    return read("products", Product)


@cache
def users() -> list[User]:
    return read("users", User)


@cache
def orders() -> list[Order]:
    return read_orders()


@cache
def reviews() -> list[Review]:
    return read("reviews", Review)


def write_sqlite(file: Path) -> None:
    """Tables users, products, orders, order_lines and reviews, with their keys and indexes."""
    lines = [{"order_id": order.id, **row} for order in orders() for row in plain(order.lines)]
    connection = sqlite3.connect(file)
    try:
        connection.executescript(SCHEMA)
        insert(connection, "users", plain(users()))
        insert(connection, "products", plain(products()))
        insert(connection, "orders", [{**row, "lines": None} for row in plain(orders())])
        insert(connection, "order_lines", lines)
        insert(connection, "reviews", plain(reviews()))
        connection.commit()
    finally:
        connection.close()


def insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    """Insert what the table has columns for."""
    columns = [name for _, name, *_ in connection.execute(f"pragma table_info({table})")]
    names = ", ".join(f'"{column}"' for column in columns)
    values = ", ".join(f":{column}" for column in columns)
    connection.executemany(f"insert into {table} ({names}) values ({values})", rows)


def plain(records: Any) -> list[dict[str, Any]]:
    """Records as dicts of JSON's types, money as a string of two places."""
    rows: list[dict[str, Any]] = msgspec.to_builtins(records)
    return rows


def write_json_server(file: Path) -> None:
    """What json-server serves: each record with an `id`, and `productId` and `userId` where it belongs to one."""
    database = {
        "products": [{"id": row["sku"], **row} for row in numbers(products())],
        "users": numbers(users()),
        "orders": [{**row, "userId": row["customer"]} for row in numbers(orders()[:RELATED])],
        "reviews": [
            {**row, "productId": row["product"], "userId": row["author"]} for row in numbers(reviews()[:RELATED])
        ],
        "carts": [],
        "shop": {"currency": "USD", "open": True},
    }
    file.write_bytes(msgspec.json.encode(database))


def numbers(records: Any) -> list[dict[str, Any]]:
    """Records as dicts of JSON's types, money as a float."""
    rows: list[dict[str, Any]] = msgspec.json.decode(JSON.encode(records))
    return rows


def write_files(site: Path) -> None:
    """`products.json` and so on, whole tables; `products/D-00001.json` and so on, the first records of each."""
    keyed: dict[str, dict[Any, msgspec.Struct]] = {
        "products": {product.sku: product for product in products()},
        "users": {user.id: user for user in users()},
        "orders": {order.id: order for order in orders()},
        "reviews": {review.id: review for review in reviews()},
    }
    for table, records in keyed.items():
        (site / table).mkdir(parents=True)
        (site / f"{table}.json").write_bytes(JSON.encode(list(records.values())))
        for key, record in list(records.items())[:FILES_A_TABLE]:
            (site / table / f"{key}.json").write_bytes(JSON.encode(record))
