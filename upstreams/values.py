"""From an upstream's bytes to a typed value: decoded, validated and projected, or checked and left as it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar, get_args, get_origin

import msgspec

from upstreams.fault import Fault

T = TypeVar("T")
_QUOTED: Final = re.compile(r"'[^']*'")
_RAW: Final = msgspec.json.Decoder(msgspec.Raw)


class JSON:
    """Opaque JSON: an upstream's bytes, checked (syntax, UTF-8) and otherwise untouched, exact numbers included.

    Spliced into an answer or a request as it is; `decode()` gives it as Python values.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: bytes | msgspec.Raw) -> None:
        self.raw = raw if isinstance(raw, msgspec.Raw) else _RAW.decode(raw)

    @classmethod
    def of(cls, value: object) -> JSON:
        """Make opaque JSON of a Python value."""
        return cls(msgspec.Raw(encode(value)))

    def decode(self) -> Any:
        """Return dicts, lists, strings, numbers, booleans and None."""
        return msgspec.json.decode(self.raw)

    def __bytes__(self) -> bytes:
        """Return the JSON text."""
        return bytes(self.raw)

    def __eq__(self, other: object) -> bool:
        """Equal when the text is the same, byte for byte."""
        return isinstance(other, JSON) and bytes(self) == bytes(other)

    def __hash__(self) -> int:
        """Hash the text."""
        return hash(bytes(self))

    def __repr__(self) -> str:
        """Say how large it is, and not what it holds: it may be anybody's data."""
        return f"<JSON of {len(bytes(self.raw))} bytes>"


class Reply(msgspec.Struct, Generic[T], frozen=True):
    """A value with the status and the headers (names in lower case) it came with."""

    value: T
    status: int
    headers: Mapping[str, str]


class Unreadable(Exception):
    """A body that is not what was asked for: `fault` is body_malformed or body_mismatch, the message says where."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


class Decoder:
    """Reads bodies as one declared type. Made once a call, when its page is declared.

    `type_` is anything msgspec decodes, `JSON`, or `Reply` of either; `parse` replaces JSON decoding with any
    function of the body's bytes.
    """

    __slots__ = ("_parse", "admits_none", "replies", "type_", "wants_json")

    def __init__(self, type_: Any, parse: Callable[[bytes], Any] | None = None) -> None:
        self.replies = get_origin(type_) is Reply
        self.type_ = get_args(type_)[0] if self.replies else type_
        self.admits_none = admits_none(self.type_)
        self.wants_json = parse is None
        self._parse = parse or _parser(self.type_)

    def read(self, body: bytes, status: int, headers: Mapping[str, str]) -> Any:
        """Return the value in a 2xx answer's body; raises Unreadable when it holds no such value."""
        value = self._value(body)
        if self.replies:
            return Reply(value, status, {name.lower(): text for name, text in headers.items()})
        return value

    def _value(self, body: bytes) -> Any:
        if not body:
            if self.admits_none:
                return None
            if self.wants_json:
                raise Unreadable(Fault.BODY_MISMATCH, "the body is empty")
        try:
            if self.wants_json and not body.isascii():
                body.decode("utf-8")  # msgspec does not look into the strings it skips or leaves raw
            return self._parse(body)
        except msgspec.ValidationError as error:
            # Messages name types and paths; what they quote is the upstream's data, and is not repeated.
            raise Unreadable(Fault.BODY_MISMATCH, _QUOTED.sub("'...'", str(error))) from None
        except RecursionError:
            raise Unreadable(Fault.BODY_MALFORMED, "JSON is nested too deeply") from None
        except UnicodeDecodeError:
            raise Unreadable(Fault.BODY_MALFORMED, "not UTF-8") from None
        except ValueError as error:
            detail = str(error) if isinstance(error, msgspec.DecodeError) else type(error).__name__
            raise Unreadable(Fault.BODY_MALFORMED, detail) from None


def admits_none(type_: Any) -> bool:
    """Tell whether None is a value of the type."""
    return type_ is None or type_ is type(None) or type_ is Any or type_ is object or type(None) in get_args(type_)


def encode(value: object) -> bytes:
    """Encode any value msgspec knows as JSON, opaque JSON spliced in untouched."""
    return _ENCODER.encode(value)


def convert(value: object, type_: Any) -> Any:
    """Check a Python value against a declared type and return it as one; raises msgspec.ValidationError."""
    if type_ is JSON:
        return value if isinstance(value, JSON) else JSON.of(value)
    if isinstance(value, JSON) and _is_opaque(type_):
        return value
    return msgspec.convert(value, type_)


def undecodable(type_: Any) -> str | None:
    """Name the first type inside `type_` that msgspec cannot decode by itself, or None if there is none."""
    if _is_opaque(type_):
        return None
    pending: list[Any] = [msgspec.inspect.type_info(type_)]
    seen: set[int] = set()
    while pending:
        info = pending.pop()
        if isinstance(info, msgspec.inspect.CustomType):
            return str(getattr(info.cls, "__name__", info.cls))
        if id(info) in seen:
            continue
        seen.add(id(info))
        pending.extend(_inner(info))
    return None


def _inner(info: Any) -> list[Any]:
    """Return the types a type is built of, as msgspec.inspect shows them."""
    found: list[Any] = []
    for name in getattr(info, "__struct_fields__", ()):
        part = getattr(info, name)
        found.extend(item for item in (part if isinstance(part, tuple) else (part,)) if _is_info(item))
    return found


def _is_info(item: object) -> bool:
    return isinstance(item, (msgspec.inspect.Type, msgspec.inspect.Field))


def _is_opaque(type_: Any) -> bool:
    """Tell whether a type is JSON, or JSON or None."""
    return type_ is JSON or {arg for arg in get_args(type_) if arg is not type(None)} == {JSON}


def _parser(type_: Any) -> Callable[[bytes], Any]:
    return JSON if _is_opaque(type_) else msgspec.json.Decoder(type_).decode


def _splice(value: object) -> Any:
    if isinstance(value, JSON):
        return value.raw
    message = f"a {type(value).__name__} cannot be written as JSON"
    raise TypeError(message)


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_splice, decimal_format="number")
