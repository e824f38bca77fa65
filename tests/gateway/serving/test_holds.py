"""Holds on breakers: what the file says, every worker follows, and it says so in the log."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import aiohttp
import msgspec
import pytest
from django.urls import path

from gateway import call
from gateway.serving.holds import Hold, hold, holds
from tests.conftest import StartStub
from tests.logs import Log
from tests.serving import PatientPage, Served, served
from tests.stub import Answered, Stub
from tests.ways import until
from upstreams import GET, JSON, Breaker, Request, Upstream

ASKED = 4


class Page(PatientPage):
    @call("shop")
    def item(self) -> Request[JSON]:
        return GET("/item")


async def status(gateway: Served) -> int:
    async with aiohttp.ClientSession() as client, client.get(f"{gateway.url}/page") as answer:
        return answer.status


async def changed(log: Log, to: str) -> dict[str, object]:
    """Wait for a breaker's last change; returns its event."""
    await until(lambda: [event["to"] for event in log.events("breaker.changed")][-1:] == [to])
    return log.events("breaker.changed")[-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_holds_is_left_to_whom_the_folder_belongs_to(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    hold(tmp_path, "shop", Hold("open", "root at a terminal"))

    files = {path.name: path.stat() for path in tmp_path.iterdir()}
    assert files.keys() == {"breakers.json", ".breakers.json.lock"}
    assert {(file.st_uid, file.st_gid) for file in files.values()} == {(65534, 65534)}


def test_a_link_in_place_of_the_lock_leads_nowhere(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("precious")
    (tmp_path / ".breakers.json.lock").symlink_to(other)

    with pytest.raises(OSError, match="symbolic links"):
        hold(tmp_path, "shop", Hold("open", "ada at a terminal"))
    assert other.read_text() == "precious"


@pytest.mark.parametrize("breaker", [Breaker(), None])
async def test_a_breaker_is_held_open_until_it_is_let_go(
    stub: StartStub, log: Log, tmp_path: Path, breaker: Breaker | None
) -> None:
    server = await stub("shop")
    server.on("/item", {})
    upstreams = {"shop": Upstream(server.url, breaker=breaker)}
    async with served([path("page", Page.as_view())], upstreams, GATEWAY_CONTROL_DIR=tmp_path) as gateway:
        before = await status(gateway)
        await asyncio.to_thread(hold, tmp_path, "shop", Hold("open", "ada at a terminal"))
        event = await changed(log, "open")
        while_held = await status(gateway)
        await asyncio.to_thread(hold, tmp_path, "shop", None)
        await changed(log, "closed")
        after = await status(gateway)

    assert (before, while_held, after) == (200, 503, 200)
    assert event["reason"] == "forced by ada at a terminal"
    assert log.events("breaker.changed")[-1]["reason"] == "no longer forced"
    assert len(server.received) == 2


async def test_a_breaker_that_is_held_closed_lets_everything_through(stub: StartStub, log: Log, tmp_path: Path) -> None:
    server = await stub("shop")
    upstreams = {"shop": Upstream(server.url, retry=None, breaker=Breaker(minimum_calls=1))}
    await asyncio.to_thread(hold, tmp_path, "shop", Hold("closed", "ada"))
    async with served([path("page", Page.as_view())], upstreams, GATEWAY_CONTROL_DIR=tmp_path) as gateway:
        server.on("/item", Answered(None, 500))
        answers = [await status(gateway) for _ in range(ASKED)]

    assert answers == [502] * ASKED
    assert len(server.received) == ASKED
    assert [event["to"] for event in log.events("breaker.changed")] == ["closed"]


async def test_a_worker_that_starts_finds_what_is_held(stub: StartStub, log: Log, tmp_path: Path) -> None:
    server = await stub("shop")
    await asyncio.to_thread(hold, tmp_path, "shop", Hold("open", "ada", time.time() + 3600))
    async with served([path("page", Page.as_view())], {"shop": server}, GATEWAY_CONTROL_DIR=tmp_path) as gateway:
        answered = await status(gateway)

    assert (answered, len(server.received)) == (503, 0)
    (event,) = log.events("breaker.changed")
    assert 3_500_000 < event["open_ms"] <= 3_600_000


async def test_a_hold_whose_time_is_over_ends_by_itself(stub: StartStub, log: Log, tmp_path: Path) -> None:
    server = await stub("shop")
    server.on("/item", {})
    await asyncio.to_thread(hold, tmp_path, "shop", Hold("open", "ada", time.time() + 1.5))
    async with served([path("page", Page.as_view())], {"shop": server}, GATEWAY_CONTROL_DIR=tmp_path) as gateway:
        await changed(log, "closed")
        answered = await status(gateway)

    assert answered == 200
    assert log.events("breaker.changed")[-1]["reason"] == "no longer forced (its time is over)"


@pytest.mark.parametrize("damaged", [b'{"shop": {"state": "ajar"}}', b'{"shop": {"state": "open", "by": "Zo\xeb"}}'])
async def test_a_file_that_cannot_be_read_changes_nothing_and_is_complained_of_once(
    stub: StartStub, log: Log, tmp_path: Path, damaged: bytes
) -> None:
    server = await stub("shop")
    server.on("/item", {})
    await asyncio.to_thread(hold, tmp_path, "shop", Hold("open", "ada"))
    async with served([path("page", Page.as_view())], {"shop": server}, GATEWAY_CONTROL_DIR=tmp_path) as gateway:
        await asyncio.to_thread((tmp_path / "breakers.json").write_bytes, damaged)
        await until(lambda: bool(log.events("log.recorded", level="warning")))
        held = await status(gateway)
        await asyncio.to_thread(hold, tmp_path, "shop", None)
        await changed(log, "closed")

    assert held == 503
    assert len(log.events("log.recorded", level="warning")) == 1


async def test_an_upstream_that_this_project_has_not_is_nobodys_business(stub: StartStub, tmp_path: Path) -> None:
    server: Stub = await stub("shop")
    server.on("/item", {})
    await asyncio.to_thread(hold, tmp_path, "of-another-gateway", Hold("open", "ada"))
    async with served([path("page", Page.as_view())], {"shop": server}, GATEWAY_CONTROL_DIR=tmp_path) as gateway:
        assert await status(gateway) == 200


def test_holds_are_kept_apart_and_those_that_are_over_are_forgotten(tmp_path: Path) -> None:
    hold(tmp_path / "made", "users", Hold("open", "ada"))
    hold(tmp_path / "made", "orders", Hold("closed", "bob", time.time() - 1))
    hold(tmp_path / "made", "catalog", Hold("closed", "bob", time.time() + 60))
    hold(tmp_path / "made", "users", Hold("closed", "eve"))

    found = holds(tmp_path / "made")
    assert {name: (held.state, held.by) for name, held in found.items()} == {
        "catalog": ("closed", "bob"),
        "users": ("closed", "eve"),
    }
    assert list(msgspec.json.decode((tmp_path / "made" / "breakers.json").read_bytes())) == ["catalog", "users"]


def test_a_folder_without_the_file_holds_nothing(tmp_path: Path) -> None:
    assert holds(tmp_path) == {}
