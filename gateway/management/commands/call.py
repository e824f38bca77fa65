"""`manage.py call PAGE ...`: one page run from the shell, against the real upstreams."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterable, Callable, Mapping
from shutil import get_terminal_size
from typing import Any, Final

import msgspec
from django.core.management.base import BaseCommand, CommandError
from django.http import HttpRequest, HttpResponseBase

from gateway.log import configure
from gateway.log.setup import writer
from gateway.management.commands.plan import chosen, full_name
from gateway.middleware import Edge
from gateway.page import AggregateView
from inspection.showing.paint import coloured, plain, wanted
from inspection.showing.waterfall import WIDTH, waterfall
from inspection.story import told

_ERROR: Final = 400


class Command(BaseCommand):
    """Prints the answer and the waterfall of its calls; exits with 1 if the page failed."""

    help = "Run one page and print its answer, and on stderr what its calls did when."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take what a client would give."""
        parser.add_argument("page", help="a page's class name")
        parser.add_argument("kwargs", nargs="*", metavar="name=value", help="the URL's kwargs")
        parser.add_argument(
            "-q", "--query", action="append", default=[], metavar="name=value", help="a query parameter"
        )
        parser.add_argument(
            "-H", "--header", action="append", default=[], metavar="name:value", help="a request header"
        )
        parser.add_argument("-d", "--data", help="a JSON body")
        parser.add_argument("-X", "--method", help="the HTTP method (default: the page's first)")

    def handle(self, **options: Any) -> None:
        """Run the page."""
        page = _page(options["page"])
        kwargs = _kwargs(page, dict(_pair(item, "=") for item in options["kwargs"]))
        request = _request(page, options)
        lines = _Lines()
        configure({"level": "info"})  # the waterfall is drawn from every step, whatever the settings write down
        writer.use([lines])
        status = asyncio.run(self._run(page, request, kwargs))
        writer.flush()
        paint = coloured if self.stderr.isatty() and wanted() else plain
        width = get_terminal_size((WIDTH, 24)).columns if self.stderr.isatty() else WIDTH
        drawing = waterfall(told(lines.events), paint, width)
        self.stderr.write("\n".join(drawing), str)  # in its own colours
        if lines.status(status) >= _ERROR:
            sys.exit(1)

    async def _run(self, page: type[AggregateView], request: HttpRequest, kwargs: Mapping[str, Any]) -> int:
        """Print the answer, a stream's frames as they come; returns its status."""
        response: Any = await _answer(page, request, kwargs)
        if response.streaming:
            frames: AsyncIterable[bytes] = response
            async for frame in frames:
                self.stdout.write(frame.decode(), ending="")
                self.stdout.flush()
        else:
            self.stdout.write(_pretty(response.content))
        return int(response.status_code)


class _Lines:
    """A sink that keeps the log's lines, to draw them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def write(self, line: bytes) -> None:
        """Keep a line."""
        self.events.append(msgspec.json.decode(line))

    def status(self, given: int) -> int:
        """Return what the answer came to: a stream starts with 200, and may end with a problem."""
        finished = (event for event in self.events if event["event"] == "request.finished")
        return max((event["http.response.status_code"] for event in finished), default=given)


async def _answer(page: type[AggregateView], request: HttpRequest, kwargs: Mapping[str, Any]) -> HttpResponseBase:
    view: Callable[..., Any] = page.as_view()

    async def bound(request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = await view(request, **kwargs)
        return response

    edge: Any = Edge(bound)
    answer: HttpResponseBase = await edge(request)
    return answer


def _page(name: str) -> type[AggregateView]:
    """Return the one page of a name."""
    found: dict[str, type[AggregateView]] = {}
    for route in chosen(name):
        found.setdefault(full_name(route.page), route.page)  # the first, where as_view has made others of it
    if len(found) > 1:
        raise CommandError(f"several pages are called {name}: {', '.join(found)}")
    return next(iter(found.values()))


def _kwargs(page: type[AggregateView], given: dict[str, str]) -> dict[str, Any]:
    """Read the URL's kwargs as the types the page declares; raises CommandError for what does not fit."""
    wanted = page.plan.kwargs
    if given.keys() - wanted.keys() or page.plan.not_in(given):
        names = " ".join(f"{name}=..." for name in wanted) or "no arguments"
        raise CommandError(f"{page.__qualname__} takes {names}")
    return {name: _kwarg(name, value, wanted[name]) for name, value in given.items()}


def _kwarg(name: str, given: str, type_: Any) -> Any:
    try:
        return msgspec.convert(given, type_, strict=False)
    except msgspec.ValidationError as error:
        raise CommandError(f"{name}: {error}") from None


def _request(page: type[AggregateView], options: Mapping[str, Any]) -> HttpRequest:
    from django.test import RequestFactory  # noqa: PLC0415 - heavy, and no server's business

    query = [_pair(item, "=") for item in options["query"]]
    names = dict.fromkeys(name for name, _ in query)
    request: HttpRequest = RequestFactory().generic(
        (options["method"] or page.allowed()[0]).upper(),
        f"/{page.__qualname__}",
        (options["data"] or "").encode(),
        content_type="application/json",
        headers={name: value.strip() for name, value in (_pair(item, ":") for item in options["header"])},
        query_params={name: [value for given, value in query if given == name] for name in names},
    )
    return request


def _pair(text: str, separator: str) -> tuple[str, str]:
    name, found, value = text.partition(separator)
    if not found or not name.strip():
        raise CommandError(f"{text!r} must be written name{separator}value")
    return name.strip(), value


def _pretty(content: bytes) -> str:
    try:
        return msgspec.json.format(content, indent=2).decode()
    except msgspec.DecodeError:
        return content.decode(errors="replace")
