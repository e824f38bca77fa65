"""A trace at the collector is what happened: one span for the request and one for each attempt, by the log's ids."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from django.urls import path

import gateway.telemetry.spans as subject
from gateway import __version__, call
from tests.conftest import StartStub
from tests.gateway.shop import ROUTES
from tests.gateway.telemetry.collector import Collector, collecting
from tests.logs import CANARY, Log
from tests.program import program, write_project
from tests.serving import PatientPage, Table, gateway
from tests.stub import Answered, Gate, Turns, serving_stub
from upstreams import GET, JSON, POST, Hedge, Request, Retry, Upstream

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01"}, {"traceparent": f"00-{TRACE}-{SPAN}-00"}
AT_ONCE = Retry(first_wait=0.0, longest_wait=0.0)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has been told of proxies, the collector here is reached without."""
    monkeypatch.setenv("NO_PROXY", "*")


class Profile(PatientPage):
    @call("users")
    def user(self, user_id: int) -> Request[JSON]:
        return GET("/users/{id}", id=user_id)

    @call("orders")
    def orders(self, user: JSON) -> Request[JSON]:
        return GET("/orders")


PAGES = [path("profiles/<int:user_id>", Profile.as_view())]


@asynccontextmanager
async def exporting(routes: Sequence[Any], upstreams: Table, **settings: Any) -> AsyncIterator[tuple[str, Collector]]:
    """Serve a project that exports: its base URL, and the collector, which has everything when the block has ended."""
    async with (
        collecting() as collector,
        gateway(routes, upstreams, GATEWAY_OTLP_ENDPOINT=collector.url, **settings) as base,
    ):
        yield base, collector


async def traced(client: aiohttp.ClientSession, url: str, **headers: str) -> int:
    async with client.get(url, headers=headers) as answer:
        await answer.read()
        return answer.status


async def test_a_request_is_a_span_and_each_attempt_is_a_child_of_it(
    stub: StartStub, client: aiohttp.ClientSession, log: Log
) -> None:
    users = (await stub("users")).on("*", Turns([Answered(status=503), {"id": 7}]))
    orders = (await stub("orders")).on("*", [])
    upstreams = {"users": Upstream(users.url, retry=AT_ONCE), "orders": Upstream(orders.url)}
    before = time.time_ns()
    async with exporting(PAGES, upstreams, GATEWAY_NAME="edge-1") as (base, collector):
        assert await traced(client, f"{base}/profiles/7?q={CANARY}", **SAMPLED, Authorization=CANARY) == 200
    spans = request, first, second, third = collector.sorted()

    assert [(span.name, span.kind) for span in spans] == [
        ("GET profiles/<int:user_id>", "SERVER"),
        ("users user", "CLIENT"),
        ("users user", "CLIENT"),
        ("orders orders", "CLIENT"),
    ]
    assert {span.trace_id for span in spans} == {TRACE}
    assert request.parent_id == SPAN
    assert {span.parent_id for span in spans[1:]} == {request.span_id}
    sent = [asked.headers["traceparent"] for asked in (*users.received, *orders.received)]
    assert sent == [f"00-{TRACE}-{span.span_id}-01" for span in spans[1:]]
    (finished,) = log.events("request.finished")
    assert (finished["span_id"], finished["parent_span_id"]) == (request.span_id, SPAN)

    assert before <= request.start
    for earlier, later in ((request, first), (first, second), (second, third)):
        assert earlier.start <= later.start <= later.end <= request.end <= time.time_ns()
    assert first.end <= second.start <= second.end <= third.start
    assert [span.attributes.get("http.request.resend_count") for span in spans] == [None, None, 1, None]
    assert [span.failed for span in spans] == [False, True, False, False]
    assert [span.attributes.get("error.type") for span in spans] == [None, "http_response_status", None, None]
    assert CANARY not in str(spans)

    port = int(users.url.rpartition(":")[2])
    assert request.attributes == {
        "http.request.method": "GET",
        "http.route": "profiles/<int:user_id>",
        "url.path": "/profiles/7",
        "http.response.status_code": 200,
        "tributary.outcome": "ok",
        "tributary.page": finished["page"],
        "tributary.request_id": TRACE,
    }
    assert first.attributes == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": port,
        "http.response.status_code": 503,
        "error.type": "http_response_status",
        "tributary.upstream": "users",
        "tributary.call": "user",
        "tributary.connection": "new",
        "tributary.outcome": "failed",
    }
    assert third.attributes == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": int(orders.url.rpartition(":")[2]),
        "http.response.status_code": 200,
        "tributary.upstream": "orders",
        "tributary.call": "orders",
        "tributary.connection": "new",
    }
    assert second.attributes["tributary.kind"] == "retry"
    assert request.resource == {
        "service.name": "edge-1",
        "service.version": __version__,
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
    }


