"""Template filters: figures and times as people read them, the same as in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
from django import template
from django.http import QueryDict
from django.urls import reverse

from inspection.showing.figures import milliseconds, number, share, size
from inspection.times import parsed

register = template.Library()


@register.filter
def ms(time: float | None) -> str:
    """Milliseconds."""
    return milliseconds(time)


@register.filter
def percent(part: float | None) -> str:
    """A share, 0 to 1, in per cent."""
    return share(part or 0.0)


@register.filter
def count(whole: int | None) -> str:
    """A count, its thousands apart."""
    return number(whole or 0)


@register.filter
def octets(count: float | None) -> str:
    """A number of bytes."""
    return size(count or 0)


@register.filter
def clock(timestamp: str | None) -> str:
    """The time of day, UTC, to the millisecond."""
    return timestamp[11:23] if timestamp else ""


@register.filter
def moment(timestamp: str | None) -> str:
    """Day and time of day, UTC, to the second."""
    when = parsed(timestamp) if timestamp else None
    return when.strftime("%Y-%m-%d %H:%M:%S") if when else timestamp or ""


@register.filter
def lasting(seconds: float | None) -> str:
    """A length of time in the units that fit."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds and seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds or 0:.3g} s"


@register.filter
def of_hundred(part: float | None, whole: float | None) -> str:
    """How much of a whole something is, 0 to 100: the length of a bar."""
    return f"{min(max((part or 0.0) / whole, 0.0), 1.0) * 100:.1f}" if whole else "0"


@register.filter
def listed(written: str | None) -> str:
    """A list that a log line has as JSON, its items after each other."""
    try:
        items = msgspec.json.decode(written or "[]")
    except msgspec.DecodeError:
        return str(written)
    return ", ".join(map(str, items)) if isinstance(items, list) else str(items)


@register.filter
def equals(value: Any, name: str) -> str:
    """The condition that a field has a value."""
    return f"{name}={value}"


@register.filter
def is_mapping(value: Any) -> bool:
    """Whether a setting has parts with names."""
    return isinstance(value, Mapping)


@register.filter
def is_list(value: Any) -> bool:
    """Whether a setting has several values."""
    return isinstance(value, (list, tuple))


@register.simple_tag(takes_context=True)
def query(context: template.Context, **changes: Any) -> str:
    """The present query with some parameters changed; None or an empty text takes one out."""
    present = context["request"].GET.copy()
    for name, value in changes.items():
        if value in {None, ""}:
            present.pop(name, None)
        else:
            present[name] = value
    return _written(present)


@register.simple_tag(takes_context=True)
def filtered(context: template.Context, name: str, sign: str, value: str | None) -> str:
    """The present query with one condition more. `=` takes the place of another `=` on the same field."""
    present = context["request"].GET.copy()
    kept = [written for written in present.getlist("f") if sign != "=" or not written.startswith(f"{name}=")]
    present.setlist("f", [*kept, f"{name}{sign}{'' if value is None else value}"])
    return _written(present)


@register.simple_tag(takes_context=True)
def unfiltered(context: template.Context, condition: str) -> str:
    """The present query without one condition."""
    present = context["request"].GET.copy()
    present.setlist("f", [written for written in present.getlist("f") if written.strip() not in {condition, ""}])
    return _written(present)


@register.simple_tag
def trace_of(line: dict[str, Any]) -> str:
    """The address of the trace of a request, by the best that a line has to name it: a whole traceparent, or an id."""
    trace_id, span_id = line.get("trace_id"), line.get("span_id")
    name = f"00-{trace_id}-{span_id}-01" if trace_id and span_id else trace_id or line.get("request_id") or ""
    return f"{reverse('ops:trace')}?{urlencode({'id': name})}"


def _written(query: QueryDict) -> str:
    return f"?{urlencode(sorted((name, values) for name, values in query.lists() if values), doseq=True)}"
