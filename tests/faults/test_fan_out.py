"""What a page makes of its calls' ends, and of its client's: C1 to C12 of the fault plan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import uvloop
from django.urls import path

from gateway import AggregateView, call
from tests.chaos import Peer, Raw, Step, answer, fin, rst, serving_raw, silence
from tests.faults.network import naming
from tests.faults.scene import (
    ATTEMPT,
    DEADLINE,
    HEALTHY,
    PATIENCE,
    SHORT_DEADLINE,
    THRICE,
    is_idle,
    page_of,
    scene,
    until,
)
from tests.faults.table import Row
from tests.faults.test_bytes import LENGTH, busy, said
from tests.logs import Log
from tests.serving import PatientPage, Served, served
from tests.tap import ended
from tests.test_departures import Client, everything_before_is_seen
from tests.upstreams.asking import asking
from upstreams import GET, JSON, POST, Hedge, Request, Upstream

LEAVING: Final = [Client.reset, Client.close]


@asynccontextmanager
async def serving(
    log: Log, row: Row, upstream: Raw, page: type[AggregateView], **options: Any
) -> AsyncIterator[Served]:
    """Serve a page on one upstream by two names. At the end nothing is left, and the log adds up."""
    before = asyncio.all_tasks()
    one = Upstream(upstream.url, **{"timeout": ATTEMPT, "retry": THRICE, **options})
    async with served([path("page", page.as_view())], {"failing": one, "healthy": one}) as base:
        yield base
        await until(lambda: all(map(is_idle, base.fleet._clients.values())))
    await upstream.drained()
    await ended(before)
    row.wire, row.logged = upstream.begun, log.sent()
    assert row.wire == row.logged
    assert not log.events("log.recorded", level="error")


def one_call(**policy: Any) -> type[AggregateView]:
    class One(AggregateView):
        deadline = DEADLINE

        @call("failing", **policy)
        def it(self) -> Request[JSON]:
            return GET("/it")

    return One


class Told:
    """A step that says so when it is reached, and then does nothing more."""

    def __init__(self, *first: bytes) -> None:
        self.reached = asyncio.Queue[Peer]()
        self._first = first

    async def __call__(self, peer: Peer) -> None:
        for text in self._first:
            peer.writer.write(text)
            await peer.writer.drain()
        self.reached.put_nowait(peer)
        await silence(peer)


MOMENTS: Final[Mapping[str, tuple[bytes, ...] | None]] = {
    "at once": None,
    "when asked": (),
    "half way": (LENGTH % 1000 + b'"' + b"x" * 500,),
    "at the end": (LENGTH % 1000 + b'"' + b"x" * 998,),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.fault("C1", "client aborts, 250 times")
async def test_c1_a_client_that_aborts_ends_its_calls(log: Log, row: Row, moment: str) -> None:
    row.expected = "no answer, logged once each"
    text = MOMENTS[moment]
    told = Told(*(text or ()))
    async with serving_raw() as upstream:
        upstream.on("/it", told)
        async with serving(log, row, upstream, one_call(), max_concurrency=250) as base:
            for nth in range(250):
                with Client(base.url) as client:
                    await client.ask("/page", f"X-Request-ID: {nth}")
                    peer = None if text is None else await told.reached.get()
                    for _ in range(nth % 8):
                        await asyncio.sleep(0)
                    LEAVING[nth % 2](client)
                    if peer is not None:
                        await asyncio.wait_for(peer.left.wait(), PATIENCE)
            await everything_before_is_seen(base.url)
    finished = [line["outcome"] for line in log.events("request.finished", **{"http.route": "page"})]
    row.got = f"{len(finished)} logged, {set(finished)}"
    assert set(finished) <= {"disconnected"}
    assert len(log.events("client.disconnected")) == len(finished) <= 250
    assert len(log.events("call.finished", outcome="cancelled")) <= len(finished)
    assert text is None or len(finished) == 250


@pytest.mark.fault("C2", "client closes half")
async def test_c2_a_client_that_closes_its_half_has_left(log: Log, row: Row) -> None:
    row.expected = "no answer, logged once"
    told = Told()
    async with serving_raw() as upstream:
        upstream.on("/it", told)
        async with serving(log, row, upstream, one_call()) as base:
            with Client(base.url) as client:
                await client.ask("/page")
                peer = await told.reached.get()
                client.half_close()
                assert await client.answer() == b""
                await asyncio.wait_for(peer.left.wait(), PATIENCE)
    row.got = "no answer"
    assert [line["outcome"] for line in log.events("request.finished")] == ["disconnected"]
    assert len(log.events("client.disconnected")) == 1


@pytest.mark.fault("C3", "required fails first")
async def test_c3_a_required_failure_cancels_the_others(log: Log, row: Row) -> None:
    row.expected = "502 http_response_status"
    async with serving_raw() as upstream:
        async with scene(log, upstream, GET("/it")) as playing:

            async def fail_when_both_are_asked(peer: Peer) -> None:
                await playing.sibling.asked(1)
                peer.writer.write(said(b"{}", "500 Error"))

            playing.sibling.mend("*", silence)
            upstream.on("/it", fail_when_both_are_asked)
            found = await playing.ask()
            row.got = str(found)
            assert row.got == row.expected
            assert found.seconds < ATTEMPT  # which the sibling would have taken
        endings = [line["outcome"] for line in log.events("call.finished", call="sibling")]
        assert endings == ["cancelled"]
        row.wire, row.logged = upstream.begun, len(log.events("attempt.finished", upstream="failing"))


class Pair(PatientPage):
    @call("failing")
    def it(self) -> Request[JSON]:
        return GET("/it")

    @call("healthy")
    def other(self) -> Request[JSON]:
        return GET("/other")


@pytest.mark.fault("C4", "two fail at once")
async def test_c4_two_failures_at_once_are_both_logged(log: Log, row: Row) -> None:
    row.expected = "502, both calls logged as failed"
    both = asyncio.Barrier(2)

    async def fail(peer: Peer) -> None:
        await both.wait()
        peer.writer.write(said(b"{}", "500 Error"))

    async with serving_raw() as upstream:
        upstream.on("*", fail)
        async with (
            serving(log, row, upstream, Pair) as base,
            aiohttp.ClientSession() as session,
            session.get(f"{base.url}/page") as response,
        ):
            errors = (await response.json())["errors"]
    row.got = f"{response.status}, {len(errors)} in errors"
    assert response.status == 502
    assert "http_response_status" in {error["error"] for error in errors.values()}
    lines = log.events("attempt.finished")
    assert [line["http.response.status_code"] for line in lines] == [500, 500]
    assert [line["outcome"] for line in log.events("call.finished")] == ["failed", "failed"]


class Five(AggregateView):
    deadline = SHORT_DEADLINE

    @call("failing", optional=True)
    def one(self) -> Request[JSON]:
        return GET("/1")

    @call("failing", optional=True)
    def two(self) -> Request[JSON]:
        return GET("/2")

    @call("failing", optional=True)
    def three(self) -> Request[JSON]:
        return GET("/3")

    @call("failing", optional=True)
    def four(self) -> Request[JSON]:
        return GET("/4")

    @call("failing", optional=True)
    def five(self) -> Request[JSON]:
        return GET("/5")


@pytest.mark.fault("C5", "deadline, 3 of 5 are done")
async def test_c5_at_the_deadline_the_page_has_what_is_done(log: Log, row: Row) -> None:
    row.expected = "200, 3 of 5, at the deadline"
    async with serving_raw() as upstream:
        upstream.on("/4", silence).on("/5", silence).on("*", answer())
        async with serving(log, row, upstream, Five) as base, aiohttp.ClientSession() as session:
            started = asyncio.get_running_loop().time()
            async with session.get(f"{base.url}/page") as response:
                document = await response.json()
            seconds = asyncio.get_running_loop().time() - started
    row.got = f"{response.status}, {sum(value is not None for value in document['data'].values())} of 5"
    assert (response.status, document["complete"]) == (200, False)
    assert document["data"] == {"one": {}, "two": {}, "three": {}, "four": None, "five": None}
    assert {name: error["error"] for name, error in document["errors"].items()} == {
        "four": "deadline_exceeded",
        "five": "deadline_exceeded",
    }
    assert Five.deadline <= seconds < ATTEMPT


class TestCancelledWhile:
    """C6: the client leaves at each moment of a call at which it can be waiting for something."""

    @staticmethod
    async def leave(
        log: Log, row: Row, upstream: Raw, reached: Callable[[Served], object], begun: int, **options: Any
    ) -> None:
        row.expected = "no answer, nothing left"
        async with serving(log, row, upstream, one_call(), **options) as base:
            with Client(base.url) as client:
                await client.ask("/page")
                await until(lambda: reached(base))
                client.reset()
                await until(lambda: log.events("request.finished"))
        row.got = "nothing left"
        assert upstream.begun == begun
        assert [line["outcome"] for line in log.events("request.finished")] == ["disconnected"]
        assert [line["outcome"] for line in log.events("call.finished")] == ["cancelled"]

    @pytest.mark.fault("C6", "cancelled in a back-off")
    async def test_c6_it_waits_between_attempts(self, log: Log, row: Row) -> None:
        async with serving_raw() as upstream:
            upstream.on("/it", busy("9"))
            await self.leave(log, row, upstream, lambda _: log.events("retry.scheduled"), 1)

    @pytest.mark.fault("C6", "cancelled in the bulkhead")
    async def test_c6_it_waits_for_a_permit(self, log: Log, row: Row) -> None:
        row.expected = "no answer, nothing left"
        async with serving_raw() as upstream:
            upstream.on("/it", silence)
            options = {"max_concurrency": 1, "max_wait": ATTEMPT}
            async with serving(log, row, upstream, one_call(), **options) as base:
                bulkhead = base.fleet._clients["failing"].guards.bulkhead
                with Client(base.url) as first, Client(base.url) as second:
                    await first.ask("/page")
                    await upstream.asked(1)
                    await second.ask("/page")
                    await until(lambda: bulkhead.waiting)
                    second.reset()
                    await until(lambda: not bulkhead.waiting)
                    assert bulkhead.in_flight == 1
                    first.reset()
                    await until(lambda: len(log.events("request.finished")) == 2)
            row.got = "nothing left"
            assert upstream.begun == 1
            assert [line["outcome"] for line in log.events("call.finished")] == ["cancelled", "cancelled"]

    @pytest.mark.fault("C6", "cancelled in DNS")
    async def test_c6_it_waits_for_an_address(self, log: Log, row: Row, tmp_path: Path) -> None:
        async with naming(tmp_path), serving_raw() as upstream:
            place = Raw(address="upstream.test")
            place.port, place.drained = upstream.port, upstream.drained  # type: ignore[method-assign]
            await self.leave(log, row, place, lambda base: connector(base)._resolve_host_tasks, 0)

    @pytest.mark.fault("C6", "cancelled in TLS")
    async def test_c6_it_waits_for_a_handshake(self, log: Log, row: Row) -> None:
        async with serving_raw(silence) as upstream:
            place = Raw()
            place.port, place.scheme, place.peers = upstream.port, "https", upstream.peers
            await self.leave(log, row, place, lambda _: upstream.peers, 0)

    @pytest.mark.fault("C6", "cancelled in a body")
    async def test_c6_it_reads_a_body(self, log: Log, row: Row) -> None:
        told = Told(LENGTH % 99 + b'{"a')
        async with serving_raw() as upstream:
            upstream.on("/it", told)
            await self.leave(log, row, upstream, lambda _: told.reached.qsize(), 1)

    @pytest.mark.fault("C6", "cancelled in a log call")
    @pytest.mark.skip("a line is put into the log's queue without waiting: nothing can be cancelled there")
    async def test_c6_it_logs(self) -> None:
        """There is no such moment."""


def connector(base: Served) -> Any:
    return base.fleet._clients["failing"]._connector


@pytest.mark.fault("C7", "hedge of 1 in 25")
async def test_c7_a_hedge_is_answered_and_its_loser_cancelled(log: Log, row: Row) -> None:
    row.expected = "200 complete, 4 hedges of 100"

    async def slow_at_times(peer: Peer) -> None:
        if len(upstream.requests) % 26 == 25:
            await silence(peer)
        else:
            peer.writer.write(answer())

    async with serving_raw() as upstream:
        upstream.on("/it", slow_at_times)
        options = {"hedge": Hedge(after=1.0)}
        async with scene(log, upstream, GET("/it"), options=options) as playing:
            for _ in range(100):
                row.got = str(await playing.ask())
                assert row.got == "200 complete"
        row.wire, row.logged = upstream.begun, len(log.events("attempt.finished", upstream="failing", sent=True))
        lost = log.events("attempt.finished", upstream="failing", outcome="cancelled")
        assert row.wire == row.logged
        assert 1 <= len(lost) == upstream.begun - 100 <= 5


@pytest.mark.fault("C8", "200 fail at once")
async def test_c8_calls_that_fail_at_once_have_each_its_own_attempts(log: Log, row: Row) -> None:
    row.expected = "503 http_response_status, 3 each"
    options: dict[str, Any] = {"budget": None, "breaker": None, "max_concurrency": 400}
    async with serving_raw() as upstream:
        upstream.on("/it", said(b"{}", "503 Busy"))
        async with scene(log, upstream, GET("/it"), options=options) as playing:
            found = await asyncio.gather(*(playing.ask() for _ in range(200)))
        row.got = str(found[0])
        row.wire, row.logged = upstream.begun, len(log.events("attempt.finished", upstream="failing", sent=True))
    assert {(str(each), each.error["attempts"]) for each in found} == {("503 http_response_status", 3)}
    for each in found:
        lines = log.events("attempt.finished", upstream="failing", request_id=each.headers["x-request-id"])
        assert [line["attempt"] for line in lines] == [1, 2, 3]
    assert upstream.begun == 600


AGAIN: Final[Mapping[str, tuple[Step, ...]]] = {
    "FIN": (fin,),
    "RST": (rst,),
    "cut": (LENGTH % 9, fin),
    "502": (said(b"{}", "502 Bad"),),
    "503": (said(b"{}", "503 Busy"),),
    "504": (said(b"{}", "504 Late"),),
    "429": (busy("0"),),
    "silence": (silence,),
}


@pytest.mark.parametrize("first", AGAIN)
@pytest.mark.fault("C9", "retry, then cancelled")
async def test_c9_a_retry_does_not_take_a_cancellation_for_a_failure(log: Log, row: Row, first: str) -> None:
    row.expected = "cancelled in attempt 2"
    held = Told()
    async with serving_raw() as upstream:
        upstream.on("/it", *AGAIN[first]).on("/it", held)
        async with asking(Upstream(upstream.url, timeout=SHORT_DEADLINE, retry=THRICE)) as one:
            task = asyncio.create_task(one.ask(GET("/it")))
            await held.reached.get()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await upstream.drained()
        row.got = f"cancelled in attempt {len(one.notes.attempts)}"
        row.wire, row.logged = upstream.begun, log.sent()
        assert [attempt.cancelled for attempt in one.notes.attempts] == [False, True]
        assert row.wire == row.logged == 2


@pytest.mark.fault("C10", "hidden retry")
async def test_c10_nothing_is_sent_twice_unseen(log: Log, row: Row) -> None:
    row.expected = "502 connection_terminated"
    async with serving_raw() as upstream:
        upstream.on("/it", fin)
        async with scene(log, upstream, GET("/it"), options={"retry": None}) as playing:
            row.got = str(await playing.ask())
        row.wire, row.logged = upstream.begun, len(log.events("attempt.finished", upstream="failing", sent=True))
    assert row.got == row.expected
    assert row.wire == row.logged == 1


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.fault("C11", "requests on one connection")
def test_c11_requests_on_one_connection_share_no_context(
    log: Log, row: Row, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    row.expected = "200 complete, each under its id"
    with asyncio.Runner(loop_factory=loop) as runner:
        row.wire = runner.run(five_on_one_connection(log))
    row.got = "200 complete"
    row.logged = log.sent() // 2
    for nth in range(5):
        lines = log.events(request_id=str(nth))
        assert {line["trace_id"] for line in lines} == {lines[0]["trace_id"]}
        assert [line["event"] for line in lines].count("attempt.finished") == 2
        assert [line["event"] for line in lines].count("request.finished") == 1
    assert len({line["trace_id"] for line in log.events("request.finished")}) == 5
    assert row.wire == row.logged == 5


async def five_on_one_connection(log: Log) -> int:
    """Make three large writes one after another, and then two small ones in one go; returns how many were asked."""
    async with serving_raw() as upstream, serving_raw() as sibling:
        upstream.on("*", answer())
        sibling.on("*", HEALTHY)
        table = {"failing": Upstream(upstream.url), "healthy": Upstream(sibling.url)}
        page = page_of(POST("/it", json={}))
        async with served([path("page", page.as_view())], table) as base:
            host, port = base.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            for asked in (["0"], ["1"], ["2"], ["3", "4"]):
                for name in asked:
                    body = b"x" * (200_000 if len(asked) == 1 else 0)
                    fields = f"Host: gateway\r\nX-Request-ID: {name}\r\nContent-Length: {len(body)}"
                    writer.write(f"POST /page HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body)
                for name in asked:
                    told = (await reader.readuntil(b"\r\n\r\n")).lower()
                    assert told.startswith(b"http/1.1 200 ")
                    assert b"x-request-id: " + name.encode() in told
                    await reader.readexactly(int(told.partition(b"content-length: ")[2].partition(b"\r")[0]))
            writer.close()
        await upstream.drained()
        return upstream.begun


@pytest.mark.fault("C12", "leader of a flight leaves")
async def test_c12_who_shares_a_call_is_answered_when_its_leader_leaves(log: Log, row: Row) -> None:
    row.expected = "200 complete"
    told = Told()
    async with serving_raw() as upstream:
        upstream.on("/it", told).on("/it", answer(b'"shared"'))
        async with serving(log, row, upstream, one_call(), coalesce=True) as base:
            with Client(base.url) as leader, Client(base.url) as follower:
                await leader.ask("/page")
                await told.reached.get()
                await follower.ask("/page", "Connection: close")
                await until(lambda: log.events("flight.joined"))
                leader.reset()
                found = await follower.answer()
    row.got = "200 complete" if found.startswith(b"HTTP/1.1 200 ") else "else"
    assert b'"it":"shared"' in found
    assert sorted(line["outcome"] for line in log.events("request.finished")) == ["disconnected", "ok"]
    assert upstream.begun == 2
