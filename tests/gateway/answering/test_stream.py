"""An answer as it comes: one frame a call in the order they end, over real sockets, and an end to every stream."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit
from wsgiref.util import setup_testing_defaults

import aiohttp
import msgspec
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.http import Http404, HttpResponseBase
from django.test import AsyncRequestFactory, Client
from django.urls import path

from gateway import AggregateView, Problem, call
from tests.conftest import StartStub
from tests.logs import CANARY, Log
from tests.serving import PatientPage, asking, gateway, project
from tests.stub import Answered, Gate, Stub
from upstreams import GET, JSON, POST, Request, Upstream

JSONL, SSE = "application/jsonl", "text/event-stream"


class Three(PatientPage):
    @call("all")
    def one(self) -> Request[JSON]:
        return GET("/one")

    @call("all", optional=True)
    def two(self) -> Request[JSON]:
        return GET("/two")

    @call("all", fallback=["none"])
    def three(self) -> Request[list[str]]:
        return GET("/three")

    @call("all", internal=True, optional=True)
    def hidden(self) -> Request[JSON]:
        return GET("/hidden")


class Merging(PatientPage):
    @call("all")
    def one(self) -> Request[JSON]:
        return GET("/one")

    @call("all", internal=False)
    def two(self) -> Request[JSON]:
        return GET("/two")

    def merge(self, one: JSON, two: JSON) -> list[JSON]:
        return [one, two]


def gates(server: Stub, **answers: Any) -> dict[str, Gate]:
    """Hold the answers to these paths until each gate is opened."""
    held = {name: Gate(answer) for name, answer in answers.items()}
    for name, gate in held.items():
        server.on(f"/{name}", gate)
    return held


async def frames(answer: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    """Read frames one by one as they arrive, in whichever syntax they come."""
    number = 0
    while line := await answer.content.readline():
        if answer.content_type == SSE:
            number += 1
            event = await answer.content.readline()
            data = await answer.content.readline()
            assert (line, await answer.content.readline()) == (b"id: %d\n" % number, b"\n")
            frame = msgspec.json.decode(data.removeprefix(b"data: "))
            assert event == b"event: %s\n" % next(iter(frame)).encode()
            yield frame
        else:
            yield msgspec.json.decode(line)


@pytest.mark.parametrize("accept", [JSONL, SSE])
class TestFrames:
    async def test_come_one_a_call_in_the_order_they_end_while_others_are_held(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log, accept: str
    ) -> None:
        server = (await stub("all")).on("/hidden", {"secret": CANARY})
        held = gates(server, one={"n": 1}, two=Answered({"secret": CANARY}, 404), three=["a"])
        async with (
            gateway([path("", Three.as_view())], {"all": server}) as base,
            client.get(base, headers={"Accept": accept}) as answer,
        ):
            arriving = frames(answer)
            assert await anext(arriving) == {"pending": ["one", "two", "three"]}
            held["three"].open.set()
            assert await anext(arriving) == {"call": "three", "data": ["a"]}
            held["two"].open.set()
            lost = {
                "upstream": "all",
                "error": "http_response_status",
                "status": 404,
                "attempts": 1,
                "retryable": False,
            }
            assert await anext(arriving) == {"call": "two", "error": lost}
            held["one"].open.set()
            assert await anext(arriving) == {"call": "one", "data": {"n": 1}}
            assert [frame async for frame in arriving] == [
                {
                    "result": {"one": {"n": 1}, "two": None, "three": ["a"]},
                    "complete": False,
                    "errors": {"two": lost},
                }
            ]

        assert (answer.status, answer.content_type) == (200, accept)
        assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-store", "no")
        assert "Content-Length" not in answer.headers
        (finished,) = log.events("request.finished")
        assert (finished["outcome"], finished["complete"], finished["calls_failed"]) == ("partial", False, ["two"])

    async def test_of_a_call_with_a_fallback_have_the_error_and_the_data(
        self, stub: StartStub, client: aiohttp.ClientSession, accept: str
    ) -> None:
        server = (await stub("all")).on("*", {}).on("/three", Answered([], 500))
        upstreams = {"all": Upstream(server.url, retry=None)}
        async with (
            gateway([path("", Three.as_view())], upstreams) as base,
            client.get(base, headers={"Accept": accept}) as answer,
        ):
            found = {frame.get("call"): frame async for frame in frames(answer)}

        assert found["three"]["data"] == ["none"]
        assert found["three"]["error"]["status"] == 500

    async def test_of_opaque_json_are_one_line_with_every_byte_that_counts(
        self, stub: StartStub, client: aiohttp.ClientSession, accept: str
    ) -> None:
        text = b'{\r\n\t"id" : 12345678901234567890,\r"price":\n1.10, "n": [\n\n1e3 ], "text": "a\\r\\n\xe2\x80\xa8"\n}'
        server = (await stub("all")).on("*", Answered(text)).on("/three", [])
        async with (
            gateway([path("", Three.as_view())], {"all": server}) as base,
            client.get(base, headers={"Accept": accept}) as answer,
        ):
            body = await answer.read()

        line = text.replace(b"\r", b" ").replace(b"\n", b" ")
        assert msgspec.json.decode(line) == msgspec.json.decode(text)
        assert body.count(line) == 4
        assert body.count(b"\r") == 0
        assert body.count(b"\n") == (5 if accept == JSONL else 5 * 4)

    async def test_say_what_is_pending_again_after_a_silence(
        self, stub: StartStub, client: aiohttp.ClientSession, accept: str
    ) -> None:
        server = (await stub("all")).on("/two", {}).on("/three", []).on("/hidden", {})
        held = gates(server, one={})
        async with (
            gateway([path("", Three.as_view(heartbeat=0.01))], {"all": server}) as base,
            client.get(base, headers={"Accept": accept}) as answer,
        ):
            arriving = frames(answer)
            silent = 0
            while silent < 3:
                silent += await anext(arriving) == {"pending": ["one"]}
            held["one"].open.set()
            rest = [frame async for frame in arriving if "pending" not in frame]

        assert [next(iter(frame)) for frame in rest] == ["call", "result"]

    async def test_end_with_the_problem_when_a_required_call_fails_and_the_reads_in_flight_end_too(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log, accept: str
    ) -> None:
        server = (await stub("all")).on("/two", {"n": 2}).on("/hidden", {})
        held = gates(server, one=Answered({"secret": CANARY}, 503, {"Retry-After": "9"}), three=[])
        async with (
            gateway([path("", Three.as_view())], {"all": Upstream(server.url, retry=None)}) as base,
            client.get(base, headers={"Accept": accept, "X-Request-ID": "abc", "Authorization": CANARY}) as answer,
        ):
            arriving = frames(answer)
            assert await anext(arriving) == {"pending": ["one", "two", "three"]}
            assert await anext(arriving) == {"call": "two", "data": {"n": 2}}
            await held["three"].arrived.wait()
            held["one"].open.set()
            (last,) = [frame async for frame in arriving]

        lost = {"upstream": "all", "error": "http_response_status", "status": 503, "attempts": 1, "retryable": True}
        assert last == {
            "problem": {
                "type": "urn:tributary:problem:http_response_status",
                "title": "An upstream is not available",
                "status": 503,
                "detail": "one has no value: http_response_status",
                "request_id": "abc",
            },
            "complete": False,
            "errors": {"one": lost},
        }
        assert [event["outcome"] for event in log.events("attempt.finished", call="three")] == ["cancelled"]
        (finished,) = log.events("request.finished")
        assert (finished["outcome"], finished["http.response.status_code"]) == ("failed", 503)
        assert finished["error.type"] == "http_response_status"

    async def test_of_a_page_with_merge_are_only_of_its_public_calls(
        self, stub: StartStub, client: aiohttp.ClientSession, accept: str
    ) -> None:
        server = (await stub("all")).on("/one", {"n": 1}).on("/two", {"n": 2})
        async with (
            gateway([path("", Merging.as_view())], {"all": server}) as base,
            client.get(base, headers={"Accept": accept}) as answer,
        ):
            assert [frame async for frame in frames(answer)] == [
                {"pending": ["two"]},
                {"call": "two", "data": {"n": 2}},
                {"result": [{"n": 1}, {"n": 2}], "complete": True, "errors": {}},
            ]


class Makes(PatientPage):
    """`merge` returns what the test's `make` does, or raises it."""

    make: Any = None

    @call("all", optional=True)
    def lost(self) -> Request[JSON]:
        return GET("/lost")

    def merge(self, lost: JSON | None) -> object:
        made = self.make()
        if isinstance(made, BaseException):
            raise made
        return made


