"""Live: everybody sees the same lines as they are written, and nobody who watches keeps anything waiting."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from django.test import AsyncClient

from gateway.console.tailing import MOST_TAILS, Batch, Tail, Wanted, Watch, wanted
from tests.gateway.console.ops import CONSOLE, TOKEN, console, markup, operator, said
from tests.inspection.shop import Line, attempt, line, text, write
from tests.logs import Log
from tests.program import PATIENCE, program, write_project
from tests.serving import project

Event = tuple[str, Any]


def started(number: int, **fields: Any) -> Line:
    """Return the line of a request's arrival, known by its number."""
    told = {"request_id": f"r{number}", "trace_id": f"{number:032x}", "service__instance__id": "web-7", "seq": number}
    return line("request.started", number, **{**told, "url__path": f"/item/{number}", **fields})


def paths(rows: Sequence[str]) -> list[str]:
    """Return the numbers of the requests that rows are about."""
    return [row.partition("/item/")[2].split()[0] for row in rows]


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """Yield a stream's events."""
    async for chunk in chunks:
        for block in chunk.decode().split("\n\n"):
            if block.startswith("event: "):
                name, data = block.split("\n")
                yield name.removeprefix("event: "), msgspec.json.decode(data.removeprefix("data: "))


async def stream(client: AsyncClient, query: str = "") -> AsyncIterator[Event]:
    """Open the tail; returns its events."""
    response = await client.get(f"/ops/tail{query}")
    assert response.status_code == 200
    assert response["Content-Type"] == "text/event-stream"
    assert response["X-Accel-Buffering"] == "no"
    assert response["Cache-Control"] == "no-store"
    return events(response.streaming_content)  # type: ignore[attr-defined]


def add(path: Path, *lines: Line) -> None:
    with path.open("ab") as file:
        file.write(text(lines))


async def written(path: Path, *lines: Line) -> Path:
    """Write a file of lines."""
    return await asyncio.to_thread(write, path, *lines)


async def appended(path: Path, *lines: Line) -> None:
    """Write more lines, as a gateway would."""
    await asyncio.to_thread(add, path, *lines)


# The stream


async def test_a_tail_begins_with_the_latest_lines_and_goes_on_with_those_that_come(tmp_path: Path) -> None:
    path = await written(tmp_path / "gateway-1.ndjson", *map(started, range(150)))
    async with operator(tmp_path) as client:
        tail = await stream(client)
        name, batch = await anext(tail)
        assert (name, paths(batch["rows"])) == ("latest", [str(number) for number in range(149, 49, -1)])
        await appended(path, started(150), started(151))
        name, batch = await anext(tail)
        assert (name, paths(batch["rows"]), batch["left_out"]) == ("lines", ["151", "150"], 0)
        await appended(tmp_path / "gateway-2.ndjson", started(152))
        assert paths((await anext(tail))[1]["rows"]) == ["152"]


async def test_only_the_lines_that_are_wanted_are_sent(tmp_path: Path) -> None:
    path = await written(tmp_path / "gateway-1.ndjson", started(1), started(2, level="error"))
    async with operator(tmp_path) as client:
        grave = await stream(client, "?level=warning")
        third = await stream(client, "?f=url.path=/item/3&f=event!=request.finished")
        assert paths((await anext(grave))[1]["rows"]) == ["2"]
        assert (await anext(third))[1]["rows"] == []
        await appended(path, started(3), started(4, level="warning"))
        assert paths((await anext(grave))[1]["rows"]) == ["4"]
        assert paths((await anext(third))[1]["rows"]) == ["3"]


