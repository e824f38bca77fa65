"""What the shop's services promise to those who call them, and the faults they show on demand."""

import asyncio
import csv
import io
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import ClientError, ClientPayloadError, ClientSession, ClientTimeout

from demo import make_data
from demo.services.records import CUTS, DATA, read_orders
from demo.services.serving import SERVICES, serving

Shop = Callable[..., Awaitable[ClientSession]]

STONE = "D-00042"
ANY = {  # a request that each service answers well
    "users": "/users/7",
    "orders": "/orders/1",
    "catalog": f"/products/{STONE}",
    "reviews": "/reviews?author=7",
    "recommendations": "/for/7",
}


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """Starts a service on a port of its own and gives a client of it."""
    async with AsyncExitStack() as stack:

        async def start(name: str, latency: float = 0) -> ClientSession:
            url = await stack.enter_async_context(serving(name, latency=latency))
            return await stack.enter_async_context(ClientSession(url))

        yield start


async def get(client: ClientSession, path: str, status: int = 200, **headers: str) -> Any:
    """The decoded answer, numbers with a point as Decimals; the status is checked."""
    async with client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()}) as answer:
        assert (answer.status, answer.content_type) == (status, "application/json")
        return json.loads(await answer.read(), parse_float=Decimal)


async def post(client: ClientSession, path: str, body: object, **headers: str) -> tuple[int, Any]:
    async with client.post(path, json=body, headers={n.replace("_", "-"): v for n, v in headers.items()}) as answer:
        return answer.status, json.loads(await answer.read(), parse_float=Decimal)


# Every service


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_is_healthy_and_counts_what_it_receives_but_not_the_asking(shop: Shop, name: str) -> None:
    client = await shop(name)

    assert await get(client, "/health") == {"service": name, "status": "ok"}
    await get(client, ANY[name])
    await get(client, ANY[name])
    await get(client, "/nowhere", 404)

    path = ANY[name].partition("?")[0]
    assert await get(client, "/_counters") == await get(client, "/_counters") == {f"GET {path}": 2, "GET /nowhere": 1}


async def test_what_does_not_exist_or_may_not_be_done_is_refused_in_json(shop: Shop) -> None:
    users = await shop("users")

    assert await get(users, "/users/999", 404) == {"error": "999 is not known here"}
    assert await get(users, f"/users/{'9' * 5000}", 404) == {"error": "404: Not Found"}
    async with users.delete("/users/1") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")
        assert await answer.json() == {"error": "405: Method Not Allowed"}


async def test_latency_is_drawn_around_the_median_and_can_be_turned_off(shop: Shop) -> None:
    patient, prompt = await shop("users", latency=100), await shop("users", latency=0)

    taken = [await seconds(patient, "/users/1") for _ in range(3)]
    assert 0.03 < min(taken) < max(taken)
    assert min([await seconds(prompt, "/users/1") for _ in range(50)]) < 0.03


async def seconds(client: ClientSession, path: str, fault: str = "") -> float:
    began = asyncio.get_running_loop().time()
    await get(client, path, X_Demo_Fault=fault)
    return asyncio.get_running_loop().time() - began


# Users


async def test_users_are_found_by_id_and_the_unknown_left_out_of_several(shop: Shop) -> None:
    users = await shop("users")

    seven = await get(users, "/users/7")
    assert seven.keys() == {"id", "name", "email", "city", "country", "tier", "joined"}
    assert [user["id"] for user in await get(users, "/users?id=9&id=7&id=999&id=9")] == [9, 7]
    assert await get(users, "/users?id=7") == [seven]


@pytest.mark.parametrize("query", ["", "?id=", "?id=seven", "?" + "&".join(f"id={n}" for n in range(51))])
async def test_several_users_must_be_1_to_50_numbers(shop: Shop, query: str) -> None:
    assert await get(await shop("users"), f"/users{query}", 400)


# Orders


async def test_totals_of_orders_add_up_to_the_cent(shop: Shop) -> None:
    orders = await shop("orders")
    of_all = [await get(orders, f"/orders?customer={customer}&limit=100") for customer in range(1, 201)]
    every = [order for of_one in of_all for order in of_one]

    assert len(every) == 1500
    for order in every:
        assert all(line["amount"] == line["quantity"] * line["unit_price"] for line in order["lines"])
        goods = sum(line["amount"] for line in order["lines"])
        assert order["total"] == goods + order["shipping"]
        assert order["shipping"] == (0 if goods >= 500 else Decimal("14.90"))


