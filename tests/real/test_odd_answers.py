"""What a page makes of odd answers, each once as a part it needs, and once as a part it can do without.

Whatever a server does, the answer is JSON: never a 500, never HTML, never a word of what the server said. Each request
to nginx bears a token, so that its own log is a second opinion on how often it was asked.
"""

from __future__ import annotations

import csv
import re
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
import pytest
from aiohttp import ClientSession, encode_basic_auth
from django.urls import path

from gateway import AggregateView, call
from tests.logs import Log
from tests.serving import gateway
from upstreams import FOLLOW, GET, HEAD, JSON, POST, Reply, Request, Retry, Upstream

from .asking import ask, patient
from .run_nginx import BODIES, DOCUMENT, LOGIN, MIB, REDIRECTS, STATUSES, TABLE, WireLog
from .shop import JSON as SHOP_JSON
from .shop import products, users

STONE = SHOP_JSON.encode(products()[0])
#: What the servers here say of themselves in their errors.
INSIDES = re.compile(r"<html|<pre|nginx|node_modules|\.js:\d+|Error:|Traceback|werkzeug|no such|127\.0\.0\.1")


class Asked(msgspec.Struct):
    """Two links at the server: to an odd answer, and to one that is well."""

    odd: str
    well: str


class Needed(AggregateView):
    deadline = 20.0

    @call("server")
    def odd(self, query: Asked) -> Request[JSON]:
        return FOLLOW(query.odd)


class Unneeded(AggregateView):
    deadline = 20.0

    @call("server", optional=True)
    def odd(self, query: Asked) -> Request[JSON]:
        return FOLLOW(query.odd)

    @call("server")
    def well(self, query: Asked) -> Request[JSON]:
        return FOLLOW(query.well)


ROUTES = [path("needed", Needed.as_view()), path("unneeded", Unneeded.as_view())]


class Odd(NamedTuple):
    """An odd answer: `status` is the server's, None if there is none; `page` is that of a page that needs it."""

    link: str
    error: str
    status: int | None = 200
    page: int = 502
    retried: bool = False


def named(odd: object) -> str:
    return odd.link if isinstance(odd, Odd) else str(odd)


async def refused(client: ClientSession, log: Log, server: Upstream, odd: Odd, *, well: str) -> int:
    """Ask for an odd answer both ways, check what the pages make of it, and return how often it was asked for."""
    links = {"odd": odd.link, "well": well}
    async with gateway(ROUTES, {"server": server}) as base:
        needed = await ask(client, f"{base}/needed", params=links)
        unneeded = await ask(client, f"{base}/unneeded", params=links)
    failure = needed.errors["odd"]
    attempts = log.events("attempt.finished", call="odd")

    assert (needed.status, needed.headers["Content-Type"]) == (odd.page, "application/problem+json")
    assert (failure["upstream"], failure["error"], failure["status"]) == ("server", odd.error, odd.status)
    assert failure["attempts"] == (2 if odd.retried else 1)
    assert (unneeded.status, unneeded.json["complete"], unneeded.errors) == (200, False, {"odd": failure})
    assert unneeded.data["odd"] is None
    assert unneeded.data["well"]
    assert not INSIDES.search((needed.body + unneeded.body).decode())
    assert not [
        event for event in log.events() if event.get("logger") != "uvicorn.error" and INSIDES.search(str(event))
    ]
    assert {(event["error.type"], event.get("http.response.status_code")) for event in attempts} == {
        (odd.error, odd.status)
    }
    counted = [event for event in attempts if event["kind"] != "transparent"]
    assert len(counted) == 2 * failure["attempts"]
    return len(attempts)


def token_on(link: str) -> tuple[str, str]:
    """The link with a token on it, and the token."""
    token = uuid4().hex
    return f"{link}{'&' if '?' in link else '?'}{token}", token


