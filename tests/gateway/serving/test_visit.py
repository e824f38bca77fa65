"""One request from arrival to answer: its identity, and its one wide line in the log, whatever its ending."""

from __future__ import annotations

import asyncio
import enum
import re
from collections.abc import Iterator

import aiohttp
import msgspec
import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from gateway import Problem, call, fan_out
from gateway.log.setup import holding
from gateway.serving.visit import Visit, inbound_of
from tests.conftest import StartStub
from tests.logs import CANARY, Log
from tests.serving import SLOW, PatientPage, gateway
from tests.stub import Answered, Gate, Turns, serving_stub
from upstreams import GET, JSON, POST, Request, Upstream

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
MADE = re.compile(r"[0-9a-f]{32}")


class Page(PatientPage):
    @call("all")
    def thing(self) -> Request[JSON]:
        return GET("/thing")

    @call("all", optional=True)
    def extra(self) -> Request[JSON]:
        return GET("/extra")


class TestIdentity:
    @pytest.mark.parametrize(
        "given", ["a", "0", "A-b_c.9", "-", ".", "x" * 128, "018f2e7c-5a3b-7cc0-9d5e-2f1a3b4c5d6e", TRACE]
    )
    def test_a_request_id_that_can_be_logged_is_taken(self, given: str) -> None:
        assert inbound_of({"x-request-id": given}).request_id == given

    @pytest.mark.parametrize(
        "given",
        [
            "",
            " ",
            "a b",
            "x" * 129,
            "a\r\nX-Evil: 1",
            "a\n",
            "\na",
            "\x1b[31mred",
            "\U0001f408",
            "\u0661",
            "caf\xe9",
            "a,b",
            "a/b",
            "a;b",
            '"a"',
            "<script>",
            "${jndi:ldap://a}",
            "a\0",
        ],
    )
    def test_any_other_is_replaced_by_the_traces(self, given: str) -> None:
        inbound = inbound_of({"x-request-id": given})

        assert inbound.request_id == inbound.trace_id
        assert MADE.fullmatch(inbound.request_id)

    @pytest.mark.parametrize(
        ("given", "flags"),
        [
            (f"00-{TRACE}-{SPAN}-01", "01"),
            (f"00-{TRACE}-{SPAN}-00", "00"),
            (f"00-{TRACE}-{SPAN}-03", "03"),
            (f"00-{TRACE}-{SPAN}-ff", "03"),
            (f"00-{TRACE}-{SPAN}-fc", "00"),
            (f"00-{'0' * 31}1-{'0' * 15}1-01", "01"),
        ],
    )
    def test_a_valid_traceparent_is_gone_on_with_and_undefined_flags_are_not(self, given: str, flags: str) -> None:
        inbound = inbound_of({"traceparent": given})

        assert (inbound.trace_id, inbound.trace_flags) == (given[3:35], flags)
        assert inbound.request_id == inbound.trace_id
        assert (inbound.parent_span_id, inbound.span_id == given[36:52]) == (given[36:52], False)

    @pytest.mark.parametrize(
        "given",
        [
            "",
            "garbage",
            f"00-{TRACE.upper()}-{SPAN}-01",
            f"00-{TRACE}-{SPAN.upper()}-01",
            f"00-{TRACE}-{SPAN}-0A",
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"ff-{TRACE}-{SPAN}-01",
            f"FF-{TRACE}-{SPAN}-01",
            f"0-{TRACE}-{SPAN}-01",
            f"00-{TRACE}-{SPAN}",
            f"00-{TRACE}-{SPAN}-",
            f"00-{TRACE}-{SPAN}-1",
            f"00-{TRACE}-{SPAN}-011",
            f"00-{TRACE}-{SPAN}-01-extra",
            f"00-{TRACE}-{SPAN}-01-",
            f"00-{TRACE[:-1]}-{SPAN}-01",
            f"00-{TRACE}0-{SPAN}-01",
            f"00-{TRACE}-{SPAN[:-1]}-01",
            f"00-{TRACE}-{SPAN}0-01",
            f"00-{TRACE[:-1]}g-{SPAN}-01",
            f"00_{TRACE}_{SPAN}_01",
            f" 00-{TRACE}-{SPAN}-01",
            f"00-{TRACE}-{SPAN}-01\n",
            f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
        ],
    )
    def test_a_traceparent_that_is_not_begins_a_new_trace(self, given: str) -> None:
        inbound = inbound_of({"traceparent": given})

        assert inbound.trace_id != TRACE
        assert MADE.fullmatch(inbound.trace_id)
        assert (inbound.trace_flags, inbound.parent_span_id) == ("01", None)

    @pytest.mark.parametrize(("given", "taken"), [("k", True), ("k" * 255, True), ("", False), ("k" * 256, False)])
    def test_an_idempotency_key_of_a_usable_length_is_taken(self, given: str, taken: bool) -> None:  # noqa: FBT001
        assert (inbound_of({"idempotency-key": given}).idempotency_key == given) == taken

    @pytest.mark.parametrize(
        ("headers", "request_id", "trace_id"),
        [
            ({}, None, None),
            ({"X-Request-ID": "abc.1"}, "abc.1", None),
            ({"traceparent": f"00-{TRACE}-{SPAN}-01"}, TRACE, TRACE),
            ({"X-Request-ID": "abc.1", "traceparent": f"00-{TRACE}-{SPAN}-01"}, "abc.1", TRACE),
            ({"X-Request-ID": "a b", "traceparent": "00-0-0-0"}, None, None),
        ],
    )
    async def test_is_the_same_in_the_answer_in_every_line_and_at_the_upstream(
        self,
        stub: StartStub,
        client: aiohttp.ClientSession,
        log: Log,
        headers: dict[str, str],
        request_id: str | None,
        trace_id: str | None,
    ) -> None:
        server = (await stub("all")).on("*", {})
        async with (
            gateway([path("page", Page.as_view())], {"all": server}) as base,
            client.get(f"{base}/page", headers=headers) as answer,
        ):
            await answer.read()

        told = answer.headers["X-Request-ID"]
        assert told == request_id or (request_id is None and MADE.fullmatch(told))
        lines = [line for line in log.events() if line["event"].partition(".")[0] in {"request", "call", "attempt"}]
        assert {line["request_id"] for line in lines} == {told}
        (traced,) = {line["trace_id"] for line in lines}
        assert traced == trace_id or (trace_id is None and MADE.fullmatch(traced))
        assert {line["http.route"] for line in lines if line["event"] != "request.started"} == {"page"}
        parents = {asked.headers["traceparent"] for asked in server.received}
        spans = {line["span_id"] for line in log.events("attempt.finished")}
        assert parents == {f"00-{traced}-{span}-01" for span in spans}
        assert len(spans) == 2
        assert {asked.headers["x-request-id"] for asked in server.received} == {told}

    async def test_given_twice_is_not_taken(self, client: aiohttp.ClientSession) -> None:
        headers = [("X-Request-ID", "a"), ("X-Request-ID", "b")]
        async with gateway([], {}) as base, client.get(base, headers=headers) as answer:
            assert MADE.fullmatch(answer.headers["X-Request-ID"])


