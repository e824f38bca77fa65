"""From an upstream's bytes to a typed value: decoded, validated and projected, or checked and left as it is."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar, Union, get_args, get_origin

import msgspec

from upstreams.fault import Fault

T = TypeVar("T")
_PATH: Final = re.compile(r" - at `(?:key` in `)?\$[^`]*`\Z")
_QUOTING: Final = re.compile("(Invalid enum value|Invalid value) .*", re.DOTALL)
_UNKNOWN_FIELD: Final = "Object contains unknown field"
_RAW: Final = msgspec.json.Decoder(msgspec.Raw)


class JSON:
    """Opaque JSON: an upstream's bytes, checked (syntax, UTF-8) and otherwise untouched, exact numbers included.

    Spliced into an answer or a request as it is; `decode()` gives it as Python values.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: bytes | msgspec.Raw) -> None:
        """Take checked JSON as a msgspec.Raw, or bytes to be checked; raises ValueError for what is no JSON."""
        self.raw = raw if isinstance(raw, msgspec.Raw) else _checked(raw)

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
        self._parse = _json_parser(self.type_) if parse is None else _guarded(parse)

    def read(self, body: bytes, status: int, headers: Mapping[str, str]) -> Any:
        """Return the value in a 2xx answer's body; raises Unreadable when it holds no such value."""
        value = self._parse(body) if body else self._nothing()
        return Reply(value, status, _plain(headers)) if self.replies else value

    def _nothing(self) -> Any:
        """Return what an empty body stands for."""
        if self.admits_none:
            return None
        if self.wants_json:
            raise Unreadable(Fault.BODY_MISMATCH, "the body is empty")
        return self._parse(b"")


def admits_none(type_: Any) -> bool:
    """Tell whether None is a value of the type."""
    try:
        msgspec.convert(None, type_)
    except msgspec.ValidationError:
        return False
    except TypeError:  # no type of msgspec's: what decode= returns may be anything
        return type(None) in get_args(type_)
    return True


def encode(value: object) -> bytes:
    """Encode any value msgspec knows as JSON, opaque JSON spliced in untouched."""
    return _ENCODER.encode(value)


def convert(value: object, type_: Any) -> Any:
    """Check a Python value against a declared type and return it as one; raises msgspec.ValidationError."""
    return msgspec.convert(value, type_, dec_hook=_opaque)


def _opaque(type_: Any, value: object) -> object:
    """Make opaque JSON where that is wanted; of other types msgspec itself sees whether a value is one."""
    return JSON.of(value) if type_ is JSON and not isinstance(value, JSON) else value


def undecodable(type_: Any) -> str | None:
    """Name the first type inside `type_` that msgspec cannot decode by itself, or None if there is none."""
    if _is_opaque(type_):
        return None
    try:
        return next(filter(None, map(_foreign, _parts(type_))), None)
    except TypeError:
        return str(type_)


def _foreign(info: msgspec.inspect.Type) -> str | None:
    """Name a type that msgspec does not know, or one of ours that can only stand outermost."""
    if isinstance(info, msgspec.inspect.CustomType):
        return str(getattr(info.cls, "__name__", info.cls))
    if isinstance(info, msgspec.inspect.StructType) and (get_origin(info.cls) or info.cls) is Reply:
        return "a Reply inside another type"
    return None


def _parts(type_: Any) -> Iterator[Any]:
    """Yield a type and all it is built of, as msgspec.inspect shows them, each once."""
    return _within(msgspec.inspect.type_info(type_))


def _within(info: Any) -> Iterator[Any]:
    pending: list[Any] = [info]
    seen: set[int] = set()
    while pending:
        info = pending.pop()
        if id(info) not in seen:
            seen.add(id(info))
            pending.extend(_inner(info))
            yield info


def hashes_numbers(type_: Any) -> bool:
    """Tell whether a type has a set, or keys, of what hashes as a number.

    Who writes such a value can make its members collide: msgspec then takes a time that grows with the square of them.
    """
    return any(_hashes_numbers(info) for info in _parts(type_))


def _hashes_numbers(info: Any) -> bool:
    if isinstance(info, (msgspec.inspect.SetType, msgspec.inspect.FrozenSetType)):
        hashed = info.item_type  # if of any kind, numbers too, where keys of any kind are texts
        return any(isinstance(part, (*_HASHED_AS_NUMBERS, msgspec.inspect.AnyType)) for part in _within(hashed))
    if isinstance(info, msgspec.inspect.DictType):
        return any(isinstance(part, _HASHED_AS_NUMBERS) for part in _within(info.key_type))
    return False


def _inner(info: Any) -> list[Any]:
    found: list[Any] = []
    for name in getattr(info, "__struct_fields__", ()):
        part = getattr(info, name)
        found.extend(item for item in (part if isinstance(part, tuple) else (part,)) if _is_info(item))
    return found