FROM_NGINX = [
    # not JSON, or said not to be
    Odd("/as-html/products/D-00001.json", "body_malformed"),
    Odd("/as-latin-1/products/D-00001.json", "body_malformed"),
    Odd("/as-nothing/products/D-00001.json", "body_malformed"),
    *(
        Odd(f"/bodies/{name}.json", "body_malformed")
        for name in ("page", "latin-1", "utf-16", "bom", "nan", "half", "trailing", "surrogate")
    ),
    Odd("/bodies/empty.json", "body_mismatch"),
    Odd("/empty", "body_mismatch", 204),
    # too large, in itself or once it is opened
    Odd("/bodies/huge.json", "http_response_body_size"),
    Odd("/encoded/gzip/bomb.json", "http_response_body_size"),
    # encoded otherwise than said, or as nobody asked
    Odd("/encoded/gzip/plain.json", "http_response_content_coding"),
    Odd("/encoded/gzip/wrong-checksum.json", "http_response_content_coding"),
    Odd("/encoded/br/whole.json", "http_response_content_coding"),
    # not all of it
    Odd("/encoded/gzip/truncated.json", "http_response_incomplete", retried=True),
    Odd("/encoded/gzip/no-trailer.json", "http_response_incomplete", retried=True),
    Odd("/cut/products.json", "http_response_incomplete", retried=True),
    Odd("/cut-chunked/products.json", "http_response_incomplete", retried=True),
    Odd("/drop", "connection_terminated", None, retried=True),
    # heads that a client does not take
    Odd("/headers/huge", "http_response_header_size", None),
    Odd("/headers/many", "http_response_header_size", None),
    Odd("/headers/two-lengths", "http_protocol_error", None),
    # errors in HTML
    Odd("/nothing.json", "http_response_status", 404),
    Odd("/users/", "http_response_status", 403),
    Odd("/private/users/1.json", "http_response_status", 401),
    Odd("/dead", "http_response_status", 502, retried=True),
    Odd("/silent", "http_response_status", 504, retried=True),
    # redirects, which are not followed
    *(Odd(f"/redirect/{status}/users/1.json", "http_response_status", status) for status in REDIRECTS),
    Odd("/redirect/loop", "http_response_status", 302),
    Odd("/redirect/elsewhere", "http_response_status", 302),
]


@pytest.mark.parametrize("odd", FROM_NGINX, ids=named)
async def test_an_odd_answer_of_nginx_is_an_error_word_and_as_many_attempts_as_nginx_saw(
    client: ClientSession, log: Log, nginx: str, wire_log: WireLog, odd: Odd
) -> None:
    link, token = token_on(odd.link)

    attempts = await refused(client, log, patient(nginx), odd._replace(link=link), well="/products/D-00001.json")

    assert len(await wire_log.seen(token, attempts)) == attempts == log.sent() - 1


@pytest.mark.parametrize(
    "odd",
    [
        Odd("/shop/nothing.json", "http_response_status", 404),
        Odd("/shop.json?sql=select+nope", "http_response_status", 400),
        Odd("/shop/users", "body_malformed"),  # HTML
        Odd("/shop/users.csv", "body_malformed"),
        Odd("/shop/users.json?_shape=array&_nl=on", "body_malformed"),  # JSON Lines, as text/plain
    ],
    ids=named,
)
async def test_an_odd_answer_of_datasette_is_an_error_word(
    client: ClientSession, log: Log, datasette: str, odd: Odd
) -> None:
    await refused(client, log, patient(datasette), odd, well="/-/versions.json")


@pytest.mark.parametrize(
    "odd",
    [
        Odd("/products/D-99999", "http_response_status", 404),
        Odd("/products", "http_response_body_size"),  # compressed it is within the limit
    ],
    ids=named,
)
async def test_an_odd_answer_of_json_server_is_an_error_word(
    client: ClientSession, log: Log, json_server: str, odd: Odd
) -> None:
    await refused(client, log, patient(json_server), odd, well="/shop")


@pytest.mark.parametrize(
    "odd",
    [
        Odd("/html", "body_malformed"),
        Odd("/xml", "body_malformed"),
        Odd("/image/png", "body_malformed"),
        Odd("/deny", "body_malformed"),
        Odd("/stream/3", "body_malformed"),  # three documents as one application/json
        Odd("/drip?duration=0.1&numbytes=4&delay=0", "body_malformed"),
        Odd("/brotli", "http_response_content_coding"),
        Odd("/redirect/3", "http_response_status", 302),
        Odd("/basic-auth/u/p", "http_response_status", 401),
        Odd("/status/418", "http_response_status", 418),
    ],
    ids=named,
)
async def test_an_odd_answer_of_httpbin_is_an_error_word(
    client: ClientSession, log: Log, httpbin: str, odd: Odd
) -> None:
    await refused(client, log, patient(httpbin), odd, well="/json")


