"""No value can change what a request is: its host, the shape of its path, the parameters it has, its headers."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.logs import CANARY
from upstreams import DELETE, FOLLOW, GET, HEAD, JSON, PATCH, POST, PUT, InvalidParameter, Request
from upstreams.request import placeholders, template_faults
from upstreams.upstream import RESERVED_HEADERS

#: Text as it comes out of JSON or a decoded URL: anything but lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
#: Text that a path segment may hold.
SEGMENT = TEXT.filter(lambda text: text not in {"", ".", ".."} and not set(text) & set("\0\r\n"))
QUERY = TEXT.filter(lambda text: not set(text) & set("\0\r\n"))
UNPRINTABLE = [chr(code) for code in range(0x20) if chr(code) != "\t"] + ["\x7f"]
SURROGATE = "\ud800"


class Colour(enum.Enum):
    RED = "dark/red"


class Level(enum.IntEnum):
    HIGH = 3


class TestPath:
    @given(SEGMENT, SEGMENT)
    def test_a_value_fills_one_segment_and_comes_back_unchanged(self, first: str, second: str) -> None:
        request = GET("/users/{name}/orders/{order}", name=first, order=second)

        path, _, query = request.target.partition("?")
        head, users, name, orders, order = path.split("/")
        assert (head, users, unquote(name), orders, unquote(order), query) == ("", "users", first, "orders", second, "")

    @given(SEGMENT)
    def test_no_value_changes_the_host_the_query_or_the_fragment(self, value: str) -> None:
        url = urlsplit("http://users.internal:8000/base" + GET("/a/{value}", value=value).target)

        assert (url.scheme, url.netloc, url.query, url.fragment) == ("http", "users.internal:8000", "", "")
        assert url.path.startswith("/base/a/")
        assert url.path.isascii()

    @pytest.mark.parametrize("value", ["", ".", "..", "a\0", "a\r", "a\nb", "\r\nHost: evil", SURROGATE])
    def test_a_value_that_would_change_the_path_is_refused_by_name(self, value: str) -> None:
        with pytest.raises(InvalidParameter, match=r"^user: ") as refused:
            GET("/users/{user}", user=value)

        assert (refused.value.name, refused.value.value) == ("user", value)

    def test_a_refusal_does_not_repeat_the_value(self) -> None:
        with pytest.raises(InvalidParameter) as refused:
            GET("/users/{user}", user=f"{CANARY}\0")

        assert CANARY not in str(refused.value)

    @pytest.mark.parametrize(
        ("value", "written"),
        [
            ("..%2f", "..%252f"),
            ("%2e%2e", "%252e%252e"),
            ("a/b", "a%2Fb"),
            ("a\\b", "a%5Cb"),
            ("a?b=c&d", "a%3Fb%3Dc%26d"),
            ("a#b", "a%23b"),
            ("a;b", "a%3Bb"),
            ("user@evil", "user%40evil"),
            ("//evil", "%2F%2Fevil"),
            ("...", "..."),
            ("~-_.", "~-_."),
            ("Zoë", "Zo%C3%AB"),
            (" ", "%20"),
            (7, "7"),
            (True, "true"),
            (2.5, "2.5"),
            (1e16, "1e%2B16"),
            (Decimal("1.10"), "1.10"),
            (Colour.RED, "dark%2Fred"),
            (Level.HIGH, "3"),
            (datetime.date(2026, 1, 2), "2026-01-02"),
            (datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC), "2026-01-02T03%3A04%3A00%2B00%3A00"),
            (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ],
    )
    def test_a_value_is_written_as(self, value: object, written: str) -> None:
        assert GET("/x/{value}", value=value).target == f"/x/{written}"

    @pytest.mark.parametrize(
        "value", [float("nan"), float("inf"), float("-inf"), Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity")]
    )
    def test_a_number_that_is_not_finite_is_refused(self, value: float | Decimal) -> None:
        with pytest.raises(InvalidParameter, match="finite"):
            GET("/x/{value}", value=value)

    @pytest.mark.parametrize("value", [None, b"bytes", [], {}, object()])
    def test_a_type_that_no_url_can_hold_is_a_mistake_of_the_programmer(self, value: object) -> None:
        with pytest.raises(TypeError, match=f"^value: a {type(value).__name__} cannot be put into a URL$"):
            GET("/x/{value}", value=value)

    def test_a_name_that_is_not_given_is_named(self) -> None:
        with pytest.raises(TypeError, match=r"names \{user\}, which is not given"):
            GET("/users/{user}")

    def test_one_name_may_stand_twice(self) -> None:
        assert GET("/{a}/{a}", a="x").target == "/x/x"


class TestTemplate:
    @pytest.mark.parametrize(
        ("path", "fault"),
        [
            ("users", "must start with /"),
            ("", "must start with /"),
            ("http://evil/x", "must start with /"),
            ("//evil/x", "empty, . or .. segment"),
            ("/a//b", "empty, . or .. segment"),
            ("/a/./b", "empty, . or .. segment"),
            ("/a/../b", "empty, . or .. segment"),
            ("/a/..", "empty, . or .. segment"),
            ("/a/%2e%2E/b", "empty, . or .. segment"),
            ("/a/.%2e", "empty, . or .. segment"),
            ("/a?b=c", "no query or fragment"),
            ("/a#b", "no query or fragment"),
            ("/a b", "percent-encoded"),
            ("/a\\b", "percent-encoded"),
            ("/a\r\nb", "percent-encoded"),
            ("/ä", "percent-encoded"),
            ("/a%", "percent-encoded"),
            ("/a%zz", "percent-encoded"),
            ("/a%2", "percent-encoded"),
            ("/a/{id", "brace"),
            ("/a/id}", "brace"),
            ("/a/{}", "brace"),
            ("/a/{0}", "brace"),
            ("/a/{id!r}", "brace"),
            ("/a/{{id}}", "brace"),
        ],
    )
    def test_a_wrong_template_says_what_is_wrong(self, path: str, fault: str) -> None:
        found = template_faults(path)

        assert found is not None
        assert fault in found
        with pytest.raises(ValueError, match=r"^path "):
            GET(path, id=1)

    @pytest.mark.parametrize("path", ["/%{x}", "/%2{x}", "/a/%{x}e"])
    def test_a_value_cannot_complete_a_percent_encoding_that_the_template_began(self, path: str) -> None:
        assert "percent-encoded" in (template_faults(path) or "")

    @pytest.mark.parametrize(
        "path", ["/", "/a", "/a/", "/a/{id}", "/a.b~c/{id}.json", "/a/{x}-{y}", "/a%2Fb", "/@me:x"]
    )
    def test_a_right_template_has_no_fault(self, path: str) -> None:
        assert template_faults(path) is None

    def test_names_are_told_in_order(self) -> None:
        assert placeholders("/a/{x}/{y}{x}") == ("x", "y", "x")


class TestQuery:
    @given(st.dictionaries(QUERY, st.one_of(QUERY, st.lists(QUERY, max_size=3)), max_size=5))
    def test_no_value_adds_a_parameter(self, query: Mapping[str, str | list[str]]) -> None:
        request = GET("/x", query=query)

        wanted = [
            (name, item) for name, value in query.items() for item in (value if isinstance(value, list) else [value])
        ]
        path, _, text = request.target.partition("?")
        assert path == "/x"
        assert parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text)) == wanted

    @pytest.mark.parametrize(
        ("params", "written"),
        [
            ({"a": None}, ""),
            ({"a": None, "b": 1}, "?b=1"),
            ({"a": []}, ""),
            ({"a": [1, 2]}, "?a=1&a=2"),
            ({"a": (1, "x")}, "?a=1&a=x"),
            ({"a": True, "b": False}, "?a=true&b=false"),
            ({"a": ""}, "?a="),
            ({"a": "b&c=d"}, "?a=b%26c%3Dd"),
            ({"a": "+ "}, "?a=%2B%20"),
            ({"b": 1, "a": 2}, "?b=1&a=2"),
            ({"path": "x"}, "?path=x"),
        ],
    )
    def test_params_that_the_path_does_not_name_become_the_query(self, params: dict[str, Any], written: str) -> None:
        assert GET("/x", **params).target == f"/x{written}"

    def test_a_name_that_is_no_identifier_is_given_in_query(self) -> None:
        assert GET("/x/{id}", query={"page[size]": 2, "id": 3}, id=1).target == "/x/1?page%5Bsize%5D=2&id=3"

    @pytest.mark.parametrize("text", ["a\0", "a\r", "a\n", SURROGATE])
    def test_text_that_no_url_can_hold_is_refused_as_value_and_as_name(self, text: str) -> None:
        with pytest.raises(InvalidParameter):
            GET("/x", value=text)
        with pytest.raises(InvalidParameter):
            GET("/x", values=["fine", text])
        with pytest.raises(InvalidParameter):
            GET("/x", query={text: 1})


class TestHeaders:
    @pytest.mark.parametrize("bad", [*UNPRINTABLE, SURROGATE])
    def test_a_value_with_a_control_character_or_a_surrogate_is_refused(self, bad: str) -> None:
        with pytest.raises(InvalidParameter, match=r"^x-name: ") as refused:
            GET("/x", headers={"x-name": f"{CANARY}{bad}x-evil: 1"})

        assert CANARY not in str(refused.value)

    @pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "ä", "a\0", "(a)"])
    def test_a_name_that_is_none_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="is not a header name"):
            GET("/x", headers={name: "1"})

    @pytest.mark.parametrize("name", sorted(RESERVED_HEADERS))
    def test_what_belongs_to_the_connection_or_the_gateway_cannot_be_set(self, name: str) -> None:
        with pytest.raises(ValueError, match="cannot be set by a request"):
            GET("/x", headers={name.title(): "1"})

    @pytest.mark.parametrize("make", [GET, HEAD, DELETE, POST, PUT, PATCH])
    def test_every_maker_looks_at_its_headers(self, make: Callable[..., Request[Any]]) -> None:
        with pytest.raises(InvalidParameter):
            make("/x", headers={"x-name": "a\r\nb"})

    def test_a_value_that_is_no_text_is_a_mistake_of_the_programmer(self) -> None:
        with pytest.raises(TypeError, match="header 'x-page' must be text, not int"):
            GET("/x", headers={"x-page": 1})  # type: ignore[dict-item]

    def test_names_are_kept_in_lower_case(self) -> None:
        assert GET("/x", headers={"X-Page": "1"}).headers == {"x-page": "1"}


class TestBody:
    def test_json_is_encoded_exactly(self) -> None:
        body = POST("/x", json={"id": 12345678901234567890, "price": Decimal("1.10"), "as_it_is": JSON(b"[1e3]")}).body

        assert body is not None
        assert body.type == "application/json"
        assert body.content == b'{"id":12345678901234567890,"price":1.10,"as_it_is":[1e3]}'

    @given(st.dictionaries(TEXT, TEXT, max_size=4))
    def test_form_fields_come_back_unchanged(self, fields: dict[str, str]) -> None:
        body = POST("/x", form=fields).body

        assert body is not None
        assert body.type == "application/x-www-form-urlencoded"
        assert parse_qsl(body.content.decode("ascii"), keep_blank_values=True) == list(fields.items())

    def test_form_fields_follow_the_rules_of_the_query(self) -> None:
        body = POST("/x", form={"a": None, "b": [1, 2], "c": True, "d": "x\r\ny"}).body

        assert body is not None
        assert body.content == b"b=1&b=2&c=true&d=x%0D%0Ay"

    def test_a_form_field_that_is_no_text_is_refused(self) -> None:
        with pytest.raises(InvalidParameter, match=r"^a: "):
            POST("/x", form={"a": SURROGATE})

    def test_content_goes_as_it_is(self) -> None:
        body = PUT("/x", content=(b"<a/>", "text/xml")).body

        assert body is not None
        assert (body.content, body.type) == (b"<a/>", "text/xml")

    def test_a_media_type_with_a_line_break_is_refused(self) -> None:
        with pytest.raises(InvalidParameter, match=r"^content: "):
            POST("/x", content=(b"", "text/plain\r\nx-evil: 1"))

    @pytest.mark.parametrize("make", [POST, PUT, PATCH])
    def test_a_request_has_one_body(self, make: Callable[..., Request[Any]]) -> None:
        with pytest.raises(TypeError, match="one body"):
            make("/x", json={}, form={})

    @pytest.mark.parametrize("make", [GET, HEAD, DELETE])
    def test_others_have_none(self, make: Callable[..., Request[Any]]) -> None:
        assert make("/x").body is None


class TestFollow:
    @pytest.mark.parametrize("url", ["", "/a\0b", "/a\r\nb", "/a\nb", "/a\tb", "/a\x7f", "/a" + SURROGATE])
    def test_a_link_with_a_control_character_is_refused(self, url: str) -> None:
        with pytest.raises(InvalidParameter, match=r"^url: not a link"):
            FOLLOW(url)

    @pytest.mark.parametrize(
        ("url", "link"),
        [
            ("/a?b=c%20d#e", "/a?b=c%20d#e"),
            ("/a b", "/a%20b"),
            ("/café", "/caf%C3%A9"),
            ("/\\evil", "/%5Cevil"),
            ('/"<>^`{|}', "/%22%3C%3E%5E%60%7B%7C%7D"),
            ("http://[::1]:80/x", "http://[::1]:80/x"),
        ],
    )
    def test_what_may_not_stand_in_a_url_is_percent_encoded(self, url: str, link: str) -> None:
        assert FOLLOW(url).link == link

    def test_it_reads(self) -> None:
        request = FOLLOW("/next", headers={"x-page": "2"})

        assert (request.method, request.safe, request.body, request.headers) == ("GET", True, None, {"x-page": "2"})


class TestRequest:
    @pytest.mark.parametrize(
        ("request_", "safe"),
        [
            (GET("/x"), True),
            (HEAD("/x"), True),
            (FOLLOW("/x"), True),
            (POST("/x", safe=True), True),
            (POST("/x"), False),
            (PUT("/x"), False),
            (PATCH("/x"), False),
            (DELETE("/x"), False),
        ],
    )
    def test_only_reads_may_be_repeated(self, request_: Request[Any], safe: bool) -> None:  # noqa: FBT001 - a table
        assert request_.safe is safe

    def test_requests_that_send_the_same_bytes_are_equal(self) -> None:
        one = POST("/x/{id}", id=1, json={"a": 1}, headers={"X-A": "1"})
        other = POST("/{what}/1", what="x", content=(b'{"a":1}', "application/json"), headers={"x-a": "1"})

        assert one == other
        assert hash(one) == hash(other)

    @pytest.mark.parametrize(
        "other",
        [
            GET("/x/{id}", id=2),
            GET("/x/{id}", id=1, page=1),
            GET("/x/{id}", id=1, headers={"a": "b"}),
            HEAD("/x/{id}", id=1),
            POST("/x/{id}", id=1, safe=True),
            FOLLOW("/x/1"),
            "GET /x/1",
        ],
    )
    def test_requests_that_differ_on_the_wire_are_not(self, other: object) -> None:
        assert GET("/x/{id}", id=1) != other

    def test_repr_shows_neither_headers_nor_body(self) -> None:
        request = POST("/x", headers={"authorization": CANARY}, json={"password": CANARY})

        assert repr(request) == "<POST /x>"
        assert CANARY not in repr(request.body)

    def test_it_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            GET("/x").target = "/y"  # type: ignore[misc]

    def test_it_is_made_of_what_goes_on_the_wire(self) -> None:
        request = GET("/x/{id}", id=1)

        assert isinstance(request, msgspec.Struct)
        assert (request.method, request.target, request.template) == ("GET", "/x/1", "/x/{id}")