async def test_orders_come_newest_first_in_pages_that_miss_none(shop: Shop) -> None:
    orders = await shop("orders")
    all_of_them = await get(orders, "/orders?customer=7&limit=100")

    assert len(all_of_them) > 5
    assert all_of_them == sorted(all_of_them, key=lambda order: order["placed"], reverse=True)
    pages = [await get(orders, f"/orders?customer=7&limit=3&offset={offset}") for offset in range(0, 100, 3)]
    assert [order for page in pages for order in page] == all_of_them
    assert await get(orders, f"/orders/{all_of_them[0]['id']}") == all_of_them[0]
    assert await get(orders, "/orders?customer=200") == []


@pytest.mark.parametrize(
    "query",
    ["", "customer=x", "customer=7&limit=0", "customer=7&limit=101", "customer=7&offset=-1", "customer=7&page=2"],
)
async def test_a_bad_query_of_orders_is_refused(shop: Shop, query: str) -> None:
    assert await get(await shop("orders"), f"/orders?{query}", 400)


async def test_a_new_order_is_priced_totalled_and_listed_first(shop: Shop) -> None:
    orders, catalog = await shop("orders"), await shop("catalog")
    price = (await get(catalog, f"/products/{STONE}"))["price"]

    status, order = await post(orders, "/orders", {"customer": 7, "lines": [{"sku": STONE, "quantity": 3}]})

    assert (status, order["status"], order["customer"]) == (201, "placed", 7)
    assert order["lines"] == [{"sku": STONE, "quantity": 3, "unit_price": price, "amount": 3 * price}]
    assert (await get(orders, "/orders?customer=7&limit=1")) == [order] == [await get(orders, f"/orders/{order['id']}")]


@pytest.mark.parametrize(
    "body",
    [
        None,
        {"customer": 7, "lines": []},
        {"customer": "7", "lines": [{"sku": STONE, "quantity": 1}]},
        {"customer": 7, "lines": [{"sku": STONE, "quantity": 0}]},
        {"customer": 7, "lines": [{"sku": "D-99999", "quantity": 1}]},
        {"customer": 7, "lines": [{"sku": STONE, "quantity": 1}], "total": 0},
    ],
)
async def test_an_order_that_makes_no_sense_is_refused_and_not_placed(shop: Shop, body: object) -> None:
    orders = await shop("orders")
    before = await get(orders, "/orders?customer=7")

    assert (await post(orders, "/orders", body))[0] == 400
    assert await get(orders, "/orders?customer=7") == before


async def test_an_idempotency_key_places_an_order_once_and_serves_no_other_body(shop: Shop) -> None:
    orders = await shop("orders")
    body = {"customer": 200, "lines": [{"sku": STONE, "quantity": 1}]}

    first = await post(orders, "/orders", body, Idempotency_Key="k1")
    again = await post(orders, "/orders", body, Idempotency_Key="k1")
    other = await post(orders, "/orders", {**body, "customer": 7}, Idempotency_Key="k1")
    apart = await post(orders, "/orders", body, Idempotency_Key="k2")

    assert [status for status, _ in (first, again, other, apart)] == [201, 200, 422, 201]
    assert first[1] == again[1]
    assert await get(orders, "/orders?customer=200") == [apart[1], first[1]]


# Catalog


async def test_products_in_bulk_are_those_that_exist_each_once_in_no_promised_order(shop: Shop) -> None:
    catalog = await shop("catalog")
    skus = [f"D-{number:05}" for number in range(3991, 4011)]

    rows = await get(catalog, "/products?" + "&".join(f"id={sku}" for sku in [*skus, skus[0]]))

    found = [row["sku"] for row in rows]
    assert sorted(found) == skus[:10]
    assert found != sorted(found)
    assert all([row == await get(catalog, f"/products/{row['sku']}") for row in rows])


async def test_products_in_bulk_are_50_at_most(shop: Shop) -> None:
    catalog = await shop("catalog")
    fifty = "&".join(f"id=D-{number:05}" for number in range(1, 51))

    assert len(await get(catalog, f"/products?{fifty}")) == 50
    assert await get(catalog, f"/products?{fifty}&id=D-00051", 400) == {"error": "ask for 1 to 50 ids, not 51"}
    assert await get(catalog, "/products", 400) == {"error": "ask for 1 to 50 ids, not 0"}