class TestTimeLeft:
    """A client may shorten a page's deadline, and never lengthen it."""

    @staticmethod
    async def remaining(**headers: str) -> float:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return Visit("GET", "/", given).deadline(2.0).remaining()

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"x_request_timeout_ms": "500"}, 0.5),
            ({"x_request_timeout_ms": "0"}, 0.0),
            ({"x_request_timeout_ms": "9999"}, 2.0),
            ({"prefer": "wait=1"}, 1.0),
            ({"prefer": "respond-async, wait=1"}, 1.0),
            ({"prefer": "WAIT = 1; x=y"}, 1.0),
            ({"prefer": 'wait="1"'}, 1.0),
            ({"prefer": "wait=100"}, 2.0),
            ({"prefer": "wait=1", "x_request_timeout_ms": "500"}, 0.5),
        ],
    )
    async def test_the_shortest_counts(self, headers: dict[str, str], seconds: float) -> None:
        assert seconds - 0.3 < await self.remaining(**headers) <= seconds

    @pytest.mark.parametrize("value", ["", "-1", "1.5", "1e3", "NaN", "abc", "0x10", "1" * 10, "٣", "1:2", " "])
    async def test_what_is_no_number_is_ignored(self, value: str) -> None:
        assert await self.remaining(x_request_timeout_ms=value) > 1.7
        assert await self.remaining(prefer=f"wait={value}") > 1.7

    @pytest.mark.parametrize("value", ["await=1", "wait", "return=minimal", "foo; wait=1"])
    async def test_other_preferences_are_none_of_ours(self, value: str) -> None:
        assert await self.remaining(prefer=value) > 1.7

    @pytest.mark.parametrize(
        ("header", "value"), [("X-Request-Timeout-Ms", "50"), ("x-request-timeout-ms", "50"), ("Prefer", "wait=0")]
    )
    @pytest.mark.parametrize("way", ["page", "view"])
    async def test_a_page_and_a_view_answer_in_that_time(
        self, stub: StartStub, client: aiohttp.ClientSession, header: str, value: str, way: str
    ) -> None:
        server = (await stub("all")).on("*", Gate({}))
        routes = [path("page", Page.as_view()), path("view", hurried)]
        async with (
            gateway(routes, {"all": Upstream(server.url, timeout=60.0)}) as base,
            client.get(f"{base}/{way}", headers={header: value}) as answer,
        ):
            problem = await answer.json(content_type="application/problem+json")

        assert (answer.status, problem["errors"]["thing"]["error"]) == (504, "deadline_exceeded")

    async def test_the_header_may_have_another_name(self, stub: StartStub, client: aiohttp.ClientSession) -> None:
        server = (await stub("all")).on("*", Gate({}))
        table = {"all": Upstream(server.url, timeout=60.0)}
        async with (
            gateway([path("page", Page.as_view())], table, GATEWAY_DEADLINE_HEADER="Time-Left") as base,
            client.get(f"{base}/page", headers={"time-left": "50"}) as answer,
        ):
            assert answer.status == 504


