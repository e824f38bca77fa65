"""`manage.py serve`: it starts only when all is well, and stops only when all is answered."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from django.core.management import CommandError, call_command

from tests.conftest import StartStub
from tests.gateway.shop import ROUTES
from tests.program import URLS, program, write_project
from tests.serving import project
from tests.stub import Gate
from upstreams import Upstream

SERVE = ("manage.py", "serve", "--port", "0")


async def test_it_refuses_to_start_with_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    environment = write_project(tmp_path, {"shop": "ftp://elsewhere", "other": "http://user:word@other"})
    async with program(*SERVE, environment=environment) as server:
        ended = await server.ends()

    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.splitlines() == [
        "CommandError: the gateway cannot start:",
        "  ?: (gateway.E001) UPSTREAMS cannot be used:",
        "  shop: url 'ftp://elsewhere' must start with http:// or https://",
        "  other: url 'http://***@other' holds a user name or password: send those in headers=",
        "\tHINT: Mend UPSTREAMS in the settings.",
    ]


async def test_a_server_that_is_not_ours_does_not_start_it_either(tmp_path: Path) -> None:
    environment = write_project(tmp_path, {"other": "http://other"})
    arguments = ("-m", "uvicorn", "gateway.asgi:application", "--lifespan", "on", "--port", "0", "--no-access-log")
    async with program(*arguments, environment=environment) as server:
        ended = await server.ends()

    assert ended.code == 3
    (said,) = [event for event in server.events("log.recorded") if "E002" in str(event["message"])]
    assert "Item.item names the upstream 'shop', which UPSTREAMS does not have." in str(said["message"])
    assert "Traceback" not in ended.out + ended.err


async def test_it_answers_what_is_under_way_before_it_stops(
    tmp_path: Path, stub: StartStub, client: aiohttp.ClientSession
) -> None:
    shop = await stub("shop")
    slow = Gate({"id": 7})
    shop.on("/items/7", slow)
    async with program(*SERVE, environment=write_project(tmp_path, {"shop": shop.url})) as server:
        asking = asyncio.create_task(client.get(f"{await server.base()}/items/7"))
        await slow.arrived.wait()
        server.told(signal.SIGTERM)
        await server.says("Shutting down")
        slow.open.set()
        async with await asking as answer:
            body = await answer.json()
        ended = await server.ends()

    assert (answer.status, body["data"]) == (200, {"item": {"id": 7}})
    assert ended.code == -signal.SIGTERM
    assert [len(server.events(name)) for name in ("gateway.started", "gateway.stopped")] == [1, 1]
    assert "Traceback" not in ended.out + ended.err
