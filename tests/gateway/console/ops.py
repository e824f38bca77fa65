"""The console as its tests open it: a project with the console in it, an operator's browser, and a log to look at."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from django.conf import settings as django_settings
from django.http import HttpResponseBase
from django.test import AsyncClient
from django.urls import include, path

from gateway import call
from tests.logs import Log
from tests.serving import PatientPage, Table, asking
from tests.stub import Answered, Stub
from upstreams import GET, JSON, Request, Upstream

TOKEN = "open-sesame-" + "x" * 28
CONSOLE = [path("ops/", include("gateway.console.urls"))]


class HomePage(PatientPage):
    log_fields = ("user_id",)

    @call("users")
    def user(self, user_id: int) -> Request[JSON]:
        return GET("/users/{id}", id=user_id)

    @call("users", optional=True)
    def friends(self, user: JSON) -> Request[JSON]:
        return GET("/friends")

    @call("reviews", optional=True)
    def reviews(self, user_id: int) -> Request[JSON]:
        return GET("/reviews")


PAGES = [path("home/<int:user_id>", HomePage.as_view())]


@contextmanager
def console(
    folder: Path | None = None, upstreams: Table | None = None, pages: Sequence[Any] = (), **settings: Any
) -> Iterator[AsyncClient]:
    """Ask a project with a console over the log of a folder, as somebody who has not shown the token."""
    with (
        log_folder(folder),
        asking([*pages, *CONSOLE], upstreams or {}, **{"OPS_TOKEN": TOKEN, **settings}) as client,
    ):
        yield client


@contextmanager
def log_folder(folder: Path | None) -> Iterator[None]:
    """Say in the settings where the log is, without writing one there: settings overridden inside see it.

    Overriding LOGGING as a whole would set up the process's log anew.
    """
    logging, former = django_settings.LOGGING, django_settings.LOGGING["dir"]
    logging["dir"] = str(folder) if folder else None
    try:
        yield
    finally:
        logging["dir"] = former


@asynccontextmanager
async def operator(
    folder: Path | None = None, upstreams: Table | None = None, pages: Sequence[Any] = (), **settings: Any
) -> AsyncIterator[AsyncClient]:
    """Do as `console` does, as somebody who has shown the token."""
    with console(folder, upstreams, pages, **settings) as client:
        assert (await client.post("/ops/door", {"token": TOKEN})).status_code == 302
        yield client


async def traffic(folder: Path, users: Stub, reviews: Stub, log: Log) -> None:
    """Let a gateway answer five requests, and put what it logged into a folder.

    `well`; `thin`, without reviews; `lost`, without its user; `twice`, which is two. A sixth led nowhere.
    """
    users.on("/users/7", {"name": "Ada"}).on("/users/8", Answered({}, 500)).on("/friends", [])
    reviews.on("/reviews", [])
    upstreams = {"users": Upstream(users.url, retry=None), "reviews": Upstream(reviews.url)}
    with asking(PAGES, upstreams) as client:
        await client.get("/home/7", headers={"X-Request-ID": "well"})
        await client.get("/home/7", headers={"X-Request-ID": "twice"})
        await client.get("/home/7", headers={"X-Request-ID": "twice"})
        reviews.on("/reviews", Answered({}, 503))
        await client.get("/home/7", headers={"X-Request-ID": "thin-1"})
        await client.get("/home/8", headers={"X-Request-ID": "lost-1"})
        await client.get("/<script>alert(1)</script>", headers={"X-Request-ID": "astray"})
    await put(folder, *log.lines())


async def put(folder: Path, *lines: Mapping[str, Any] | bytes) -> None:
    """Write lines into a folder's log file."""
    written = [line if isinstance(line, bytes) else msgspec.json.encode(line) for line in lines]
    content = b"".join(line.rstrip(b"\n") + b"\n" for line in written)
    await asyncio.to_thread((folder / "gateway-1.ndjson").write_bytes, content)


def markup(response: HttpResponseBase) -> str:
    """Return a page's HTML."""
    assert response.status_code == 200
    return response.content.decode()  # type: ignore[attr-defined,no-any-return]


def said(response: HttpResponseBase) -> str:
    """Return a page's text, without markup, its blanks as one."""
    text = re.sub(r"<(script|style|title)\b.*?</\1>|<[^>]*>", " ", markup(response), flags=re.DOTALL)
    return " ".join(html.unescape(text).split())