async def test_of_more_lines_than_can_be_read_the_last_are_sent_and_the_others_counted(tmp_path: Path) -> None:
    path = await written(tmp_path / "gateway-1.ndjson", started(0))
    async with operator(tmp_path) as client:
        tail = await stream(client)
        await anext(tail)
        await appended(path, *map(started, range(1, 1001)))
        seen = left_out = 0
        latest = "0"
        while latest != "1000":
            _, batch = await anext(tail)
            assert len(batch["rows"]) <= 50
            seen, left_out = seen + len(batch["rows"]), left_out + batch["left_out"]
            latest = paths(batch["rows"])[0]
    assert left_out > 0
    assert seen + left_out == 1000


async def test_what_is_rendered_for_one_is_sent_to_all_who_want_the_same(tmp_path: Path) -> None:
    path = await written(tmp_path / "gateway-1.ndjson", started(1))
    watching = Watch(tmp_path)
    with project(CONSOLE, {}), watching.tail(Wanted()) as one, watching.tail(Wanted()) as two:
        first, second = one.events(), two.events()
        assert b"/item/1" in await anext(first)
        assert b"/item/1" in await anext(second)
        await appended(path, started(2))
        assert await anext(first) is await anext(second)


async def test_a_reader_who_is_too_slow_loses_the_oldest_lines_and_is_told_how_many() -> None:
    tail = Tail(Wanted())
    for number in range(11):
        tail.put(Batch(b"%d" % number, shown=100, left_out=number))
    tail.end()
    assert [event async for event in tail.events()] == [
        b'event: lost\ndata: {"count":303}\n\n', *(b"%d" % number for number in range(3, 11)),
    ]  # fmt: skip


async def test_nothing_is_followed_any_more_when_the_last_reader_has_left(tmp_path: Path) -> None:
    await written(tmp_path / "gateway-1.ndjson", started(1))
    watching = Watch(tmp_path)
    with project(CONSOLE, {}), watching.tail(Wanted()) as tail:
        await anext(tail.events())
        (following,) = [task for task in asyncio.all_tasks() if "Watch._follow" in repr(task)]
    async with asyncio.timeout(PATIENCE):
        await following
    assert "0 tails" in repr(watching)


async def test_who_watches_a_log_that_cannot_be_followed_is_let_go_and_asks_again(tmp_path: Path, log: Log) -> None:
    await written(tmp_path / "gateway-1.ndjson", started(1))
    watching = Watch(tmp_path)
    with project([], {}), watching.tail(Wanted()) as tail:  # without the console no row has an address to lead to
        assert [event async for event in tail.events()] == []
    assert log.events("log.recorded", message="the log cannot be followed")


async def test_more_readers_than_a_worker_can_bear_are_asked_to_come_back_later(tmp_path: Path) -> None:
    await written(tmp_path / "gateway-1.ndjson", started(1))
    async with operator(tmp_path) as client:
        tails = [await stream(client) for _ in range(MOST_TAILS)]
        for tail in tails:
            await anext(tail)
        refused = await client.get("/ops/tail")
        assert (refused.status_code, refused["Retry-After"]) == (503, "30")
        await tails[0].aclose()  # type: ignore[attr-defined]


async def test_a_filter_that_is_none_is_refused_with_a_sentence(tmp_path: Path) -> None:
    await written(tmp_path / "gateway-1.ndjson", started(1))
    async with operator(tmp_path) as client:
        refused = await client.get("/ops/tail?f=upstraem=reviews")
        page = await client.get("/ops/?f=upstraem=reviews")
    assert refused.status_code == 400
    assert "upstream" in refused.content.decode()
    assert "'upstraem'" in said(page)
    assert 'role="alert"' in markup(page)
    assert "data-tail" not in markup(page)


async def test_without_log_files_the_page_says_what_to_set() -> None:
    async with operator(None) as client:
        assert "set LOG_DIR" in said(await client.get("/ops/"))
        assert (await client.get("/ops/tail")).status_code == 400


@pytest.mark.parametrize("path", ["", "tail", "?part=inflight"])
async def test_nobody_sees_a_line_without_the_token(tmp_path: Path, path: str) -> None:
    with console(tmp_path) as client:
        refused = await client.get(f"/ops/{path}", headers={"Accept": "text/event-stream"})
    assert (refused.status_code, refused["HX-Redirect"]) == (401, "/ops/door")