async def test_without_a_clients_trace_the_request_is_the_root(client: aiohttp.ClientSession, log: Log) -> None:
    async with exporting(PAGES, {"users": NOBODY, "orders": NOBODY}) as (base, collector):
        assert await traced(client, f"{base}/nowhere") == 404

    (root,) = collector.spans
    (finished,) = log.events("request.finished")
    assert (root.name, root.parent_id, root.failed) == ("GET", "", False)
    assert (root.trace_id, root.span_id) == (finished["trace_id"], finished["span_id"])
    assert "parent_span_id" not in finished


NOBODY = Upstream("http://127.0.0.1:1", retry=None)


async def test_a_failed_page_is_a_failed_span_by_the_word_of_the_answer(client: aiohttp.ClientSession) -> None:
    async with exporting(PAGES, {"users": NOBODY, "orders": NOBODY}) as (base, collector):
        assert await traced(client, f"{base}/profiles/7") == 502

    spans = collector.sorted()
    assert [(span.kind, span.failed, span.attributes["error.type"]) for span in spans] == [
        ("SERVER", True, "connection_refused"),
        ("CLIENT", True, "connection_refused"),
    ]
    assert spans[1].attributes["tributary.sent"] is False
    assert (spans[1].attributes["server.address"], spans[1].attributes["server.port"]) == ("127.0.0.1", 1)


async def test_a_trace_that_is_not_sampled_is_not_exported(stub: StartStub, client: aiohttp.ClientSession) -> None:
    upstreams = {name: (await stub(name)).on("*", {}) for name in ("users", "orders")}
    async with exporting(PAGES, upstreams) as (base, collector):
        assert await traced(client, f"{base}/profiles/7", **UNSAMPLED) == 200
        assert await traced(client, f"{base}/profiles/7") == 200

    assert [span.kind for span in collector.sorted()] == ["SERVER", "CLIENT", "CLIENT"]
    assert TRACE not in {span.trace_id for span in collector.spans}


async def test_a_hedge_is_a_resend_and_the_one_it_overtook_was_cancelled(client: aiohttp.ClientSession) -> None:
    gate = Gate({})
    async with serving_stub("shop") as server, collecting() as collector:
        server.on("*", Turns([gate, {}]))
        upstreams = {
            "shop": Upstream([server.url, server.url.replace("127.0.0.1", "localhost")], hedge=Hedge(after=0.01))
        }
        async with gateway(ROUTES, upstreams, GATEWAY_OTLP_ENDPOINT=collector.url) as base:
            assert await traced(client, f"{base}/items/7") == 200

    request, *spans = collector.sorted()
    resends = {
        span.attributes.get("tributary.kind"): span.attributes.get("http.request.resend_count") for span in spans
    }
    assert resends == {None: None, "hedge": 1}
    assert {span.attributes.get("tributary.outcome") for span in spans} == {"cancelled", None}
    assert [span.failed for span in (request, *spans)] == [False] * 3
    assert {(span.attributes["server.address"], span.attributes["server.port"]) for span in spans} == {
        (name, int(server.url.rpartition(":")[2])) for name in ("127.0.0.1", "localhost")
    }


class Write(PatientPage):
    methods = ("POST",)

    @call("shop")
    def placed(self) -> Request[JSON]:
        return POST("/orders", json={})


async def test_a_write_that_outlives_its_client_is_exported_with_its_trace(client: aiohttp.ClientSession) -> None:
    gate = Gate({})
    async with serving_stub("shop") as server, collecting() as collector:
        server.on("*", gate)
        async with gateway(
            [path("orders", Write.as_view())], {"shop": server}, GATEWAY_OTLP_ENDPOINT=collector.url
        ) as base:
            asking = asyncio.create_task(client.post(f"{base}/orders", headers=SAMPLED))
            await gate.arrived.wait()
            asking.cancel()
            (request,) = await collector.sent(1)
            gate.open.set()
    (left, write) = collector.sorted()

    assert left == request
    assert (left.attributes["tributary.outcome"], left.failed) == ("disconnected", False)
    assert (write.trace_id, write.parent_id) == (TRACE, left.span_id)
    assert (write.failed, write.attributes["http.response.status_code"]) == (False, 200)
    assert write.end > left.end


