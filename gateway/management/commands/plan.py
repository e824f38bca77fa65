"""`manage.py plan`: a page's graph, as text and as a Mermaid diagram."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from gateway.annotations import describe
from gateway.checks import Route, routes
from gateway.plan import Node, Plan


class Command(BaseCommand):
    """Prints what each page calls, what waits for what, and the longest chain."""

    help = "Show the graph of a page, or of every page that is routed."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take a page's name and the form."""
        parser.add_argument("page", nargs="?", help="a page's class name (default: every page)")
        parser.add_argument("--mermaid", action="store_true", help="print Mermaid diagrams only")

    def handle(self, **options: Any) -> None:
        """Print the plans."""
        for route in chosen(options["page"]):
            if not options["mermaid"]:
                self.stdout.write("\n".join(text(route)) + "\n")
            self.stdout.write("\n".join(mermaid(route.page.plan)) + "\n")


def chosen(name: str | None) -> list[Route]:
    """Return a page's route by its class name, or every page's; raises CommandError naming the pages there are."""
    known = {route.page: route for route in reversed(list(routes()))}
    found = [route for page, route in reversed(known.items()) if name in {None, page.__name__, page.__qualname__}]
    if not found:
        names = ", ".join(sorted(page.__qualname__ for page in known)) or "none"
        message = f"no page is called {name!r}; routed pages: {names}" if name else "no page is routed"
        raise CommandError(message)
    return found


def text(route: Route) -> Iterable[str]:
    """Describe a plan for a terminal."""
    plan, page = route.page.plan, route.page
    chain = plan.longest_chain()
    yield f"{plan.page}  {', '.join(page.allowed())} /{route.pattern}  deadline {page.deadline:g} s"
    width = max((len(node.name) for node in plan.nodes.values()), default=0)
    for node in plan.nodes.values():
        yield f"  {node.name:<{width}}  {_what(node)}  {_when(node)}{_marks(node)}"
    yield f"  longest chain: {' -> '.join(chain)} ({len(chain)} of {len(plan.nodes)} calls one after another)"
    if plan.merge is not None:
        yield f"  merge({', '.join(plan.merge)}) -> {describe(plan.merged)}"


def mermaid(plan: Plan) -> Iterable[str]:
    """Draw a plan as a Mermaid flow chart: solid arrows carry values, dotted ones only order."""
    yield "flowchart LR"
    for node in plan.nodes.values():
        label = f"{node.name}<br/>{node.upstream or node.kind}"
        yield f'  {node.name}["{label}"]' if node.required else f'  {node.name}("{label}")'
    for node in plan.nodes.values():
        for need in node.needs:
            arrow = "-.->" if need in node.policy.after else "-->"
            yield f"  {need} {arrow} {node.name}"


def _what(node: Node) -> str:
    kind = "" if node.kind == "call" else f"{node.kind} "
    return f"{kind}{node.upstream or 'coroutine'} -> {describe(node.type)}"


def _when(node: Node) -> str:
    return f"after {', '.join(node.needs)}" if node.needs else "at once"


def _marks(node: Node) -> str:
    policy = node.policy
    marks = ["required" if policy.required else "optional" if policy.optional else "fallback"]
    marks.extend(f"absent on {status}" for status in policy.absent)
    marks.extend(f"passes {status} through" for status in policy.passthrough)
    if not node.public:
        marks.append("internal")
    return f"  [{', '.join(marks)}]"