def _is_info(item: object) -> bool:
    return isinstance(item, (msgspec.inspect.Type, msgspec.inspect.Field))


def _is_opaque(type_: Any) -> bool:
    """Tell whether a type is JSON, or JSON or None."""
    if get_origin(type_) in {Union, types.UnionType}:
        return set(get_args(type_)) == {JSON, type(None)}
    return type_ is JSON


def _json_parser(type_: Any) -> Callable[[bytes], Any]:
    """Return what reads JSON as a type, and raises nothing but Unreadable."""
    parse = _typed_parser(type_)

    def read(body: bytes) -> Any:
        try:
            if not body.isascii():
                _check_utf8(body)
            return parse(body)
        except msgspec.ValidationError as error:
            raise Unreadable(Fault.BODY_MISMATCH, _mismatch(error)) from None
        except TypeError:  # which msgspec raises as it puts a set together
            raise Unreadable(Fault.BODY_MISMATCH, "a set has an array or an object in it") from None
        except RecursionError:
            raise Unreadable(Fault.BODY_MALFORMED, "JSON is nested too deeply") from None
        except UnicodeDecodeError:
            raise Unreadable(Fault.BODY_MALFORMED, "not UTF-8") from None
        except msgspec.DecodeError as error:
            raise Unreadable(Fault.BODY_MALFORMED, str(error)) from None
        except Exception as error:  # a type's own: msgspec knows only what ValueError and TypeError mean
            raise Unreadable(Fault.BODY_MISMATCH, f"its type raised {type(error).__name__}") from error

    return read


def _typed_parser(type_: Any) -> Callable[[bytes], Any]:
    if _is_opaque(type_):
        return lambda body: JSON(_RAW.decode(body))
    return typed(type_)


def typed(type_: Any) -> Callable[[bytes], Any]:
    """Return what decodes JSON into a type, to a value that can be written as JSON again. Raises as msgspec does."""
    decode = msgspec.json.Decoder(type_).decode
    if any(isinstance(info, msgspec.inspect.DecimalType) for info in _parts(type_)):
        return lambda body: _finite(decode(body))
    return decode


def _guarded(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a function of a page's own that raises nothing but Unreadable: what it cannot read, the upstream wrote."""

    def read(body: bytes) -> Any:
        try:
            return parse(body)
        except Exception as error:
            fault = Fault.BODY_MISMATCH if isinstance(error, msgspec.ValidationError) else Fault.BODY_MALFORMED
            raise Unreadable(fault, f"decode raised {type(error).__name__}") from error

    return read


def _checked(raw: bytes) -> msgspec.Raw:
    _check_utf8(raw)
    return _RAW.decode(raw)


def _check_utf8(body: bytes) -> None:
    """Raise UnicodeDecodeError for what is not UTF-8: msgspec does not look into strings it skips or leaves raw."""
    body.decode("utf-8")


def _mismatch(error: msgspec.ValidationError) -> str:
    """Say what did not fit, and where. Types and paths are ours; what else a message quotes is the upstream's data."""
    message = str(error)
    if message.startswith(_UNKNOWN_FIELD):  # its name may end as a path does, so that no path can be told from it
        return _UNKNOWN_FIELD
    if error.__cause__ is not None:
        path = _PATH.fullmatch(message.removeprefix(str(error.__cause__)))
        return "Refused by its type" + (path[0] if path else "")
    path = _PATH.search(message)
    reason = message[: path.start()] if path else message
    return _QUOTING.sub(r"\1", reason) + (path[0] if path else "")


def _finite(value: T) -> T:
    """Return a value that can be written as JSON again: "NaN" and "Infinity" are decimals, but no JSON numbers."""
    text = encode(value)
    if b"NaN" in text or b"Infinity" in text:
        try:
            _RAW.decode(text)
        except msgspec.DecodeError:
            raise msgspec.ValidationError("Expected a finite number") from None
    return value


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers by lower-case name; a repeated one is joined with commas (RFC 9110 section 5.3)."""
    plain: dict[str, str] = {}
    for given, text in headers.items():
        name = given.lower()
        value = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        plain[name] = f"{plain[name]}, {value}" if name in plain else value
    return plain


def _splice(value: object) -> Any:
    if isinstance(value, JSON):
        return value.raw
    message = f"a {type(value).__name__} cannot be written as JSON"
    raise TypeError(message)


_HASHED_AS_NUMBERS: Final = (
    msgspec.inspect.IntType,
    msgspec.inspect.FloatType,
    msgspec.inspect.DecimalType,
    msgspec.inspect.UUIDType,
)
_ENCODER: Final = msgspec.json.Encoder(enc_hook=_splice, decimal_format="number")
