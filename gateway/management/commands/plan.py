"""`manage.py plan`: a page's graph, as text and as a Mermaid diagram."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from gateway.checks import Route, routes
from gateway.declaring.annotations import describe
from gateway.declaring.plan import Node, Plan
from gateway.page import AggregateView
from inspection.showing.columns import columns

#: Words that Mermaid reads as its own where a node's name is expected.
_MERMAIDS: Final = frozenset(
    {
        "call", "class", "classdef", "click", "default", "direction", "end", "flowchart", "graph", "href",
        "interpolate", "linkstyle", "style", "subgraph",
    }
)  # fmt: skip


class Command(BaseCommand):
    """Prints what each page calls, what waits for what, and the longest chain."""

    help = "Show the graph of a page, or of every page that is routed."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take a page's name and the form."""
        parser.add_argument("page", nargs="?", help="a page's class name (default: every page)")
        parser.add_argument("--mermaid", action="store_true", help="print Mermaid diagrams only")

    def handle(self, **options: Any) -> None:
        """Print the plans."""
        shown = []
        for route in chosen(options["page"]):
            if not options["mermaid"]:
                shown.append("\n".join(text(route)))
            shown.append("\n".join(mermaid(route.page.plan)))
        self.stdout.write("\n\n".join(shown))


def chosen(name: str | None) -> list[Route]:
    """Return the routes of the pages that bear a name, or of every page, one each.

    Raises CommandError, naming the pages there are, for a name that none bears.
    """
    known: dict[type[AggregateView], Route] = {}
    for route in routes():
        known.setdefault(route.page, route)
    found = [route for page, route in known.items() if name in {None, page.__name__, full_name(page)}]
    if not found:
        names = ", ".join(sorted(page.__name__ for page in known)) or "none"
        raise CommandError(f"no page is called {name!r}; routed pages: {names}" if name else "no page is routed")
    return found


def full_name(page: type[AggregateView]) -> str:
    """Return the name that tells pages of one name in several modules apart."""
    return f"{page.__module__}.{page.__qualname__}"


def text(route: Route) -> Iterable[str]:
    """Describe a plan for a terminal."""
    plan, page = route.page.plan, route.page
    yield f"{plan.page}  {', '.join(page.allowed())} /{route.pattern}  deadline {page.deadline:g} s"
    rows = [
        (node.name, _what(node), f"-> {describe(node.type)}", _when(node), _marks(node)) for node in plan.nodes.values()
    ]
    yield from (f"  {line}" for line in columns(rows))
    chain = plan.longest_chain()
    yield f"  longest chain: {' -> '.join(chain) or 'none'} ({len(chain)} of {len(plan.nodes)} calls)"
    if plan.merge is not None:
        yield f"  merge({', '.join(plan.merge)}) -> {describe(plan.merged)}"


def mermaid(plan: Plan) -> Iterable[str]:
    """Draw a plan as a Mermaid flow chart: solid arrows carry values, dotted ones only order; corners are required."""
    ids = {name: _mermaid_id(name, position) for position, name in enumerate(plan.nodes)}
    yield "flowchart LR"
    for node in plan.nodes.values():
        label = f'"{node.name}<br/>{node.upstream or node.kind}"'
        yield f"  {ids[node.name]}[{label}]" if node.required else f"  {ids[node.name]}({label})"
    for node in plan.nodes.values():
        for need in node.needs:
            arrow = "-.->" if need in node.policy.after else "-->"
            yield f"  {ids[need]} {arrow} {ids[node.name]}"


def _mermaid_id(name: str, position: int) -> str:
    """Return a call's own name where Mermaid can read it."""
    if name.isidentifier() and name.lower() not in _MERMAIDS:
        return name
    return f"{re.sub(r'[^A-Za-z0-9]', '_', name)}_{position}"


def _what(node: Node) -> str:
    return f"{node.kind} {node.upstream}" if node.upstream else node.kind


def _when(node: Node) -> str:
    return f"after {', '.join(node.needs)}" if node.needs else "at once"


def _marks(node: Node) -> str:
    policy = node.policy
    marks = ["required" if policy.required else "optional" if policy.optional else "fallback"]
    if policy.absent:
        marks.append(f"absent on {_statuses(policy.absent)}")
    if policy.passthrough:
        marks.append(f"passes {_statuses(policy.passthrough)} through")
    if not node.public:
        marks.append("internal")
    return ", ".join(marks)


def _statuses(statuses: Iterable[int]) -> str:
    return " ".join(map(str, statuses))
