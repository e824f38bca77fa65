"""What every page of the console has in common: nothing from elsewhere, nothing inline, one way around."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.gateway.console.ops import console, markup, operator, said

PAGES = ("requests", "trace", "errors", "pages", "about")
#: What a page may not have under the policy: code or looks in its markup.
INLINE = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|hx-on", re.IGNORECASE)


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_lets_nothing_in_and_is_kept_nowhere(page: str, tmp_path: Path) -> None:
    async with operator(tmp_path) as client:
        response = await client.get(f"/ops/{page}")
    policy = response["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert response["Cache-Control"] == "no-store"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_has_neither_scripts_nor_styles_in_its_markup(page: str, tmp_path: Path) -> None:
    async with operator(tmp_path) as client:
        assert INLINE.findall(markup(await client.get(f"/ops/{page}"))) == []


async def test_the_door_and_refusals_have_the_same_headers() -> None:
    with console() as client:
        for response in (await client.get("/ops/door"), await client.get("/ops/about")):
            assert "default-src 'none'" in response["Content-Security-Policy"]


@pytest.mark.parametrize("page", ["requests", "errors", "pages", "about"])
async def test_the_navigation_marks_where_one_is_and_keeps_the_window(page: str, tmp_path: Path) -> None:
    async with operator(tmp_path) as client:
        content = markup(await client.get(f"/ops/{page}?since=6h"))
    assert re.findall(r'<a href="(/ops/\w*)\?since=6h" aria-current="page">', content) == [f"/ops/{page}"]
    assert 'href="/ops/errors?since=6h"' in content


async def test_a_window_is_chosen_without_losing_the_filters(tmp_path: Path) -> None:
    async with operator(tmp_path) as client:
        content = markup(await client.get("/ops/errors?since=24h&f=upstream=users"))
    assert 'href="?f=upstream%3Dusers&amp;since=15m"' in content
    assert re.search(r'href="\?f=upstream%3Dusers&amp;since=24h" aria-current="true"', content)


async def test_all_times_are_said_to_be_utc(tmp_path: Path) -> None:
    async with operator(tmp_path) as client:
        for page in PAGES:
            assert "All times are UTC." in said(await client.get(f"/ops/{page}"))


async def test_scripts_and_styles_are_served_with_their_types_and_kept_by_version() -> None:
    async with operator() as client:
        style = re.search(r'href="(/ops/static/ops\.css\?v=[^"]+)"', markup(await client.get("/ops/about")))
        assert style is not None
        kept = await client.get(style[1])
        fresh = await client.get("/ops/static/htmx.min.js")
    assert kept["Content-Type"] == "text/css; charset=utf-8"
    assert "immutable" in kept["Cache-Control"]
    assert fresh["Content-Type"].startswith("text/javascript")
    assert fresh["Cache-Control"] == "no-store"


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fentry.py", "__init__.py", "base.html"])
async def test_nothing_else_is_served_as_a_file(name: str) -> None:
    async with operator() as client:
        assert (await client.get(f"/ops/static/{name}")).status_code == 404


async def test_what_the_project_says_of_templates_does_not_matter() -> None:
    async with operator(TEMPLATES=[]) as client:
        assert "Versions" in said(await client.get("/ops/about"))


async def test_the_form_at_the_door_can_be_sent_by_a_browser() -> None:
    with console() as client:
        response = await client.get("/ops/door?next=/ops/about")
    assert response["Referrer-Policy"] == "same-origin"  # with none, browsers would send `Origin: null`
    assert 'type="password"' in markup(response)
    assert "csrfmiddlewaretoken" in markup(response)
