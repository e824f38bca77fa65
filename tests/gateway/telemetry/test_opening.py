"""Telemetry is imported where it is wanted, said to be missing where it is not installed, and costs nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.program import program, write_project

NOBODY = {"shop": "http://127.0.0.1:1"}
IMPORTED = """
import asyncio, sys
import gateway.asgi
from gateway.serving.lifespan import worker

async def work():
    async with worker():
        print(sorted({name.partition(".")[0] for name in sys.modules} & {"prometheus_client", "opentelemetry"}))

asyncio.run(work())
"""


@pytest.mark.parametrize(
    ("wanted", "imported"),
    [
        ({}, []),
        ({"GATEWAY_METRICS": "yes"}, ["prometheus_client"]),
        ({"GATEWAY_OTLP_ENDPOINT": "http://127.0.0.1:1"}, ["opentelemetry"]),
    ],
    ids=["nothing", "metrics", "spans"],
)
async def test_a_worker_imports_only_what_its_settings_switch_on(
    wanted: dict[str, str], imported: list[str], tmp_path: Path
) -> None:
    async with program("-c", IMPORTED, environment=write_project(tmp_path, NOBODY) | wanted) as worker:
        ended = await worker.ends()

    assert (ended.code, ended.err) == (0, "")
    assert str(imported) in ended.out.splitlines()


WITHOUT = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"prometheus_client", "opentelemetry"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
sys.argv[0] = "manage.py"
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "serve", "--port", "0"])
"""


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("GATEWAY_METRICS", "yes", "GATEWAY_METRICS needs prometheus_client: install tributary[metrics]"),
        (
            "GATEWAY_OTLP_ENDPOINT",
            "http://collector:4318",
            "GATEWAY_OTLP_ENDPOINT needs opentelemetry.exporter.otlp.proto.http: install tributary[otel]",
        ),
    ],
)
async def test_what_needs_an_extra_that_is_not_there_stops_the_start_and_names_it(
    variable: str, value: str, said: str, tmp_path: Path
) -> None:
    environment = write_project(tmp_path, NOBODY) | {variable: value}
    async with program("-c", WITHOUT, environment=environment) as server:
        ended = await server.ends()

    assert ended.code == 1
    assert said in ended.err
    assert "Traceback" not in ended.err
