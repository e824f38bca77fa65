"""Errors: each kind once, with its count and a request to look at."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.conftest import StartStub
from tests.gateway.console.ops import markup, operator, put, said, traffic
from tests.logs import Log


def failed(ago: timedelta, **fields: Any) -> dict[str, Any]:
    """Return the line of an attempt that failed some time ago."""
    timestamp = (datetime.now(UTC) - ago).isoformat(timespec="microseconds").replace("+00:00", "Z")
    line = {"timestamp": timestamp, "level": "warning", "event": "attempt.finished", "outcome": "failed"}
    return {**line, "upstream": "reviews", "call": "reviews", "error.type": "http_response_timeout", **fields}


def kinds(content: str) -> list[str]:
    """Return what the rows are about."""
    found = re.findall(r'<th scope="row" class="wide">(.*?)</th>', content, flags=re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", " ", kind)).split()) for kind in found]


async def test_where_nothing_went_wrong_it_says_so(tmp_path: Path) -> None:
    async with operator(tmp_path) as client:
        assert "Nothing went wrong in this window." in said(await client.get("/ops/errors"))


async def test_each_kind_is_listed_with_its_count_and_leads_to_a_trace(
    tmp_path: Path, stub: StartStub, log: Log
) -> None:
    await traffic(tmp_path, await stub("users"), await stub("reviews"), log)
    tries = len(log.events("attempt.finished", call="reviews", outcome="failed"))
    async with operator(tmp_path) as client:
        response = await client.get("/ops/errors")
        assert kinds(markup(response))[0] == "reviews http_response_status 503"
        assert "users http_response_status 500" in kinds(markup(response))
        assert re.findall(r'data-is="times">(\d+)<', markup(response))[0] == str(tries)
        link = re.findall(r'<a href="([^"]+)">latest</a>', markup(response))[0]
        assert "GET /home/8" in said(await client.get(html.unescape(link)))


async def test_only_what_is_new_is_shown_when_asked_for(tmp_path: Path) -> None:
    old = failed(timedelta(minutes=50))
    await put(tmp_path, old, failed(timedelta(minutes=1)), failed(timedelta(minutes=1), upstream="users"))
    async with operator(tmp_path) as client:
        assert len(kinds(markup(await client.get("/ops/errors")))) == 2
        assert kinds(markup(await client.get("/ops/errors?new=15m"))) == ["users http_response_timeout"]


async def test_filters_and_window_narrow_it_and_what_is_wrong_with_them_is_said(tmp_path: Path) -> None:
    await put(tmp_path, failed(timedelta(hours=2)), failed(timedelta(minutes=1), upstream="users"))
    async with operator(tmp_path) as client:
        assert kinds(markup(await client.get("/ops/errors"))) == ["users http_response_timeout"]
        assert len(kinds(markup(await client.get("/ops/errors?since=all")))) == 2
        narrowed = markup(await client.get("/ops/errors?since=all&f=upstream=reviews"))
        assert kinds(narrowed) == ["reviews http_response_timeout"]
        assert "'reviews' is no filter" in said(await client.get("/ops/errors?f=reviews"))
        assert "'never' is no time" in said(await client.get("/ops/errors?new=never"))


async def test_messages_of_other_people_are_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    line = failed(timedelta(minutes=1), upstream=evil, call=evil, request_id=evil)
    await put(tmp_path, {**line, "http.route": evil, "server.address": evil, "exception.message": evil})
    async with operator(tmp_path) as client:
        content = markup(await client.get("/ops/errors"))
    assert "<script>alert" not in content
    assert kinds(content)[0].startswith(evil)