class Unwritable(PatientPage):
    """A call whose value is no JSON, beside one that is still held when that is found."""

    @call("all", decode=lambda _: object())
    def value(self) -> Request[Any]:
        return GET("/value")

    @call("all")
    def one(self) -> Request[JSON]:
        return GET("/one")


class TestMistakes:
    @pytest.mark.parametrize(
        ("make", "problem"),
        [
            pytest.param(
                lambda: ZeroDivisionError("said"), {"status": 500, "title": "Internal Server Error"}, id="error"
            ),
            pytest.param(lambda: asyncio.CancelledError("said"), {"status": 500}, id="cancelled"),
            pytest.param(object, {"status": 500, "title": "Internal Server Error"}, id="object"),
            pytest.param(lambda: {"deep": [object()]}, {"status": 500}, id="object inside"),
            pytest.param(lambda: "\ud800", {"status": 500}, id="lone surrogate"),
            pytest.param(lambda: Http404("said"), {"status": 404, "title": "Not Found"}, id="404"),
            pytest.param(lambda: Problem(409, detail="taken", seats=[7]), {"status": 409, "seats": [7]}, id="problem"),
        ],
    )
    async def test_in_merge_end_the_stream_with_a_problem(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log, make: Any, problem: dict[str, object]
    ) -> None:
        server = (await stub("all")).on("/lost", Answered({}, 404))
        async with (
            gateway([path("", Makes.as_view(make=make))], {"all": server}) as base,
            client.get(base, headers={"Accept": JSONL}) as answer,
        ):
            *_, last = [frame async for frame in frames(answer)]

        assert problem.items() <= last["problem"].items()
        assert "said" not in str(last)
        assert (last["complete"], list(last["errors"])) == (False, ["lost"])
        assert ("Traceback" in str(log.events("log.recorded", level="error"))) == (problem["status"] == 500)
        assert not log.events("client.disconnected")
        (finished,) = log.events("request.finished")
        assert finished["http.response.status_code"] == problem["status"]

    async def test_in_a_calls_value_end_the_stream_with_a_problem_and_what_still_runs_with_it(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log
    ) -> None:
        server = await stub("all")
        one = gates(server, one={})["one"]

        async def value(_: object) -> object:
            await one.arrived.wait()
            return {}

        server.on("/value", value)
        async with (
            gateway([path("", Unwritable.as_view())], {"all": server}) as base,
            client.get(base, headers={"Accept": SSE}) as answer,
        ):
            first, last = [frame async for frame in frames(answer)]

        assert (first, last["problem"]["status"]) == ({"pending": ["value", "one"]}, 500)
        assert [event["outcome"] for event in log.events("attempt.finished", call="one")] == ["cancelled"]
        assert log.events("request.finished")[0]["outcome"] == "failed"


