"""About: the settings in effect without their secrets, and the log's own state."""

from __future__ import annotations

import ssl
from pathlib import Path

from tests.gateway.console.ops import TOKEN, markup, operator, put, said
from tests.logs import CANARY
from upstreams import Retry, Upstream

LINE = {"timestamp": "2026-05-04T09:00:00.000000Z", "level": "info", "event": "gateway.started", "schema": 1}


async def test_settings_are_shown_as_they_are_in_effect() -> None:
    async with operator(GATEWAY_NAME="edge-7", ALLOWED_HOSTS=["testserver"], SECURE_SSL_REDIRECT=False) as client:
        text = said(await client.get("/ops/about"))
    assert "name edge-7" in text
    assert "ALLOWED_HOSTS testserver" in text
    assert "log_dir off" in text
    assert "deadline_header x-request-timeout-ms" in text


async def test_secrets_are_masked_whatever_they_are_called(tmp_path: Path) -> None:
    upstream = Upstream("http://127.0.0.1:9", headers={"X-Plain": CANARY, "Authorization": CANARY})
    settings = {"SECRET_KEY": CANARY, "GATEWAY_METRICS_TOKEN": CANARY}
    async with operator(tmp_path, {"shop": upstream}, **settings) as client:
        response = await client.get("/ops/about")
    assert CANARY not in markup(response)
    assert TOKEN not in markup(response)
    assert "ops_token [redacted]" in said(response)
    assert "X-Plain [redacted]" in said(response)


async def test_an_upstream_is_shown_with_its_policies() -> None:
    upstream = Upstream(
        ["http://127.0.0.1:9", "http://127.0.0.1:10/base"],
        timeout=0.4,
        retry=Retry(attempts=2),
        breaker=None,
        forward_headers=("accept-language",),
        tls=ssl.create_default_context(),
    )
    async with operator(None, {"shop": upstream}) as client:
        text = said(await client.get("/ops/about"))
    assert "shop http://127.0.0.1:9, http://127.0.0.1:10/base" in text
    assert "timeout 0.4" in text
    assert "attempts 2" in text
    assert "breaker off" in text
    assert "forward_headers accept-language" in text
    assert "tls an SSLContext of its own" in text


async def test_versions_are_shown() -> None:
    async with operator() as client:
        text = said(await client.get("/ops/about"))
    for name in ("tributary", "python", "django", "aiohttp", "duckdb"):
        assert f"{name} " in text


async def test_the_logs_files_are_listed_with_their_sizes(tmp_path: Path) -> None:
    await put(tmp_path, LINE)
    async with operator(tmp_path) as client:
        text = said(await client.get("/ops/about"))
    assert "1 file, " in text
    assert "gateway-1.ndjson" in text


async def test_a_log_folder_that_is_gone_is_no_reason_to_fail(tmp_path: Path) -> None:
    async with operator(tmp_path / "gone") as client:
        assert "0 files, 0 B" in said(await client.get("/ops/about"))


async def test_what_doctor_says_comes_as_a_part_of_the_page(tmp_path: Path) -> None:
    await put(tmp_path, LINE, b"{garbage")
    async with operator(tmp_path) as client:
        assert 'hx-get="/ops/about/doctor"' in markup(await client.get("/ops/about"))
        response = await client.get("/ops/about/doctor")
    assert "<html" not in markup(response)
    assert "files ok 1 file" in said(response)
    assert "lines lost" in said(response) or "lines look" in said(response)


async def test_doctor_says_so_where_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    async with operator(tmp_path) as client:
        assert "There are no log files yet." in said(await client.get("/ops/about/doctor"))
