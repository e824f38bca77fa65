"""Probes are answered in front of Django: by every worker that lives, and well only by one that is open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path, re_path

from gateway.asgi import Application
from gateway.serving.health import check_own_paths
from tests.gateway.shop import ROUTES
from tests.logs import Log
from tests.serving import gateway, project
from upstreams import Upstream

NOBODY = {"shop": Upstream("http://127.0.0.1:1")}


async def asked(path: str, method: str = "GET", **scope: Any) -> tuple[int, bytes]:
    """Ask an application that no server has opened."""
    sent: list[Mapping[str, Any]] = []

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> Mapping[str, Any]:
        raise AssertionError("a probe's body is not read")

    await Application()({"type": "http", "method": method, "path": path, "headers": [], **scope}, receive, send)
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize("probe", ["/healthz", "/readyz"])
async def test_an_open_worker_passes(probe: str, client: aiohttp.ClientSession, log: Log) -> None:
    async with gateway(ROUTES, NOBODY) as base, client.get(base + probe) as answer:
        body = await answer.read()

    assert (answer.status, body) == (200, b'{"status":"pass"}')
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("state", [{}, {"state": None}, {"state": {}}], ids=["none", "null", "empty"])
async def test_a_worker_that_is_not_open_lives_and_is_not_ready(state: dict[str, Any]) -> None:
    with project(ROUTES, NOBODY):
        assert await asked("/healthz", **state) == (200, b'{"status":"pass"}')
        assert await asked("/readyz", **state) == (503, b'{"status":"fail"}')


@pytest.mark.parametrize("probe", ["/healthz", "/readyz"])
async def test_a_probe_without_a_body_tells_the_same(probe: str, client: aiohttp.ClientSession) -> None:
    async with gateway(ROUTES, NOBODY) as base:
        async with client.get(base + probe) as whole:
            await whole.read()
        async with client.head(base + probe) as bare:
            body = await bare.read()

    assert (bare.status, body) == (200, b"")
    assert [bare.headers[name] for name in ("Content-Length", "Content-Type", "Cache-Control")] == [
        whole.headers[name] for name in ("Content-Length", "Content-Type", "Cache-Control")
    ]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PURGE"])
async def test_a_probe_is_only_read(method: str, client: aiohttp.ClientSession) -> None:
    async with gateway(ROUTES, NOBODY) as base, client.request(method, f"{base}/readyz", data=b"x") as answer:
        assert (answer.status, answer.headers["Allow"], await answer.read()) == (405, "GET, HEAD", b"")


async def test_probes_leave_no_trace_in_the_log_and_pass_through_no_middleware(
    client: aiohttp.ClientSession, log: Log
) -> None:
    async with gateway(ROUTES, NOBODY, ALLOWED_HOSTS=["shop.example"]) as base:
        for probe in ("/healthz", "/readyz"):
            async with client.get(base + probe) as answer:
                assert (answer.status, answer.headers.get("X-Request-ID")) == (200, None)
    assert log.events("request.started") == log.events("request.finished") == []


async def test_a_probe_is_found_below_the_path_a_server_is_mounted_at() -> None:
    with project(ROUTES, NOBODY):
        assert (await asked("/api/healthz", root_path="/api"))[0] == 200


async def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("mine")


async def test_other_paths_are_the_projects_own(client: aiohttp.ClientSession) -> None:
    routes = [path("healthz/", page), path("deep/healthz", page), path("metrics", page)]
    async with gateway(routes, NOBODY) as base:
        for target in ("healthz/", "deep/healthz", "metrics"):
            async with client.get(f"{base}/{target}") as answer:
                assert await answer.text() == "mine"


@pytest.mark.parametrize(
    ("metrics", "found"),
    [(False, ["/healthz", "/readyz"]), (True, ["/healthz", "/readyz", "/metrics"])],
    ids=["metrics are off", "metrics are on"],
)
def test_a_route_that_no_request_would_reach_is_warned_of(*, metrics: bool, found: list[str]) -> None:
    with project([re_path("^(healthz|readyz|metrics)$", page)], NOBODY), override_settings(GATEWAY_METRICS=metrics):
        warnings = check_own_paths()

    assert [(warning.id, warning.msg.split()[3].rstrip(",")) for warning in warnings] == [
        ("gateway.W004", path) for path in found
    ]


def test_a_project_that_routes_none_of_them_is_not_warned() -> None:
    with project(ROUTES, NOBODY):
        assert check_own_paths() == []
    with override_settings(ROOT_URLCONF=None):
        assert check_own_paths() == []
