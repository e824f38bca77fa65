"""Faults that take more than one request to show: reused connections, failovers, outages, slowness; and what they cost.

U7, U13, U14, U28, U36, U45, U48, U50 to U56 and U60 of the fault plan.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests.chaos import Peer, Raw, answer, fin, head, proxying, serving_raw, silence
from tests.faults import network
from tests.faults.scene import PATIENCE, SHORT_ATTEMPT, Scene, Through, scene
from tests.faults.table import READS, VARIANTS, Row, Variant
from tests.faults.test_bytes import CODED, ENDED, NO_HTTP, NO_JSON, STATUSES, bomb, said, zipped
from tests.logs import CANARY, Log
from upstreams import GET, POST, Breaker, Budget, Retry

STALE: Final = answer(f'"{CANARY}"'.encode())
SHORT: Final = {"timeout": SHORT_ATTEMPT}
IDLE_408: Final = head("408 Request Timeout", "Connection: close", "Content-Length: 0")


def counted(row: Row, log: Log, begun: int) -> None:
    """Fill in a row's counts, which are the same."""
    row.wire, row.logged = begun, len(log.events("attempt.finished", upstream="failing", sent=True))
    assert row.wire == row.logged


class Moving:
    """An upstream that one server answers for after another."""

    def __init__(self, first: Raw) -> None:
        self.url = first.url
        self.servers = [first]

    @property
    def begun(self) -> int:
        return sum(server.begun for server in self.servers)

    async def drained(self) -> None:
        """Wait for the last; the others are gone."""
        await self.servers[-1].drained()


@pytest.mark.fault("U7", "name leads elsewhere")
async def test_u7_a_name_that_leads_elsewhere_is_followed_in_the_same_request(
    log: Log, row: Row, tmp_path: Path
) -> None:
    row.expected = "200 complete, from the new one"
    async with network.naming(tmp_path) as names, AsyncExitStack() as new, AsyncExitStack() as old:
        names.leads("upstream.test", "127.0.0.1")
        first = await old.enter_async_context(serving_raw())
        first.on("*", answer(b'"old"')).host = "upstream.test"
        place = Moving(first)
        async with scene(log, place, GET("/it")) as playing:
            assert b'"it":"old"' in (await playing.ask()).body
            second = await new.enter_async_context(serving_raw(address="127.0.0.2", port=first.port))
            place.servers.append(second.on("*", answer(b'"new"')))
            names.leads("upstream.test", "127.0.0.2")
            await old.aclose()
            found = await playing.ask()
            row.got = str(found)
            assert b'"it":"new"' in found.body
        counted(row, log, place.begun)


@pytest.mark.parametrize("variant", READS, ids=str)
@pytest.mark.fault("U13", "FIN on a reused connection")
async def test_u13_a_reused_connection_that_ends_costs_a_read_nothing(log: Log, row: Row, variant: Variant) -> None:
    row.expected = "200 complete, 1 attempt"
    async with serving_raw() as upstream:
        upstream.on("/it", answer()).on("/it", fin).on("/it", answer(b'"again"'))
        async with scene(log, upstream, GET("/it"), required=variant.required) as playing:
            await playing.ask()
            found = await playing.ask()
            row.got = str(found)
            assert b'"it":"again"' in found.body
            assert [line["attempts"] for line in log.events("call.finished", call="it")] == [1, 1]
            assert not log.events("retry.scheduled")
        counted(row, log, upstream.begun)
        assert upstream.begun == 3


@pytest.mark.parametrize("variant", VARIANTS[2:], ids=str)
@pytest.mark.fault("U14", "FIN on a reused connection")
async def test_u14_a_reused_connection_that_ends_fails_a_write(log: Log, row: Row, variant: Variant) -> None:
    row.expected = f"{502 if variant.required else 200} connection_terminated"
    async with serving_raw() as upstream:
        upstream.on("/it", answer()).on("/it", fin)
        async with scene(log, upstream, POST("/it", json={}), required=variant.required) as playing:
            await playing.ask()
            found = await playing.ask()
            row.got = str(found)
            assert row.got == row.expected
        counted(row, log, upstream.begun)
        assert upstream.begun == 2


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.fault("U28", "length too short, surplus l")
async def test_u28_what_comes_after_an_answer_is_dropped_with_its_connection(
    log: Log, row: Row, variant: Variant
) -> None:
    row.expected = "200 complete, twice"
    asked = GET("/it") if variant.method == "GET" else POST("/it", json={})
    async with serving_raw() as upstream:
        upstream.on("/it", answer(b'"first"')).on("/it", answer(b'"second"'))
        async with scene(log, upstream, asked, required=variant.required) as playing:
            await playing.ask()
            upstream.push(CANARY.encode())
            found = await playing.ask()
            row.got = str(found)
            assert b'"it":"second"' in found.body
            assert upstream.connections == 2
        counted(row, log, upstream.begun)


