"""What `/metrics` tells is what happened: to whom it may be told, in whose words, and of all workers together."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from django.urls import path
from prometheus_client import REGISTRY, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from gateway import call, fan_out
from gateway.asgi import Application
from gateway.log import events
from gateway.log.observers import observers
from gateway.log.writer import Queue
from gateway.telemetry.metrics import Metrics
from tests.conftest import StartStub
from tests.gateway.shop import ROUTES
from tests.gateway.test_connections import connected
from tests.logs import Log
from tests.program import program, write_project
from tests.serving import PatientPage, gateway, project
from tests.stub import Answered, Gate, Turns, serving_stub
from tests.ways import until
from upstreams import GET, JSON, Breaker, Ejection, Hedge, Request, Retry, Upstream

NOBODY = {"shop": Upstream("http://127.0.0.1:1")}
AT_ONCE = Retry(first_wait=0.0, longest_wait=0.0)
Labels = dict[str, str]


class Metered:
    """A text of metrics, as its reader finds samples in it."""

    def __init__(self, text: str, read: Any = plain_text) -> None:
        self.families = {family.name: family for family in read(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of a name's samples that have these labels."""
        return float(sum(sample.value for sample in self.found(name, **labels)))

    def found(self, name: str, **labels: str) -> Iterator[Any]:
        return (
            sample
            for sample in self.samples
            if sample.name == name and labels.items() <= {key: sample.labels.get(key) for key in labels}.items()
        )

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the values of a name by these labels, which are all it has."""
        assert all(sample.labels.keys() == set(labels) for sample in self.found(name))
        return {tuple(sample.labels[label] for label in labels): sample.value for sample in self.found(name)}

    def labels(self, name: str, **labels: str) -> list[Labels]:
        return [sample.labels for sample in self.found(name, **labels)]


async def metrics_of(client: aiohttp.ClientSession, base: str, **headers: str) -> Metered:
    async with client.get(f"{base}/metrics", headers=headers) as answer:
        assert answer.status == 200
        return Metered(await answer.text())


async def metrics_at_rest(client: aiohttp.ClientSession, base: str) -> Metered:
    """Return the metrics once no request is active: a worker counts it out a moment after its client has the answer."""
    async with asyncio.timeout(60):
        while (found := await metrics_of(client, base)).value("http_server_active_requests"):
            pass
    return found


class Page(PatientPage):
    @call("shop")
    def item(self, item_id: int) -> Request[JSON]:
        return GET("/items/{id}", id=item_id)

    @call("shop", optional=True)
    def extra(self) -> Request[JSON]:
        return GET("/extra")

    @call("shop", optional=True)
    def more(self, extra: JSON) -> Request[JSON]:
        return GET("/more")


class Alone(PatientPage):
    @call("shop")
    def item(self, item_id: int) -> Request[JSON]:
        return GET("/items/{id}", id=item_id)


PAGES = [path("pages/<int:item_id>", Page.as_view()), path("alone/<int:item_id>", Alone.as_view())]
REQUESTS, ATTEMPTS = "http_server_request_duration_seconds_count", "http_client_request_duration_seconds_count"


async def test_requests_and_attempts_are_counted_by_how_they_ended(
    stub: StartStub, client: aiohttp.ClientSession
) -> None:
    server = (await stub("shop")).on("/items/7", Turns([{}, Answered(status=503), {}])).on("/more", {})
    server.on("/items/8", Answered(status=500)).on("/extra", Turns([{}, Answered(status=404)]))
    upstreams = {"shop": Upstream(server.url, retry=AT_ONCE, breaker=None)}
    async with gateway(PAGES, upstreams, GATEWAY_METRICS=True) as base:
        for target in ("pages/7", "pages/7", "alone/8", "nowhere"):
            async with client.get(f"{base}/{target}") as answer:
                await answer.read()
        async with client.post(f"{base}/pages/7") as answer:
            await answer.read()
        found = await metrics_of(client, base)

    page, alone, refused = "pages/<int:item_id>", "alone/<int:item_id>", "http_response_status"
    assert found.by(REQUESTS, "http_request_method", "http_route", "http_response_status_code", "error_type") == {
        ("GET", page, "200", ""): 2,
        ("GET", alone, "502", refused): 1,
        ("GET", "", "404", ""): 1,
        ("POST", page, "405", ""): 1,
    }
    labels = ("http_request_method", "http_response_status_code", "error_type", "kind")
    assert found.by(ATTEMPTS, "upstream", *labels) == {
        ("shop", "GET", "200", "", "first"): 3,
        ("shop", "GET", "503", refused, "first"): 1,
        ("shop", "GET", "200", "", "retry"): 1,
        ("shop", "GET", "404", refused, "first"): 1,
        ("shop", "GET", "500", refused, "first"): 1,
    }
    assert found.value(ATTEMPTS) == len(server.received)
    assert found.by("tributary_retries_total", "upstream", "reason") == {("shop", refused): 1}
    assert found.by("tributary_calls_skipped_total", "upstream") == {("shop",): 1}
    assert found.by("tributary_partial_answers_total", "http_route") == {(page,): 1}


async def test_durations_have_the_buckets_that_opentelemetry_advises(
    stub: StartStub, client: aiohttp.ClientSession
) -> None:
    server = (await stub("shop")).on("*", {})
    async with gateway(PAGES, {"shop": server}, GATEWAY_METRICS=True) as base:
        async with client.get(f"{base}/pages/7") as answer:
            await answer.read()
        found = await metrics_of(client, base)

    bounds = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, float("inf")]
    for name in ("http_server_request_duration_seconds", "http_client_request_duration_seconds"):
        (labels, *_) = found.labels(f"{name}_count")
        assert [float(bucket["le"]) for bucket in found.labels(f"{name}_bucket", **labels)] == bounds
        assert found.value(f"{name}_sum", **labels) > 0


async def test_a_request_is_active_until_its_answer_has_been_sent(client: aiohttp.ClientSession) -> None:
    gate = Gate({})
    async with serving_stub("shop") as server:
        server.on("*", gate)
        async with gateway(ROUTES, {"shop": server}, GATEWAY_METRICS=True) as base:
            asking = asyncio.create_task(client.get(f"{base}/items/7"))
            await gate.arrived.wait()
            during = await metrics_of(client, base)
            gate.open.set()
            async with await asking as answer:
                await answer.read()
            after = await metrics_at_rest(client, base)

    active = "http_server_active_requests"
    assert during.value(active, http_request_method="GET") == during.value(active) == 1
    assert after.by(active, "http_request_method")["GET",] == 0


async def test_what_a_client_makes_up_is_no_label(stub: StartStub, client: aiohttp.ClientSession) -> None:
    async with gateway(PAGES, NOBODY, GATEWAY_METRICS=True) as base:
        async with connected(base) as raw:
            for number, method in enumerate(("PURGE", "GET", "MKCOL")):
                await raw.send(method, f"/made/up/{number}")
                await raw.answer()
        found = await metrics_of(client, base)

    assert found.labels(REQUESTS) == [
        {"http_request_method": method, "http_route": "", "http_response_status_code": "404", "error_type": ""}
        for method in ("_OTHER", "GET")
    ]
    assert not any(word in str(found.samples) for word in ("made", "PURGE", "MKCOL"))


async def test_a_client_that_leaves_is_counted_as_one_that_left(client: aiohttp.ClientSession, log: Log) -> None:
    gate = Gate({})
    async with serving_stub("shop") as server:
        server.on("*", gate)
        async with gateway(ROUTES, {"shop": server}, GATEWAY_METRICS=True) as base:
            asking = asyncio.create_task(client.get(f"{base}/items/7"))
            await gate.arrived.wait()
            asking.cancel()
            await gate.left.wait()
            await until(lambda: bool(log.events("request.finished")))
            found = await metrics_of(client, base)

    assert [(labels["http_response_status_code"], labels["error_type"]) for labels in found.labels(REQUESTS)] == [
        ("", "disconnected")
    ]
    assert [(labels["http_response_status_code"], labels["error_type"]) for labels in found.labels(ATTEMPTS)] == [
        ("", "cancelled")
    ]


async def test_what_protects_an_upstream_is_told(stub: StartStub, client: aiohttp.ClientSession) -> None:
    down, up = (await stub("down")).on("*", Answered(status=500)), (await stub("up")).on("*", {})

    async def view(request: Any) -> Any:
        async with fan_out(request, deadline=60) as fan:
            twins = [fan.call("up", GET("/same"), JSON, optional=True) for _ in range(2)]
            for attempt in range(4):
                await fan.call("down", GET("/{n}", n=attempt), JSON, optional=True)
            await asyncio.gather(*twins)
            return fan.answer({})

    breaker = Breaker(minimum_calls=2, failure_rate=0.5)
    upstreams = {
        "down": Upstream(down.url, retry=None, breaker=breaker),
        "up": Upstream([up.url, "http://127.0.0.1:1"], retry=AT_ONCE, breaker=None, ejection=Ejection(failures=1)),
        "calm": Upstream("http://127.0.0.1:1"),
    }
    async with gateway([path("view", view)], upstreams, GATEWAY_METRICS=True) as base:
        before = await metrics_of(client, base)
        async with client.get(f"{base}/view") as answer:
            assert answer.status == 200
        found = await metrics_of(client, base)

    state = "tributary_breaker_state"
    assert {labels["upstream"]: before.value(state, **labels) for labels in before.labels(state)} == {
        "down": 0, "up": 0, "calm": 0,
    }  # fmt: skip
    assert [found.value(state, upstream=name) for name in ("down", "up", "calm")] == [2, 0, 0]
    assert found.value("tributary_breaker_changes_total", upstream="down", to="open") == 1
    assert found.value("tributary_calls_coalesced_total", upstream="up") == 1
    assert before.labels("tributary_calls_coalesced_total") == [{"upstream": name} for name in upstreams]


async def test_a_hedge_is_an_attempt_and_counted_beside(client: aiohttp.ClientSession) -> None:
    gate = Gate({})
    async with serving_stub("shop") as server:
        server.on("*", Turns([gate, {}]))
        upstreams = {"shop": Upstream(server.url, hedge=Hedge(after=0.01))}
        async with gateway(ROUTES, upstreams, GATEWAY_METRICS=True) as base:
            async with client.get(f"{base}/items/7") as answer:
                assert answer.status == 200
            found = await metrics_of(client, base)

    assert found.value("tributary_hedges_total", upstream="shop") == 1
    assert sorted(labels["kind"] for labels in found.labels(ATTEMPTS)) == ["first", "hedge"]
    assert sorted(labels["error_type"] for labels in found.labels(ATTEMPTS)) == ["", "cancelled"]


@pytest.mark.parametrize(
    ("tell", "name", "labels", "value"),
    [
        (
            lambda: events.host_ejected("shop", "10.0.0.1:80", "5 attempts in a row failed", 30.0),
            "tributary_hosts_ejected_total",
            {"upstream": "shop", "server_address": "10.0.0.1:80"},
            1,
        ),
        (
            lambda: events.breaker_changed("shop", "open", "half_open", "the open time is over", None),
            "tributary_breaker_state",
            {"upstream": "shop"},
            1,
        ),
        (
            lambda: events.spans_dropped(count=7, waiting=0, reason="the queue is full"),
            "tributary_spans_dropped_total",
            {},
            7,
        ),
        (
            lambda: events.requests_shed(route="page", count=7, waiting=3),
            "tributary_requests_shed_total",
            {"http_route": "page"},
            7,
        ),
        (
            lambda: events.call_skipped(call="a", upstream="", because="b"),
            "tributary_calls_skipped_total",
            {"upstream": ""},
            1,
        ),
    ],
    ids=["host ejected", "breaker half open", "spans dropped", "requests shed", "a part skipped"],
)
def test_an_event_is_counted(tell: Any, name: str, labels: Labels, value: float) -> None:
    counted = Metrics(["shop"])
    try:
        with observers.telling(counted.hear):
            tell()
        assert Metered(counted.render("")[1].decode()).value(name, **labels) == value
    finally:
        counted.close()


class Full:
    """An output that takes nothing, not even the report of it."""

    name = "file"

    def begin(self) -> None: ...

    def write(self, lines: list[bytes]) -> int:
        return len(lines)

    def forget(self) -> None: ...

    def close(self) -> None: ...


def test_a_lost_log_line_is_counted_once_however_often_it_is_reported() -> None:
    counted = Metrics([])
    queue = Queue(Full(), events.log_dropped)
    try:
        with observers.telling(counted.hear):
            for lines in ([b"{}", b"{}"], [b"{}"], [b"{}"]):
                for line in lines:
                    queue.write(line)
                assert queue.written().wait(60)
        found = Metered(counted.render("")[1].decode())
        assert found.by("tributary_log_lines_dropped_total", "sink") == {("file",): 4}
    finally:
        queue.close()
        counted.close()


def test_a_version_that_is_none_is_answered_as_text() -> None:
    counted = Metrics([])
    try:
        content_type, text = counted.render("application/openmetrics-text; version=abc")
    finally:
        counted.close()
    assert content_type.startswith("text/plain")
    assert b"tributary_" in text


class TestWhoMayRead:
    async def test_nobody_where_they_are_not_switched_on(self, client: aiohttp.ClientSession) -> None:
        async with gateway(ROUTES, NOBODY) as base, client.get(f"{base}/metrics") as answer:
            assert answer.status == 404

    @pytest.mark.parametrize(
        ("given", "status"),
        [
            (None, 401),
            ("", 401),
            ("Bearer", 401),
            ("Bearer s3cre", 401),
            ("Bearer s3cret2", 401),
            ("Basic s3cret", 401),
            ("s3cret", 401),
            ("Bearer s3cret", 200),
            ("bearer  s3cret", 200),
        ],
    )
    async def test_those_with_the_token_where_there_is_one(
        self, given: str | None, status: int, client: aiohttp.ClientSession
    ) -> None:
        headers = {} if given is None else {"Authorization": given}
        settings: dict[str, Any] = {"GATEWAY_METRICS": True, "GATEWAY_METRICS_TOKEN": "s3cret"}
        async with gateway(ROUTES, NOBODY, **settings) as base:
            async with client.get(f"{base}/metrics", headers=headers) as answer:
                text = await answer.text()
            async with client.get(f"{base}/healthz") as open_to_all:
                assert open_to_all.status == 200

        assert answer.status == status
        assert answer.headers.get("WWW-Authenticate") == (None if status == 200 else "Bearer")
        assert ("http_server" in text) == (status == 200)

    async def test_a_worker_that_is_not_open_has_none(self) -> None:
        sent: list[Mapping[str, Any]] = []

        async def send(message: Mapping[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": [], "state": {}}
        with project(ROUTES, NOBODY, GATEWAY_METRICS=True):
            await Application()(scope, None, send)  # type: ignore[arg-type]

        assert sent[0]["status"] == 503


class TestTheText:
    async def test_is_of_the_kind_that_is_accepted(self, client: aiohttp.ClientSession) -> None:
        async with gateway(ROUTES, NOBODY, GATEWAY_METRICS=True) as base:
            async with client.get(f"{base}/metrics") as plain:
                classic = await plain.text()
            accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
            async with client.get(f"{base}/metrics", headers=accept) as answer:
                modern = await answer.text()
            async with client.head(f"{base}/metrics") as bare:
                assert (bare.status, await bare.read()) == (200, b"")

        assert plain.content_type == "text/plain"
        assert answer.content_type == "application/openmetrics-text"
        assert plain.headers["Vary"] == "Accept"
        assert plain.headers["Cache-Control"] == "no-store"
        assert "tributary_breaker_state" in Metered(classic).families
        assert "tributary_breaker_state" in Metered(modern, open_metrics).families

    async def test_has_a_projects_own_metrics_too(self, client: aiohttp.ClientSession) -> None:
        own = Counter("carts_abandoned", "Carts.")
        try:
            async with gateway(ROUTES, NOBODY, GATEWAY_METRICS=True) as base:
                own.inc()
                found = await metrics_of(client, base)
        finally:
            REGISTRY.unregister(own)

        assert found.value("carts_abandoned_total") == 1

    async def test_asking_for_it_is_neither_logged_nor_counted(self, client: aiohttp.ClientSession, log: Log) -> None:
        async with gateway(ROUTES, NOBODY, GATEWAY_METRICS=True) as base:
            await metrics_of(client, base)
            found = await metrics_of(client, base)

        assert found.labels(REQUESTS) == []
        assert found.value("http_server_active_requests") == 0
        assert log.events("request.started") == []


async def test_a_worker_that_has_closed_leaves_nothing_behind(client: aiohttp.ClientSession) -> None:
    for _ in range(2):
        async with gateway(ROUTES, NOBODY, GATEWAY_METRICS=True) as base:
            found = await metrics_of(client, base)
            assert found.value(REQUESTS) == 0
    assert observers.all == ()
    assert not [name for name in REGISTRY._names_to_collectors if name.startswith(("tributary_", "http_"))]


SERVE = ("manage.py", "serve", "--port", "0", "--workers", "2")


async def asked_by_new_connections(base: str, times: int) -> None:
    """Ask again and again, each time whichever worker takes the connection."""
    for _ in range(times):
        async with aiohttp.ClientSession() as session, session.get(f"{base}/items/7") as answer:
            assert answer.status == 200


async def test_two_workers_are_counted_together_and_one_that_was_killed_is_counted_on(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    async with serving_stub("shop") as shop:
        shop.on("*", {})
        environment = write_project(tmp_path, {"shop": shop.url}) | {"GATEWAY_METRICS": "yes", "TMPDIR": str(tmp_path)}
        async with program(*SERVE, environment=environment) as server:
            base = await server.base()
            await server.says("gateway.started", times=2)
            await asked_by_new_connections(base, 30)
            first = await metrics_at_rest(client, base)

            gate = Gate({})
            shop.on("/items/8", gate)
            hanging = asyncio.create_task(client.get(f"{base}/items/8"))
            await gate.arrived.wait()
            during = await metrics_of(client, base)
            for event in server.events("gateway.started"):
                os.kill(int(str(event["process.pid"])), signal.SIGKILL)
            with pytest.raises(aiohttp.ClientError):
                await hanging
            await server.says("gateway.started", times=4)
            await asked_by_new_connections(base, 10)
            second = await metrics_at_rest(client, base)
            server.told(signal.SIGTERM)
            ended = await server.ends()

    assert first.value(REQUESTS, http_route="items/<int:item_id>") == 30
    assert first.value(ATTEMPTS, upstream="shop") == 30
    assert during.value("http_server_active_requests") == 1
    assert second.value(REQUESTS) == 40
    assert second.labels("tributary_breaker_state") == [{"upstream": "shop"}]
    assert ended.code == 0
    assert not [name for name in await asyncio.to_thread(os.listdir, tmp_path) if name.startswith("gateway-metrics-")]


async def test_a_directory_for_metrics_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    environment = write_project(tmp_path, {"shop": "http://127.0.0.1:1"}) | {"GATEWAY_METRICS": "yes"}
    environment["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path / "nowhere")
    async with program("manage.py", "serve", "--port", "0", environment=environment) as server:
        ended = await server.ends()

    assert ended.code == 3
    assert "PROMETHEUS_MULTIPROC_DIR must name a directory that workers can write to" in ended.out


COUNTING = """
import asyncio
import gateway.asgi
from gateway.log import events
from gateway.serving.lifespan import worker

async def work():
    async with worker() as state:
        events.flight_joined("shop", "item", "item", "0af7651916cd43dd8448eb211c80319c")
        print(state["metrics"].render("")[1].decode())

asyncio.run(work())
"""


async def test_workers_of_any_server_count_together_in_the_directory_they_are_given(tmp_path: Path) -> None:
    environment = write_project(tmp_path, {"shop": "http://127.0.0.1:1"}) | {"GATEWAY_METRICS": "yes"}
    environment["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path)
    found: list[Metered] = []
    for _ in range(2):
        async with program("-c", COUNTING, environment=environment) as worker:
            ended = await worker.ends()
        assert (ended.code, ended.err) == (0, "")
        found.append(Metered("\n".join(line for line in ended.out.splitlines() if line[:1] != "{") + "\n"))

    assert [counted.value("tributary_calls_coalesced_total", upstream="shop") for counted in found] == [1, 2]
    assert found[1].labels("tributary_breaker_state") == [{"upstream": "shop"}]
