"""`manage.py runserver`: ASGI in development, with the code as it is now."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from io import StringIO
from pathlib import Path

import aiohttp
import pytest
from django.core.management import CommandError, call_command
from django.urls import path

from tests.gateway.shop import Item
from tests.program import URLS, program, write_project
from tests.serving import project
from tests.stub import serving_stub


async def test_a_mistake_that_is_mended_while_it_runs_is_served_mended(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    async with serving_stub("shop") as shop:
        shop.on("/items/7", {"id": 7})
        environment = write_project(tmp_path, {"shop": shop.url}, URLS.replace('call("shop")', 'call("shpo")'))
        async with program("manage.py", "runserver", "127.0.0.1:0", environment=environment) as server:
            await server.says("Item.item names the upstream 'shpo', which UPSTREAMS does not have.")

            while not server.said("changed, reloading"):  # a change before the first look at the files is not seen
                write_project(tmp_path, {"shop": shop.url}, URLS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(3):
                        await server.says("changed, reloading")
            base = await server.base()
            async with client.get(f"{base}/items/7", headers={"Accept": "application/jsonl"}) as answer:
                frames = (await answer.text()).splitlines()

            server.interrupted()
            ended = await server.ends()

    assert frames[1] == '{"call":"item","data":{"id":7}}'
    assert ended.code == 0
    assert "Fatal" not in ended.err


def test_without_reloading_a_mistake_ends_it() -> None:
    refused = pytest.raises(CommandError, match="names the upstream 'shop', which UPSTREAMS does not have")
    with project([path("<int:item_id>", Item.as_view())], {}), refused:
        call_command("runserver", "127.0.0.1:0", "--noreload", skip_checks=False, stdout=StringIO())
