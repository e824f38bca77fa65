"""What operators find in the demo's log is what happened at its services."""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest

from demo.__main__ import SERVICES
from demo.services.serving import serving
from tests.gateway.console.ops import operator, said
from tests.ports import free_port
from tests.program import ROOT, program
from upstreams import Upstream

#: Pages, and what to order at the services: attempts that fail, are made again, are cut off, or never go out.
ASKED = list(
    itertools.product(
        ("/demo/home/7", "/demo/orders/7?limit=2", "/demo/product/D-00358", "/demo/compare?a=7&b=8"),
        ("", "reviews:flaky", "catalog:503", "users:flaky,reviews:flaky", "recommendations:garbage", "orders:reset"),
    )
)


class Shop(NamedTuple):
    """The shop's services, the gateway before them, and its log."""

    base: str
    services: list[str]
    logs: Path


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        urls = {name: str(await stack.enter_async_context(serving(name, latency=0))) for name in SERVICES}
        environment = {
            "DJANGO_SETTINGS_MODULE": "settings.demo",
            "LOG_DIR": str(tmp_path),
            **{f"{name.upper()}_URL": url for name, url in urls.items()},
        }
        serve = ("manage.py", "serve", "--port", "0")
        gateway = await stack.enter_async_context(program(*serve, environment=environment))
        yield Shop(await gateway.base(), list(urls.values()), tmp_path)


async def logs(folder: Path, *arguments: str) -> Any:
    """Return what the command answers, as data."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "manage.py", "logs", *arguments, "--json", "--dir", str(folder)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (out, err)
    return msgspec.json.decode(out)


async def test_the_traces_of_all_requests_show_as_many_attempts_as_the_services_counted(shop: Shop) -> None:
    async with aiohttp.ClientSession() as client:
        ids = []
        for path, fault in ASKED:
            separator = "&" if "?" in path else "?"
            async with client.get(f"{shop.base}{path}{separator}fault={fault}") as answer:
                ids.append(answer.headers["X-Request-ID"])
        counted = 0
        for service in shop.services:
            async with client.get(f"{service}/_counters") as answer:
                counted += sum((await answer.json()).values())
    stories = [await logs(shop.logs, "trace", id_) for id_ in ids]

    sent = [row for story in stories for row in story["rows"] if row["what"] == "attempt" and row["sent"]]
    assert [story["request"]["request_id"] for story in stories] == ids
    assert len(sent) == counted > len(ASKED)


async def test_a_host_that_turned_slow_and_unwell_is_found_without_knowing_where_to_look(tmp_path: Path) -> None:
    times = ("--before", "10", "--bad", "8", "--after", "1", "--rate", "24", "--workers", "4")
    async with program(
        *("-m", "demo.incident", *times), environment={"LOG_DIR": str(tmp_path), "PORT": str(free_port())}
    ) as incident:
        ended = await incident.ends()
    assert ended.code == 0, ended.err
    host = found(r"host (\S+) was slow", ended.out)
    bad = found(r"--bad (\S+)", ended.out)

    compared = await logs(tmp_path, "compare", "--bad", bad)
    hosts = await logs(tmp_path, "stats", "--by", "host", "-f", "upstream=catalog")
    upstreams = await logs(tmp_path, "stats")
    async with operator(tmp_path, {"catalog": Upstream(f"http://{host}")}) as client:
        card = said(await client.get("/ops/upstreams?since=all"))

    first = compared["places"][0]
    assert (first["field"], first["value"]) == ("server.address", host)
    worst = max(hosts["rows"], key=lambda row: row["failed_share"])
    assert (worst["key"], len(hosts["rows"])) == (host, 3)
    assert max(upstreams["rows"], key=lambda row: row["failed_share"])["key"] == "catalog"
    shares = {name: float(share) for name, share in re.findall(r"(127\.0\.0\.1:\d+) [\d,]+ <?([\d.]+)%", card)}
    assert (len(shares), max(shares, key=lambda name: shares[name])) == (3, host)


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]