@pytest.mark.parametrize("text", [b"", zipped(bomb())], ids=["headers", "bomb"])
@pytest.mark.fault("U36", "memory of what is too large")
async def test_u36_what_is_too_large_takes_no_memory(log: Log, row: Row, text: bytes) -> None:
    row.expected = "502, less than 8 MiB more"
    text = text or said(b"{}", "200 OK", *[f"a-{number}: " + "b" * 1000 for number in range(1024)])
    async with serving_raw() as upstream:
        upstream.on("/it", text)
        async with scene(log, upstream, GET("/it")) as playing:
            await playing.ask()  # and what is made once is made
            before = await asyncio.to_thread(forget_peak)
            found = await playing.ask()
            grown = await asyncio.to_thread(peak) - before
            row.got = f"{found}, {grown / 1024:.1f} MiB more"
            assert found.status == 502
            assert grown < 8 * 1024
        counted(row, log, upstream.begun)


def forget_peak() -> int:
    """Have the kernel measure the peak of this process's memory from now on; returns what it is now, in KiB."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def peak() -> int:
    return _memory("VmHWM")


def _memory(name: str) -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        pytest.skip("this system does not tell how much memory a process takes")
    return int(status.partition(f"{name}:")[2].split()[0])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.fault("U45", "redirect to another host")
async def test_u45_nobody_connects_to_a_redirects_target(log: Log, row: Row, status: int) -> None:
    row.expected = "502 http_response_status"
    async with serving_raw() as upstream, serving_raw() as target:
        upstream.on("/it", said(b"", f"{status} Moved", f"Location: {target.url}/it"))
        async with scene(log, upstream, GET("/it")) as playing:
            row.got = str(await playing.ask())
            assert row.got == row.expected
        counted(row, log, upstream.begun)
        assert target.connections == 0


@pytest.mark.parametrize("unasked", [STALE, IDLE_408], ids=["answers", "408"])
@pytest.mark.fault("U48", "unasked answers when idle")
async def test_u48_an_unasked_answer_is_nobodys(log: Log, row: Row, unasked: bytes) -> None:
    row.expected = "200 complete, 500 x its own"

    async def own(peer: Peer) -> None:
        asked = upstream.requests[-1].partition(b"x-request-id: ")[2].partition(b"\r")[0]
        peer.writer.write(answer(b'"' + asked + b'"'))

    async with serving_raw() as upstream:
        upstream.on("/it", own)
        async with scene(log, upstream, GET("/it")) as playing:
            for nth in range(1, 501):
                found = await playing.ask()
                row.got = str(found)
                assert b'"it":"asked-%d"' % nth in found.body
                upstream.push(unasked)
        counted(row, log, upstream.begun)
        assert upstream.begun == 500


@pytest.mark.parametrize(
    ("budget", "least"), [(Budget(share=1.0, burst=400), 80), (Budget(), 0)], ids=["rich", "default"]
)
@pytest.mark.fault("U50", "half of the answers are 503")
async def test_u50_retries_help_against_flapping_as_far_as_the_budget_goes(
    log: Log, row: Row, budget: Budget, least: int
) -> None:
    row.expected = "80 % of pages, or a spent budget"
    chance = random.Random(7)

    async def flap(peer: Peer) -> None:
        peer.writer.write(answer() if chance.random() < 0.5 else said(b"{}", "503 Busy"))

    async with serving_raw() as upstream:
        upstream.on("/it", flap)
        options = {"breaker": None, "budget": budget}
        async with scene(log, upstream, GET("/it"), required=False, options=options) as playing:
            started = asyncio.get_running_loop().time()
            for _ in range(100):
                await playing.ask()
            seconds = asyncio.get_running_loop().time() - started
        healthy = sum(found.json["complete"] for found in playing.answers)
        row.got = f"{healthy} % of pages, {upstream.begun} attempts"
        assert healthy >= least
        spent = upstream.begun - 100
        assert spent <= budget.share * 100 + budget.burst + budget.floor * seconds
        assert spent > 0
        counted(row, log, upstream.begun)


def changes(log: Log) -> list[tuple[str, str]]:
    return [(line["from"], line["to"]) for line in log.events("breaker.changed", upstream="failing")]


@pytest.mark.fault("U51", "hard down, and back")
async def test_u51_an_upstream_that_is_down_is_left_alone_and_found_when_it_is_back(log: Log, row: Row) -> None:
    row.expected = "503 destination_unavailable"
    breaker = Breaker(minimum_calls=6, open_time=4.0, longest_open_time=4.0, probes=1, successes=2)
    async with serving_raw() as upstream:
        upstream.on("/it", said(b"{}", "500 Down"))
        async with scene(log, upstream, GET("/it"), options={"breaker": breaker}) as playing:
            for _ in range(6):
                assert (await playing.ask()).error["error"] == "http_response_status"
            refused = await playing.ask()
            row.got = str(refused)
            assert row.got == "503 destination_unavailable"
            assert refused.headers["retry-after"] in {"3", "4", "5"}
            assert upstream.begun == 6
            upstream.mend("/it", answer())
            async with asyncio.timeout(PATIENCE):
                while (await playing.ask()).status == 503:
                    pass
            assert [(await playing.ask()).status for _ in range(3)] == [200] * 3
        assert changes(log) == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
        assert upstream.begun == 6 + sum(found.status == 200 for found in playing.answers)
        counted(row, log, upstream.begun)


@pytest.mark.fault("U52", "one upstream is slow")
async def test_u52_a_slow_upstream_holds_no_more_than_its_bulkhead(log: Log, row: Row) -> None:
    row.expected = "200: 2 time out, 6 limit reached"
    most = 0

    async def slow(peer: Peer) -> None:
        nonlocal most
        most = max(most, len(upstream.peers))
        await silence(peer)

    async with serving_raw() as upstream:
        upstream.on("/it", slow)
        options = {"max_concurrency": 2, "max_waiting": 1, "max_wait": 0.05, "retry": None, "timeout": 3.0}
        async with scene(log, upstream, GET("/it"), required=False, options=options) as playing:
            found = await asyncio.gather(*(playing.ask() for _ in range(8)))
        words = Counter(each.error["error"] for each in found)
        row.got = f"200: {words['http_response_timeout']} time out, {words['connection_limit_reached']} limit reached"
        assert words == {"http_response_timeout": 2, "connection_limit_reached": 6}
        assert {each.status for each in found} == {200}
        assert most == 2
        counted(row, log, upstream.begun)


@pytest.mark.fault("U53", "half-open connection")
async def test_u53_a_connection_on_which_nothing_passes_is_given_up_for_a_new_one(log: Log, row: Row) -> None:
    row.expected = "200 complete, 2 attempts"
    async with serving_raw() as upstream, proxying(upstream.port) as proxy:
        upstream.on("/it", answer())
        place = Through(proxy)
        async with scene(log, place, GET("/it"), options={"timeout": 3.0}) as playing:
            await playing.ask()
            proxy.forget()
            found = await playing.ask()
            row.got = str(found)
            assert found.status == 200
            lines = log.events("attempt.finished", upstream="failing")
            assert [(line["conn"], line.get("error.type")) for line in lines] == [
                ("new", None), ("reused", "http_response_timeout"), ("new", None),
            ]  # fmt: skip
            assert proxy.begun == 2
            place.lost = 1  # sent on a connection that nothing passes on any more
        counted(row, log, place.begun)


@pytest.mark.fault("U54", "restart of the upstream")
async def test_u54_a_restart_costs_what_was_asked_meanwhile_and_no_more(log: Log, row: Row) -> None:
    row.expected = "200, 502 connection_refused, 200"
    async with AsyncExitStack() as new, AsyncExitStack() as old:
        place = Moving(await old.enter_async_context(serving_raw()))
        place.servers[0].on("*", answer())
        async with scene(log, place, GET("/it")) as playing:
            before = await playing.ask()
            await old.aclose()
            down = [await playing.ask() for _ in range(3)]
            place.servers.append(await new.enter_async_context(serving_raw(port=place.servers[0].port)))
            place.servers[1].on("*", answer())
            after = await playing.ask()
        row.got = f"{before.status}, {down[0]}, {after.status}"
        assert row.got == row.expected
        assert len({str(each) for each in down}) == 1
        assert len(changes(log)) <= 2
        counted(row, log, place.begun)


@pytest.mark.fault("U55", "lossy network")
async def test_u55_a_network_that_loses_packets_costs_time_and_hardly_a_page(log: Log, row: Row) -> None:
    """Five per cent of the time every packet is lost: this can be had without the kernel's netem or nftables."""
    row.expected = "99.5 % of 200 pages"
    with network.own_network("tc qdisc replace dev lo root pfifo limit 1000"):

        async def lose() -> None:
            while True:
                await asyncio.sleep(0.19)
                network.run("tc qdisc replace dev lo root pfifo limit 0")
                try:
                    await asyncio.sleep(0.01)
                finally:
                    network.run("tc qdisc replace dev lo root pfifo limit 1000")

        async with serving_raw() as upstream:
            upstream.on("*", answer())
            async with scene(log, upstream, GET("/it"), options={"timeout": 5.0}) as playing:
                losing = asyncio.ensure_future(lose())
                try:
                    await asyncio.gather(*(several(playing, 25) for _ in range(8)))
                finally:
                    losing.cancel()
                    with suppress(asyncio.CancelledError):
                        await losing
            whole = sum(found.status == 200 for found in playing.answers)
            row.got = f"{whole / 2} % of 200 pages"
            assert whole >= 199
            counted(row, log, upstream.begun)


