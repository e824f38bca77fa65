"""An upstream's bytes become exactly the declared value, or are said to be none; what they hold is never repeated."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import enum
import json
import typing
import uuid
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from tests.logs import CANARY
from upstreams import JSON, Decoder, Fault, Reply
from upstreams.values import Unreadable, admits_none, convert, encode, undecodable

EXACT = b'{"id": 12345678901234567890, "price": 1.10, "n": 1e3}'


class Size(enum.Enum):
    SMALL = "s"


class Level(enum.IntEnum):
    LOW = 1


class Row(msgspec.Struct):
    id: int


class Named(msgspec.Struct, tag="named"):
    id: int


class Numbered(msgspec.Struct, tag=7):
    id: int


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    id: int = 0


class Picky(msgspec.Struct):
    id: int

    def __post_init__(self) -> None:
        if self.id < 0:
            raise ValueError(f"Expected `better`, got `{self.id}`")


class Worded(msgspec.Struct):
    word: str

    def __post_init__(self) -> None:
        raise ValueError(f"no word of ours: `{self.word}`")


class Page(msgspec.Struct):
    rows: list[Row]
    sizes: dict[str, Size] = {}
    at: datetime.datetime | None = None
    key: uuid.UUID | None = None
    flags: set[int] = msgspec.field(default_factory=set)
    text: Annotated[str, msgspec.Meta(max_length=3)] = ""
    word: Literal["a", "b"] = "a"
    number: Literal[1, 2] = 1
    level: Level = Level.LOW
    picky: Picky | None = None
    price: Decimal = Decimal(0)
    share: float = 0.0


class Loose(msgspec.Struct):
    value: Any = None


class Chain(msgspec.Struct):
    next: Chain | None = None


class Narrow(msgspec.Struct):
    """Names no field that the tests send: all of a body is skipped."""


class Priced(msgspec.Struct):
    price: Decimal
    share: float = 0.0
    name: str = ""


def read(body: bytes, type_: Any = JSON, decode: Callable[[bytes], Any] | None = None) -> Any:
    return Decoder(type_, decode).read(body, 200, {})


def unreadable(body: bytes, type_: Any = JSON, decode: Callable[[bytes], Any] | None = None) -> Unreadable:
    with pytest.raises(Unreadable) as refused:
        read(body, type_, decode)
    return refused.value


@pytest.mark.parametrize("type_", [set[Any], frozenset[Any], set, list[set[Any]]], ids=str)
@pytest.mark.parametrize("body", [b"[[[1]]]", b"[[{}]]"])
def test_what_cannot_be_in_a_set_is_unreadable(type_: Any, body: bytes) -> None:
    assert unreadable(body if "list" in str(type_) else body[1:-1], type_).fault is Fault.BODY_MISMATCH


class TestOpaque:
    def test_numbers_spaces_and_order_are_spliced_byte_for_byte(self) -> None:
        assert bytes(read(EXACT)) == EXACT
        assert encode({"data": read(EXACT), "list": [read(EXACT)]}) == b'{"data":%b,"list":[%b]}' % (EXACT, EXACT)

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(st.characters(exclude_categories=["Cs"])),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        st.booleans(),
    )
    def test_whatever_is_json_passes_through_unchanged(self, value: Any, escaped: bool) -> None:  # noqa: FBT001 - drawn
        body = json.dumps(value, ensure_ascii=escaped, indent=1).encode()

        assert bytes(read(body)) == body
        assert read(body).decode() == json.loads(body)

    @given(st.binary(max_size=30))
    @example(b'{"a":1}')
    def test_what_is_taken_for_json_python_takes_too(self, body: bytes) -> None:
        with suppress(Unreadable):
            json.loads(bytes(read(body)).decode("utf-8"), parse_constant=pytest.fail)

    def test_it_is_equal_when_its_text_is(self) -> None:
        assert JSON(b"[1]") == JSON(b"[1]")
        assert hash(JSON(b"[1]")) == hash(JSON(b"[1]"))
        assert JSON(b"[1]") != JSON(b"[1.0]")
        assert JSON(b"[1]") != b"[1]"

    def test_it_does_not_print_what_it_holds(self) -> None:
        assert repr(JSON(encode(CANARY))) == f"<JSON of {len(CANARY) + 2} bytes>"

    @pytest.mark.parametrize("raw", [b"", b"{", b"NaN", b"1 2", b'"\xff"', b"\xef\xbb\xbf1", b"[" * 100_000])
    def test_it_cannot_be_made_of_what_is_no_json(self, raw: bytes) -> None:
        with pytest.raises((ValueError, RecursionError)):
            JSON(raw)

    def test_it_can_be_made_of_a_python_value(self) -> None:
        assert bytes(JSON.of({"a": [1, Decimal("1.10"), JSON(b"1e3")]})) == b'{"a":[1,1.10,1e3]}'

    def test_null_stays_opaque_where_none_is_allowed(self) -> None:
        assert read(b"null", JSON | None) == JSON(b"null")


#: Bodies that are no JSON, whatever is asked of them.
MALFORMED = [
    b"NaN", b"[NaN]", b"Infinity", b"-Infinity", b"nan",
    b"{} {}", b'{"a":1}x', b"{}\0", b"1,", b"{}//",
    b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b'{\0"\0a\0"\0',
    b'"\xff"', b'{"a":"\xed\xa0\x80"}', b'{"\xc3":1}', b'["\xf8\x88\x80\x80\x80"]',
    b"{", b"[", b'"', b'{"a":', b"[1,", b"tru", b"-", b" ", b"\n",
    b"{'a':1}", b"{a:1}", b"{1:2}", b"[1,]", b'{"a":1,}', b"[1 2]", b"[,]",
    b"01", b"1.", b".5", b"+1", b"1e", b"0x1", b"1_0", b"--1",
    b'"\n"', b'"\x01"', b'"\\q"', b'"\\u12"', b'"\\ud800"', b'"\\ud800\\u0041"',
    b"<html></html>", b"ok", b"\0",
]  # fmt: skip


class TestMalformed:
    @pytest.mark.parametrize("body", MALFORMED)
    def test_what_is_no_json_is_malformed_whatever_was_wanted(self, body: bytes) -> None:
        wanted: tuple[Any, ...] = (JSON, Any, Reply[JSON])
        for type_ in wanted:
            assert unreadable(body, type_).fault is Fault.BODY_MALFORMED
        wanted = (Narrow, list[Row], Priced)  # these may see first that it is something else
        for type_ in wanted:
            assert unreadable(body, type_).fault in {Fault.BODY_MALFORMED, Fault.BODY_MISMATCH}

    @pytest.mark.parametrize("body", [b for b in MALFORMED if not b.isspace()])
    def test_also_inside_a_field_that_is_skipped(self, body: bytes) -> None:
        assert unreadable(b'{"skipped": [' + body + b"]}", Narrow).fault is Fault.BODY_MALFORMED

    @pytest.mark.parametrize("depth", [100_000, 1_000_000])
    @pytest.mark.parametrize("ends", [b"", b"]"])
    @pytest.mark.parametrize("type_", [JSON, Any, Narrow, Loose, Reply[JSON]])
    def test_deep_nesting_neither_crashes_nor_passes(self, type_: Any, ends: bytes, depth: int) -> None:
        start, end = (b'{"value":', b"}") if type_ in {Narrow, Loose} else (b"", b"")

        error = unreadable(start + b"[" * depth + ends * depth + end, type_)

        assert (error.fault, str(error)) == (Fault.BODY_MALFORMED, "JSON is nested too deeply")

    @pytest.mark.parametrize("type_", [JSON, Chain, Narrow])
    def test_deeply_nested_objects_do_not_either(self, type_: Any) -> None:
        body = b'{"next":' * 100_000 + b"null" + b"}" * 100_000

        assert unreadable(body, type_).fault is Fault.BODY_MALFORMED

    def test_where_a_body_breaks_off_is_told_and_what_it_says_is_not(self) -> None:
        error = unreadable(encode({"secret": CANARY})[:-1] + b"x")

        assert str(error).startswith("JSON is malformed: ")
        assert CANARY not in str(error)


class TestMismatch:
    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            ({"rows": [{"id": 1}, {"id": "SECRET"}]}, "Expected `int`, got `str` - at `$.rows[1].id`"),
            ({"rows": [{}]}, "Object missing required field `id` - at `$.rows[0]`"),
            ({"rows": {"SECRET": 1}}, "Expected `array`, got `object` - at `$.rows`"),
            ({"rows": None}, "Expected `array`, got `null` - at `$.rows`"),
            (["SECRET"], "Expected `object`, got `array`"),
            ("SECRET", "Expected `object`, got `str`"),
            ({"rows": [], "sizes": {"SECRET": "SECRET"}}, "Invalid enum value - at `$.sizes[...]`"),
            ({"rows": [], "sizes": {"SECRET": "it's SECRET"}}, "Invalid enum value - at `$.sizes[...]`"),
            ({"rows": [], "sizes": {"SECRET": "SEC\"RET' - at `$.x`"}}, "Invalid enum value - at `$.sizes[...]`"),
            ({"rows": [], "sizes": {"x": "SECRET\nSECRET"}}, "Invalid enum value - at `$.sizes[...]`"),
            ({"rows": [], "word": "SECRET's"}, "Invalid enum value - at `$.word`"),
            ({"rows": [], "number": 424242}, "Invalid enum value - at `$.number`"),
            ({"rows": [], "level": 424242}, "Invalid enum value - at `$.level`"),
            ({"rows": [], "at": "SECRET"}, "Invalid RFC3339 encoded datetime - at `$.at`"),
            ({"rows": [], "key": "SECRET"}, "Invalid UUID - at `$.key`"),
            ({"rows": [], "flags": ["SECRET"]}, "Expected `int`, got `str` - at `$.flags[0]`"),
            ({"rows": [], "text": "SECRET"}, "Expected `str` of length <= 3 - at `$.text`"),
            ({"rows": [], "picky": {"id": -424242}}, "Refused by its type - at `$.picky`"),
            ({"rows": [], "price": "SECRET"}, "Invalid decimal string - at `$.price`"),
        ],
    )
    def test_the_path_and_the_types_are_told_and_the_data_is_not(self, body: Any, sentence: str) -> None:
        error = unreadable(encode(body), Page)

        assert (error.fault, str(error)) == (Fault.BODY_MISMATCH, sentence)

    @pytest.mark.parametrize(
        ("type_", "body", "sentence"),
        [
            (Size, '"SECRET - at `$.x`"', "Invalid enum value"),
            (Level, "424242", "Invalid enum value"),
            (Named | int, '{"type":"SECRET\'s"}', "Invalid value - at `$.type`"),
            (Named, '{"type":"SECRET","id":1}', "Invalid value - at `$.type`"),
            (Numbered, '{"type":424242,"id":1}', "Invalid value - at `$.type`"),
            (Strict, '{"SECRET` - at `x":1}', "Object contains unknown field"),
            (Strict, '{"x - at `$SECRET":1}', "Object contains unknown field"),
            (Strict, '{"x` - at `$.SECRET":1}', "Object contains unknown field"),
            (Strict, '{"x - at `key` in `$SECRET":1}', "Object contains unknown field"),
            (list[Strict], '[{"SECRET":1}]', "Object contains unknown field"),
            (Size, '"x - at `$SECRET`"', "Invalid enum value"),
            (Size, '"x\' - at `$.SECRET`\\n"', "Invalid enum value"),
            (list[Size], '["x\' - at `$SECRET"]', "Invalid enum value - at `$[0]`"),
            (dict[Size, int], '{"x\' - at `key` in `$SECRET":1}', "Invalid enum value - at `key` in `$`"),
            (Named, '{"type":"x\' - at `$SECRET`"}', "Invalid value - at `$.type`"),
            (Worded, '{"word":"x - at `$SECRET"}', "Refused by its type"),
            (list[Worded], '[{"word":"x` - at `$SECRET`"}]', "Refused by its type - at `$[0]`"),
            (Picky, '{"id":-424242}', "Refused by its type"),
            (dict[int, int], '{"SECRET":1}', "Expected `int`, got `str` - at `key` in `$`"),
            (int, "1.5", "Expected `int`, got `float`"),
            (float, "1e999", "Number out of range"),
            (int, "1" * 5000, "Integer value out of range"),
        ],
    )
    def test_nor_where_there_is_no_path(self, type_: Any, body: str, sentence: str) -> None:
        error = unreadable(body.encode(), type_)

        assert (error.fault, str(error)) == (Fault.BODY_MISMATCH, sentence)


class TestProjection:
    def test_fields_that_are_not_named_are_skipped(self) -> None:
        assert read(b'{"id": 1, "more": {"deep": [1, 2, {"x": "\xc3\xa9"}]}, "also": null}', Row) == Row(1)

    def test_whole_numbers_are_exact(self) -> None:
        assert read(b'{"id": 12345678901234567890123456789}', Row) == Row(12345678901234567890123456789)

    @pytest.mark.parametrize(
        "number", ["1.10", "0.1", "1e3", "12345678901234567890.12345678901234567890123456789", "-0.0", "1E-400"]
    )
    def test_decimals_are_exact_in_and_out(self, number: str) -> None:
        value = read(f'{{"price": {number}}}'.encode(), Priced)

        assert value.price == Decimal(number)
        assert value.price.as_tuple() == Decimal(number).as_tuple()
        assert Decimal(json.loads(encode(value), parse_float=str, parse_int=str)["price"]) == Decimal(number)

    @pytest.mark.parametrize("number", ["NaN", "sNaN", "-nan12", "Infinity", "-inf", " iNf ", "n\\u0061n"])
    @pytest.mark.parametrize("type_", [Priced, list[Priced], dict[str, Priced | None]])
    def test_a_decimal_that_is_no_json_number_is_a_mismatch(self, type_: Any, number: str) -> None:
        row = f'{{"price": "{number}"}}'
        body = row if type_ is Priced else f"[{row}]" if type_ == list[Priced] else f'{{"a": {row}}}'

        error = unreadable(body.encode(), type_)

        assert (error.fault, str(error)) == (Fault.BODY_MISMATCH, "Expected a finite number")

    def test_a_name_that_looks_like_one_is_none(self) -> None:
        assert read(b'{"price": 1, "name": "NaN Infinity"}', Priced) == Priced(Decimal(1), name="NaN Infinity")


class TestEmpty:
    @pytest.mark.parametrize("type_", [None, type(None), Row | None, JSON | None, Any, Annotated[int | None, "x"]])
    def test_an_empty_body_is_none_where_the_type_has_it(self, type_: Any) -> None:
        assert read(b"", type_) is None

    @pytest.mark.parametrize("type_", [JSON, Row, int, str, list[Row], dict[str, int], bytes])
    def test_elsewhere_it_is_a_mismatch(self, type_: Any) -> None:
        error = unreadable(b"", type_)

        assert (error.fault, str(error)) == (Fault.BODY_MISMATCH, "the body is empty")

    def test_in_a_reply_it_is_the_value_that_is_none(self) -> None:
        assert read(b"", Reply[None]) == Reply(None, 200, {})
        assert unreadable(b"", Reply[Row]).fault is Fault.BODY_MISMATCH

    def test_a_decoder_of_the_page_s_own_is_asked_unless_none_will_do(self) -> None:
        assert read(b"", str, bytes.decode) == ""
        assert read(b"", str | None, bytes.decode) is None

    @pytest.mark.parametrize(
        ("type_", "admitted"),
        [
            (None, True), (Any, True), (object, True), (int | None, True), (typing.Optional[int], True),  # noqa: UP045
            (Annotated[int | None, "x"], True), (Literal["a", None], True), (Literal[None], True), (JSON | None, True),  # noqa: PYI061
            (ET.Element | None, True), (ET.Element | int | None, True),
            (int, False), (JSON, False), (Row, False), (Literal["a"], False), (ET.Element, False), (bytes, False),
            (ET.Element | int, False), (Callable, False),
        ],
        ids=str,
    )  # fmt: skip
    def test_which_types_have_none(self, type_: Any, admitted: bool) -> None:  # noqa: FBT001 - a table's column
        assert admits_none(type_) is admitted


class TestReply:
    def test_status_and_headers_come_with_the_value(self) -> None:
        reply = Decoder(Reply[Row]).read(b'{"id":1}', 201, {"ETag": '"x"', "X-Total": "7"})

        assert reply == Reply(Row(1), 201, {"etag": '"x"', "x-total": "7"})

    def test_json_in_a_reply_stays_opaque(self) -> None:
        assert read(EXACT, Reply[JSON]).value == JSON(EXACT)

    def test_what_a_decoder_gives_is_put_into_a_reply_too(self) -> None:
        assert read(b"a,b", Reply[list[str]], lambda body: body.decode().split(",")).value == ["a", "b"]

    def test_a_repeated_header_is_joined(self) -> None:
        headers = CIMultiDict([("Link", "</a>"), ("link", "</b>")])

        assert Decoder(Reply[None]).read(b"", 200, headers).headers == {"link": "</a>, </b>"}

    def test_a_header_that_is_no_utf_8_can_be_answered_with(self) -> None:
        reply = Decoder(Reply[None]).read(b"", 200, {"x-name": b"Zo\xeb".decode("utf-8", "surrogateescape")})

        assert encode(reply.headers) == '{"x-name":"Zo\ufffd"}'.encode()


def raising(error: BaseException) -> Callable[[bytes], Any]:
    def decode(_: bytes) -> Any:
        raise error

    return decode


def exploding_xml(body: bytes) -> ET.Element:
    return ET.fromstring(body)


class TestDecode:
    def test_any_function_of_the_bytes_may_decode(self) -> None:
        assert read(b"<a>1</a>", ET.Element, exploding_xml).text == "1"
        assert read(b"\xff\xfe", bytes, bytes) == b"\xff\xfe"

    @pytest.mark.parametrize(
        "error",
        [
            ValueError(CANARY),
            KeyError(CANARY),
            AttributeError(CANARY),
            csv.Error(CANARY),
            zlib.error(CANARY),
            SyntaxError(CANARY),
            TypeError(CANARY),
            RecursionError(CANARY),
            MemoryError(CANARY),
            StopIteration(CANARY),
            TimeoutError(CANARY),
            OSError(CANARY),
            AssertionError(CANARY),
            UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
            msgspec.DecodeError(CANARY),
            Unreadable(Fault.SKIPPED, CANARY),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_whatever_it_raises_the_body_is_malformed(self, error: Exception) -> None:
        refused = unreadable(b"x", str, raising(error))

        assert (refused.fault, str(refused)) == (Fault.BODY_MALFORMED, f"decode raised {type(error).__name__}")

    def test_a_validation_error_is_a_mismatch(self) -> None:
        refused = unreadable(b"x", str, raising(msgspec.ValidationError(CANARY)))

        assert (refused.fault, str(refused)) == (Fault.BODY_MISMATCH, "decode raised ValidationError")

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit()])
    def test_what_ends_a_program_passes(self, error: BaseException) -> None:
        with pytest.raises(type(error)):
            read(b"x", str, raising(error))


class Foreign:
    pass


class HoldsForeign(msgspec.Struct):
    one: Foreign


class HoldsManyForeign(msgspec.Struct):
    many: dict[str, tuple[int, list[Foreign]]] | None = None


class Tree(msgspec.Struct):
    children: list[Tree]
    leaf: Foreign | None = None


class Ping(msgspec.Struct):
    pong: Pong | None = None


class Pong(msgspec.Struct):
    ping: Ping
    foreign: list[Foreign] | None = None


class HoldsJSON(msgspec.Struct):
    data: JSON


class HoldsReply(msgspec.Struct):
    reply: Reply[int]


class HoldsRaw(msgspec.Struct):
    data: msgspec.Raw


@dataclasses.dataclass
class ForeignData:
    one: Foreign


class ForeignDict(TypedDict):
    one: Foreign


class ForeignTuple(NamedTuple):
    one: Foreign


Id = NewType("Id", int)


class TestUndecodable:
    @pytest.mark.parametrize(
        "type_",
        [
            int, Any, None, JSON, JSON | None, Row, Row | None, list[Row], dict[str, Row], Chain, Page, Id, HoldsRaw,
            Named | int, tuple[int, ...], Mapping[str, int], Annotated[int, "x"],
            bytes, Decimal, msgspec.Raw,
        ],
        ids=str,
    )  # fmt: skip
    def test_what_msgspec_decodes_is_fine(self, type_: Any) -> None:
        assert undecodable(type_) is None

    @pytest.mark.parametrize(
        "type_",
        [
            Foreign, Foreign | None, list[Foreign], dict[str, Foreign], tuple[Foreign, ...], set[Foreign],
            HoldsForeign, HoldsManyForeign, HoldsForeign | None, list[HoldsForeign] | int, Tree, Ping, Pong,
            ForeignData, ForeignDict, ForeignTuple, Annotated[Foreign, "x"],
        ],
        ids=str,
    )  # fmt: skip
    def test_a_foreign_type_is_named_wherever_it_stands(self, type_: Any) -> None:
        assert undecodable(type_) == "Foreign"

    @pytest.mark.parametrize("type_", [list[JSON], HoldsJSON, dict[str, JSON | None], list[HoldsJSON | None]], ids=str)
    def test_opaque_json_stands_alone(self, type_: Any) -> None:
        assert undecodable(type_) == "JSON"

    @pytest.mark.parametrize("type_", [list[Reply[int]], HoldsReply, Reply[int] | None], ids=str)
    def test_a_reply_stands_outermost(self, type_: Any) -> None:
        assert undecodable(type_) == "a Reply inside another type"

    @pytest.mark.parametrize(
        "type_", [Foreign | int, JSON | int, Row | HoldsRaw, list[int] | tuple[int, ...], "Row"], ids=str
    )
    def test_what_msgspec_refuses_altogether_is_named_too(self, type_: Any) -> None:
        assert undecodable(type_) == str(type_)


class TestConvert:
    def test_a_value_becomes_one_of_its_type(self) -> None:
        assert convert({"id": 1}, Row) == Row(1)
        assert convert([], JSON) == JSON(b"[]")
        assert convert(JSON(b"1e3"), JSON | None) == JSON(b"1e3")
        assert convert(None, JSON | None) is None

    @pytest.mark.parametrize("value", [[], {}, 1, "a", {"deep": [JSON(b"1.10")]}])
    def test_any_value_that_can_be_written_becomes_opaque_wherever_that_is_wanted(self, value: Any) -> None:
        opaque = JSON(encode(value))
        types: list[Any] = [JSON, JSON | None, typing.Optional[JSON], Annotated[JSON, "x"]]  # noqa: UP045

        assert [convert(value, type_) for type_ in types] == [opaque] * len(types)
        assert convert({7: value}, Mapping[int, JSON]) == {7: opaque}

    @pytest.mark.parametrize("type_", [JSON, JSON | None])
    @pytest.mark.parametrize("value", [Foreign(), "\ud800", [object()]], ids=["class", "surrogate", "object"])
    def test_what_json_cannot_hold_is_refused(self, value: Any, type_: Any) -> None:
        with pytest.raises(msgspec.ValidationError):
            convert(value, type_)

    def test_a_type_that_msgspec_does_not_know_takes_its_own_values_and_no_others(self) -> None:
        own = Foreign()

        assert convert(own, Foreign | None) is own
        with pytest.raises(msgspec.ValidationError, match="Expected `Foreign`, got `int`"):
            convert(1, Foreign)

    @pytest.mark.parametrize(("value", "type_"), [({"id": "x"}, Row), (None, Row), ([1], list[str])])
    def test_a_value_of_another_type_is_refused(self, value: Any, type_: Any) -> None:
        with pytest.raises(msgspec.ValidationError):
            convert(value, type_)


def test_what_json_cannot_hold_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(TypeError, match="a Foreign cannot be written as JSON"):
        encode({"a": Foreign()})
