"""What the client gives a page: each right value decoded, each wrong one a 400 that names its field."""

from __future__ import annotations

import asyncio
import datetime
import enum
import gzip
import uuid
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest
from django.test import Client, RequestFactory
from django.urls import path, re_path
from msgspec import Meta

from gateway import AggregateView, Problem, call
from gateway.answering.inputs import read_inputs
from tests.conftest import StartStub
from tests.logs import CANARY
from tests.serving import PatientPage, asking, gateway, project
from upstreams import GET, JSON, POST, Request

OWNER = uuid.UUID("0f8fad5b-d9cb-469f-a165-70867728950e")


class Sort(enum.Enum):
    PRICE = "price"
    NAME = "name"


class Search(msgspec.Struct, rename="camel", kw_only=True):
    """A query with a field of every kind; `sort_by` is `sortBy` to clients."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    number: int | None = None
    ratio: float = 1.0
    price: Decimal | None = None
    prices: list[Decimal] = []
    fresh: bool = False
    text: Annotated[str, Meta(max_length=9)] = ""
    sort_by: Sort = Sort.PRICE
    kind: Literal["a", "b"] = "a"
    since: datetime.date | None = None
    moment: datetime.datetime | None = None
    owner: uuid.UUID | None = None
    tags: list[str] = []
    few: Annotated[list[int], Meta(max_length=2)] = []
    colours: frozenset[str] | None = None
    sequence: Sequence[int] = ()
    span: tuple[int, int] | None = None


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    needed: int


class Line(msgspec.Struct):
    sku: str
    quantity: Annotated[int, Meta(ge=1)] = 1


class Order(msgspec.Struct, rename="camel"):
    customer: int
    order_lines: list[Line]
    notes: dict[str, int] = {}
    sort: Sort = Sort.PRICE


class SearchPage(PatientPage):
    @call("all")
    def found(self, query: Search) -> Request[JSON]:
        return GET("/search", limit=query.limit, text=query.text)


class Unbounded(msgspec.Struct):
    most: float = float("inf")


class UnboundedPage(PatientPage):
    @call("all")
    def found(self, query: Unbounded) -> Request[JSON]:
        return GET("/search")


class StrictPage(PatientPage):
    @call("all")
    def found(self, query: Strict) -> Request[JSON]:
        return GET("/search", needed=query.needed)


class Labelled(msgspec.Struct):
    labels: set[Any]


class Priced(msgspec.Struct):
    price: Decimal


class PricedPage(PatientPage):
    @call("all")
    def order(self, body: Priced) -> Request[JSON]:
        return POST("/orders", json=body)


class LabelledPage(PatientPage):
    max_body = 1000

    @call("all")
    def order(self, body: Labelled) -> Request[JSON]:
        return POST("/orders", json=len(body.labels))


class OrderPage(PatientPage):
    max_body = 1000

    @call("all")
    def order(self, body: Order) -> Request[JSON]:
        return POST("/orders", json=body)


def inputs(page: type[AggregateView], query: str = "", body: bytes = b"", kind: str = "application/json") -> Any:
    request = RequestFactory().generic("POST", f"/?{query}", body, CONTENT_TYPE=kind)
    return read_inputs(page.plan, request, {}, page.max_body)


def problem(page: type[AggregateView], query: str = "", body: bytes = b"", kind: str = "application/json") -> Problem:
    with pytest.raises(Problem) as raised:
        inputs(page, query, body, kind)
    return raised.value


class NumberedPage(PatientPage):
    @call("all")
    def found(self, number: str | None) -> Request[JSON] | None:
        return None if number is None else GET("/search", page=number)


class EitherPage(PatientPage):
    @call("all")
    def found(self, number: str) -> Request[JSON]:
        return GET("/search", page=number)


async def test_none_is_not_given_for_what_cannot_be_none(stub: StartStub) -> None:
    server = await stub("all")
    pattern = r"^(?:page/(?P<number>\d+)|first)$"  # of which no check can tell that it may match nothing
    with asking([re_path(pattern, EitherPage.as_view())], {"all": server}) as client:
        assert (await client.get("/first")).status_code == 500
    assert server.received == []


async def test_a_group_of_the_url_that_matched_nothing_is_none(stub: StartStub) -> None:
    server = (await stub("all")).on("/search", [])
    with asking([re_path(r"^page(?:/(?P<number>\d+))?$", NumberedPage.as_view())], {"all": server}) as client:
        assert (await client.get("/page/3")).json()["data"] == {"found": []}
        assert (await client.get("/page")).json()["data"] == {"found": None}


class TestQuery:
    def test_a_default_is_the_page_s_own_and_may_be_infinite(self) -> None:
        assert inputs(UnboundedPage)["query"].most == float("inf")
        assert problem(UnboundedPage, "most=inf").extensions == {"invalid": {"query.most": "Expected a finite number"}}

    @pytest.mark.parametrize(
        ("query", "field", "value"),
        [
            ("", "limit", 20),
            ("limit=7", "limit", 7),
            ("limit=%37", "limit", 7),
            ("limit=7.0", "limit", 7),
            ("number=-3", "number", -3),
            ("number=null", "number", None),
            (f"number={'9' * 30}", "number", int("9" * 30)),
            ("ratio=1.5", "ratio", 1.5),
            ("ratio=1e3", "ratio", 1000.0),
            ("fresh=true", "fresh", True),
            ("fresh=1", "fresh", True),
            ("fresh=false", "fresh", False),
            ("fresh=0", "fresh", False),
            ("text=", "text", ""),
            ("text=a+b%20c", "text", "a b c"),
            ("text=%C3%A9%F0%9F%90%88", "text", "\xe9\U0001f408"),
            ("text=%zz%", "text", "%zz%"),
            ("text=a=b", "text", "a=b"),
            ("sortBy=name", "sort_by", Sort.NAME),
            ("sort_by=name", "sort_by", Sort.PRICE),
            ("kind=b", "kind", "b"),
            ("since=2026-02-28", "since", datetime.date(2026, 2, 28)),
            ("moment=2026-02-28T12:00:00Z", "moment", datetime.datetime(2026, 2, 28, 12, tzinfo=datetime.UTC)),
            (f"owner={OWNER}", "owner", OWNER),
            ("tags=a", "tags", ["a"]),
            ("tags=a&limit=7&tags=b&tags=a", "tags", ["a", "b", "a"]),
            ("tags=", "tags", [""]),
            ("few=1&few=2", "few", [1, 2]),
            ("colours=red&colours=red", "colours", frozenset({"red"})),
            ("sequence=1&sequence=2", "sequence", [1, 2]),
            ("span=1&span=9", "span", (1, 9)),
            ("unknown=1&unknown=2&limit=7", "limit", 7),
            ("unknown=%FF&limit=7", "limit", 7),
            ("%FF=1&limit=7", "limit", 7),
            ("&&=&=1&limit=7&", "limit", 7),
        ],
    )
    def test_text_becomes_the_fields_type(self, query: str, field: str, value: object) -> None:
        assert getattr(inputs(SearchPage, query)["query"], field) == value

    @pytest.mark.parametrize(
        ("query", "invalid"),
        [
            ("limit=x", {"query.limit": "Expected `int`, got `str`"}),
            ("limit=", {"query.limit": "Expected `int`, got `str`"}),
            ("limit=1.5", {"query.limit": "Expected `int`, got `str`"}),
            ("limit=null", {"query.limit": "Expected `int`, got `str`"}),
            ("limit=0", {"query.limit": "Expected `int` >= 1"}),
            ("limit=101", {"query.limit": "Expected `int` <= 100"}),
            (f"number={'9' * 5000}", {"query.number": "Integer value out of range"}),
            ("number=0x10", {"query.number": "Expected `int | null`, got `str`"}),
            ("ratio=1e999", {"query.ratio": "Number out of range"}),
            ("ratio=nan", {"query.ratio": "Expected a finite number"}),
            ("ratio=-Infinity", {"query.ratio": "Expected a finite number"}),
            ("price=sNaN", {"query.price": "Expected a finite number"}),
            ("prices=1&prices=NaN", {"query.prices": "Expected a finite number"}),
            ("ratio=a", {"query.ratio": "Expected `float`, got `str`"}),
            ("fresh=yes", {"query.fresh": "Expected `bool`, got `str`"}),
            ("text=0123456789", {"query.text": "Expected `str` of length <= 9"}),
            ("text=%FF", {"query.text": "not UTF-8"}),
            ("te%78t=%ED%A0%80", {"query.text": "not UTF-8"}),
            (f"sortBy={CANARY}", {"query.sortBy": "Invalid enum value"}),
            (f"kind={CANARY}", {"query.kind": "Invalid enum value"}),
            ("since=2026-02-30", {"query.since": "Invalid RFC3339 encoded date"}),
            ("moment=now", {"query.moment": "Invalid RFC3339 encoded datetime"}),
            ("owner=me", {"query.owner": "Invalid UUID"}),
            ("few=1&few=x", {"query.few[1]": "Expected `int`, got `str`"}),
            ("few=1&few=2&few=3", {"query.few": "Expected `array` of length <= 2"}),
            ("span=1", {"query.span": "Expected `array` of length 2, got 1"}),
            ("limit=1&limit=2", {"query.limit": "given 2 times"}),
            ("sortBy=name&sortBy=name&sortBy=name", {"query.sortBy": "given 3 times"}),
        ],
    )
    def test_a_wrong_value_is_a_400_naming_its_field_and_not_repeating_it(
        self, query: str, invalid: dict[str, str]
    ) -> None:
        refused = problem(SearchPage, query)

        assert (refused.status, refused.kind) == (400, "invalid_request")
        assert refused.extensions == {"invalid": invalid}
        assert CANARY not in refused.document("abc").decode()

    @pytest.mark.parametrize(
        ("query", "invalid"),
        [
            ("", {"query.needed": "Object missing required field `needed`"}),
            ("Needed=1", {"query.Needed": "Object contains unknown field `Needed`"}),
            ("needed=1&more=2", {"query.more": "Object contains unknown field `more`"}),
            ("needed=1&more=2&more=3", {"query.more": "Object contains unknown field `more`"}),
        ],
    )
    def test_a_missing_field_is_named_and_an_unknown_one_where_the_struct_forbids_it(
        self, query: str, invalid: dict[str, str]
    ) -> None:
        assert problem(StrictPage, query).extensions == {"invalid": invalid}

    async def test_no_query_string_is_a_500_and_none_that_is_wrong_asks_an_upstream(
        self, stub: StartStub, client: aiohttp.ClientSession
    ) -> None:
        server = await stub("all")
        wrong = [
            b"limit=x",
            b"limit=%FF",
            b"limit=1&" * 7_000,
            b"&".join([b"tags=a"] * 7_000),
            b"limit=" + b"9" * 9_000,
        ]
        async with gateway([path("", SearchPage.as_view())], {"all": server}) as base:
            for query in [*wrong, b"limit=\xff", b"\xff", b"limit=\xc3\xa9", b"text=%00%0D%0A"]:
                head = await asked_raw(base, b"GET /?%s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % query)
                assert head.startswith(b"HTTP/1.1 400"), query[:20]
        assert not server.received

    @pytest.mark.parametrize(
        "kind", [b"application/json; charset*=foo'en'bar", b"application/json; x=" + b"y" * 20_000]
    )
    async def test_no_content_type_is_a_500(self, stub: StartStub, kind: bytes) -> None:
        server = await stub("all")
        async with gateway([path("", SearchPage.as_view())], {"all": server}) as base:
            request = b"GET /?limit=x HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nConnection: close\r\n\r\n" % kind
            head = await asked_raw(base, request)
        assert head.startswith(b"HTTP/1.1 400")


class TestBody:
    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (b'{"customer": 7, "orderLines": []}', "application/json"),
            (b'{"customer": 7, "orderLines": []}', "application/json; charset=utf-8"),
            (b'{"customer": 7, "orderLines": []}', 'Application/JSON;charset="UTF-8"'),
            (b'{"customer": 7, "orderLines": []}', "application/vnd.shop+json"),
            (b' \r\n{"customer":7,"orderLines":[],"unknown":{"deep":[1]}}\n', "application/json"),
        ],
    )
    def test_is_decoded_into_the_struct(self, body: bytes, kind: str) -> None:
        assert inputs(OrderPage, body=body, kind=kind)["body"] == Order(customer=7, order_lines=[])

    @pytest.mark.parametrize(
        ("body", "invalid"),
        [
            (b"", {"body": "Input data was truncated"}),
            (b"{", {"body": "Input data was truncated"}),
            (b"null", {"body": "Expected `object`, got `null`"}),
            (b"[]", {"body": "Expected `object`, got `array`"}),
            (b"hello", {"body": "JSON is malformed: invalid character (byte 0)"}),
            (b'{"customer": NaN}', {"body": "JSON is malformed: invalid character (byte 13)"}),
            (b'{"customer": Infinity}', {"body": "JSON is malformed: invalid character (byte 13)"}),
            (b'{"customer": 1e999}', {"body.customer": "Number out of range"}),
            (b'{"customer": 7, "orderLines": []} x', {"body": "JSON is malformed: trailing characters (byte 35)"}),
            (b'\xef\xbb\xbf{"customer": 7}', {"body": "JSON is malformed: invalid character (byte 0)"}),
            (b'{"customer": 7, "orderLines": [], "unknown": "\xff"}', {"body": "not UTF-8"}),
            (b'{"customer": 7, "orderLines": [{"sku": "\xff"}]}', {"body": "not UTF-8"}),
            ('{"customer": 7}'.encode("utf-16"), {"body": "not UTF-8"}),
            (b"[" * 900, {"body": "Expected `object`, got `array`"}),
            (b'{"customer": "7", "orderLines": []}', {"body.customer": "Expected `int`, got `str`"}),
            (b'{"customer": 7}', {"body.orderLines": "Object missing required field `orderLines`"}),
            (b'{"customer": 7, "order_lines": []}', {"body.orderLines": "Object missing required field `orderLines`"}),
            (
                b'{"customer": 7, "orderLines": [{"sku": "a"}, {}]}',
                {"body.orderLines[1].sku": "Object missing required field `sku`"},
            ),
            (
                b'{"customer": 7, "orderLines": [{"sku": "a"}, {"sku": 1}]}',
                {"body.orderLines[1].sku": "Expected `str`, got `int`"},
            ),
            (
                b'{"customer": 7, "orderLines": [{"sku": "a", "quantity": 0}]}',
                {"body.orderLines[0].quantity": "Expected `int` >= 1"},
            ),
            (
                b'{"customer": 7, "orderLines": [], "notes": {"%s": "x"}}' % CANARY.encode(),
                {"body.notes[...]": "Expected `int`, got `str`"},
            ),
            (
                b'{"customer": 7, "orderLines": [], "sort": "%s"}' % CANARY.encode(),
                {"body.sort": "Invalid enum value"},
            ),
        ],
    )
    def test_a_wrong_one_is_a_400_naming_the_path(self, body: bytes, invalid: dict[str, str]) -> None:
        refused = problem(OrderPage, body=body)

        assert (refused.status, refused.kind) == (400, "invalid_request")
        assert refused.extensions == {"invalid": invalid}

    @pytest.mark.parametrize("price", ["NaN", "sNaN", "-Infinity"])
    def test_a_decimal_that_is_no_json_number_is_a_400(self, price: str) -> None:
        refused = problem(PricedPage, body=b'{"price": "%b"}' % price.encode())

        assert (refused.status, refused.kind) == (400, "invalid_request")
        assert refused.extensions == {"invalid": {"body": "Expected a finite number"}}
        assert inputs(PricedPage, body=b'{"price": "1.10"}')["body"] == Priced(Decimal("1.10"))

    @pytest.mark.parametrize("labels", [b"[[1]]", b"[{}]"])
    def test_what_cannot_be_in_a_set_is_a_400(self, labels: bytes) -> None:
        refused = problem(LabelledPage, body=b'{"labels": %b}' % labels)

        assert (refused.status, refused.kind) == (400, "invalid_request")
        assert refused.extensions == {"invalid": {"body": "a set has an array or an object in it"}}

    @pytest.mark.parametrize(
        "kind",
        [
            "",
            "text/plain",
            "text/json",
            "application/jsonl",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/json; charset=latin-1",
            "application/json; charset=utf-16",
            "application/json; charset=nonsense",
        ],
    )
    def test_of_another_kind_is_a_415(self, kind: str) -> None:
        assert problem(OrderPage, body=b'{"customer": 7, "orderLines": []}', kind=kind).status == 415

    def test_compressed_is_a_415(self) -> None:
        headers = {"Content-Encoding": "gzip"}
        with project([path("", OrderPage.as_view())], {}):
            answer = Client().generic("POST", "/", gzip.compress(b"{}"), "application/json", headers=headers)

        assert answer.status_code == 415

    async def test_nested_100_000_deep_is_a_400(self, stub: StartStub, client: aiohttp.ClientSession) -> None:
        server = await stub("all")
        view = OrderPage.as_view(max_body=2**20)
        async with gateway([path("", view)], {"all": server}) as base:
            for body in (b"[" * 100_000, b'{"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
                async with client.post(base, data=body, headers={"Content-Type": "application/json"}) as answer:
                    assert (answer.status, answer.content_type) == (400, "application/problem+json")
        assert not server.received

    @pytest.mark.parametrize("chunked", [False, True])
    @pytest.mark.parametrize(("most", "djangos"), [(1000, 2_621_440), (5000, 1000), (1000, None)])
    async def test_too_large_a_one_is_a_413_with_and_without_a_content_length(
        self,
        stub: StartStub,
        client: aiohttp.ClientSession,
        chunked: bool,  # noqa: FBT001 - one of the table's columns
        most: int,
        djangos: int | None,
    ) -> None:
        server = (await stub("all")).on("/orders", {})
        start = b'{"customer": 7, "orderLines": [], "unknown": "'
        view = OrderPage.as_view(max_body=most)
        async with gateway([path("", view)], {"all": server}, DATA_UPLOAD_MAX_MEMORY_SIZE=djangos) as base:
            for size, status in ((1000, 200), (1001, 413)):
                body = start + b"x" * (size - len(start) - 2) + b'"}'
                data = in_two(body) if chunked else body
                async with client.post(base, data=data, headers={"Content-Type": "application/json"}) as answer:
                    assert answer.status == status
        assert len(server.received) == 1

    @pytest.mark.parametrize("length", ["x", "1e3", "5,5", "\xb2", "9" * 5000])
    def test_a_content_length_that_is_no_number_is_a_400(self, length: str) -> None:
        with project([path("", OrderPage.as_view())], {}):
            answer = Client().generic(
                "POST", "/", b'{"customer": 7}', content_type="application/json", CONTENT_LENGTH=length
            )

        assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")

    async def test_is_not_read_where_no_call_takes_it(self, stub: StartStub, client: aiohttp.ClientSession) -> None:
        server = (await stub("all")).on("/search", [])
        async with gateway([path("", SearchPage.as_view())], {"all": server}) as base:
            for body in (b"not json", b"x" * 1_000_000):
                async with client.request("GET", base, data=body, headers={"Content-Type": "nonsense"}) as answer:
                    assert answer.status == 200

    async def test_passes_what_it_is_on(self, stub: StartStub, client: aiohttp.ClientSession) -> None:
        server = (await stub("all")).on("/orders", {"placed": True})
        given = {"customer": 7, "orderLines": [{"sku": "\xe9", "quantity": 2}]}
        async with (
            gateway([path("", OrderPage.as_view())], {"all": server}) as base,
            client.post(base, json=given) as answer,
        ):
            assert (answer.status, (await answer.json())["data"]) == (200, {"order": {"placed": True}})

        assert server.received[0].json == {**given, "notes": {}, "sort": "price"}


async def in_two(body: bytes) -> AsyncIterator[bytes]:
    yield body[:10]
    yield body[10:]


async def asked_raw(base: str, request: bytes) -> bytes:
    """Send bytes as they are; returns the answer's head."""
    url = urlsplit(base)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(request)
    try:
        return (await reader.read()).partition(b"\r\n\r\n")[0]
    finally:
        writer.close()
        await writer.wait_closed()