async def test_a_method_that_a_client_made_up_names_no_span(client: aiohttp.ClientSession) -> None:
    async with exporting([], {}) as (base, collector), client.request("PURGE", f"{base}/nowhere") as answer:
        await answer.read()

    (span,) = collector.spans
    assert (span.name, span.attributes["http.request.method"]) == ("HTTP", "_OTHER")


async def test_the_operators_words_for_the_service_go_before_ours(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-edge")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=7")
    async with exporting([], {}) as (base, collector):
        await traced(client, f"{base}/nowhere")

    (span,) = collector.spans
    assert (span.resource["service.name"], span.resource["deployment.environment.name"]) == ("shop-edge", "staging")
    assert collector.asked[0]["x-tenant"] == "7"


class TestACollectorInTrouble:
    """It costs requests nothing, is said once, and what it did not take is counted."""

    async def test_that_is_away_is_said_with_the_reason_and_the_count(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log
    ) -> None:
        upstreams = {name: (await stub(name)).on("*", {}) for name in ("users", "orders")}
        async with asyncio.timeout(60):
            async with gateway(PAGES, upstreams, GATEWAY_OTLP_ENDPOINT="http://127.0.0.1:1") as base:
                for _ in range(5):
                    assert await traced(client, f"{base}/profiles/7") == 200

        dropped = log.events("spans.dropped")
        assert sum(event["count"] for event in dropped) == 15
        assert len(dropped) <= 2
        assert (dropped[-1]["level"], dropped[-1]["waiting"]) == ("warning", 0)
        assert "refused" in dropped[0]["reason"]
        assert log.events("log.recorded", level="error") == []
        assert len(log.events("gateway.stopped")) == 1

    async def test_that_refuses_is_said_with_its_status(self, client: aiohttp.ClientSession, log: Log) -> None:
        async with collecting() as collector:
            collector.status = 400
            async with gateway([], {}, GATEWAY_OTLP_ENDPOINT=collector.url) as base:
                for _ in range(3):
                    await traced(client, f"{base}/nowhere")
                await collector.tried(1)

        dropped = log.events("spans.dropped")
        assert sum(event["count"] for event in dropped) == 3
        assert len(dropped) <= 2
        assert "400" in dropped[0]["reason"]
        assert collector.spans == []

    async def test_that_never_answers_does_not_hold_up_the_stop(
        self, client: aiohttp.ClientSession, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
        async with collecting() as collector:
            collector.open.clear()
            async with asyncio.timeout(60):
                async with gateway([], {}, GATEWAY_OTLP_ENDPOINT=collector.url) as base:
                    await traced(client, f"{base}/nowhere")
                    await collector.tried(1)
                    await traced(client, f"{base}/nowhere")
            stopped = log.events("spans.dropped")
            collector.open.set()

        assert [(event["count"], event["reason"]) for event in stopped] == [
            (2, "the collector did not take them in time")
        ]

    async def test_that_is_too_slow_costs_spans_and_no_memory(self, client: aiohttp.ClientSession, log: Log) -> None:
        async with collecting() as collector:
            exporter = subject._Exporter(f"{collector.url}/v1/traces")
            admitted = [exporter.admits() for _ in range(subject._QUEUE_SPANS + 3)]
            exporter.report()
            exporter.report()
            exporter.shutdown()

        assert admitted.count(False) == 3
        assert admitted[-3:] == [False] * 3
        assert [(event["count"], event["reason"]) for event in log.events("spans.dropped")] == [
            (3, "the queue is full")
        ]


async def test_spans_of_a_stopped_process_have_all_arrived(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    async with serving_stub("shop") as shop, collecting() as collector:
        shop.on("*", {})
        environment = write_project(tmp_path, {"shop": shop.url}) | {"GATEWAY_OTLP_ENDPOINT": collector.url}
        async with program("manage.py", "serve", "--port", "0", "--workers", "2", environment=environment) as server:
            base = await server.base()
            await server.says("gateway.started", times=2)
            for _ in range(20):
                assert await traced(client, f"{base}/items/7", Connection="close") == 200
            server.told(signal.SIGTERM)
            ended = await server.ends()

    assert ended.code == 0
    kinds = [span.kind for span in collector.spans]
    assert (kinds.count("SERVER"), kinds.count("CLIENT")) == (20, 20)
    assert {span.parent_id for span in collector.spans if span.kind == "CLIENT"} == {
        span.span_id for span in collector.spans if span.kind == "SERVER"
    }