async def hurried(request: HttpRequest) -> HttpResponse:
    async with fan_out(request, deadline=60.0) as fan:
        return fan.answer(await fan.call("all", GET("/thing"), name="thing"))


class Colour(enum.Enum):
    RED = "red"


class Size(msgspec.Struct):
    width: int


class Query(msgspec.Struct, rename="camel"):
    colour: Colour = Colour.RED
    tag_names: list[str] = []
    token: str = ""
    text: str = ""
    number: int | None = None


class Body(msgspec.Struct):
    size: Size
    password: str = ""


class Telling(PatientPage):
    methods = ("POST",)
    log_fields = (
        "user_id",
        "unused",
        "nowhere",
        "query.colour",
        "query.tag_names",
        "query.token",
        "query.text",
        "query.number",
        "body.size",
        "body.size.width",
        "body.password",
    )

    @call("all")
    def thing(self, user_id: int, query: Query, body: Body) -> Request[JSON]:
        return POST("/thing", json=body, safe=True)


class TestTheWideLine:
    async def test_has_the_inputs_the_page_names_and_no_secret(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log
    ) -> None:
        server = (await stub("all")).on("/thing", {})
        text = f"see https://a.example/?key={CANARY} and Bearer {CANARY}"
        query = {"colour": "red", "tagNames": ["a", "b"], "token": CANARY, "text": text, "other": CANARY}
        body = {"size": {"width": 3}, "password": CANARY, "other": CANARY}
        routes = [path("<int:user_id>/<uuid:unused>", Telling.as_view())]
        async with (
            gateway(routes, {"all": server}) as base,
            client.post(
                f"{base}/7/0f8fad5b-d9cb-469f-a165-70867728950e",
                params=query,
                json=body,
                headers={"Authorization": f"Bearer {CANARY}", "Cookie": f"a={CANARY}"},
            ) as answer,
        ):
            assert answer.status == 200

        (finished,) = log.events("request.finished")
        assert finished["user_id"] == 7
        assert finished["unused"] == "0f8fad5b-d9cb-469f-a165-70867728950e"
        assert (finished["query.colour"], finished["query.tag_names"]) == ("red", ["a", "b"])
        assert (finished["body.size"], finished["body.size.width"]) == ({"width": 3}, 3)
        assert finished["query.token"] == finished["body.password"] == "[redacted]"
        assert finished["query.text"].startswith("see https://a.example/?")
        assert finished.keys().isdisjoint({"nowhere", "query.number"})

    async def test_says_what_was_asked_and_what_came_of_it(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log
    ) -> None:
        server = (await stub("all")).on("/thing", Turns([Answered({}, 503), {"n": 1}])).on("/extra", {})
        async with (
            gateway([path("page", Page.as_view())], {"all": server}) as base,
            client.get(f"{base}/page?q={CANARY}") as answer,
        ):
            body = await answer.read()

        (finished,) = log.events("request.finished")
        expected = {
            "level": "info",
            "http.request.method": "GET",
            "http.route": "page",
            "url.path": "/page",
            "http.response.status_code": 200,
            "outcome": "ok",
            "complete": True,
            "page": "Page",
            "calls": 2,
            "calls_failed": [],
            "attempts": 3,
            "bytes_out": len(body),
        }
        assert expected.items() <= finished.items()
        assert finished["duration_ms"] >= max(line["duration_ms"] for line in log.events("attempt.finished"))


