"""The app at start: it lets go of the receivers that would cost every page a thread, and of no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from blockbuster import BlockBuster
from django.apps import apps
from django.core import signals
from django.core.cache import close_caches
from django.db import close_old_connections, reset_queries
from django.dispatch import Signal
from django.test import override_settings

from tests.program import program, write_project
from tests.stub import serving_stub

SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
DUMMY = {"ENGINE": "django.db.backends.dummy"}
REDIS = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://nobody"}
LOCAL = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
CONNECTED = [
    (signals.request_started, reset_queries),
    (signals.request_started, close_old_connections),
    (signals.request_finished, close_old_connections),
    (signals.request_finished, close_caches),
]


@pytest.fixture
def as_django_connects_them() -> Iterator[list[tuple[Signal, Any]]]:
    for signal, receiver in CONNECTED:
        signal.connect(receiver)
    yield CONNECTED
    for signal, receiver in CONNECTED:
        signal.disconnect(receiver)


@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        pytest.param({"DATABASES": {}}, [False, False, False, False], id="nothing"),
        pytest.param({"DATABASES": {"default": {}}}, [False, False, False, False], id="no engine"),
        pytest.param({"DATABASES": {"default": DUMMY}}, [False, False, False, False], id="dummy"),
        pytest.param({"DATABASES": {"default": SQLITE}}, [True, True, True, False], id="database"),
        pytest.param({"DATABASES": {"default": DUMMY, "b": SQLITE}}, [True, True, True, False], id="second database"),
        pytest.param({"CACHES": {"default": LOCAL}}, [False, False, False, False], id="cache in memory"),
        pytest.param({"CACHES": {"default": LOCAL, "b": REDIS}}, [False, False, False, True], id="cache elsewhere"),
    ],
)
def test_receivers_are_kept_where_there_is_something_to_look_after(
    as_django_connects_them: list[tuple[Signal, Any]], settings: dict[str, Any], kept: list[bool]
) -> None:
    with override_settings(**settings):
        apps.get_app_config("gateway").ready()

    assert [signal.disconnect(receiver) for signal, receiver in as_django_connects_them] == kept


async def test_a_project_with_a_database_serves_its_pages(
    tmp_path: Path, no_blocking_on_the_loop: BlockBuster, client: aiohttp.ClientSession
) -> None:
    for function in no_blocking_on_the_loop.functions.values():
        function.can_block_in("tests/program.py", {"write_project", "program"})
    async with serving_stub("shop") as shop:
        shop.on("/items/7", {"id": 7})
        environment = write_project(tmp_path, {"shop": shop.url}, settings=f"DATABASES = {{'default': {SQLITE}}}")
        async with program("manage.py", "serve", "--port", "0", environment=environment) as server:
            base = await server.base()
            statuses = []
            for where in ("/items/7", "/items/8", "/nowhere"):
                async with client.get(base + where) as answer:
                    statuses.append(answer.status)

    assert statuses == [200, 502, 404]