# A worker that ends


async def test_a_worker_that_is_to_stop_does_not_wait_for_those_who_watch(tmp_path: Path) -> None:
    settings = f"OPS_TOKEN = {TOKEN!r}\nLOGGING = {{**LOGGING, 'dir': {str(tmp_path / 'logs')!r}}}\n"
    environment = await asyncio.to_thread(write_project, tmp_path, {}, URLS, settings)
    async with (
        program("manage.py", "serve", "--port", "0", environment=environment) as gateway,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        base = await gateway.base()
        await session.get(f"{base}/ops/door", params={"token": TOKEN}, allow_redirects=False)
        async with session.get(f"{base}/ops/tail") as tail:
            assert tail.status == 200
            assert await tail.content.readuntil(b"event: latest")
            gateway.told(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                await tail.content.read()
        ended = await gateway.ends()
    assert not gateway.said("graceful shutdown exceeded")
    assert gateway.said('"event":"gateway.stopped"')
    assert ended.code in {0, -signal.SIGTERM}


URLS = """
from django.urls import include, path
from gateway.urls import handler400, handler403, handler404, handler500

urlpatterns = [path("ops/", include("gateway.console.urls"))]
"""


# The requests under way


async def test_a_request_that_has_not_finished_is_shown_with_its_age_and_what_it_has_done(tmp_path: Path) -> None:
    waiting = {"request_id": "r1", "trace_id": "0" * 31 + "1", "service__instance__id": "web-7"}
    await written(
        tmp_path / "gateway-7.ndjson",
        started(1, http__request__method="GET"),
        attempt(1.5, upstream="reviews", **{name.replace("__", "."): value for name, value in waiting.items()}),
    )
    async with operator(tmp_path) as client:
        part = await client.get("/ops/?part=inflight")
    assert "GET /item/1" in said(part)
    assert 'href="/ops/trace?id=r1"' in markup(part)
    assert "<html" not in markup(part)


async def test_requests_whose_process_has_ended_are_counted_and_not_under_way(tmp_path: Path) -> None:
    await written(
        tmp_path / "gateway-7.ndjson", started(1), line("gateway.stopped", 2, **{"service.instance.id": "web-7"})
    )
    async with operator(tmp_path) as client:
        part = said(await client.get("/ops/?part=inflight"))
    assert part.startswith("none 1 lost")
    assert "/item/1" not in part


async def test_with_nothing_under_way_it_says_so(tmp_path: Path) -> None:
    await written(tmp_path / "gateway-7.ndjson", line("gateway.started"))
    async with operator(tmp_path) as client:
        assert said(await client.get("/ops/?part=inflight")) == "none"


# What is wanted


@pytest.mark.parametrize(
    ("level", "conditions", "holds"),
    [
        ("", (), True),
        ("warning", (), True),
        ("error", (), False),
        ("nonsense", (), True),
        ("", ("duration_ms>9",), True),
        ("", ("duration_ms>10",), False),
        ("warning", ("upstream=catalog", "outcome!=ok"), True),
    ],
)
def test_a_line_is_wanted_by_its_level_and_by_all_conditions(
    tmp_path: Path, level: str, conditions: tuple[str, ...], *, holds: bool
) -> None:
    which = wanted(tmp_path, level, conditions)
    assert which.holds(text([attempt(outcome="failed")]).rstrip(b"\n")) is holds


@pytest.mark.parametrize("garbage", [b"", b"not json", b"[1]", b'{"level":["x"],"timestamp":"t"}', b'{"half":'])
def test_what_is_no_line_is_seen_by_those_who_want_everything_only(tmp_path: Path, garbage: bytes) -> None:
    assert wanted(tmp_path, "", ()).holds(garbage)
    assert not wanted(tmp_path, "info", ()).holds(garbage)
