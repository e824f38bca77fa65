"""`manage.py call PAGE ...`: one page run from the shell, against the real upstreams."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from django.core.management.base import BaseCommand, CommandError
from django.http import HttpRequest, HttpResponse

from gateway.log.setup import writer
from gateway.management.commands.plan import chosen
from gateway.middleware import Edge
from gateway.page import AggregateView
from gateway.waterfall import waterfall

_ERROR: Final = 400


class Command(BaseCommand):
    """Prints the answer and the waterfall of its calls; exits with 1 if the page failed."""

    help = "Run one page and print its answer, and what its calls did when."

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
        page = chosen(options["page"])[0].page
        kwargs = _kwargs(page, dict(_pair(item, "=") for item in options["kwargs"]))
        request = _request(page, options)
        lines = _Lines()
        writer.sinks[:] = [lines]
        response = asyncio.run(_answer(page, request, kwargs))
        writer.flush()
        self.stdout.write(_pretty(response.content))
        self.stderr.write("\n".join(waterfall(lines.events)))
        if response.status_code >= _ERROR:
            sys.exit(1)


class _Lines:
    """A sink that keeps the log's lines, to draw them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def write(self, lines: list[bytes]) -> None:
        """Keep lines."""
        self.events.extend(msgspec.json.decode(line) for line in lines)


async def _answer(page: type[AggregateView], request: HttpRequest, kwargs: Mapping[str, Any]) -> HttpResponse:
    view: Callable[..., Any] = page.as_view()

    async def bound(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = await view(request, **kwargs)
        return response

    edge: Any = Edge(bound)
    answer: HttpResponse = await edge(request)
    return answer


def _kwargs(page: type[AggregateView], given: dict[str, str]) -> dict[str, Any]:
    """Read the URL's kwargs as the types the page declares; raises CommandError for what does not fit."""
    wanted = page.plan.kwargs
    if given.keys() != wanted.keys():
        names = " ".join(f"{name}=..." for name in wanted) or "no arguments"
        message = f"{page.__qualname__} takes {names}"
        raise CommandError(message)
    try:
        return {name: msgspec.convert(given[name], type_, strict=False) for name, type_ in wanted.items()}
    except msgspec.ValidationError as error:
        raise CommandError(str(error)) from None


def _request(page: type[AggregateView], options: Mapping[str, Any]) -> HttpRequest:
    from django.test import RequestFactory  # noqa: PLC0415 - heavy, and no server's business

    headers = dict(_pair(item, ":") for item in options["header"])
    query = [_pair(item, "=") for item in options["query"]]
    names = dict.fromkeys(name for name, _ in query)
    request: HttpRequest = RequestFactory(headers=headers).generic(
        (options["method"] or page.allowed()[0]).upper(),
        f"/{page.__qualname__}",
        (options["data"] or "").encode(),
        content_type="application/json",
        query_params={name: [value for given, value in query if given == name] for name in names},
    )
    return request


def _pair(text: str, separator: str) -> tuple[str, str]:
    name, found, value = text.partition(separator)
    if not found:
        message = f"{text!r} must be written name{separator}value"
        raise CommandError(message)
    return name.strip(), value.strip()


def _pretty(content: bytes) -> str:
    try:
        return msgspec.json.format(content, indent=2).decode()
    except msgspec.DecodeError:
        return content.decode(errors="replace")