async def test_every_error_status_fails_the_page_with_a_status_of_its_own_whatever_the_body_says(
    client: ClientSession, nginx: str
) -> None:
    async with gateway(ROUTES, {"server": patient(nginx, retry=None)}) as base:
        pages = {}
        for status in STATUSES:
            for kind in ("status", "problem"):
                got = await ask(client, f"{base}/needed", params={"odd": f"/{kind}/{status}", "well": ""})
                pages[f"{kind}/{status}"] = (got.status, got.errors["odd"]["error"], got.errors["odd"]["status"])

    assert pages == {
        f"{kind}/{status}": (503 if status in {429, 503} else 502, "http_response_status", status)
        for status in STATUSES
        for kind in ("status", "problem")
    }


class TestBusy:
    @pytest.mark.parametrize(("link", "status"), [("/busy/429", 429), ("/busy/503", 503), ("/busy/date", 503)])
    async def test_a_wait_beyond_the_deadline_is_not_begun_and_is_told_to_the_client(
        self, client: ClientSession, nginx: str, wire_log: WireLog, link: str, status: int
    ) -> None:
        link, token = token_on(link)
        async with gateway(ROUTES, {"server": patient(nginx)}) as base:
            got = await ask(client, f"{base}/needed", params={"odd": link, "well": ""})

        assert (got.status, got.errors["odd"]["status"], got.errors["odd"]["attempts"]) == (503, status, 1)
        assert 1 <= int(got.headers["Retry-After"]) <= 86400
        assert len(await wire_log.seen(token)) == 1

    async def test_a_wait_that_is_asked_for_is_waited_and_then_all_is_well(
        self, client: ClientSession, log: Log, nginx: str, wire_log: WireLog
    ) -> None:
        link, token = token_on(f"/limited/users/1.json?key={uuid4().hex}")
        async with gateway(ROUTES, {"server": patient(nginx)}) as base:
            first = await ask(client, f"{base}/needed", params={"odd": link, "well": ""})
            second = await ask(client, f"{base}/needed", params={"odd": link, "well": ""})
            seen = await wire_log.seen(token, 3)

        assert (first.status, second.status) == (200, 200)
        assert [exchange.status for exchange in seen] == [200, 429, 200]
        assert [event["wait_ms"] for event in log.events("retry.scheduled")] == [4000.0]


class TestLate:
    @pytest.mark.parametrize("link", ["/after/30s/users/1.json", "/slow/products.json?rate=1k"])
    async def test_an_attempt_that_takes_too_long_is_given_up_and_the_server_sees_it_go(
        self, client: ClientSession, log: Log, nginx: str, wire_log: WireLog, link: str
    ) -> None:
        odd, token = token_on(link)
        async with gateway(ROUTES, {"server": Upstream(nginx, timeout=0.9, retry=Retry(2, 0.0, 0.0))}) as base:
            got = await ask(client, f"{base}/needed", params={"odd": odd, "well": ""})
            seen = await wire_log.seen(token, 2)

        failure = got.errors["odd"]
        assert (got.status, failure["error"], failure["attempts"]) == (504, "http_response_timeout", 2)
        assert len(seen) == log.sent() == 2
        assert len({exchange.connection for exchange in seen}) == 2

    async def test_an_answer_that_is_late_but_in_time_is_an_answer(self, client: ClientSession, nginx: str) -> None:
        links = {"odd": "/after/300ms/products/D-00001.json", "well": ""}
        async with gateway(ROUTES, {"server": patient(nginx)}) as base:
            got = await ask(client, f"{base}/needed", params=links)

        assert got.body == b'{"data":{"odd":' + STONE + b'},"complete":true,"errors":{}}'