class ReadsAndWrites(PatientPage):
    methods = ("GET",)

    @call("all")
    def write(self) -> Request[JSON]:
        return POST("/write", json={})

    @call("all", optional=True)
    def read(self) -> Request[JSON]:
        return GET("/read")


class Large(PatientPage):
    @call("all")
    def large(self) -> Request[JSON]:
        return GET("/large")

    @call("all")
    def read(self) -> Request[JSON]:
        return GET("/read")


class TestAClientThatLeaves:
    @pytest.mark.parametrize("accept", [JSONL, SSE])
    async def test_cancels_the_reads_and_no_write(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log, accept: str
    ) -> None:
        server = await stub("all")
        held = gates(server, read={}, write={})
        async with gateway([path("", ReadsAndWrites.as_view())], {"all": server}) as base:
            answer = await client.get(base, headers={"Accept": accept})
            assert await anext(frames(answer)) == {"pending": ["write", "read"]}
            await asyncio.gather(held["read"].arrived.wait(), held["write"].arrived.wait())
            answer.close()
            await held["read"].left.wait()
            assert log.events("attempt.finished", call="read")[0]["outcome"] == "cancelled"
            assert not log.events("attempt.finished", call="write")
            held["write"].open.set()

        assert [event["outcome"] for event in log.events("attempt.finished", call="write")] == ["ok"]
        (finished,) = log.events("request.finished")
        assert finished["outcome"] == "disconnected"
        assert len(log.events("client.disconnected")) == 1

    async def test_while_a_frame_is_being_sent_cancels_the_reads_too(self, stub: StartStub, log: Log) -> None:
        server = (await stub("all")).on("/large", Answered(b'"%s"' % (b"x" * 20_000_000)))
        held = gates(server, read={})
        upstreams = {"all": Upstream(server.url, max_body=2**25)}
        async with gateway([path("", Large.as_view())], upstreams) as base:
            url = urlsplit(base)
            reader, writer = await asyncio.open_connection(url.hostname, url.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: application/jsonl\r\n\r\n")
            await reader.readuntil(b"xxx")
            await held["read"].arrived.wait()
            writer.transport.abort()
            await held["read"].left.wait()
            writer.close()

        assert [event["outcome"] for event in log.events("request.finished")] == ["disconnected"]
        assert [event["outcome"] for event in log.events("attempt.finished", call="read")] == ["cancelled"]


class TestReconnecting:
    @pytest.mark.parametrize("last", ["1", "", CANARY])
    async def test_an_event_source_gets_a_204_and_nobody_is_asked(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log, last: str
    ) -> None:
        server = await stub("all")
        async with (
            gateway([path("", Three.as_view())], {"all": server}) as base,
            client.get(base, headers={"Accept": SSE, "Last-Event-ID": last}) as answer,
        ):
            assert (answer.status, await answer.read()) == (204, b"")

        assert not server.received
        assert [event["outcome"] for event in log.events("request.finished")] == ["ok"]

    async def test_means_nothing_to_the_other_forms(self, stub: StartStub, client: aiohttp.ClientSession) -> None:
        server = (await stub("all")).on("*", []).on("/three", [])
        async with gateway([path("", Three.as_view())], {"all": server}) as base:
            for accept in (JSONL, "application/json"):
                async with client.get(base, headers={"Accept": accept, "Last-Event-ID": "1"}) as answer:
                    assert answer.status == 200


WHOLE = [
    {"pending": ["two"]},
    {"call": "two", "data": {"n": 2}},
    {"result": [{"n": 1}, {"n": 2}], "complete": True, "errors": {}},
]


class TestWithoutOurServer:
    """Django's test clients and WSGI have no loop for a stream to live in: it comes whole, and without a warning."""

    async def test_the_test_client_reads_it_whole(self, stub: StartStub, log: Log) -> None:
        server = (await stub("all")).on("/one", {"n": 1}).on("/two", {"n": 2})

        def asked() -> tuple[int, str, list[Any]]:
            answer = Client().get("/", headers={"Accept": JSONL})
            return answer.status_code, answer["Content-Type"], lines(b"".join(answer))

        with project([path("", Merging.as_view())], {"all": server}):
            assert await asyncio.to_thread(asked) == (200, JSONL, WHOLE)
        assert [event["outcome"] for event in log.events("request.finished")] == ["ok"]

    async def test_the_async_test_client_reads_it_whole(self, stub: StartStub, log: Log) -> None:
        server = (await stub("all")).on("/one", {"n": 1}).on("/two", {"n": 2})
        with asking([path("", Merging.as_view())], {"all": server}) as django:
            answer: Any = await django.get("/", headers={"Accept": JSONL})
            assert lines(b"".join([part async for part in answer])) == WHOLE
        assert [event["outcome"] for event in log.events("request.finished")] == ["ok"]

    async def test_a_wsgi_server_reads_it_whole(self, stub: StartStub, log: Log) -> None:
        server = (await stub("all")).on("/one", {"n": 1}).on("/two", {"n": 2})
        environ: dict[str, Any] = {"HTTP_ACCEPT": JSONL, "wsgi.input": io.BytesIO()}
        setup_testing_defaults(environ)

        def asked() -> list[Any]:
            response: Any = WSGIHandler()(environ, lambda *_: io.BytesIO().write)
            try:
                return lines(b"".join(response))
            finally:
                response.close()

        with project([path("", Merging.as_view())], {"all": server}):
            assert await asyncio.to_thread(asked) == WHOLE
        assert [event["outcome"] for event in log.events("request.finished")] == ["ok"]


def lines(content: bytes) -> list[Any]:
    return [msgspec.json.decode(line) for line in content.splitlines()]


class TestTheWideLine:
    """Written once, whatever ends the stream, with how long it took."""

    async def test_of_a_stream_read_to_its_end(self, stub: StartStub, client: aiohttp.ClientSession, log: Log) -> None:
        server = (await stub("all")).on("*", [])
        async with (
            gateway([path("", Three.as_view())], {"all": server}) as base,
            client.get(base, headers={"Accept": SSE}) as answer,
        ):
            body = await answer.read()

        (finished,) = log.events("request.finished")
        assert len(log.events("request.started")) == 1
        assert (finished["outcome"], finished["http.response.status_code"]) == ("ok", 200)
        assert finished["bytes_out"] == len(body)
        assert finished["duration_ms"] >= max(event["duration_ms"] for event in log.events("call.finished"))

    async def test_of_one_that_is_left_between_two_frames(self, stub: StartStub, log: Log) -> None:
        server = await stub("all")
        held = gates(server, one={}, two={}, three={}, hidden={})
        with project([path("", Three.as_view())], {"all": server}):
            async with aclosing(await streamed(Three)) as arriving:
                first = asyncio.create_task(anext(arriving))
                await first
                second = asyncio.create_task(anext(arriving))
                await held["two"].arrived.wait()
                held["two"].open.set()
                assert b"two" in await second
            (finished,) = log.events("request.finished")
            assert (finished["outcome"], finished["http.response.status_code"]) == ("disconnected", None)
            assert finished["bytes_out"] == len(await first) + len(await second)
            outcomes = {event["call"]: event["outcome"] for event in log.events("attempt.finished")}
            assert outcomes == {"one": "cancelled", "two": "ok", "three": "cancelled", "hidden": "cancelled"}

    async def test_of_one_that_nobody_reads_and_its_calls_are_not_made(self, stub: StartStub, log: Log) -> None:
        server = await stub("all")
        with project([path("", Three.as_view())], {"all": server}):
            response = await answered(Three)
            assert not log.events("request.finished")
            response.close()
            response.close()

        assert [event["outcome"] for event in log.events("request.finished")] == ["disconnected"]
        assert not server.received

    @pytest.mark.parametrize("accept", [JSONL, SSE])
    async def test_of_a_head_which_asks_nobody(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log, accept: str
    ) -> None:
        server = await stub("all")

        def asked() -> tuple[int, str, bytes]:
            answer = Client().head("/", headers={"Accept": accept})
            return answer.status_code, answer["Content-Type"], b"".join(answer)

        routes = [path("", Three.as_view())]
        async with (
            gateway(routes, {"all": server}) as base,
            client.head(base, headers={"Accept": accept}) as answer,
        ):
            assert (answer.status, answer.content_type, await answer.read()) == (200, accept, b"")
            assert "Content-Length" not in answer.headers
        with project(routes, {"all": server}):
            assert await asyncio.to_thread(asked) == (200, accept, b"")

        assert not server.received
        assert [event["outcome"] for event in log.events("request.finished")] == ["ok", "ok"]


async def answered(page: type[AggregateView]) -> HttpResponseBase:
    """Call a page as Django does, and leave its response to the test."""
    view: Any = page.as_view()
    response: HttpResponseBase = await view(AsyncRequestFactory().get("/", headers={"Accept": JSONL}))
    return response


async def streamed(page: type[AggregateView]) -> Any:
    response: Any = await answered(page)
    return aiter(response)
