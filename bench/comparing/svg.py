"""Bars, and points with lines, as SVG: on a ground of its own, light or dark as the reader's screen, text as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.comparing.growth import Line, Point
from bench.comparing.results import wrapped

WIDTH = 440  # of the page it is shown in, a phone's has 340
_MARGIN = 14
_CAPTION = 70  # characters a line
_BAR_FROM, _BAR_TO = 170, 336
_PLOT_FROM, _PLOT_TO, _PLOT_HEIGHT = 58, 424, 220
_WIDE = 50  # times the least that make scales logarithmic
_NAME = 36  # of a value beside a scale

#: What a server is drawn in, the same in every picture: light, dark.
_COLOURS = {
    "Tributary": ("#0969da", "#4493f8"),
    "Tributary, typed": ("#6cb1ff", "#a5d0ff"),
    "bare ASGI + aiohttp": ("#6e7781", "#9198a1"),
    "nginx + Lua": ("#2c974b", "#3fb950"),
    "fastify + undici": ("#bf8700", "#d29922"),
    "stock Django + aiohttp": ("#cf222e", "#f85149"),
    "FastAPI + httpx": ("#8250df", "#ab7df8"),
}
_CLASSES = {server: f"s{number}" for number, server in enumerate(_COLOURS)}


@dataclass(frozen=True, slots=True)
class Bar:
    """A server's value; `remark` stands behind it, `spread` is its least and most."""

    server: str
    value: float
    text: str
    remark: str = ""
    spread: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars on one scale; `limit` is drawn across them."""

    title: str
    bars: Sequence[Bar]
    limit: float | None = None

    @property
    def most(self) -> float:
        """Return what the scale has to reach."""
        values = (value for bar in self.bars for value in (bar.value, *(bar.spread or ())))
        return max(self.limit or 0.0, *values) or 1.0


@dataclass(frozen=True, slots=True)
class Curve:
    """A server's points and line, and what to say of them."""

    server: str
    points: Sequence[Point]
    line: Line
    text: str


def bars(title: str, note: str, panels: Sequence[Panel], captions: Sequence[str]) -> str:
    """Draw panels of bars, one below the other."""
    parts, y = [_text(_MARGIN, 44, note, "dim")], 58.0
    for panel in panels:
        y += 18
        parts.append(_text(_MARGIN, y, panel.title, "strong"))
        top = y + 6
        unit, values = (_BAR_TO - _BAR_FROM) / panel.most, []
        for bar in panel.bars:
            y += 21
            parts += _bar(bar, y, unit)
            values.append(_value(bar, y, unit))
        if panel.limit is not None:
            x = _BAR_FROM + panel.limit * unit
            parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{y + 7:.1f}"/>')
        parts += values
        y += 14
    return _document(title, parts, y, captions)


def curves(title: str, note: str, series: Sequence[Curve], captions: Sequence[str]) -> str:
    """Draw points with the straight line through each server's; on logarithmic scales that is bent."""
    xs = sorted({x for curve in series for x, _ in curve.points})
    ends = [curve.line.at(x) for curve in series for x in (xs[0], xs[-1])]
    ys = [*(y for curve in series for _, y in curve.points), *(y for y in ends if y > 0)]
    logarithmic = 0 < xs[0] * _WIDE < xs[-1]
    top, bottom = 62, 62 + _PLOT_HEIGHT
    across = _Scale.of(xs, _PLOT_FROM + 8, _PLOT_TO - 8, logarithmic=logarithmic)
    up = _Scale.of(ys, bottom, top + 8, logarithmic=logarithmic)
    parts = [_text(_MARGIN, 44, note, "dim"), *_axes(across, up, xs, bottom)]
    y = bottom + 30.0
    for curve in series:
        drawn = _class(curve.server)
        places = ((across.at(x), curve.line.at(x)) for x in across.along(xs))
        path = " ".join(f"{x:.1f},{up.at(value):.1f}" for x, value in places if value >= up.least)
        parts.append(f'<polyline class="line {drawn}" points="{path}"/>')
        parts += [_dot(drawn, across.at(x), up.at(value)) for x, value in curve.points]
        parts.append(_dot(drawn, _MARGIN + 5, y + 16))
        parts += [_text(_MARGIN + 18, y + 20, curve.server, "strong"), _text(_MARGIN + 18, y + 36, curve.text, "")]
        y += 38
    if logarithmic:
        y += 22
        parts.append(_text(_MARGIN, y, "Both scales are logarithmic, where a straight line is bent.", "dim"))
    return _document(title, parts, y + 6, captions)