async def several(playing: Scene, pages: int) -> None:
    for _ in range(pages):
        await playing.ask()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.fault("U56", "64 kbit/s")
async def test_u56_an_answer_that_takes_too_long_to_pass_times_out(log: Log, row: Row, variant: Variant) -> None:
    row.expected = f"{504 if variant.required else 200} http_response_timeout"
    asked = GET("/it") if variant.method == "GET" else POST("/it", json={})
    async with serving_raw() as upstream, proxying(upstream.port, rate=8000) as proxy:
        upstream.on("/it", said(b'"' + b"x" * 100_000 + b'"'))
        async with scene(log, Through(proxy), asked, required=variant.required, options=SHORT) as playing:
            row.got = str(await playing.ask())
            assert row.got == row.expected
        counted(row, log, proxy.begun)
        assert upstream.begun == proxy.begun == (3 if variant.method == "GET" else 1)


@pytest.mark.fault("U60", "300 cycles of every fault")
async def test_u60_a_mixture_of_every_fault_leaves_nothing_behind(log: Log, row: Row) -> None:
    """Hours of it are for a soak; here it is what every row asks of one fault, asked of all of them by turns."""
    row.expected = "300 pages, each well-formed"
    chance = random.Random(60)
    mixture = [*ENDED, *NO_HTTP, *CODED, *NO_JSON, *STATUSES]
    options: dict[str, Any] = {"breaker": None, "retry": Retry(attempts=2, first_wait=0.0, longest_wait=0.0)}
    words: Counter[str] = Counter()
    async with serving_raw() as upstream:

        async def any_of_them(peer: Peer) -> None:
            for step in (answer(),) if chance.random() < 0.5 else chance.choice(mixture).steps:
                await upstream.take(step, peer)

        upstream.on("/it", any_of_them)
        async with scene(log, upstream, GET("/it"), required=False, options=options) as playing:
            for _ in range(300):
                found = await playing.ask()
                words[found.error.get("error", "complete")] += 1
        row.got = f"{words.total()} pages, {len(words)} endings"
        assert words["complete"] > 100
        assert len(words) > 5
        counted(row, log, upstream.begun)