class Failing(PatientPage):
    @call("all")
    def thing(self) -> Request[JSON]:
        return GET("/failing")


class Refusing(PatientPage):
    @call("all")
    def thing(self) -> Request[JSON]:
        raise Problem(409)


class Broken(PatientPage):
    @call("all")
    def thing(self) -> Request[JSON]:
        raise ZeroDivisionError


class Asking(PatientPage):
    @call("all")
    def thing(self, query: Size) -> Request[JSON]:
        return GET("/thing", width=query.width)


async def view(request: HttpRequest) -> HttpResponse:
    async with fan_out(request, deadline=SLOW) as fan:
        return fan.answer(await fan.call("all", GET("/thing")))


async def failing_view(request: HttpRequest) -> HttpResponse:
    async with fan_out(request, deadline=SLOW) as fan:
        return fan.answer(await fan.call("all", GET("/failing")))


def plain_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


ROUTES = [
    path("page", Page.as_view()),
    path("failing", Failing.as_view()),
    path("refusing", Refusing.as_view()),
    path("broken", Broken.as_view()),
    path("asking", Asking.as_view()),
    path("view", view),
    path("failing-view", failing_view),
    path("plain", plain_view),
]
#: What is asked, how, and how the wide line tells of it.
ENDINGS = [
    ("GET", "page", {}, 200, "ok"),
    ("HEAD", "page", {}, 200, "ok"),
    ("OPTIONS", "page", {}, 204, "ok"),
    ("DELETE", "page", {}, 405, "rejected"),
    ("GET", "page", {"Accept": "text/html"}, 406, "rejected"),
    ("GET", "asking", {}, 400, "rejected"),
    ("GET", "failing", {}, 502, "failed"),
    ("GET", "refusing", {}, 409, "rejected"),
    ("GET", "broken", {}, 500, "failed"),
    ("GET", "nothing", {}, 404, "rejected"),
    ("GET", "view", {}, 200, "ok"),
    ("GET", "failing-view", {}, 502, "failed"),
    ("GET", "plain", {}, 200, "ok"),
    ("GET", "page", {"Accept": "application/jsonl"}, 200, "ok"),
    ("GET", "page", {"Accept": "text/event-stream"}, 200, "ok"),
    ("HEAD", "page", {"Accept": "text/event-stream"}, 200, "ok"),
    ("GET", "page", {"Accept": "text/event-stream", "Last-Event-ID": "1"}, 204, "ok"),
    ("GET", "failing", {"Accept": "application/jsonl"}, 502, "failed"),
    ("GET", "broken", {"Accept": "application/jsonl"}, 500, "failed"),
]