class TestOddButRight:
    """Answers that are unusual and nonetheless what was asked for."""

    @pytest.mark.parametrize(
        "link",
        [
            "/products/D-00001.json",
            "/chunked/products/D-00001.json",
            "/until-close/products/D-00001.json",
            "/once/products/D-00001.json",
            "/brief/products/D-00001.json",
            "/as-problem/products/D-00001.json",
            "/not-compressed-for-proxies/products/D-00001.json",
        ],
    )
    async def test_it_is_spliced_in_however_it_was_delivered(
        self, client: ClientSession, nginx: str, link: str
    ) -> None:
        async with gateway(ROUTES, {"server": patient(nginx)}) as base:
            got = await ask(client, f"{base}/needed", params={"odd": link, "well": ""})

        assert got.body == b'{"data":{"odd":' + STONE + b'},"complete":true,"errors":{}}'

    @pytest.mark.parametrize("name", ["exact", "crlf", "null", "duplicate-keys"])
    async def test_json_that_is_right_is_passed_on_byte_for_byte(
        self, client: ClientSession, nginx: str, name: str
    ) -> None:
        async with gateway(ROUTES, {"server": patient(nginx)}) as base:
            got = await ask(client, f"{base}/needed", params={"odd": f"/bodies/{name}.json", "well": ""})

        assert got.status == 200
        assert BODIES[f"{name}.json"].strip() in got.body

    async def test_json_with_line_breaks_is_one_line_of_a_stream(self, client: ClientSession, nginx: str) -> None:
        links = {"odd": "/bodies/crlf.json", "well": ""}
        async with gateway(ROUTES, {"server": patient(nginx)}) as base:
            got = await ask(client, f"{base}/needed", params=links, headers={"Accept": "application/jsonl"})

        frames = [msgspec.json.decode(line) for line in got.body.splitlines()]
        assert [next(iter(frame)) for frame in frames] == ["pending", "call", "result"]
        assert frames[1]["data"] == {"sku": "D-00001", "title": "two\nlines"}

    async def test_a_body_100_000_deep_is_passed_on_or_refused_and_the_next_request_is_answered(
        self, client: ClientSession, nginx: str
    ) -> None:
        async with gateway(ROUTES, {"server": patient(nginx)}) as base:
            deep = await ask(client, f"{base}/needed", params={"odd": "/bodies/deep.json", "well": ""})
            after = await ask(client, f"{base}/needed", params={"odd": "/users/1.json", "well": ""})

        assert deep.status == 200 or deep.errors["odd"]["error"] == "body_malformed"
        assert after.status == 200

    @pytest.mark.parametrize(("link", "said"), [("/gzip", "gzipped"), ("/deflate", "deflated")])
    async def test_httpbin_s_encodings_are_opened(
        self, client: ClientSession, httpbin: str, link: str, said: str
    ) -> None:
        async with gateway(ROUTES, {"server": patient(httpbin)}) as base:
            got = await ask(client, f"{base}/needed", params={"odd": link, "well": ""})

        assert got.data["odd"][said] is True

    async def test_a_whole_table_is_read_where_the_limit_allows_it(
        self, client: ClientSession, nginx: str, wire_log: WireLog
    ) -> None:
        link, token = token_on("/products.json")
        async with gateway(ROUTES, {"server": patient(nginx, max_body=4 * MIB)}) as base:
            got = await ask(client, f"{base}/needed", params={"odd": link, "well": ""})
            (exchange,) = await wire_log.seen(token)

        assert SHOP_JSON.encode(products()) in got.body
        assert exchange.accept_encoding == "gzip"
        assert exchange.body_bytes < len(got.body) / 2

    async def test_a_body_encoded_as_it_says_is_opened(self, client: ClientSession, nginx: str) -> None:
        async with gateway(ROUTES, {"server": patient(nginx)}) as base:
            got = await ask(client, f"{base}/needed", params={"odd": "/encoded/gzip/whole.json", "well": ""})

        assert got.body == b'{"data":{"odd":' + DOCUMENT + b'},"complete":true,"errors":{}}'

    async def test_a_password_is_the_upstream_s_own(self, client: ClientSession, nginx: str) -> None:
        allowed = patient(nginx, headers={"Authorization": encode_basic_auth(*LOGIN)})
        links = {"odd": "/private/products/D-00001.json", "well": ""}
        async with gateway(ROUTES, {"server": allowed}) as base:
            got = await ask(client, f"{base}/needed", params=links)

        assert (got.status, got.data["odd"]["sku"]) == (200, "D-00001")

    async def test_cookies_are_neither_kept_nor_passed_on(
        self, client: ClientSession, nginx: str, wire_log: WireLog
    ) -> None:
        link, token = token_on("/headers/cookies")
        async with gateway(ROUTES, {"server": patient(nginx)}) as base:
            answers = [await ask(client, f"{base}/needed", params={"odd": link, "well": ""}) for _ in range(2)]
            seen = await wire_log.seen(token, 2)

        assert [(got.status, "Set-Cookie" in got.headers) for got in answers] == [(200, False)] * 2
        assert [exchange.cookie for exchange in seen] == ["", ""]


def rows(body: bytes) -> list[list[str]]:
    return list(csv.reader(body.decode().splitlines()))


