"""Pages: what each calls, what waits for what, and how long that took of late."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final, NamedTuple
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse

from gateway.checks import Route, routes
from gateway.console.entry import guarded
from gateway.console.questions import asked, window
from gateway.console.rendering import rendered
from gateway.declaring.annotations import describe
from gateway.declaring.plan import Node, Plan

_OBSERVED: Final = """
    SELECT "http.route", call, count(*), quantile_disc(duration_ms, 0.5), quantile_disc(duration_ms, 0.95),
        count(*) FILTER (outcome = 'failed') / count(*)
    FROM logs WHERE event = 'call.finished' GROUP BY ALL
"""
_BOX, _HIGH = (166, 50)
_COLUMN, _LINE = (_BOX + 36, _HIGH + 14)
_MARGIN: Final = 3


class Observed(NamedTuple):
    """What the log says of a call: how often it came to an end, times in milliseconds, the share that failed."""

    calls: int
    p50_ms: float | None
    p95_ms: float | None
    failed: float


class Box(NamedTuple):
    """A call where it is drawn, and what is known of it."""

    node: Node
    x: int
    y: int
    in_chain: bool
    without: str
    value: str
    observed: Observed | None


class Edge(NamedTuple):
    """What leads from one call to another: its value, or only the order."""

    path: str
    in_chain: bool
    only_order: bool


class Graph(NamedTuple):
    """A page as it is drawn."""

    route: Route
    plan: Plan
    methods: str
    chain: str
    boxes: list[Box]
    edges: list[Edge]
    width: int
    height: int
    requests: str


@guarded
async def pages(request: HttpRequest) -> HttpResponse:
    """Draw every page that is routed."""
    found = await asked("sql", *window(request), "--timeout=15", words=[_OBSERVED])
    observed = {(row[0], row[1]): Observed(*row[2:]) for row in found.answer["rows"]} if found.answer else {}
    graphs = [graph(route, observed) for route in routes()]
    return rendered(request, "pages.html", {"fault": found.fault, "graphs": graphs})


def graph(route: Route, observed: Mapping[tuple[str, str], Observed]) -> Graph:
    """Return the drawing of a page: a column for each step of its longest chain, times as they were observed."""
    plan, page = route.page.plan, route.page
    longest = plan.longest_chain()
    chain = longest if len(longest) > 1 else ()
    places = _places(plan)
    boxes = [
        Box(
            node=node,
            x=places[node.name][0] * _COLUMN + _MARGIN,
            y=places[node.name][1] * _LINE + _MARGIN,
            in_chain=node.name in chain,
            without=_without(node),
            value=describe(node.type),
            observed=observed.get((route.pattern, node.name)),
        )
        for node in plan.nodes.values()
    ]
    return Graph(
        route=route,
        plan=plan,
        methods=", ".join(page.allowed()),
        chain=" \u2192 ".join(chain),
        boxes=boxes,
        edges=list(_edges(boxes, chain)),
        width=max((box.x for box in boxes), default=0) + _BOX + _MARGIN,
        height=max((box.y for box in boxes), default=0) + _HIGH + _MARGIN,
        requests=urlencode({"f": f"http.route={route.pattern}"}),
    )


def _places(plan: Plan) -> dict[str, tuple[int, int]]:
    """Return each call's column, which is how many others it waits for one after the other, and its line in it."""
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in depths:
            depths[name] = 1 + max((depth(need) for need in plan.nodes[name].needs), default=-1)
        return depths[name]

    taken: dict[int, int] = {}
    places = {}
    for name in plan.nodes:
        line = taken.get(depth(name), 0)
        taken[depth(name)] = line + 1
        places[name] = (depth(name), line)
    return places


def _edges(boxes: list[Box], chain: tuple[str, ...]) -> Iterator[Edge]:
    by_name = {box.node.name: box for box in boxes}
    steps = set(pairwise(chain))
    for box in boxes:
        for need in box.node.needs:
            x, y = by_name[need].x + _BOX, by_name[need].y + _HIGH // 2
            to_x, to_y = box.x, box.y + _HIGH // 2
            middle = (x + to_x) // 2
            yield Edge(
                path=f"M{x} {y} C{middle} {y} {middle} {to_y} {to_x} {to_y}",
                in_chain=(need, box.node.name) in steps,
                only_order=need in box.node.policy.after,
            )


def _without(node: Node) -> str:
    """Say what becomes of the page when a call has no value."""
    if node.required:
        return "the page fails"
    return "null" if node.policy.optional else "its fallback"