def _axes(across: _Scale, up: _Scale, xs: Sequence[float], bottom: float) -> list[str]:
    """Draw the scales: rules for round values upwards, and the points' own values across."""
    parts = []
    for tick in up.ticks():
        y = up.at(tick)
        parts.append(f'<line class="grid" x1="{_PLOT_FROM}" x2="{_PLOT_TO}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_PLOT_FROM - 6, y + 4, _number(tick), "end"))
    parts += [_text(across.at(x), bottom + 18, _number(x), "middle") for x in across.apart(xs, _NAME)]
    return [*parts, f'<line class="axis" x1="{_PLOT_FROM}" x2="{_PLOT_TO}" y1="{bottom}" y2="{bottom}"/>']


def _dot(drawn: str, x: float, y: float) -> str:
    return f'<circle class="{drawn}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a value stands between two places of a picture."""

    least: float
    most: float
    start: float
    end: float
    logarithmic: bool

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float, *, logarithmic: bool) -> _Scale:
        """Make a scale for values: from 0, or from a little below the least."""
        if logarithmic:
            return cls(min(values) / 1.15, max(values) * 1.15, start, end, logarithmic=True)
        return cls(0.0, max(values) or 1.0, start, end, logarithmic=False)

    def at(self, value: float) -> float:
        """Return a value's place."""
        if self.logarithmic:
            part = math.log(value / self.least) / math.log(self.most / self.least)
        else:
            part = (value - self.least) / (self.most - self.least)
        return self.start + part * (self.end - self.start)

    def along(self, values: Sequence[float]) -> list[float]:
        """Return values from the scale's start to the last that there is, near enough to each other for a bent line."""
        first, last, parts = values[0], values[-1], [part / 60 for part in range(61)]
        if self.logarithmic:
            return [first * (last / first) ** part for part in parts]
        return [part * last for part in parts]

    def ticks(self) -> list[float]:
        """Return round values on the scale."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.least)), math.ceil(math.log10(self.most)) + 1)
            named = (digit * 10.0**power for power in powers for digit in (1, 2, 5))
            return self.apart([value for value in named if self.least <= value <= self.most], 20)
        ten = 10.0 ** math.floor(math.log10(self.most))
        step = next(ten * part for part in (0.1, 0.2, 0.5, 1, 2) if self.most <= ten * part * 6)
        return [number * step for number in range(int(self.most / step) + 1)]

    def apart(self, values: Sequence[float], gap: float) -> list[float]:
        """Return values, in their order, without those that are nearer to the one before than a gap."""
        kept: list[float] = []
        for value in values:
            if not kept or abs(self.at(value) - self.at(kept[-1])) >= gap:
                kept.append(value)
        return kept


def _bar(bar: Bar, y: float, unit: float) -> list[str]:
    drawn, width = _class(bar.server), max(bar.value * unit, 1.5)
    name = bar.server.replace("bare ASGI + aiohttp, ", "bare ASGI, ")
    parts = [
        _text(_BAR_FROM - 8, y, name, "end strong" if drawn == _class("Tributary") else "end"),
        f'<rect class="{drawn}" x="{_BAR_FROM}" y="{y - 11:.1f}" width="{width:.1f}" height="14" rx="2"/>',
    ]
    if bar.spread is not None:
        low, high = (_BAR_FROM + value * unit for value in bar.spread)
        parts.append(f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{y - 4:.1f}" y2="{y - 4:.1f}"/>')
    return parts


def _value(bar: Bar, y: float, unit: float) -> str:
    """Write a bar's value behind its end."""
    x = _BAR_FROM + max(bar.value, *(bar.spread or (0, 0))) * unit + 7
    remark = f'<tspan class="dim" dx="6">{escape(bar.remark)}</tspan>' if bar.remark else ""
    return f'<text class="value" x="{x:.1f}" y="{y:.1f}">{escape(bar.text)}{remark}</text>'


def _class(server: str) -> str:
    """Return what a server is drawn as; variants of the gateway as the gateway."""
    return _CLASSES.get(server) or _CLASSES.get(server.partition(", ")[0]) or "other"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _document(title: str, parts: Sequence[str], y: float, captions: Sequence[str]) -> str:
    """Put a picture together: its title above, when, where and with what it was measured below."""
    caption = []
    y += 8
    for line in wrapped(captions, _CAPTION):
        y += 14
        caption.append(_text(_MARGIN, y, line, "caption"))
    height = math.ceil(y + _MARGIN)
    colours = "".join(f".{_CLASSES[server]}{{--c:{light}}}" for server, (light, _) in _COLOURS.items())
    dark = "".join(f".{_CLASSES[server]}{{--c:{dark}}}" for server, (_, dark) in _COLOURS.items())
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
            f"<style>{_STYLE}{colours}@media(prefers-color-scheme:dark){{{_DARK}{dark}}}</style>",
            f'<rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>',
            _text(_MARGIN, 25, title, "title"),
            *parts,
            *caption,
            "</svg>\n",
        ]
    )


_STYLE = (
    "svg{--ground:#fff;--ink:#1f2328;--dim:#59636e;--faint:#d1d9e0}"
    "text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--ink)}"
    ".title{font-size:15px;font-weight:600}.strong{font-weight:600}.dim{fill:var(--dim)}"
    ".caption{fill:var(--dim);font-size:10.5px}.end{text-anchor:end}.middle{text-anchor:middle}"
    ".value{paint-order:stroke;stroke:var(--ground);stroke-width:3px}.ground{fill:var(--ground)}"
    ".grid{stroke:var(--faint)}.axis{stroke:var(--dim)}"
    ".spread{stroke:var(--ink);stroke-opacity:.55}.limit{stroke:var(--ink);stroke-dasharray:3 3}"
    "rect,circle{fill:var(--c)}.line{fill:none;stroke:var(--c);stroke-width:1.5}.other{--c:#888}"
)
_DARK = "svg{--ground:#0d1117;--ink:#f0f6fc;--dim:#9198a1;--faint:#3d444d}"