async def test_prices_are_numbers_with_their_two_places(shop: Shop) -> None:
    catalog = await shop("catalog")

    async with catalog.get("/products/featured?limit=50") as answer:
        text = await answer.text()

    assert len(re.findall(r'"price":\d+\.\d\d[,}]', text)) == text.count('"price":') == 50
    assert re.search(r'"price":\d+\.[1-9]0[,}]', text), "no price that a float would shorten"


async def test_featured_stones_are_in_stock_and_save_the_most(shop: Shop) -> None:
    featured = await get(await shop("catalog"), "/products/featured")

    savings = [product["list_price"] - product["price"] for product in featured]
    assert len(featured) == 12
    assert savings == sorted(savings, reverse=True)
    assert savings[-1] > 0
    assert all(product["stock"] for product in featured)


async def test_a_title_says_what_the_stone_is(shop: Shop) -> None:
    catalog = await shop("catalog")

    assert (await get(catalog, "/products/D-00001"))["title"] == "0.23 ct Ideal, E, SI2"
    await get(catalog, "/products/D-99999", 404)


async def test_a_reservation_takes_stock_once_for_a_key_and_gives_it_back_once(shop: Shop) -> None:
    catalog = await shop("catalog")
    stock = (await get(catalog, f"/products/{STONE}"))["stock"]
    body = {"sku": STONE, "quantity": stock}

    first = await post(catalog, "/reservations", body, Idempotency_Key="k")
    again = await post(catalog, "/reservations", body, Idempotency_Key="k")
    other = await post(catalog, "/reservations", {"sku": STONE, "quantity": 1}, Idempotency_Key="k")
    assert (first[0], again[0], other[0], first[1]) == (201, 200, 422, again[1])
    assert (await get(catalog, f"/products/{STONE}"))["stock"] == 0

    released = [await delete(catalog, f"/reservations/{first[1]['id']}") for _ in range(2)]
    assert released == [204, 404]
    assert (await get(catalog, f"/products/{STONE}"))["stock"] == stock


async def delete(client: ClientSession, path: str) -> int:
    async with client.delete(path) as answer:
        return answer.status


async def test_what_is_sold_out_or_unknown_cannot_be_reserved_and_the_key_stays_free(shop: Shop) -> None:
    catalog = await shop("catalog")
    skus = "&".join(f"id=D-{number:05}" for number in range(1, 51))
    sold_out = next(row["sku"] for row in await get(catalog, f"/products?{skus}") if not row["stock"])

    assert (await post(catalog, "/reservations", {"sku": sold_out, "quantity": 1}, Idempotency_Key="k"))[0] == 409
    assert (await post(catalog, "/reservations", {"sku": "D-99999", "quantity": 1}, Idempotency_Key="k"))[0] == 404
    assert (await post(catalog, "/reservations", {"sku": STONE, "quantity": 1}, Idempotency_Key="k"))[0] == 201


# Reviews


async def test_following_next_visits_every_review_once_newest_first(shop: Shop) -> None:
    reviews = await shop("reviews")
    product = (await get(reviews, "/reviews?author=7"))["items"][0]["product"]
    whole = await get(reviews, f"/reviews?product={product}&limit=50")

    page = await get(reviews, f"/reviews?product={product}&limit=2")
    items = page["items"]
    while page["next"]:
        page = await get(reviews, page["next"])
        items += page["items"]

    assert (page["total"], page["average"]) == (whole["total"], whole["average"])
    assert items == whole["items"]
    assert len(items) == whole["total"] > 2
    assert items == sorted(items, key=lambda review: review["written"], reverse=True)
    assert all(review["product"] == product and 1 <= review["rating"] <= 5 and review["text"] for review in items)


async def test_only_buyers_write_reviews_one_a_stone(shop: Shop) -> None:
    reviews = await shop("reviews")
    bought = {
        (order.customer, line.sku): order.placed.date() for order in reversed(read_orders()) for line in order.lines
    }

    written = [
        review
        for author in range(1, 201)
        for review in (await get(reviews, f"/reviews?author={author}&limit=50"))["items"]
    ]

    assert len(written) > 2000
    assert len({(review["author"], review["product"]) for review in written}) == len(written)
    assert all(bought[r["author"], r["product"]] < date.fromisoformat(r["written"]) for r in written)


@pytest.mark.parametrize(
    "query", ["", "product=D-00001&author=7", "author=x", "author=7&page=0", "author=7&limit=51", "author=7&sort=up"]
)
async def test_a_bad_query_of_reviews_is_refused(shop: Shop, query: str) -> None:
    assert await get(await shop("reviews"), f"/reviews?{query}", 400)


