"""Trace: one request drawn, whatever id of its is searched for."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import StartStub
from tests.gateway.console.ops import markup, operator, put, said, traffic
from tests.logs import Log


@pytest.fixture
async def folder(tmp_path: Path, stub: StartStub, log: Log) -> Path:
    await traffic(tmp_path, await stub("users"), await stub("reviews"), log)
    return tmp_path


def rows(content: str) -> list[str]:
    """Return the waterfall's rows as text."""
    found = re.findall(r"<summary>(.*?)</summary>", content.split('class="panel fall"')[1], flags=re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", " ", row)).split()) for row in found if 'class="call"' in row]


async def test_without_an_id_it_says_what_can_be_searched_for(folder: Path) -> None:
    async with operator(folder) as client:
        assert "Search for a request id" in said(await client.get("/ops/trace"))


@pytest.mark.parametrize("wanted", ["well", "thin-1", "thin"])
async def test_a_request_is_found_by_its_id_or_the_beginning_of_it(folder: Path, wanted: str) -> None:
    async with operator(folder) as client:
        response = await client.get("/ops/trace", {"id": wanted})
    assert "GET /home/7" in said(response)
    assert rows(markup(response))


async def test_a_request_is_found_by_its_trace_id_and_by_a_traceparent(folder: Path, log: Log) -> None:
    (wide,) = log.events("request.finished", request_id="thin-1")
    trace_id, span_id = wide["trace_id"], wide["span_id"]
    async with operator(folder) as client:
        for wanted in (trace_id, f"00-{trace_id}-{span_id}-01"):
            assert "thin-1" in said(await client.get("/ops/trace", {"id": wanted}))


async def test_every_attempt_is_a_row_that_opens_with_all_that_the_log_has_of_it(folder: Path, log: Log) -> None:
    attempts = log.events("attempt.finished", request_id="thin-1")
    async with operator(folder) as client:
        content = markup(await client.get("/ops/trace?id=thin-1"))
    drawn = rows(content)
    assert next(row for row in drawn if row.startswith("user ")).startswith("user users try 1 200")
    assert sum(row.startswith("reviews try") for row in drawn) == sum(line["call"] == "reviews" for line in attempts)
    assert any("after a wait of" in row for row in drawn)
    for attempt in attempts:
        assert f'<dd class="mono">{attempt["span_id"]}</dd>' in content


async def test_the_critical_path_and_what_is_missing_are_marked(folder: Path) -> None:
    async with operator(folder) as client:
        response = await client.get("/ops/trace?id=thin-1")
    assert "missing in the answer reviews" in said(response)
    assert 'class="step critical"' in markup(response)
    assert "critical path:" in said(response)


async def test_a_call_that_was_skipped_has_a_row_with_its_reason_and_no_bar(tmp_path: Path) -> None:
    line = {"timestamp": "2026-05-04T09:00:00.000000Z", "level": "warning", "request_id": "skip-1"}
    skipped = {**line, "event": "call.skipped", "call": "friends", "upstream": "users", "because": "user"}
    await put(tmp_path, {**line, "event": "request.started", "url.path": "/home"}, skipped)
    async with operator(tmp_path) as client:
        content = markup(await client.get("/ops/trace?id=skip-1"))
    assert rows(content) == ["friends users skipped skipped no user"]
    assert "<rect" not in content


async def test_it_can_be_copied_as_markdown_json_and_curl(folder: Path) -> None:
    async with operator(folder) as client:
        content = markup(await client.get("/ops/trace?id=thin-1"))
    texts = re.findall(r'<pre id="copy-\d"[^>]*>(.*?)</pre>', content, flags=re.DOTALL)
    markdown, story, curl = map(html.unescape, texts)
    assert markdown.startswith("### GET /home/7: 200 partial in ")
    assert msgspec.json.decode(story)["request"]["request_id"] == "thin-1"
    assert "X-Request-ID: thin-1-again" in curl


async def test_of_several_requests_one_is_chosen(folder: Path) -> None:
    async with operator(folder) as client:
        response = await client.get("/ops/trace?id=twice")
        assert "2 requests bear twice" in said(response)
        links = re.findall(r'<th scope="row" class="wide"><a href="([^"]+)"', markup(response))
        assert len(set(links)) == 2
        for link in links:
            assert "GET /home/7" in said(await client.get(f"/ops/trace{html.unescape(link)}"))


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("nowhere-to-be-found", "No line of the log bears the id nowhere-to-be-found"),
        ("abc", "'abc' is no id"),
        ("--dir=/etc", "is no id"),
        ("<b>bold</b>", "'<b>bold</b>' is no id"),
        ("-", "No line of the log bears the id -"),
    ],
)
async def test_an_id_that_leads_nowhere_is_a_sentence(tmp_path: Path, wanted: str, sentence: str) -> None:
    async with operator(tmp_path) as client:
        response = await client.get("/ops/trace", {"id": wanted})
    assert sentence in said(response)
    assert "<b>bold" not in markup(response)


async def test_lines_of_other_people_are_text(tmp_path: Path) -> None:
    evil = "</pre><script>alert(1)</script>\x1b[31m"
    told = {"timestamp": "2026-05-04T09:00:00.000000Z", "level": evil, "event": evil, "trace_id": "f" * 32}
    wide = {**told, "event": "request.finished", "duration_ms": 3.0, "url.path": evil, "outcome": evil, "page": evil}
    await put(tmp_path, {**told, "message": evil, evil: evil}, wide)
    async with operator(tmp_path) as client:
        content = markup(await client.get(f"/ops/trace?id={'f' * 32}"))
    assert "<script>alert" not in content
    assert "&lt;script&gt;alert(1)" in content


async def test_fields_of_unexpected_types_are_no_reason_to_fail(tmp_path: Path) -> None:
    odd = {"timestamp": "2026-05-04T09:00:00.000000Z", "event": "attempt.finished", "request_id": "odd-1"}
    lines: list[dict[str, Any]] = [
        {**odd, "call": 7, "duration_ms": "long", "start_offset_ms": -5, "outcome": ["ok"], "attempt": "1"},
        {**odd, "event": "call.skipped", "call": None, "because": {}},
        {**odd, "event": None, "level": 3},
        {**odd, "event": "retry.scheduled", "wait_ms": 1e300},
    ]
    await put(tmp_path, *lines)
    async with operator(tmp_path) as client:
        assert "It has not finished by the log" in said(await client.get("/ops/trace?id=odd-1"))
