"""The servers answer as the aggregation tests count on, seen with a plain client and no gateway between."""

import asyncio
import gzip
import json
from collections.abc import Mapping
from time import monotonic
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import ClientSession

from .run_nginx import BODIES, DOCUMENT, ENCODED, LOGIN, MIB, REDIRECTS, STATUSES, TABLE, WireLog
from .shop import JSON, products, reviews

FIRST = JSON.encode(products()[0])
ALL = JSON.encode(products())


async def get(http: ClientSession, url: str, **options: Any) -> tuple[int, str, Any]:
    """Status, media type and decoded body of a GET."""
    async with http.get(url, **options) as answer:
        return answer.status, answer.content_type, json.loads(await answer.read())


async def raw(http: ClientSession, url: str, **options: Any) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of a GET, without following a redirect."""
    async with http.get(url, allow_redirects=False, **options) as answer:
        return answer.status, answer.headers, await answer.read()


class TestDatasette:
    async def test_says_its_version(self, http: ClientSession, datasette: str) -> None:
        status, media, versions = await get(http, f"{datasette}/-/versions.json")

        assert (status, media) == (200, "application/json")
        assert versions["datasette"]["version"].startswith("0.65")

    async def test_has_every_product(self, http: ClientSession, datasette: str) -> None:
        _, _, page = await get(http, f"{datasette}/shop/products.json?_size=1")

        assert page["filtered_table_rows_count"] == len(products()) == 4000

    async def test_finds_rows_by_a_list_of_keys(self, http: ClientSession, datasette: str) -> None:
        query = {"_shape": "array", "_col": "sku", "sku__in": "D-00003,D-00001,D-99999"}

        _, _, rows = await get(http, f"{datasette}/shop/products.json", params=query)

        assert rows == [{"sku": "D-00001"}, {"sku": "D-00003"}]

    async def test_rows_have_the_shop_s_columns(self, http: ClientSession, datasette: str) -> None:
        _, _, rows = await get(http, f"{datasette}/shop/products/D-00001.json?_shape=array")

        assert rows == [json.loads(FIRST)]

    async def test_a_table_is_read_to_its_end_by_its_next_links(self, http: ClientSession, datasette: str) -> None:
        link: str | None = f"{datasette}/shop/reviews.json?_shape=array&_size=max&_col=id"
        sizes = []
        while link is not None:
            async with http.get(link) as answer:
                sizes.append(len(await answer.json()))
                link = str(answer.links["next"]["url"]) if "next" in answer.links else None

        assert sizes[:2] == [1000, 1000]
        assert sum(sizes) == len(reviews())

    async def test_the_next_page_is_also_in_the_body(self, http: ClientSession, datasette: str) -> None:
        _, _, page = await get(http, f"{datasette}/shop/products.json?_size=2")

        assert (page["next"], page["next_url"]) == (
            "D-00002",
            f"{datasette}/shop/products.json?_size=2&_next=D-00002",
        )

    async def test_a_canned_query_takes_parameters(self, http: ClientSession, datasette: str) -> None:
        query = {"_shape": "array", "cut": "Ideal", "most": "400"}

        _, _, rows = await get(http, f"{datasette}/shop/cheapest.json", params=query)

        assert 0 < len(rows) <= 10
        assert all(row["title"].count("Ideal") and row["price"] <= 400 for row in rows)

    @pytest.mark.parametrize("path", ["/shop/nothing.json", "/shop/products/D-99999.json", "/nowhere/products.json"])
    async def test_what_is_not_there_is_a_404_in_json(self, http: ClientSession, datasette: str, path: str) -> None:
        status, media, body = await get(http, datasette + path)

        assert (status, media, body["ok"]) == (404, "application/json", False)

    @pytest.mark.parametrize(
        ("path", "error"),
        [
            ("/shop.json?sql=select+nope", "no such column: nope"),
            ("/shop.json?sql=delete+from+products", "Statement must be a SELECT"),
            ("/shop/products.json?_shape=round", "Invalid _shape: round"),
            ("/shop/endless.json", "SQL query took too long"),
        ],
    )
    async def test_a_query_it_cannot_run_is_a_400(
        self, http: ClientSession, datasette: str, path: str, error: str
    ) -> None:
        status, media, body = await get(http, datasette + path)

        assert (status, media, body["ok"]) == (400, "application/json", False)
        assert error in body["error"]

    async def test_a_post_to_a_table_is_a_500(self, http: ClientSession, datasette: str) -> None:
        async with http.post(f"{datasette}/shop/products.json", json={}) as answer:
            assert (answer.status, answer.content_type) == (500, "application/json")

    async def test_answers_are_chunked(self, http: ClientSession, datasette: str) -> None:
        _, headers, _ = await raw(http, f"{datasette}/shop/users.json?_shape=array")

        assert headers["Transfer-Encoding"] == "chunked"

    @pytest.mark.parametrize(
        ("path", "media", "first"),
        [
            ("/shop/users.csv?_col=name&_size=max", "text/plain", "id,name"),
            ("/shop/users.json?_shape=array&_nl=on&_col=id", "text/plain", '{"id": 1}'),
        ],
    )
    async def test_rows_come_as_csv_and_as_json_lines(
        self, http: ClientSession, datasette: str, path: str, media: str, first: str
    ) -> None:
        async with http.get(datasette + path) as answer:
            lines = (await answer.text()).splitlines()

        assert (answer.content_type, lines[0]) == (media, first)
        assert len(lines) >= 100

    async def test_a_page_for_people_is_html(self, http: ClientSession, datasette: str) -> None:
        async with http.get(f"{datasette}/shop/users") as answer:
            assert (answer.status, answer.content_type) == (200, "text/html")


class TestJsonServer:
    async def test_finds_records_by_repeated_keys(self, http: ClientSession, json_server: str) -> None:
        _, media, rows = await get(http, f"{json_server}/products?id=D-00003&id=D-00001&id=D-99999")

        assert (media, [row["sku"] for row in rows]) == ("application/json", ["D-00001", "D-00003"])

    async def test_a_record_has_the_shop_s_fields(self, http: ClientSession, json_server: str) -> None:
        _, _, row = await get(http, f"{json_server}/products/D-00001")

        assert row == {"id": "D-00001", **json.loads(FIRST)}

    async def test_pages_have_links_and_a_total(self, http: ClientSession, json_server: str) -> None:
        async with http.get(f"{json_server}/products?_page=2&_limit=50") as answer:
            rows = await answer.json()

        assert (len(rows), answer.headers["X-Total-Count"]) == (50, "4000")
        assert str(answer.links["next"]["url"]) == f"{json_server}/products?_page=3&_limit=50"

    async def test_nests_what_belongs_to_a_record(self, http: ClientSession, json_server: str) -> None:
        sku = reviews()[0].product

        _, _, nested = await get(http, f"{json_server}/products/{sku}/reviews")
        _, _, product = await get(http, f"{json_server}/products/{sku}?_embed=reviews")
        _, _, review = await get(http, f"{json_server}/reviews/1?_expand=product&_expand=user")

        assert nested == product["reviews"]
        assert nested[0]["id"] == review["id"] == 1
        assert (review["product"]["sku"], review["user"]["id"]) == (sku, review["author"])

    @pytest.mark.parametrize("path", ["/products/D-99999", "/nowhere"])
    async def test_what_is_not_there_is_a_404_with_an_empty_object(
        self, http: ClientSession, json_server: str, path: str
    ) -> None:
        assert await get(http, json_server + path) == (404, "application/json", {})

    async def test_the_whole_table_is_more_than_a_mebibyte(self, http: ClientSession, json_server: str) -> None:
        async with http.get(f"{json_server}/products") as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            assert len(await answer.read()) > MIB

    async def test_a_record_is_made_replaced_changed_and_deleted(self, http: ClientSession, json_server: str) -> None:
        async with http.post(f"{json_server}/carts", json={"sku": "D-00001"}) as made:
            cart = await made.json()
            where = made.headers["Location"]
        async with http.put(where, json={"sku": "D-00002"}) as replaced:
            assert await replaced.json() == {"id": cart["id"], "sku": "D-00002"}
        async with http.patch(where, json={"quantity": 2}) as changed:
            assert await changed.json() == {"id": cart["id"], "sku": "D-00002", "quantity": 2}
        async with http.delete(where) as deleted:
            assert await deleted.json() == {}
        async with http.delete(where) as gone:
            pass

        assert where == f"{json_server}/carts/{cart['id']}"
        assert [made.status, replaced.status, changed.status, deleted.status, gone.status] == [201, 200, 200, 200, 404]

    async def test_a_second_record_of_one_key_is_a_500_that_shows_its_insides(
        self, http: ClientSession, json_server: str
    ) -> None:
        async with http.post(f"{json_server}/users", json={"id": 1}) as answer:
            text = await answer.text()

        assert (answer.status, answer.content_type) == (500, "text/html")
        assert text.startswith("Error: Insert failed, duplicate id\n    at ")

    async def test_a_body_that_is_not_json_is_a_400_in_html(self, http: ClientSession, json_server: str) -> None:
        headers = {"Content-Type": "application/json"}
        async with http.post(f"{json_server}/carts", data=b"{sku", headers=headers) as answer:
            assert (answer.status, answer.content_type) == (400, "text/html")

    async def test_what_has_not_changed_is_a_304(self, http: ClientSession, json_server: str) -> None:
        _, headers, _ = await raw(http, f"{json_server}/users/1")

        status, _, body = await raw(http, f"{json_server}/users/1", headers={"If-None-Match": headers["ETag"]})

        assert (status, body) == (304, b"")


class TestHttpbin:
    async def test_tells_what_it_was_sent(self, http: ClientSession, httpbin: str) -> None:
        async with http.put(
            f"{httpbin}/anything/a%20b?n=1&n=2", json={"sku": "D-00001"}, headers={"X-Trace": "7"}
        ) as answer:
            seen = await answer.json()

        assert (seen["method"], seen["args"], seen["json"]) == ("PUT", {"n": ["1", "2"]}, {"sku": "D-00001"})
        assert seen["headers"]["X-Trace"] == "7"
        assert seen["url"] == f"{httpbin}/anything/a%20b?n=1&n=2"

    @pytest.mark.parametrize(("path", "said"), [("/gzip", "gzipped"), ("/deflate", "deflated")])
    async def test_encodes_its_answer(self, http: ClientSession, httpbin: str, path: str, said: str) -> None:
        _, media, body = await get(http, httpbin + path)

        assert (media, body[said]) == ("application/json", True)

    async def test_answers_brotli_to_those_who_did_not_ask(self, httpbin: str) -> None:
        async with ClientSession(auto_decompress=False) as http:
            status, headers, _ = await raw(http, f"{httpbin}/brotli", headers={"Accept-Encoding": "identity"})

        assert (status, headers["Content-Encoding"]) == (200, "br")

    @pytest.mark.parametrize("status", [200, 404, 418, 429, 500, 503])
    async def test_answers_any_status(self, http: ClientSession, httpbin: str, status: int) -> None:
        assert (await raw(http, f"{httpbin}/status/{status}"))[0] == status

    async def test_answers_late(self, http: ClientSession, httpbin: str) -> None:
        began = monotonic()

        status, _, _ = await get(http, f"{httpbin}/delay/0.3")

        assert status == 200
        assert monotonic() - began >= 0.3

    async def test_sends_a_body_in_drops(self, http: ClientSession, httpbin: str) -> None:
        began = monotonic()
        async with http.get(f"{httpbin}/drip?duration=0.3&numbytes=4&delay=0") as answer:
            first = monotonic() - began
            body = await answer.read()

        assert (answer.status, body) == (200, b"****")
        assert first < monotonic() - began

    async def test_sends_json_lines_in_chunks(self, http: ClientSession, httpbin: str) -> None:
        _, headers, body = await raw(http, f"{httpbin}/stream/3")

        assert headers["Transfer-Encoding"] == "chunked"
        assert [json.loads(line)["id"] for line in body.splitlines()] == [0, 1, 2]

    async def test_redirects_until_the_end(self, http: ClientSession, httpbin: str) -> None:
        async with http.get(f"{httpbin}/redirect/3") as answer:
            assert (len(answer.history), answer.status) == (3, 200)

    async def test_closes_each_connection(self, http: ClientSession, httpbin: str) -> None:
        _, headers, _ = await raw(http, f"{httpbin}/get")

        assert headers["Connection"] == "close"

    @pytest.mark.parametrize(
        ("path", "media"),
        [("/xml", "application/xml"), ("/html", "text/html"), ("/image/png", "image/png"), ("/deny", "text/plain")],
    )
    async def test_answers_what_is_not_json(self, http: ClientSession, httpbin: str, path: str, media: str) -> None:
        async with http.get(httpbin + path) as answer:
            assert (answer.status, answer.content_type) == (200, media)

    async def test_asks_for_a_password(self, http: ClientSession, httpbin: str) -> None:
        url = f"{httpbin}/basic-auth/gateway/secret"

        refused, _, _ = await raw(http, url)
        admitted, _, _ = await raw(http, url, headers={"Authorization": aiohttp.encode_basic_auth("gateway", "secret")})

        assert (refused, admitted) == (401, 200)


class TestNginxFiles:
    async def test_a_record_is_sent_as_the_shop_has_it(self, http: ClientSession, nginx: str) -> None:
        status, headers, body = await raw(http, f"{nginx}/products/D-00001.json")

        assert (status, headers["Content-Type"], body) == (200, "application/json", FIRST)
        assert headers["Content-Length"] == str(len(FIRST))

    @pytest.mark.parametrize("table", ["products", "users", "orders", "reviews"])
    async def test_each_table_has_a_file_of_all_and_files_of_a_hundred(
        self, http: ClientSession, nginx: str, table: str
    ) -> None:
        first, last = ("D-00001", "D-00100") if table == "products" else ("1", "100")

        _, _, rows = await get(http, f"{nginx}/{table}.json")

        assert (await get(http, f"{nginx}/{table}/{first}.json"))[2] == rows[0]
        assert (await get(http, f"{nginx}/{table}/{last}.json"))[2] == rows[99]

    async def test_a_large_file_is_compressed_in_chunks(self, http: ClientSession, nginx: str) -> None:
        _, headers, body = await raw(http, f"{nginx}/products.json", headers={"Via": "1.1 gateway"})

        assert (headers["Content-Encoding"], headers["Transfer-Encoding"]) == ("gzip", "chunked")
        assert body == ALL

    async def test_nginx_s_own_default_is_not_to_compress_for_proxies(self, http: ClientSession, nginx: str) -> None:
        url = f"{nginx}/not-compressed-for-proxies/products.json"

        _, direct, _ = await raw(http, url)
        _, proxied, _ = await raw(http, url, headers={"Via": "1.1 gateway"})

        assert ("Content-Encoding" in direct, "Content-Encoding" in proxied) == (True, False)

    async def test_what_has_not_changed_is_a_304(self, http: ClientSession, nginx: str) -> None:
        url = f"{nginx}/users/1.json"
        _, headers, _ = await raw(http, url)

        tagged = await raw(http, url, headers={"If-None-Match": headers["ETag"]})
        dated = await raw(http, url, headers={"If-Modified-Since": headers["Last-Modified"]})

        assert [(status, body) for status, _, body in (tagged, dated)] == [(304, b""), (304, b"")]

    async def test_head_tells_the_length_and_sends_nothing(self, http: ClientSession, nginx: str) -> None:
        async with http.head(f"{nginx}/products/D-00001.json") as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(FIRST)))
            assert await answer.read() == b""

    async def test_a_range_is_a_206_or_a_416(self, http: ClientSession, nginx: str) -> None:
        url = f"{nginx}/products/D-00001.json"

        part = await raw(http, url, headers={"Range": "bytes=0-9"})
        beyond = await raw(http, url, headers={"Range": "bytes=99999-"})

        assert (part[0], part[2]) == (206, FIRST[:10])
        assert (beyond[0], beyond[1]["Content-Type"]) == (416, "text/html")

    @pytest.mark.parametrize("name", BODIES)
    async def test_a_bad_body_is_sent_as_json_byte_for_byte(self, http: ClientSession, nginx: str, name: str) -> None:
        status, headers, body = await raw(http, f"{nginx}/bodies/{name}")

        assert (status, headers["Content-Type"], body) == (200, "application/json", BODIES[name])

    @pytest.mark.parametrize(
        ("prefix", "media"),
        [
            ("as-html", "text/html"),
            ("as-problem", "application/problem+json"),
            ("as-latin-1", "application/json; charset=iso-8859-1"),
            ("as-nothing", None),
        ],
    )
    async def test_the_same_file_comes_under_other_types(
        self, http: ClientSession, nginx: str, prefix: str, media: str | None
    ) -> None:
        status, headers, body = await raw(http, f"{nginx}/{prefix}/products/D-00001.json")

        assert (status, headers.get("Content-Type"), body) == (200, media, FIRST)

    @pytest.mark.parametrize("coding", ["gzip", "br"])
    @pytest.mark.parametrize("name", ENCODED)
    async def test_an_encoded_file_is_sent_as_it_lies(self, nginx: str, coding: str, name: str) -> None:
        async with ClientSession(auto_decompress=False) as http:
            _, headers, body = await raw(http, f"{nginx}/encoded/{coding}/{name}")

        assert headers["Content-Type"] == ("text/csv" if name.endswith("csv") else "application/json")
        assert headers["Content-Encoding"] == coding
        assert body == ENCODED[name]

    async def test_only_the_whole_one_is_what_it_says(self, http: ClientSession, nginx: str) -> None:
        assert await get(http, f"{nginx}/encoded/gzip/whole.json") == (200, "application/json", json.loads(DOCUMENT))
        with pytest.raises(aiohttp.ClientPayloadError):
            await raw(http, f"{nginx}/encoded/gzip/plain.json")

    async def test_a_plain_client_takes_the_first_rows_of_a_truncated_table_for_all(
        self, http: ClientSession, nginx: str
    ) -> None:
        # Who decodes gzip has to see for himself that it came to its end: aiohttp does not tell.
        status, _, body = await raw(http, f"{nginx}/encoded/gzip/truncated.csv")

        assert status == 200
        assert TABLE.startswith(body)
        assert 1000 < len(body) < len(TABLE)

    def test_the_bomb_is_small_until_it_is_opened(self) -> None:
        assert len(ENCODED["bomb.json"]) < MIB // 8
        assert len(gzip.decompress(ENCODED["bomb.json"])) > 64 * MIB


class TestNginxDelivery:
    async def test_slow_takes_its_time(self, http: ClientSession, nginx: str) -> None:
        began = monotonic()

        _, _, body = await raw(http, f"{nginx}/slow/reviews.json?rate=200k")

        # Of 350 kB or so, the first second's share is sent at once.
        assert len(body) > 200 * 1024
        assert monotonic() - began > 0.3

    async def test_after_waits_before_it_answers(self, http: ClientSession, nginx: str) -> None:
        began = monotonic()

        status, headers, body = await raw(http, f"{nginx}/after/300ms/products/D-00001.json")

        assert (status, headers["Content-Type"], body) == (200, "application/json", FIRST)
        assert "WWW-Authenticate" not in headers
        assert monotonic() - began >= 0.3

    async def test_chunked_has_no_length(self, http: ClientSession, nginx: str) -> None:
        _, headers, body = await raw(http, f"{nginx}/chunked/products/D-00001.json")

        assert (headers.get("Content-Length"), headers["Transfer-Encoding"], body) == (None, "chunked", FIRST)

    async def test_until_close_has_neither_length_nor_chunks(self, http: ClientSession, nginx: str) -> None:
        _, headers, body = await raw(http, f"{nginx}/until-close/products/D-00001.json")

        assert not {"Content-Length", "Transfer-Encoding"} & {*headers}
        assert (headers["Connection"], body) == ("close", FIRST)

    @pytest.mark.parametrize("prefix", ["cut", "cut-chunked"])
    async def test_cut_ends_in_the_middle_of_the_body(self, http: ClientSession, nginx: str, prefix: str) -> None:
        async with http.get(f"{nginx}/{prefix}/products.json") as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()

    async def test_drop_ends_before_the_status(self, http: ClientSession, nginx: str) -> None:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await raw(http, f"{nginx}/drop")

    async def test_a_connection_is_kept_unless_once(self, nginx: str, wire_log: WireLog) -> None:
        token = uuid4().hex
        async with ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http:
            for prefix in ("", "", "/once", ""):
                await raw(http, f"{nginx}{prefix}/users/1.json?{token}")

        seen = await wire_log.seen(token, 4)

        first, second, third, fourth = (exchange.connection for exchange in seen)
        assert first == second == third != fourth
        assert [exchange.nth for exchange in seen] == [1, 2, 3, 1]

    async def test_a_brief_connection_is_closed_soon_after(self, nginx: str, wire_log: WireLog) -> None:
        host, port = nginx.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /brief/users/1.json HTTP/1.1\r\nHost: nginx\r\n\r\n")

        answer = await asyncio.wait_for(reader.read(), 5)

        assert b"Connection: keep-alive" in answer
        writer.close()


class TestNginxAnswers:
    @pytest.mark.parametrize("status", STATUSES)
    async def test_a_status_is_answered_in_html_and_as_a_problem(
        self, http: ClientSession, nginx: str, status: int
    ) -> None:
        page = await raw(http, f"{nginx}/status/{status}")
        problem = await get(http, f"{nginx}/problem/{status}")

        assert page[0] == status
        assert page[2].startswith(b"<html>") or (status, page[2]) == (422, b"")
        assert problem[:2] == (status, "application/problem+json")
        assert problem[2]["status"] == status

    @pytest.mark.parametrize(
        ("path", "status"),
        [("/nothing.json", 404), ("/users/", 403), ("/private/users/1.json", 401), ("/dead", 502), ("/silent", 504)],
    )
    async def test_an_error_is_nginx_s_own_page(self, http: ClientSession, nginx: str, path: str, status: int) -> None:
        answered, headers, body = await raw(http, nginx + path)

        assert (answered, headers["Content-Type"]) == (status, "text/html")
        assert b"<center>nginx" in body

    async def test_private_opens_to_those_who_may(self, http: ClientSession, nginx: str) -> None:
        headers = {"Authorization": aiohttp.encode_basic_auth(*LOGIN)}

        assert (await raw(http, f"{nginx}/private/users/1.json", headers=headers))[0] == 200

    async def test_a_caller_in_a_hurry_is_told_when_to_come_back(self, http: ClientSession, nginx: str) -> None:
        url = f"{nginx}/limited/users/1.json?key={uuid4().hex}"

        first, second = await raw(http, url), await raw(http, url)

        assert (first[0], first[1].get("Retry-After")) == (200, None)
        assert (second[0], second[1].get("Retry-After")) == (429, "4")

    @pytest.mark.parametrize(
        ("path", "status", "when"),
        [
            ("/busy/429", 429, "30"),
            ("/busy/503", 503, "30"),
            ("/busy/date", 503, "Fri, 31 Dec 2100 23:59:59 GMT"),
            ("/status/503", 503, None),
        ],
    )
    async def test_busy_says_when(
        self, http: ClientSession, nginx: str, path: str, status: int, when: str | None
    ) -> None:
        answered, headers, _ = await raw(http, nginx + path)

        assert (answered, headers.get("Retry-After")) == (status, when)

    async def test_empty_is_a_204(self, http: ClientSession, nginx: str) -> None:
        status, headers, body = await raw(http, f"{nginx}/empty")

        assert (status, "Content-Length" in headers, body) == (204, False, b"")

    @pytest.mark.parametrize("status", REDIRECTS)
    async def test_a_redirect_leads_to_the_file(self, http: ClientSession, nginx: str, status: int) -> None:
        url = f"{nginx}/redirect/{status}/users/1.json"

        answered, headers, _ = await raw(http, url)

        assert (answered, headers["Location"]) == (status, f"{nginx}/users/1.json")
        assert (await get(http, url))[2]["id"] == 1

    @pytest.mark.parametrize(
        ("path", "location"),
        [
            ("/redirect/loop", "{nginx}/redirect/loop"),
            ("/redirect/elsewhere", "http://elsewhere.invalid/products.json"),
        ],
    )
    async def test_some_redirects_lead_nowhere(self, http: ClientSession, nginx: str, path: str, location: str) -> None:
        status, headers, _ = await raw(http, nginx + path)

        assert (status, headers["Location"]) == (302, location.format(nginx=nginx))

    @pytest.mark.parametrize("path", ["/headers/huge", "/headers/two-lengths"])
    async def test_some_headers_are_more_than_a_client_takes(self, http: ClientSession, nginx: str, path: str) -> None:
        with pytest.raises(aiohttp.ClientResponseError):
            await raw(http, nginx + path)

    async def test_a_client_that_takes_it_sees_a_huge_header(self, nginx: str) -> None:
        async with ClientSession(max_field_size=32 * 1024, max_line_size=32 * 1024) as http:
            _, headers, _ = await raw(http, f"{nginx}/headers/huge")

        assert len(headers["X-Huge"]) == 16 * 1024

    async def test_many_headers_are_three_hundred(self, nginx: str) -> None:
        host, port = nginx.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /headers/many HTTP/1.0\r\n\r\n")

        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()

        assert answer.count(b"\r\nX-Header-") == 300

    async def test_cookies_are_set_twice(self, http: ClientSession, nginx: str) -> None:
        async with http.get(f"{nginx}/headers/cookies") as answer:
            assert [cookie.value for cookie in answer.cookies.values()] == ["1", "dark"]

    async def test_a_post_is_taken_unless_it_is_too_large_or_to_a_file(self, http: ClientSession, nginx: str) -> None:
        statuses = []
        for path, body in (("/carts", b"{}"), ("/carts", b"x" * 1025), ("/users/1.json", b"{}")):
            async with http.post(nginx + path, data=body) as answer:
                statuses.append((answer.status, answer.content_type))

        assert statuses == [(201, "application/json"), (413, "text/html"), (405, "text/html")]


class TestWireLog:
    async def test_tells_what_came_over_the_wire(self, http: ClientSession, nginx: str, wire_log: WireLog) -> None:
        token = uuid4().hex
        headers = {"X-Request-ID": token[:8], "Via": '1.1 "gateway"', "Authorization": "Bearer x"}
        await raw(http, f"{nginx}/users/1.json?{token}", headers=headers)
        await raw(http, f"{nginx}/nothing.json?{token}")

        found, missing = await wire_log.seen(token, 2)

        assert (found.method, found.status, found.uri) == ("GET", 200, f"/users/1.json?{token}")
        assert (found.request_id, found.via, found.authorization) == (token[:8], '1.1 "gateway"', "Bearer x")
        assert (missing.status, missing.request_id, missing.via) == (404, "", "")

    @pytest.mark.parametrize("path", ["/after/30s/users/1.json", "/slow/products.json"])
    async def test_tells_that_the_caller_left(
        self, http: ClientSession, nginx: str, wire_log: WireLog, path: str
    ) -> None:
        token = uuid4().hex
        with pytest.raises(TimeoutError):
            await raw(http, f"{nginx}{path}?{token}", timeout=aiohttp.ClientTimeout(total=1.0))

        (exchange,) = await wire_log.seen(token)

        assert exchange.seconds < 5
        assert exchange.status == (499 if path.startswith("/after") else 200)