async def test_a_product_nobody_reviewed_has_an_empty_page(shop: Shop) -> None:
    empty = {"items": [], "total": 0, "average": None, "next": None}

    assert await get(await shop("reviews"), "/reviews?product=D-99999") == empty


# Recommendations


async def test_alike_stones_are_near_in_carat_price_and_cut(shop: Shop) -> None:
    recommendations, catalog = await shop("recommendations"), await shop("catalog")
    stone = await get(catalog, f"/products/{STONE}")

    alike = await get(recommendations, f"/like/{STONE}?limit=5")

    assert len({like["sku"] for like in alike} - {STONE}) == 5
    for like in alike:
        product = await get(catalog, f"/products/{like['sku']}")
        assert (like["title"], like["price"], like["because"]) == (product["title"], product["price"], STONE)
        assert 0.8 < product["carat"] / stone["carat"] < 1.25
        assert 0.8 < product["price"] / stone["price"] < 1.25
        assert abs(CUTS.index(product["cut"]) - CUTS.index(stone["cut"])) <= 1


async def test_a_customer_is_recommended_what_resembles_their_stones_and_none_of_them(shop: Shop) -> None:
    recommendations = await shop("recommendations")
    bought = {line.sku for order in read_orders() if order.customer == 7 for line in order.lines}

    liked = await get(recommendations, "/for/7?limit=50")

    assert len({like["sku"] for like in liked} - bought) == len(liked) == 50
    assert {like["because"] for like in liked} <= bought
    assert liked == sorted(liked, key=lambda like: like["score"], reverse=True)


async def test_who_has_bought_nothing_is_recommended_the_bestsellers(shop: Shop) -> None:
    recommendations = await shop("recommendations")

    popular = await get(recommendations, "/for/200")

    assert popular == await get(recommendations, "/for/999999")
    assert [like["because"] for like in popular] == [None] * 10


@pytest.mark.parametrize(("path", "status"), [("/like/D-99999", 404), ("/for/7?limit=51", 400), ("/for/x", 404)])
async def test_a_bad_question_of_recommendations_is_refused(shop: Shop, path: str, status: int) -> None:
    await get(await shop("recommendations"), path, status)


# Faults


@pytest.mark.parametrize("name", SERVICES)
async def test_a_fault_breaks_the_service_it_names_and_no_other(shop: Shop, name: str) -> None:
    client = await shop(name)

    await get(client, ANY[name], 503, X_Demo_Fault=f"{name}:503")
    await get(client, ANY[name], 200, X_Demo_Fault=f"{'users' if name != 'users' else 'orders'}:503, other:nonsense")
    await get(client, ANY[name], 418, X_Demo_Fault=f"other:500, {name}:slow=1, {name}:418")


async def test_a_429_says_when_to_come_again(shop: Shop) -> None:
    users = await shop("users")

    async with users.get("/users/7", headers={"X-Demo-Fault": "users:429"}) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")


@pytest.mark.parametrize(
    "fault", ["", "late", "slow=", "slow=-1", "slow=x", "slow=60001", "reset=2", "200", "status", "600"]
)
async def test_an_unknown_fault_is_refused_naming_the_known(shop: Shop, fault: str) -> None:
    refusal = await get(await shop("users"), "/users/7", 400, X_Demo_Fault=f"users:{fault}")

    known = "flaky, garbage, html, lost, reset, slow, status, timeout, truncated, and any status from 400 to 599"
    assert refusal == {"error": f"no fault {fault!r}: there are {known}"}


@pytest.mark.parametrize(("fault", "least"), [("slow", 0.4), ("slow=60", 0.06)])
async def test_a_slow_service_answers_well_but_late(shop: Shop, fault: str, least: float) -> None:
    assert await seconds(await shop("users"), "/users/7", f"users:{fault}") >= least


async def test_a_timeout_holds_the_request_until_the_client_leaves(shop: Shop) -> None:
    users = await shop("users")
    await get(users, "/health")
    serving_the_connection = asyncio.all_tasks() - {asyncio.current_task()}

    with pytest.raises(TimeoutError):
        await users.get("/users/7", headers={"X-Demo-Fault": "users:timeout"}, timeout=ClientTimeout(total=0.1))

    assert serving_the_connection
    _, left = await asyncio.wait(serving_the_connection, timeout=20)
    assert not left