class TestEveryEnding:
    async def test_has_one_line_at_the_start_and_one_at_the_end(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log
    ) -> None:
        server = (await stub("all")).on("*", {}).on("/failing", Answered({}, 404))

        def asked_of_the_test_client() -> None:
            django = Client(raise_request_exception=False)
            for method, where, headers, _, _ in ENDINGS:
                b"".join(django.generic(method, f"/{where}", headers=headers))

        async with gateway(ROUTES, {"all": server}) as base:
            for method, where, headers, _, _ in ENDINGS:
                async with client.request(method, f"{base}/{where}", headers=headers) as answer:
                    await answer.read()
            await asyncio.to_thread(asked_of_the_test_client)

        started, finished = log.events("request.started"), log.events("request.finished")
        assert [line["request_id"] for line in started] == [line["request_id"] for line in finished]
        assert len({line["request_id"] for line in started}) == 2 * len(ENDINGS)
        told = [(line["http.response.status_code"], line["outcome"]) for line in finished]
        assert told == [(status, outcome) for *_, status, outcome in ENDINGS] * 2

    async def test_also_when_the_client_leaves(self, stub: StartStub, client: aiohttp.ClientSession, log: Log) -> None:
        server = (await stub("all")).on("/extra", {})
        held = Gate({})
        server.on("/thing", held)
        async with gateway(ROUTES, {"all": server}) as base:
            for where in ("page", "view"):
                held.arrived.clear()
                held.left.clear()
                asking = asyncio.create_task(client.get(f"{base}/{where}"))
                await held.arrived.wait()
                asking.cancel()
                await held.left.wait()

        started, finished = log.events("request.started"), log.events("request.finished")
        assert [line["request_id"] for line in started] == [line["request_id"] for line in finished]
        assert [line["outcome"] for line in finished] == ["disconnected", "disconnected"]
        assert [line["http.response.status_code"] for line in finished] == [None, None]
        assert len(log.events("client.disconnected")) == 2


@pytest.fixture
def problems_only() -> Iterator[None]:
    """LOG_STEPS=problems, as configured at start."""
    holding.enabled = True
    yield
    holding.enabled = False


@pytest.mark.usefixtures("problems_only")
class TestStepsOfProblemsOnly:
    @pytest.mark.parametrize("accept", ["application/json", "application/jsonl", "text/event-stream"])
    async def test_healthy_requests_keep_their_wide_line_alone(
        self, client: aiohttp.ClientSession, log: Log, accept: str
    ) -> None:
        async with serving_stub("all") as server, gateway(ROUTES, {"all": server.on("*", {})}) as base:
            for where in ("page", "view", "asking", "nothing", "plain"):
                async with client.get(f"{base}/{where}", headers={"Accept": accept}) as answer:
                    await answer.read()

        ours = [line["event"] for line in log.events() if "request_id" in line]
        assert ours == ["request.finished"] * 5

    @pytest.mark.parametrize("accept", ["application/json", "application/jsonl", "text/event-stream"])
    @pytest.mark.parametrize(("where", "outcome"), [("page", "partial"), ("failing", "failed"), ("broken", "failed")])
    async def test_the_others_keep_all(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log, accept: str, where: str, outcome: str
    ) -> None:
        server = (await stub("all")).on("*", {}).on("/failing", Answered({}, 404)).on("/extra", Answered({}, 404))
        async with (
            gateway(ROUTES, {"all": server}) as base,
            client.get(f"{base}/{where}", headers={"Accept": accept}) as answer,
        ):
            await answer.read()

        events = [line["event"] for line in log.events() if "request_id" in line]
        assert (events[0], events[-1]) == ("request.started", "request.finished")
        assert log.events("request.finished")[0]["outcome"] == outcome
        assert ("attempt.finished" in events) == (where != "broken")
        assert "call.finished" in events

    async def test_so_does_one_whose_client_left(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log
    ) -> None:
        server = await stub("all")
        held = Gate({})
        server.on("*", held)
        async with gateway(ROUTES, {"all": server}) as base:
            asking = asyncio.create_task(client.get(f"{base}/view"))
            await held.arrived.wait()
            asking.cancel()
            await held.left.wait()

        events = [line["event"] for line in log.events() if "request_id" in line]
        assert events == [
            "request.started",
            "attempt.finished",
            "call.finished",
            "client.disconnected",
            "request.finished",
        ]
