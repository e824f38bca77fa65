"""A call to one upstream, from the request that goes out to the one outcome that comes of it."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos import Raw, answer, deaf_port, fin, head, serving_raw, silence
from tests.conftest import StartStub
from tests.logs import CANARY, Log
from tests.ports import free_port
from tests.serving import SHORT
from tests.stub import Answered, Gate, Received, Turns
from tests.upstreams.asking import SECRET_HEADERS, Asking, asking, inbound, until
from upstreams import (
    DELETE,
    FOLLOW,
    GET,
    HEAD,
    JSON,
    PATCH,
    POST,
    PUT,
    Fault,
    InvalidParameter,
    Request,
    Retry,
    Upstream,
)
from upstreams.hosts import Hosts

AT_ONCE = Retry(attempts=3, first_wait=0.0, longest_wait=0.0)
BUSY = Answered({"error": CANARY}, 503)


class TestHeaders:
    async def test_a_read_sends_these_and_no_others(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", {})
        async with asking(Upstream(server.url)) as one:
            await one.ask(GET("/"))

        assert dict(server.received[0].headers) == {
            "host": server.url.removeprefix("http://"),
            "accept": "application/json",
            "accept-encoding": "gzip",
            "user-agent": "tributary",
            "via": "1.1 tributary",
            "x-request-id": "r-1",
            "traceparent": server.received[0].headers["traceparent"],
        }

    async def test_a_write_adds_what_describes_its_body(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", {})
        async with asking(Upstream(server.url)) as one:
            await one.ask(GET("/"))
            await one.ask(POST("/", json={"a": 1}))
            await one.ask(PUT("/", content=(b"<a/>", "text/xml")))
            await one.ask(DELETE("/"))

        read, post, put, delete = (set(received.headers) for received in server.received)
        assert post - read == put - read == {"content-type", "content-length"}
        assert delete - read <= {"content-length"}
        assert [received.headers.get("content-type") for received in server.received] == [
            None, "application/json", "text/xml", None,
        ]  # fmt: skip

    async def test_of_the_client_s_headers_only_those_allowed_go_on(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", {})
        sent = {
            **SECRET_HEADERS,
            "accept-language": "de",
            "forwarded": "for=1",
            "x-forwarded-for": "::1",
            "range": "bytes=0-",
        }
        async with asking(
            Upstream(server.url, forward_headers=("Authorization", "Accept-Language", "x-missing"))
        ) as one:
            await one.ask(GET("/"), of=inbound(sent))

        headers = server.received[0].headers
        assert headers["authorization"] == SECRET_HEADERS["authorization"]
        assert headers["accept-language"] == "de"
        assert not set(headers) & {"cookie", "x-api-key", "forwarded", "x-forwarded-for", "range", "x-missing"}

    async def test_configured_forwarded_and_own_headers_take_precedence_in_this_order(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", {})
        upstream = Upstream(
            server.url, headers={"X-A": "configured", "X-B": "configured", "X-C": "configured", "User-Agent": "shop"},
            forward_headers=("x-b", "x-c"),
        )  # fmt: skip
        async with asking(upstream) as one:
            await one.ask(GET("/", headers={"X-C": "own"}), of=inbound({"x-b": "forwarded", "x-c": "forwarded"}))

        headers = server.received[0].headers
        assert [headers[name] for name in ("x-a", "x-b", "x-c")] == ["configured", "forwarded", "own"]
        assert headers["user-agent"] == "shop"

    @pytest.mark.parametrize(
        ("came", "goes"),
        [
            (b"Zo\xc3\xab", b"Zo\xc3\xab"),
            (b"\xe2\x82\xac 5", b"\xe2\x82\xac 5"),
            (b"Zo\xeb", b"Zo\xc3\xab"),  # no UTF-8, which is what is sent
        ],
    )
    async def test_what_a_client_said_in_utf_8_goes_on_as_it_came(self, came: bytes, goes: bytes) -> None:
        async with serving_raw() as server, asking(Upstream(server.url, forward_headers=("x-user",))) as one:
            server.on("/", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
            await one.ask(GET("/"), of=inbound({"x-user": came.decode("latin-1")}))

        assert b"\r\nx-user: %b\r\n" % goes in server.requests[0]

    async def test_the_request_s_identity_is_not_the_client_s_to_say(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", {})
        forged = {"x-request-id": "forged", "traceparent": "forged", "via": "forged", "host": "forged"}
        async with asking(Upstream(server.url)) as one:
            await one.ask(GET("/"), of=inbound(forged))

        assert "forged" not in server.received[0].headers.values()

    async def test_every_attempt_is_a_span_of_its_own_in_the_request_s_trace(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", BUSY)
        of = inbound()
        async with asking(Upstream(server.url, retry=AT_ONCE)) as one:
            await one.ask(GET("/"), of=of)

        parents = [received.headers["traceparent"] for received in server.received]
        assert parents == [f"00-{of.trace_id}-{attempt.span_id}-01" for attempt in one.notes.attempts]
        assert len(set(parents)) == 3
        assert all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", parent) for parent in parents)

    @pytest.mark.parametrize("bad", ["a\r\nx-evil: 1", "a\0", "a\x1b", "\ud800"])
    async def test_a_client_s_header_that_cannot_be_sent_is_a_fault_and_not_on_the_wire(self, bad: str) -> None:
        async with serving_raw() as server, asking(Upstream(server.url, forward_headers=("x-name",))) as one:
            outcome = await one.ask(GET("/"), of=inbound({"x-name": f"{CANARY}{bad}"}))

            assert outcome.fault is Fault.HTTP_REQUEST_DENIED
            assert (server.requests, one.notes.sent) == ([], 0)


class TestURLs:
    async def test_a_path_extends_the_base_path(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/base/v1/users/7", {})
        async with asking(Upstream(f"{server.url}/base/v1/")) as one:
            assert (await one.ask(GET("/users/{id}", id=7, page=2))).ok

        assert (server.received[0].path, server.received[0].query) == ("/base/v1/users/7", [("page", "2")])

    async def test_what_a_value_was_arrives_unchanged(self, raw: Raw) -> None:
        raw.on("*", answer())
        async with asking(Upstream(raw.url)) as one:
            await one.ask(GET("/a/{value}", value="../b?c#d%2e é\\", q="e&f=g+h"))

        assert raw.requests[0].startswith(b"GET /a/..%2Fb%3Fc%23d%252e%20%C3%A9%5C?q=e%26f%3Dg%2Bh HTTP/1.1\r\n")

    async def test_several_hosts_share_the_load(self, stub: StartStub) -> None:
        servers = [(await stub(name)).on("/", {}) for name in ("a", "b", "c")]
        async with asking(Upstream([server.url for server in servers])) as one:
            for _ in range(150):
                await one.ask(GET("/"))

        assert all(len(server.received) > 15 for server in servers)

    async def test_the_next_attempt_goes_to_another_host(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", {})
        async with asking(Upstream((f"http://127.0.0.1:{free_port()}", server.url), retry=AT_ONCE)) as one:
            outcomes = [await one.ask(GET("/")) for _ in range(60)]

        assert all(outcome.ok for outcome in outcomes)
        assert [attempt.fault for attempt in one.notes.attempts if attempt.kind == "retry"] == [None] * 5
        assert {attempt.fault for attempt in one.notes.attempts} == {Fault.CONNECTION_REFUSED, None}


class TestFollow:
    @pytest.mark.parametrize(
        ("link", "line"),
        [
            ("/x?page=2", "/x?page=2"),
            ("x", "/base/x"),
            ("../x", "/x"),
            ("../../../x", "/x"),
            ("?page=2", "/base/?page=2"),
            ("/x#fragment", "/x"),
            ("/x?a=b#c?d#e", "/x?a=b"),
            ("{url}/x", "/x"),
            ("{url}", "/"),
            ("HTTP://{host}/x", "/x"),
            ("//{host}/x", "/x"),
            ("/a b", "/a%20b"),
            ("/é", "/%C3%A9"),
            ("/\\evil.example", "/%5Cevil.example"),
            ("\\\\evil.example/x", "/base/%5C%5Cevil.example/x"),
            ("////evil.example/x", "//evil.example/x"),
            ("http:///evil.example", "/evil.example"),
            ("/a%0d%0ab", "/a%0d%0ab"),
            ("/x HTTP/1.1", "/x%20HTTP/1.1"),
        ],
    )
    async def test_a_link_to_the_same_origin_is_followed(self, raw: Raw, link: str, line: str) -> None:
        raw.on("*", answer())
        async with asking(Upstream(f"{raw.url}/base")) as one:
            link = link.replace("{url}", raw.url).replace("{host}", raw.url.removeprefix("http://"))
            outcome = await one.ask(FOLLOW(link))

        assert outcome.fault is None
        assert raw.requests[0].split(b"\r\n")[0] == f"GET {line} HTTP/1.1".encode()
        assert f"\r\nHost: {raw.url.removeprefix('http://')}\r\n".encode() in raw.requests[0]

    @pytest.mark.parametrize(
        "link",
        [
            "//evil.example/x",
            "http://evil.example/x",
            "https://{host}/x",
            "http://127.0.0.1/x",
            "http://127.0.0.1:1/x",
            "http://127.0.0.1:0/x",
            "http://localhost:{port}/x",
            "http://127.0.0.1.evil.example:{port}/x",
            "http://user@{host}/x",
            "http://user:password@{host}/x",
            "http://@{host}/x",
            "http://{host}@evil.example/x",
            "http://evil.example\\@{host}/x",
            "http://{host}\\.evil.example/x",
            "http://{host}.evil.example/x",
            "http://[::1]:{port}/x",
            "http://[bad",
            "http://127.0.0.1:port/x",
            "http://127.0.0.1:99999/x",
            "http://127。0。0。1:{port}/x",
            "javascript:alert(1)",
            "data:text/plain,x",
            "file:///etc/passwd",
            "ftp://{host}/x",
            "ws://{host}/x",
        ],
    )
    async def test_any_other_is_not_and_nobody_is_connected_to(self, raw: Raw, link: str) -> None:
        async with asking(Upstream(raw.url, retry=AT_ONCE)) as one:
            link = link.replace("{host}", raw.url.removeprefix("http://")).replace("{port}", str(raw.port))
            outcome = await one.ask(FOLLOW(f"{link}?{CANARY}"))

        assert (outcome.fault, outcome.attempts) == (Fault.HTTP_REQUEST_DENIED, 0)
        assert outcome.detail == "the link does not lead to this upstream"
        assert (raw.connections, one.notes.attempts) == (0, [])

    async def test_port_0_is_not_the_default_port(self) -> None:
        async with asking(Upstream("http://127.0.0.1")) as one:
            assert (await one.ask(FOLLOW("http://127.0.0.1:0/x"))).fault is Fault.HTTP_REQUEST_DENIED

    async def test_a_link_may_lead_to_any_of_the_urls(self, stub: StartStub) -> None:
        first, second = (await stub("a")).on("/x", {}), (await stub("b")).on("/x", {})
        async with asking(Upstream((first.url, second.url))) as one:
            for _ in range(3):
                assert (await one.ask(FOLLOW(f"{second.url}/x"))).ok

        assert (len(first.received), len(second.received)) == (0, 3)

    PIECES = st.sampled_from(
        ["http:", "https:", "//", "/", "\\", "@", ":", "good.internal", "evil.example", "8000", "..", ".", "?", "#",
         "%2f", "%40", "[", "]", "::1", " ", "é", "。", "user", "javascript:", ";", "x"]
    )  # fmt: skip

    @given(st.lists(PIECES | st.text(max_size=3), min_size=1, max_size=8).map("".join))
    def test_no_link_leads_to_another_host(self, link: str) -> None:
        hosts = Hosts(["http://good.internal:8000/base"], None, time.monotonic, lambda *_: None)
        try:
            request = FOLLOW(link)
        except InvalidParameter:
            return
        if hosts.lead_to(request.link or ""):
            assert hosts.pick(link=request.link) is hosts.all[0]  # whose connection it is that is asked
            target = hosts.all[0].target(request)
            assert target.isascii()
            assert target.startswith("/")
            assert not re.search(r"[\s\\#]", target)


class TestRetries:
    @pytest.mark.parametrize(
        ("status", "headers", "attempts"),
        [
            (500, {}, 1),
            (502, {}, 3),
            (503, {}, 3),
            (504, {}, 3),
            (404, {}, 1),
            (404, {"Retry-After": "0"}, 1),
            (429, {}, 1),
            (429, {"Retry-After": "soon"}, 1),
            (429, {"Retry-After": "-1"}, 1),
            (429, {"Retry-After": "0"}, 3),
            (429, {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 3),
            (429, {"Retry-After": "3600"}, 1),
            (503, {"Retry-After": "99999999999999999999"}, 1),
            (503, {"Retry-After": "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"}, 3),
        ],
    )
    async def test_a_status_is_asked_again(
        self, stub: StartStub, status: int, headers: dict[str, str], attempts: int
    ) -> None:
        server = (await stub("service")).on("/", Answered({}, status, headers))
        async with asking(Upstream(server.url, retry=AT_ONCE)) as one:
            outcome = await one.ask(GET("/"))

        assert (outcome.fault, outcome.status, outcome.attempts) == (Fault.HTTP_RESPONSE_STATUS, status, attempts)
        assert len(server.received) == attempts
        assert [attempt.number for attempt in one.notes.attempts] == list(range(1, attempts + 1))

    async def test_the_wait_an_upstream_asks_for_is_told(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", Answered({}, 503, {"Retry-After": "3600"}))
        async with asking(Upstream(server.url)) as one:
            assert (await one.ask(GET("/"))).retry_after == 3600.0

    async def test_a_later_success_is_the_outcome(self, stub: StartStub, log: Log) -> None:
        server = (await stub("service")).on("/", Turns([BUSY, Answered(b"cut", 502), {"a": 1}]))
        async with asking(Upstream(server.url, retry=AT_ONCE)) as one:
            outcome = await one.ask(GET("/"))

        assert (outcome.value, outcome.fault, outcome.attempts) == (JSON(b'{"a":1}'), None, 3)
        assert [event["reason"] for event in log.events("retry.scheduled")] == ["http_response_status"] * 2

    async def test_none_means_one_attempt(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", BUSY)
        async with asking(Upstream(server.url, retry=None)) as one:
            assert (await one.ask(GET("/"))).attempts == 1

    @pytest.mark.parametrize("request_", [GET("/"), HEAD("/"), POST("/", json={}, safe=True), FOLLOW("./")], ids=repr)
    async def test_reads_are_asked_again(self, stub: StartStub, request_: Request[Any]) -> None:
        server = (await stub("service")).on("/", BUSY)
        async with asking(Upstream(server.url, retry=AT_ONCE, idempotency_header="Idempotency-Key")) as one:
            assert (await one.ask(request_)).attempts == 3

        assert not [received for received in server.received if "idempotency-key" in received.headers]

    @pytest.mark.parametrize("make", [POST, PUT, PATCH, DELETE])
    async def test_writes_are_not_where_the_upstream_would_not_know(
        self, raw: Raw, make: Callable[[str], Request[Any]]
    ) -> None:
        raw.on("/busy", answer(b"{}", "503 Busy")).on("/gone", fin)
        async with asking(Upstream(raw.url, retry=AT_ONCE)) as one:
            for target in ("/busy", "/gone"):
                assert (await one.ask(make(target))).attempts == 1

        assert len(raw.requests) == 2

    async def test_a_large_body_arrives_whole_every_time(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", Turns([BUSY, {}]))
        body = random.randbytes(3 * 1024 * 1024)
        async with asking(Upstream(server.url, retry=AT_ONCE, timeout=30.0)) as one:
            assert (await one.ask(POST("/", content=(body, "application/octet-stream"), safe=True))).ok

        assert [received.body == body for received in server.received] == [True, True]
        assert {received.headers["content-length"] for received in server.received} == {str(len(body))}

    async def test_200_calls_that_fail_at_once_make_3_attempts_each(self, stub: StartStub) -> None:
        server = (await stub("service")).on("*", BUSY)
        policy = Retry(attempts=3, first_wait=0.001, longest_wait=0.002)
        unguarded = Upstream(server.url, retry=policy, budget=None, breaker=None, max_concurrency=200, timeout=30.0)
        async with asking(unguarded) as one:
            outcomes = await asyncio.gather(*(one.ask(GET("/{n}", n=n)) for n in range(200)))

        assert {(outcome.fault, outcome.attempts) for outcome in outcomes} == {(Fault.HTTP_RESPONSE_STATUS, 3)}
        assert set(Counter(received.path for received in server.received).values()) == {3}


class TestTimeLeft:
    """An upstream that wants to know is told how many milliseconds an attempt has."""

    @pytest.mark.parametrize(
        ("request_", "own", "within", "least", "most"),
        [
            (GET("/"), 5.0, 60.0, 4000, 5000),
            (GET("/"), 60.0, 5.0, 4000, 5000),
            (POST("/"), 60.0, 5.0, 59000, 60000),  # a write goes on past the page's deadline
        ],
        ids=["a read's timeout", "a page's deadline", "a write's timeout"],
    )
    async def test_it_is_what_the_attempt_may_take(
        self, stub: StartStub, request_: Request[Any], own: float, within: float, least: int, most: int
    ) -> None:
        server = (await stub("service")).on("/", {})
        async with asking(Upstream(server.url, timeout=own, deadline_header="X-Time-Left")) as one:
            assert (await one.ask(request_, within=within)).ok

        (asked,) = server.received
        assert least < int(asked.headers["x-time-left"]) <= most

    async def test_each_attempt_has_less(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", Turns([BUSY, BUSY, {}]))
        retry = Retry(attempts=3, first_wait=0.01, longest_wait=0.01)
        async with asking(Upstream(server.url, timeout=60.0, deadline_header="X-Time-Left", retry=retry)) as one:
            assert (await one.ask(GET("/"), within=9.0)).ok

        left = [int(asked.headers["x-time-left"]) for asked in server.received]
        assert left == sorted(left, reverse=True)
        assert 0 < left[-1] <= 9000

    async def test_nothing_is_begun_that_could_not_end(self, raw: Raw) -> None:
        async with asking(Upstream(raw.url)) as one:
            outcome = await one.ask(GET("/"), within=0.005)

        assert (outcome.fault, outcome.attempts, raw.connections) == (Fault.DEADLINE_EXCEEDED, 0, 0)


class TestDeadline:
    @pytest.mark.parametrize("request_", [GET("/"), POST("/")], ids=repr)
    async def test_one_that_has_passed_costs_no_attempt(self, raw: Raw, request_: Request[Any]) -> None:
        async with asking(Upstream(raw.url)) as one:
            outcome = await one.ask(request_, within=0.0)

        assert (outcome.fault, outcome.attempts) == (Fault.DEADLINE_EXCEEDED, 0)
        assert (raw.connections, one.notes.attempts) == (0, [])

    async def test_it_ends_an_attempt_that_has_time_left(self, raw: Raw) -> None:
        raw.on("/", silence)
        async with asking(Upstream(raw.url, timeout=30.0, retry=AT_ONCE)) as one:
            outcome = await one.ask(GET("/"), within=SHORT)

        assert (outcome.fault, outcome.attempts) == (Fault.DEADLINE_EXCEEDED, 1)
        assert [(attempt.fault, attempt.sent) for attempt in one.notes.attempts] == [(Fault.DEADLINE_EXCEEDED, True)]

    async def test_attempts_that_time_out_share_it(self, raw: Raw) -> None:
        raw.on("/", silence)
        async with asking(Upstream(raw.url, timeout=0.4, retry=Retry(attempts=99, first_wait=0.0))) as one:
            outcome = await one.ask(GET("/"), within=1.5)

        assert 1 <= outcome.attempts <= 4
        assert not outcome.ok

    async def test_nothing_waits_past_it(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", Answered({}, 503, {"Retry-After": "60"}))
        async with asking(Upstream(server.url, timeout=5.0)) as one:
            outcome = await one.ask(GET("/"), within=50.0)

        assert (outcome.fault, outcome.attempts, one.notes.waits) == (Fault.HTTP_RESPONSE_STATUS, 1, [])


class TestPermits:
    async def test_no_more_requests_are_in_flight_than_allowed(self, stub: StartStub) -> None:
        flying = most = 0

        async def fly(_: Received) -> object:
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            await asyncio.sleep(0)
            flying -= 1
            return {}

        server = (await stub("service")).on("*", fly)
        async with asking(Upstream(server.url, max_concurrency=3, max_waiting=40)) as one:
            outcomes = await asyncio.gather(*(one.ask(GET("/{n}", n=n)) for n in range(40)))

        assert all(outcome.ok for outcome in outcomes)
        assert (most, len(server.received)) == (3, 40)

    async def test_who_gets_none_in_time_is_told_so_and_asks_nobody(self, stub: StartStub) -> None:
        server, gate = await stub("service"), Gate({})
        server.on("/slow", gate).on("/", {})
        async with asking(Upstream(server.url, max_concurrency=1, timeout=30.0, retry=AT_ONCE)) as one:
            slow = asyncio.create_task(one.ask(POST("/slow")))
            await gate.arrived.wait()
            outcome = await one.ask(GET("/"), within=0.5)
            assert (outcome.fault, outcome.attempts) == (Fault.CONNECTION_LIMIT_REACHED, 0)
            gate.open.set()
            assert (await slow).ok

            assert (await one.ask(GET("/"))).ok
        assert [received.path for received in server.received] == ["/slow", "/"]

    async def test_permits_are_handed_on_in_order(self, stub: StartStub) -> None:
        server, gate = await stub("service"), Gate({})
        server.on("/first", gate).on("*", {})
        async with asking(Upstream(server.url, max_concurrency=1)) as one:
            calls = [asyncio.create_task(one.ask(GET("/first")))]
            await gate.arrived.wait()
            for n in range(5):
                calls.append(asyncio.create_task(one.ask(GET("/{n}", n=n))))
                await asyncio.sleep(0)
            gate.open.set()
            await asyncio.gather(*calls)

        assert [received.path for received in server.received] == ["/first", "/0", "/1", "/2", "/3", "/4"]

    async def test_no_permit_is_held_while_a_call_waits_to_be_made_again(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/busy", Answered({}, 503, {"Retry-After": "30"})).on("/", {})
        async with asking(Upstream(server.url, max_concurrency=1)) as one:
            waiting = asyncio.create_task(one.ask(GET("/busy"), within=60.0))
            await until(lambda: one.notes.waits)
            assert (await one.ask(GET("/"))).ok
            waiting.cancel()
            await asyncio.wait([waiting])


class TestCancellation:
    """A read that is cancelled, wherever it stands, raises CancelledError and leaves nothing taken."""

    @staticmethod
    async def cancel(asking_: asyncio.Task[Any]) -> None:
        asking_.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking_

    async def test_while_it_connects(self) -> None:
        with deaf_port() as port:
            async with asking(Upstream(f"http://127.0.0.1:{port}", timeout=30.0)) as one:
                connector = one.connector
                assert connector is not None
                call = asyncio.create_task(one.ask(GET("/")))
                await until(lambda: connector._acquired)
                await self.cancel(call)
                one.gave_everything_back()

        assert [(attempt.sent, attempt.cancelled) for attempt in one.notes.attempts] == [(False, True)]

    async def test_while_it_waits_for_an_answer(self, raw: Raw) -> None:
        raw.on("/", silence)
        async with asking(Upstream(raw.url, timeout=30.0)) as one:
            call = asyncio.create_task(one.ask(GET("/")))
            await raw.asked(1)
            peer = raw.peers[0]
            await self.cancel(call)
            one.gave_everything_back()
            await peer.left.wait()

        assert [(a.sent, a.cancelled, a.fault) for a in one.notes.attempts] == [(True, True, None)]

    async def test_while_it_reads_a_body(self, raw: Raw) -> None:
        raw.on("/", head("200 OK", "Content-Type: application/json", "Content-Length: 99") + b"{", silence)
        async with asking(Upstream(raw.url, timeout=30.0)) as one:
            call = asyncio.create_task(one.ask(GET("/")))
            await raw.asked(1)
            peer = raw.peers[0]
            connector = one.connector
            assert connector is not None
            await until(lambda: any(protocol._payload for protocol in connector._acquired))
            await self.cancel(call)
            one.gave_everything_back()
            await peer.left.wait()

        assert [attempt.cancelled for attempt in one.notes.attempts] == [True]

    async def test_while_it_waits_for_a_permit(self, stub: StartStub) -> None:
        server, gate = await stub("service"), Gate({})
        server.on("*", gate)
        async with asking(Upstream(server.url, max_concurrency=1, timeout=30.0)) as one:
            first = asyncio.create_task(one.ask(GET("/first")))
            await gate.arrived.wait()
            second = asyncio.create_task(one.ask(GET("/second")))
            await until(lambda: one.client.guards.bulkhead.waiting)
            await self.cancel(second)
            gate.open.set()
            assert (await first).ok
            one.gave_everything_back()

        assert [received.path for received in server.received] == ["/first"]

    async def test_while_it_waits_to_be_made_again(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", Answered({}, 503, {"Retry-After": "30"}))
        async with asking(Upstream(server.url)) as one:
            call = asyncio.create_task(one.ask(GET("/"), within=60.0))
            await until(lambda: one.notes.waits)
            await self.cancel(call)
            one.gave_everything_back()

        assert len(server.received) == 1

    async def test_at_any_moment(self, stub: StartStub) -> None:
        server = (await stub("service")).on("*", Turns([{}]))
        before = asyncio.all_tasks()

        async def leave_early(one: Asking, n: int) -> None:
            call = asyncio.create_task(one.ask(GET("/{n}", n=n)))
            for _ in range(random.randrange(30)):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
            assert call.cancelled() or call.result().ok

        async with asking(Upstream(server.url, max_concurrency=4, timeout=30.0)) as one:
            for _ in range(30):
                await asyncio.gather(*(leave_early(one, n) for n in range(10)))
            one.gave_everything_back()
            assert (await one.ask(GET("/last"))).ok

        assert not {task for task in asyncio.all_tasks() - before if "Client" in repr(task.get_coro())}
        await until(lambda: len(server.received) == one.notes.sent)


class TestWrites:
    async def test_a_write_that_was_sent_outlives_its_caller(self, stub: StartStub) -> None:
        server, gate = await stub("service"), Gate({})
        server.on("/", gate)
        async with asking(Upstream(server.url, timeout=30.0)) as one:
            call = asyncio.create_task(one.ask(POST("/", json={"a": 1})))
            await gate.arrived.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert (one.notes.attempts, "outliving=1" in repr(one.client)) == ([], True)
            gate.open.set()

        assert [(a.fault, a.cancelled, a.status) for a in one.notes.attempts] == [(None, False, 200)]
        assert server.cancelled == 0

    async def test_and_the_deadline(self, stub: StartStub) -> None:
        server, gate = await stub("service"), Gate({})
        server.on("/", gate)
        async with asking(Upstream(server.url, timeout=30.0, idempotency_header="Idempotency-Key")) as one:
            outcome = await one.ask(POST("/", json={"a": 1}), within=SHORT)
            assert (outcome.fault, outcome.attempts) == (Fault.DEADLINE_EXCEEDED, 1)
            assert outcome.detail == "the write goes on until its own timeout"
            gate.open.set()

        assert [(a.fault, a.cancelled, a.status) for a in one.notes.attempts] == [(None, False, 200)]
        assert len(server.received) == 1

    @pytest.mark.parametrize("within", [SHORT / 2, 30.0])
    async def test_but_not_its_own_timeout(self, raw: Raw, within: float) -> None:
        raw.on("/", silence)
        async with asking(Upstream(raw.url, timeout=SHORT)) as one:
            await one.ask(POST("/"), within=within)

        assert [attempt.fault for attempt in one.notes.attempts] == [Fault.HTTP_RESPONSE_TIMEOUT]

    async def test_a_write_that_was_not_sent_ends_with_its_caller(self) -> None:
        with deaf_port() as port:
            async with asking(Upstream(f"http://127.0.0.1:{port}", timeout=30.0)) as one:
                connector = one.connector
                assert connector is not None
                call = asyncio.create_task(one.ask(POST("/")))
                await until(lambda: connector._acquired)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call

        assert [(attempt.sent, attempt.cancelled) for attempt in one.notes.attempts] == [(False, True)]

    async def test_and_with_the_deadline(self) -> None:
        with deaf_port() as port:
            async with asking(Upstream(f"http://127.0.0.1:{port}", timeout=30.0)) as one:
                outcome = await one.ask(POST("/"), within=0.5)

        assert (outcome.fault, outcome.detail) == (Fault.DEADLINE_EXCEEDED, None)
        assert [(attempt.sent, attempt.cancelled) for attempt in one.notes.attempts] == [(False, True)]

    @pytest.mark.parametrize("make", [POST, PUT, PATCH, DELETE])
    async def test_repeats_of_a_write_bear_one_key(self, stub: StartStub, make: Callable[[str], Request[Any]]) -> None:
        server = (await stub("service")).on("/", BUSY)
        async with asking(Upstream(server.url, retry=AT_ONCE, idempotency_header="Idempotency-Key")) as one:
            assert (await one.ask(make("/"))).attempts == 3

        keys = [received.headers["idempotency-key"] for received in server.received]
        assert len(keys) == 3
        assert len(set(keys)) == 1
        assert re.fullmatch("[0-9a-f]{32}", keys[0])

    async def test_the_key_is_the_client_s_the_call_s_and_the_turn_s(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", {})
        asked: list[dict[str, Any]] = [
            {"of": inbound(key="k")},
            {"of": inbound(key="k")},
            {"of": inbound(key="l")},
            {"of": inbound(key="k"), "name": "other"},
            {"of": inbound(key="k"), "part": "1"},
            {"of": inbound({"idempotency-key": "forged"}, key="m")},
        ]
        async with asking(Upstream(server.url, idempotency_header="Idempotency-Key")) as one:
            for options in asked:
                await one.ask(POST("/", headers={"idempotency-key": "own"}), **options)

        keys = [received.headers["idempotency-key"] for received in server.received]
        assert keys[0] == keys[1]
        assert len(set(keys)) == 5
        assert not {"k", "own", "forged"} & set(keys)

    async def test_a_write_whose_caller_left_while_it_waited_for_a_permit_is_not_made(self, stub: StartStub) -> None:
        server, gate = await stub("service"), Gate({})
        server.on("*", gate)
        async with asking(Upstream(server.url, max_concurrency=1, timeout=30.0)) as one:
            first = asyncio.create_task(one.ask(POST("/first")))
            await gate.arrived.wait()
            second = asyncio.create_task(one.ask(POST("/second")))
            await until(lambda: one.client.guards.bulkhead.waiting)
            second.cancel()
            await asyncio.wait([second])
            gate.open.set()
            assert (await first).ok

        assert [received.path for received in server.received] == ["/first"]


class TestOutcome:
    async def test_a_declared_absence_is_no_fault(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", Answered(b"x" * 2_000_000, 404, {"Content-Encoding": "br"}))
        async with asking(Upstream(server.url)) as one:
            outcome = await one.ask(GET("/"), absent=(404, 410))

        assert (outcome.ok, outcome.absent, outcome.value, outcome.status) == (True, True, None, 404)

    async def test_a_status_that_becomes_the_page_s_is_marked(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/409", Answered({}, 409)).on("/404", Answered({}, 404))
        async with asking(Upstream(server.url, passthrough=(409,))) as one:
            assert (await one.ask(GET("/409"))).passthrough
            assert not (await one.ask(GET("/409"), absent=(409,))).passthrough
            assert not (await one.ask(GET("/404"))).passthrough

    async def test_an_error_s_body_is_never_a_value(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", Answered({"id": 1}, 500))
        async with asking(Upstream(server.url, passthrough=(500,))) as one:
            assert (await one.ask(GET("/"))).value is None

    async def test_a_decoder_of_the_page_s_own_may_raise_what_it_likes(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", Answered(b"<a", content_type="text/xml"))

        def decode(_: bytes) -> object:
            raise TimeoutError(CANARY)

        async with asking(Upstream(server.url, retry=AT_ONCE)) as one:
            outcome = await one.ask(GET("/"), str, decode=decode)

        assert (outcome.fault, outcome.attempts) == (Fault.BODY_MALFORMED, 1)
        assert outcome.detail == "decode raised TimeoutError"

    async def test_a_mistake_of_ours_is_an_outcome_too_and_logged_with_its_traceback(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with asking(Upstream("http://127.0.0.1:1", retry=AT_ONCE)) as one:
            one.client._headers.clear()
            outcome = await one.ask(GET("/"))

        assert (outcome.fault, outcome.attempts) == (Fault.PROXY_INTERNAL_ERROR, 1)
        (record,) = (record for record in caplog.records if record.name == "upstreams.client")
        assert (record.levelname, record.message) == ("ERROR", "an attempt ended in a mistake of ours")
        assert record.exc_info

    async def test_what_happened_when_is_told_in_seconds_since_the_request_came(self, stub: StartStub) -> None:
        server = (await stub("service")).on("/", Turns([BUSY, {"a": 1}]))
        async with asking(Upstream(server.url, retry=AT_ONCE)) as one:
            await one.ask(GET("/"))

        first, second = one.notes.attempts
        assert 0 < first.start < first.start + first.duration <= second.start
        assert (second.body_bytes, second.status, second.sent) == (7, 200, True)


async def test_a_client_prints_what_it_is_busy_with(stub: StartStub) -> None:
    server, gate = await stub("service"), Gate({})
    server.on("/", gate)
    async with asking(Upstream(server.url, max_concurrency=2, timeout=30.0)) as one:
        call = asyncio.create_task(one.ask(GET("/")))
        await gate.arrived.wait()
        assert "<Bulkhead in_flight=1 of 2 waiting=0>" in repr(one.client)
        assert "<CircuitBreaker closed total=0 " in repr(one.client)
        gate.open.set()
        await call
        assert "<Bulkhead in_flight=0 of 2 waiting=0>" in repr(one.client)
        assert "<CircuitBreaker closed total=1 " in repr(one.client)