async def test_a_flaky_service_fails_every_first_of_two_attempts_at_the_same_url(shop: Shop) -> None:
    users = await shop("users")

    for path in ("/users/7", "/users/8", "/users?id=7", "/users?id=8", "/users/7"):
        await get(users, path, 503, X_Demo_Fault="users:flaky")
        await get(users, path, 200, X_Demo_Fault="users:flaky")


async def test_a_reset_ends_the_connection_without_an_answer(shop: Shop) -> None:
    orders = await shop("orders")

    with pytest.raises((ClientError, ConnectionResetError)):
        await post(orders, "/orders", {}, X_Demo_Fault="orders:reset")

    assert await get(orders, "/_counters") == {"POST /orders": 1}


async def test_a_lost_answer_was_carried_out_and_its_key_tells(shop: Shop) -> None:
    orders = await shop("orders")
    body = {"customer": 200, "lines": [{"sku": STONE, "quantity": 1}]}

    with pytest.raises((ClientError, ConnectionResetError)):
        await post(orders, "/orders", body, X_Demo_Fault="orders:lost", Idempotency_Key="k")
    status, order = await post(orders, "/orders", body, X_Demo_Fault="orders:lost", Idempotency_Key="k")

    assert status == 200
    assert await get(orders, "/orders?customer=200") == [order]


@pytest.mark.parametrize("name", SERVICES)
async def test_garbage_is_a_200_of_broken_json(shop: Shop, name: str) -> None:
    client = await shop(name)

    async with client.get(ANY[name], headers={"X-Demo-Fault": f"{name}:garbage"}) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        with pytest.raises(json.JSONDecodeError):
            json.loads(await answer.read())


async def test_html_is_a_200_of_html(shop: Shop) -> None:
    users = await shop("users")

    async with users.get("/users/7", headers={"X-Demo-Fault": "users:html"}) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")


async def test_a_truncated_answer_ends_before_its_length(shop: Shop) -> None:
    users = await shop("users")
    whole = json.dumps(await get(users, "/users/7"))

    async with users.get("/users/7", headers={"X-Demo-Fault": "users:truncated"}) as answer:
        assert answer.status == 200
        assert answer.content_length is not None
        assert answer.content_length > len(whole) / 2
        with pytest.raises(ClientPayloadError):
            await answer.read()


# As a process


async def start_process(*arguments: str) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "demo.services", *arguments)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, cwd=DATA.parent.parent)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_prints_its_url_and_finishes_what_is_under_way_before_it_stops(stop: signal.Signals) -> None:
    process = await start_process("users", "--port", "0")
    assert process.stdout is not None
    name, url = (await process.stdout.readline()).decode().split()
    assert name == "users"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)

    async with ClientSession(url) as users:
        late = asyncio.create_task(get(users, "/users/7", X_Demo_Fault="users:slow=300"))
        while not await get(users, "/_counters"):
            pass
        process.send_signal(stop)
        assert (await late)["id"] == 7

    assert (await process.communicate(), process.returncode) == ((b"", b""), 0)


async def test_a_process_listens_on_this_machine_only() -> None:
    process = await start_process("users", "--host", "0.0.0.0")

    _, said = await process.communicate()

    assert process.returncode == 2
    assert b"'0.0.0.0' is not a loopback address such as 127.0.0.1" in said


async def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await start_process("users", "--port", str(port))
        _, said = await process.communicate()

    assert process.returncode == 1
    assert re.fullmatch(rf"users: cannot listen on 127.0.0.1:{port}: .+\n", said.decode())


# The data


@pytest.mark.parametrize("table", make_data.MADE_UP)
def test_the_files_are_what_their_maker_makes(table: str) -> None:
    made = io.StringIO(newline="")
    csv.writer(made, lineterminator="\n").writerows(make_data.MADE_UP[table]())

    assert made.getvalue() == (DATA / f"{table}.csv").read_bytes().decode()


async def test_a_standing_fault_spoils_every_request_until_it_is_taken_back(shop: Shop) -> None:
    users = await shop("users")
    async with users.put("/_faults", json=["503"]) as answer:
        assert (answer.status, await answer.json()) == (200, ["503"])
    for _ in range(2):
        await get(users, "/users/1", 503)
    async with users.put("/_faults", json=[]) as answer:
        assert answer.status == 200
    await get(users, "/users/1")


async def test_a_standing_fault_that_does_not_exist_is_refused_and_changes_nothing(shop: Shop) -> None:
    users = await shop("users")
    async with users.put("/_faults", json=["503", "meltdown"]) as answer:
        assert answer.status == 400
        assert "no fault 'meltdown'" in (await answer.json())["error"]

    await get(users, "/users/1")