class OddTypes(AggregateView):
    """Values that are not JSON, or are none at all."""

    deadline = 20.0

    @call("nginx", optional=True, decode=rows)
    def truncated(self) -> Request[list[list[str]]]:
        return GET("/encoded/gzip/truncated.csv")

    @call("nginx")
    def empty(self) -> Request[JSON | None]:
        return GET("/empty")

    @call("nginx", absent=(404,))
    def nowhere(self) -> Request[JSON]:
        return GET("/nowhere.json")

    @call("nginx")
    def heading(self) -> Request[Reply[None]]:
        return HEAD("/products/D-00001.json")

    @call("datasette", decode=rows)
    def table(self) -> Request[list[list[str]]]:
        return GET("/shop/users.csv", query={"_col": "name", "_size": 1})

    def merge(
        self,
        truncated: list[list[str]] | None,
        empty: JSON | None,
        nowhere: JSON | None,
        heading: Reply[None],
        table: list[list[str]],
    ) -> list[Any]:
        return [truncated, empty, nowhere, heading.headers["content-length"], table]


async def test_what_is_not_json_is_decoded_by_the_page_s_own_function_if_it_is_there_whole(
    client: ClientSession, datasette: str, nginx: str
) -> None:
    upstreams = {"nginx": patient(nginx), "datasette": patient(datasette)}
    async with gateway([path("", OddTypes.as_view())], upstreams) as base:
        got = await ask(client, base)

    assert got.data == [None, None, None, str(len(STONE)), [["id", "name"], ["1", users()[0].name]]]
    assert [*got.errors] == ["truncated"]
    assert got.errors["truncated"]["error"] == "http_response_incomplete"
    assert rows(TABLE)[-1] == ["D-03999", str(3999 * 3999 % 9973)]


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [("If-None-Match", "ETag", 304), ("If-Modified-Since", "Last-Modified", 304), ("Range", "bytes=0-9", 206)],
)
async def test_an_answer_that_is_not_the_whole_thing_is_no_value(
    client: ClientSession, http: ClientSession, nginx: str, name: str, value: str, status: int
) -> None:
    plain = await ask(http, f"{nginx}/users/1.json")
    upstream = patient(nginx, headers={name: plain.headers.get(value, value)})
    async with gateway(ROUTES, {"server": upstream}) as base:
        got = await ask(client, f"{base}/needed", params={"odd": "/users/1.json", "well": ""})

    assert (got.status, got.errors["odd"]["error"], got.errors["odd"]["status"]) == (
        502,
        "http_response_status",
        status,
    )


class Record(msgspec.Struct):
    id: int
    text: str = ""


class Write(AggregateView):
    """Writes to one link, once."""

    deadline = 20.0

    @call("server", passthrough=(413,))
    def written(self, link: str, token: str, body: Record) -> Request[JSON]:
        return POST("/{link}", link=link, token=token, json=body)


class TestWriting:
    routes = (path("<str:link>/<str:token>", Write.as_view()),)

    async def test_an_error_with_a_stack_trace_shows_none_and_is_not_asked_for_twice(
        self, client: ClientSession, log: Log, json_server: str
    ) -> None:
        async with gateway(self.routes, {"server": patient(json_server)}) as base:
            got = await ask(client, f"{base}/users/x", "POST", json={"id": 1})

        assert (got.status, got.errors["written"]["status"], got.errors["written"]["attempts"]) == (502, 500, 1)
        assert not INSIDES.search(got.body.decode())
        assert not INSIDES.search(str(log.events("attempt.finished") + log.events("request.finished")))

    async def test_a_lost_answer_is_not_asked_for_twice(
        self, client: ClientSession, log: Log, nginx: str, wire_log: WireLog
    ) -> None:
        token = uuid4().hex
        async with gateway(self.routes, {"server": patient(nginx)}) as base:
            got = await ask(client, f"{base}/drop/{token}", "POST", json={"id": 1})
            seen = await wire_log.seen(token)

        assert (got.status, got.errors["written"]["error"]) == (502, "connection_terminated")
        assert len(seen) == log.sent() == got.errors["written"]["attempts"] == 1

    async def test_a_body_that_is_too_large_for_the_server_is_its_413_where_the_page_says_so(
        self, client: ClientSession, nginx: str, wire_log: WireLog
    ) -> None:
        token = uuid4().hex
        async with gateway(self.routes, {"server": patient(nginx)}) as base:
            taken = await ask(client, f"{base}/carts/{token}", "POST", json={"id": 1})
            refused = await ask(client, f"{base}/carts/{token}", "POST", json={"id": 1, "text": "x" * 1024})
            seen = await wire_log.seen(token, 2)

        assert (taken.status, taken.data) == (200, {"written": {"id": 1}})
        assert (refused.status, refused.headers["Content-Type"]) == (413, "application/problem+json")
        assert [exchange.status for exchange in seen] == [201, 413]
