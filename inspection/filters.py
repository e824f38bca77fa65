"""What lines are asked for: `upstream=orders`, `status!=200`, `duration_ms>500`, `message~timeout`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from inspection.fault import Unanswerable
from inspection.fields import Fields, literal, quoted

_FORM: Final = re.compile(r"\s*([^\s!<>=~]+)\s*(!=|>=|<=|=|>|<|!~|~)(.*)", re.DOTALL)
_FORMS: Final = "write key=value, key!=value, key>number, key<number, key~part or key!~part"
_ORDER: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class Filter(NamedTuple):
    """One condition on a field. `key=` holds for lines without the field, `key!=` for those that have it."""

    field: str
    sign: str
    value: str
    number: bool

    def __str__(self) -> str:
        """Show it as it is written."""
        return f"{self.field}{self.sign}{self.value}"

    @property
    def sql(self) -> str:
        """The condition in SQL; never NULL."""
        name = quoted(self.field)
        if self.sign in _ORDER:
            return f"coalesce(try_cast({name} AS DOUBLE) {self.sign} {float(self.value)!r}, false)"
        if self.value == "":
            return f"{name} IS {'NOT ' * (self.sign == '!=')}NULL"
        if self.sign in {"~", "!~"}:
            found = f"coalesce(contains(lower(CAST({name} AS VARCHAR)), {literal(self.value.lower())}), false)"
        else:
            found = f"coalesce({name if self.number else f'CAST({name} AS VARCHAR)'} = {self._literal}, false)"
        return f"NOT {found}" if self.sign.startswith("!") else found

    def holds(self, line: Mapping[str, Any]) -> bool:
        """Tell whether a decoded line meets the condition."""
        value = line.get(self.field)
        if self.sign in _ORDER:
            return _ORDER[self.sign](_number(value), float(self.value))
        if self.value == "":
            return (value is not None) == (self.sign == "!=")
        if self.sign in {"~", "!~"}:
            found = value is not None and self.value.lower() in text(value).lower()
        elif self.number:
            found = isinstance(value, (int, float)) and value == float(self.value)
        else:
            found = value is not None and text(value) == self.value
        return found != self.sign.startswith("!")

    @property
    def _literal(self) -> str:
        return repr(float(self.value)) if self.number else literal(self.value)


def parse(written: str, fields: Fields) -> Filter:
    """Return the filter that somebody wrote. Raises Unanswerable for another form, or a field that is not there."""
    form = _FORM.fullmatch(written)
    if form is None:
        raise Unanswerable(f"{written!r} is no filter; {_FORMS}")
    field, sign, value = fields.named(form[1]), form[2], form[3].strip()
    number = fields.is_number(field)
    if sign in _ORDER or (number and sign in {"=", "!="} and value):
        _check_number(field, value)
    return Filter(field, sign, value, number)


def text(value: Any) -> str:
    """Return a value as a filter compares it: a text as it is, all else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _number(value: Any) -> float:
    """Return the number that a value is, also one in a text; NaN, of which no comparison holds, if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _check_number(field: str, value: str) -> None:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Unanswerable(f"{field} is compared with a number, not with {value!r}")
