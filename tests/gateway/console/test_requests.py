"""Requests: listed, counted over time, divided, narrowed, each leading to its trace."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from tests.conftest import StartStub
from tests.gateway.console.ops import markup, operator, said, traffic
from tests.logs import Log


@pytest.fixture
async def folder(tmp_path: Path, stub: StartStub, log: Log) -> Path:
    await traffic(tmp_path, await stub("users"), await stub("reviews"), log)
    return tmp_path


async def test_without_a_log_folder_it_says_so() -> None:
    async with operator() as client:
        assert "There are no log files: set LOG_DIR." in said(await client.get("/ops/requests"))


async def test_an_empty_folder_has_no_requests(tmp_path: Path) -> None:
    async with operator(tmp_path) as client:
        assert "No request was finished in this window" in said(await client.get("/ops/requests"))


async def test_a_folder_that_is_gone_is_said_inline(tmp_path: Path) -> None:
    async with operator(tmp_path / "gone") as client:
        text = said(await client.get("/ops/requests"))
    assert "here is no" in text
    assert "gone" in text


async def test_requests_are_listed_the_latest_first_with_how_they_ended(folder: Path) -> None:
    async with operator(folder) as client:
        response = await client.get("/ops/requests")
    paths = re.findall(r'<th scope="row" class="wide"><a [^>]*>([^<]*)</a>', markup(response))
    assert paths == [
        "GET /&lt;script&gt;alert(1)&lt;/script&gt;",
        "GET /home/8",
        *["GET /home/7"] * 4,
    ]
    text = said(response)
    assert "requests 6 p50 ms" in text
    assert "200 partial without reviews" in text
    assert "502 failed without user" in text
    assert "404 rejected" in text
    assert "6 of 6." in text


async def test_what_is_in_a_line_is_text_in_the_page(folder: Path) -> None:
    async with operator(folder) as client:
        content = markup(await client.get("/ops/requests?f=path~<script>"))
    assert "<script>alert" not in content
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
    assert "path~&lt;script&gt;" in content


async def test_a_filter_narrows_list_figures_and_facets(folder: Path) -> None:
    async with operator(folder) as client:
        response = await client.get("/ops/requests", {"f": ["outcome=ok", "user_id=7"]})
    assert len(re.findall(r'<th scope="row"', markup(response))) == 3
    assert "502 failed" not in said(response)
    assert "3 of 3." in said(response)


async def test_facets_click_in_and_out(folder: Path) -> None:
    async with operator(folder) as client:
        content = markup(await client.get("/ops/requests?since=6h&f=user_id=7"))
        links = [html.unescape(link) for link in re.findall(r'<a class="(?:value|out)" href="([^"]+)"', content)]
        assert "?f=user_id%3D7&f=outcome%3Dpartial&since=6h" in links
        assert "?f=user_id%3D7&f=outcome%21%3Dpartial&since=6h" in links
        only = said(await client.get("/ops/requests?f=user_id%3D7&f=outcome%3Dpartial&since=6h"))
        without = said(await client.get("/ops/requests?f=user_id%3D7&f=outcome%21%3Dpartial&since=6h"))
    assert "1 of 1." in only
    assert "3 of 3." in without


async def test_a_facet_that_is_clicked_in_takes_the_place_of_the_one_before(folder: Path) -> None:
    async with operator(folder) as client:
        content = html.unescape(markup(await client.get("/ops/requests?f=outcome=ok&f=user_id=7")))
    assert 'href="?f=user_id%3D7&f=outcome%3Dok"' in content
    assert "f=outcome%3Dok&f=outcome%3Dok" not in content


async def test_requests_without_a_field_are_a_facet_too(folder: Path) -> None:
    async with operator(folder) as client:
        content = html.unescape(markup(await client.get("/ops/requests")))
        assert 'href="?f=http.route%3D"' in content
        assert "1 of 1." in said(await client.get("/ops/requests?f=http.route="))


async def test_a_filter_is_a_chip_that_can_be_removed(folder: Path) -> None:
    async with operator(folder) as client:
        content = markup(await client.get("/ops/requests?f=outcome=ok&f=status=200&since=24h"))
    assert "<span>outcome=ok</span>" in content
    assert 'href="?f=status%3D200&amp;since=24h" aria-label="Remove the filter outcome=ok"' in content


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("f=nonsense", "'nonsense' is no filter"),
        ("f=statsu=200", "No line has a field 'statsu'"),
        ("f=duration_ms>slow", "is compared with a number"),
        ("since=whenever", "'whenever' is no time"),
        ("since=--dir=/etc", "'--dir=/etc' is no time"),
        ("f=--dir=/etc", "No line has a field '--dir'"),
        ("f=path=%00", "There is a NUL"),
    ],
)
async def test_what_cannot_be_asked_so_is_a_sentence_in_the_page(tmp_path: Path, query: str, sentence: str) -> None:
    async with operator(tmp_path) as client:
        assert sentence in said(await client.get(f"/ops/requests?{query}"))


async def test_a_row_leads_to_the_trace_of_this_very_request(folder: Path) -> None:
    async with operator(folder) as client:
        content = markup(await client.get("/ops/requests?f=request_id=twice"))
        links = re.findall(r'<th scope="row" class="wide"><a href="([^"]+)"', content)
        assert len(set(links)) == 2
        for link in links:
            assert "Waterfall" in markup(await client.get(html.unescape(link)))


async def test_the_slowest_can_come_first(folder: Path) -> None:
    async with operator(folder) as client:
        response = await client.get("/ops/requests?order=slowest")
    times = [float(time) for time in re.findall(r'data-is="ms">([0-9.]+)<', markup(response))]
    assert len(times) == 6
    assert times == sorted(times, reverse=True)


async def test_the_histogram_adds_up_and_each_bar_leads_to_its_time(folder: Path) -> None:
    async with operator(folder) as client:
        content = html.unescape(markup(await client.get("/ops/requests?since=15m")))
        bars = re.findall(r'<a href="([^"]+)" tabindex="-1"><title>[^:]+:\d+:\d+: (\d+) \(', content)
        assert sum(int(count) for _, count in bars) == 6
        for link, count in bars:
            assert f"{count} of {count}." in said(await client.get(f"/ops/requests{link}"))
