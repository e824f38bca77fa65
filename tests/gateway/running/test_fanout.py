"""A page's calls at run time: what starts when, what ends what, and what is said of it."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple

import aiohttp
import msgspec
import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.urls import path
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import AggregateView, Answer, Fan, Problem, batch, call, each, page_test, part
from tests.conftest import StartStub
from tests.logs import CANARY, Log
from tests.serving import SHORT, SLOW, PatientPage, asking, gateway
from tests.stub import Answered, Barrier, Gate, Received
from tests.tap import tapping
from upstreams import GET, JSON, Fault, Request, Upstream


class Item(msgspec.Struct):
    n: int


class Row(msgspec.Struct):
    id: int


async def soon(*events: asyncio.Event) -> None:
    """Wait for events that are on their way, and fail rather than hang when they are not."""
    async with asyncio.timeout(20):
        for event in events:
            await event.wait()


# Eager start


class OneOfEach(PatientPage):
    @call("all")
    def alone(self) -> Request[Item]:
        return GET("/call")

    @batch("all", key="id")
    def rows(self, ids: list[int]) -> Request[list[Row]]:
        return GET("/batch", id=ids)

    @rows.keys
    def row_ids(self) -> list[int]:
        return [1, 2]

    @each("all")
    def items(self, n: int) -> Request[Item]:
        return GET("/each/{n}", n=n)

    @items.keys
    def item_ids(self) -> list[int]:
        return [1, 2]

    @part
    async def inner(self, fan: Fan) -> list[Item]:
        pending = [fan.call("all", GET("/part/{n}", n=n), Item) for n in (1, 2)]
        return [await item for item in pending]


async def test_calls_joins_and_parts_that_need_nothing_of_each_other_are_in_flight_together(stub: StartStub) -> None:
    server = await stub("all")
    together = Barrier(6, None)

    async def rows(asked: Received) -> list[dict[str, int]]:
        await together(asked)
        return [{"id": 1}, {"id": 2}]

    async def item(asked: Received) -> dict[str, int]:
        await together(asked)
        return {"n": 0}

    server.on("/batch", rows).on("*", item)
    with asking([path("page", OneOfEach.as_view())], {"all": server}) as client:
        answer = await client.get("/page")

    assert answer.json() == {
        "data": {
            "alone": {"n": 0},
            "rows": {"1": {"id": 1}, "2": {"id": 2}},
            "items": {"1": {"n": 0}, "2": {"n": 0}},
            "inner": [{"n": 0}, {"n": 0}],
        },
        "complete": True,
        "errors": {},
    }


class Chain(AggregateView):
    deadline = 60.0

    @call("all")
    def held(self) -> Request[Item]:
        return GET("/held")

    @call("all")
    def third(self, second: Item) -> Request[Item]:
        return GET("/third", n=second.n)

    @call("all")
    def second(self, first: Item) -> Request[Item]:
        return GET("/second", n=first.n)

    @call("all")
    def first(self) -> Request[Item]:
        return GET("/first")


async def test_each_call_of_a_chain_starts_when_its_input_is_there_beside_a_sibling_that_is_held(
    stub: StartStub, client: aiohttp.ClientSession
) -> None:
    server = await stub("all")
    held, third = Gate({"n": 0}), Gate({"n": 3})
    server.on("/held", held).on("/first", {"n": 1}).on("/second", {"n": 2}).on("/third", third)
    async with gateway([path("page", Chain.as_view())], {"all": Upstream(server.url, timeout=SLOW)}) as base:
        asking = asyncio.create_task(client.get(f"{base}/page"))
        await soon(held.arrived, third.arrived)
        third.open.set()
        held.open.set()
        answer = await (await asking).json()

    assert [asked.path for asked in server.received if asked.path != "/held"] == ["/first", "/second", "/third"]
    assert server.asked("/third")[0].query == [("n", "2")]
    assert list(answer["data"]) == ["held", "third", "second", "first"]


class Levels(AggregateView):
    """b needs a; c stands alone beside a; d needs b, so it stands at c's level and beyond; e needs c and d."""

    deadline = 60.0

    @call("all")
    def a(self) -> Request[Item]:
        return GET("/a")

    @call("all")
    def c(self) -> Request[Item]:
        return GET("/c")

    @call("all")
    def b(self, a: Item) -> Request[Item]:
        return GET("/b")

    @call("all")
    def d(self, b: Item) -> Request[Item]:
        return GET("/d")

    @call("all")
    def e(self, c: Item, d: Item) -> Request[Item]:
        return GET("/e")


async def test_there_are_no_levels_a_call_waits_for_what_it_needs_and_for_nothing_else(stub: StartStub) -> None:
    server = await stub("all")
    c, d = Gate({"n": 0}), Gate({"n": 0})
    server.on("/c", c).on("/d", d).on("*", {"n": 0})
    with asking([path("page", Levels.as_view())], {"all": Upstream(server.url, timeout=SLOW)}) as client:
        page = asyncio.create_task(client.get("/page"))
        await soon(c.arrived, d.arrived)
        before_c = [asked.path for asked in server.received]
        d.open.set()
        c.open.set()
        answer = await page

    assert sorted(before_c) == ["/a", "/b", "/c", "/d"]
    assert server.received[-1].path == "/e"
    assert answer.status_code == 200


class After(PatientPage):
    @call("all", optional=True)
    def first(self) -> Request[Item]:
        return GET("/first")

    @call("all", after=("first",))
    def second(self) -> Request[Item]:
        return GET("/second")


@pytest.mark.parametrize("status", [200, 500])
async def test_after_orders_calls_whatever_becomes_of_the_first(stub: StartStub, status: int) -> None:
    server = await stub("all")
    first = Gate(Answered({"n": 1}, status))
    server.on("/first", first).on("/second", {"n": 2})
    with asking([path("page", After.as_view())], {"all": Upstream(server.url, timeout=SLOW)}) as client:
        page = asyncio.create_task(client.get("/page"))
        await soon(first.arrived)
        before = len(server.received)
        first.open.set()
        answer = await page

    assert before == 1
    assert answer.json()["data"]["second"] == {"n": 2}


# The order of the answer


class Arrivals(AggregateView):
    """Four things that end in any order, each followed by a call that shows that it has been settled."""

    deadline = 60.0

    @call("all", optional=True)
    def failing(self) -> Request[Item]:
        return GET("/1")

    @part
    async def parts(self, fan: Fan) -> list[Item | None]:
        async def one(n: int) -> Item | None:
            value = await fan.call("all", GET("/{n}", n=n), Item, optional=True, name=f"inner-{n}")
            await fan.call("all", GET("/settled/{n}", n=n))
            return value

        return list(await asyncio.gather(one(2), one(3)))

    @call("all", fallback={"n": 0})
    def standing_in(self) -> Request[Item]:
        return GET("/4")

    @call("all", internal=True)
    def after_failing(self, failing: Item | None) -> Request[JSON]:
        return GET("/settled/1")

    @call("all", internal=True)
    def after_standing_in(self, standing_in: Item) -> Request[JSON]:
        return GET("/settled/4")


async def test_the_answer_is_the_same_bytes_in_whatever_order_upstreams_answer(stub: StartStub) -> None:
    server = await stub("all")
    answers = set()
    with asking([path("page", Arrivals.as_view())], {"all": Upstream(server.url, timeout=SLOW, retry=None)}) as client:
        for order in itertools.permutations((1, 2, 3, 4)):
            gates = {n: Gate(Answered({"n": n}, 500)) for n in order}
            settled = {n: Gate({}) for n in order}
            for n in order:
                server.on(f"/{n}", gates[n]).on(f"/settled/{n}", settled[n])
            page = asyncio.create_task(client.get("/page"))
            await soon(*(gate.arrived for gate in gates.values()))
            for n in order:
                gates[n].open.set()
                await soon(settled[n].arrived)
                settled[n].open.set()
            answer = await page
            answers.add((answer.content, answer["Proxy-Status"], answer["X-Complete"]))

    ((content, proxy_status, complete),) = answers
    assert list(msgspec.json.decode(content)["data"]) == ["failing", "parts", "standing_in"]
    assert list(msgspec.json.decode(content)["errors"]) == ["failing", "standing_in", "parts.inner-2", "parts.inner-3"]
    assert 'details="no value: failing, standing_in, parts.inner-2, parts.inner-3"' in proxy_status
    assert complete == "false"


# Any graph


class Drawn(NamedTuple):
    """One call of a drawn page: what it needs (and whether it can do without), its policy, and what comes of it."""

    needs: Mapping[str, bool]
    policy: str
    comes: str


POLICIES: dict[str, dict[str, Any]] = {
    "required": {},
    "optional": {"optional": True},
    "fallback": {"fallback": {"n": -1}},
}


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Drawn]:
    graph: dict[str, Drawn] = {}
    for nth in range(draw(st.integers(1, 6))):
        policy = draw(st.sampled_from(("optional", "fallback", "required")))
        comes = draw(st.sampled_from(("value", "fails", "absent", "declined")))
        needs = {}
        for name in draw(st.sets(st.sampled_from(sorted(graph) or ["none"]))) & graph.keys():
            dispensable = draw(st.booleans())
            needs[name] = dispensable or (policy == "required" and _may_be_none(graph[name]))
        graph[f"c{nth}"] = Drawn(needs, policy, comes)
    names = draw(st.permutations(sorted(graph)))
    return {name: graph[name] for name in names}


def _may_be_none(drawn: Drawn) -> bool:
    return drawn.policy == "optional" or drawn.comes in {"absent", "declined"}


def page_of(graph: Mapping[str, Drawn]) -> type[AggregateView]:
    return type("Page", (AggregateView,), {name: _declared(name, drawn) for name, drawn in graph.items()})


def _declared(name: str, drawn: Drawn) -> Any:
    def method(self: AggregateView, /, **values: Item | None) -> Request[Item] | None:
        return None if drawn.comes == "declined" else GET("/", n=[value.n for value in values.values() if value])

    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    parameters += [inspect.Parameter(need, inspect.Parameter.POSITIONAL_OR_KEYWORD) for need in drawn.needs]
    method.__name__ = name
    method.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    method.__annotations__ = {need: Item | None if dispensable else Item for need, dispensable in drawn.needs.items()}
    method.__annotations__["return"] = Request[Item] | None if drawn.comes == "declined" else Request[Item]
    policy = POLICIES[drawn.policy] | ({"absent": (404,)} if drawn.comes == "absent" else {})
    return call("all", **policy)(method)


def answers_to(graph: Mapping[str, Drawn]) -> dict[str, Any]:
    comes = {"value": {"n": 1}, "fails": Fault.CONNECTION_REFUSED, "absent": HTTPStatus.NOT_FOUND, "declined": None}
    return {name: comes[drawn.comes] for name, drawn in graph.items()}


class Expected(NamedTuple):
    values: dict[str, Any]
    errors: dict[str, str]
    complete: bool
    page_fails: bool


def expected_of(graph: Mapping[str, Drawn]) -> Expected:
    """Read the table of missing values plainly, one call after another."""
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    failed = False
    for name in sorted(graph):
        drawn = graph[name]
        stand_in = POLICIES[drawn.policy].get("fallback")
        culprit = any(values[need] is None and not dispensable for need, dispensable in drawn.needs.items())
        if culprit:
            values[name], errors[name] = stand_in, "skipped"
        elif drawn.comes == "value":
            values[name] = {"n": 1}
        elif drawn.comes == "fails":
            values[name], errors[name], failed = stand_in, "connection_refused", True
            if drawn.policy == "required":
                return Expected(values, errors, complete=False, page_fails=True)
        else:
            values[name] = None
    return Expected(values, errors, complete=not failed, page_fails=False)


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_any_graph_comes_to_what_the_table_says(graph: dict[str, Drawn]) -> None:
    expected = expected_of(graph)

    test = page_test(page_of(graph), answers=answers_to(graph))

    if expected.page_fails:
        assert test.status == 502
        assert test.headers["X-Complete"] == "false"
        return
    assert test.status == 200
    assert list(test.data.items()) == [(name, expected.values[name]) for name in graph]
    assert {name: error["error"] for name, error in test.errors.items()} == expected.errors
    assert list(test.errors) == [name for name in graph if name in expected.errors]
    assert test.complete is expected.complete
    assert test.headers["X-Complete"] == ("true" if expected.complete else "false")


@settings(max_examples=30, deadline=None)
@given(graphs(), st.sampled_from(("optional", "fallback")), st.sampled_from(("before", "after")))
def test_a_failing_call_that_may_fail_changes_nothing_else(graph: dict[str, Drawn], policy: str, place: str) -> None:
    added = {"added": Drawn({}, policy, "fails")}
    larger = {**added, **graph} if place == "before" else {**graph, **added}

    before = page_test(page_of(graph), answers=answers_to(graph))
    after = page_test(page_of(larger), answers=answers_to(larger))

    assert after.status == before.status
    assert after.body["errors"].pop("added", {"error": "connection_refused"})["error"] == "connection_refused"
    if before.status == 200:
        assert after.data.pop("added") == POLICIES[policy].get("fallback")
        assert after.data == before.data
        assert after.body["errors"] == before.body["errors"]
        assert not after.complete


# What ends a page


class Failing(AggregateView):
    deadline = 60.0

    @call("all")
    def doomed(self) -> Request[Item]:
        return GET("/doomed")

    @call("all", optional=True)
    def held(self) -> Request[Item]:
        return GET("/held")

    @call("all", fallback=[])
    def waiting(self, held: Item | None) -> Request[list[Item]]:
        return GET("/waiting")


async def test_the_first_required_failure_decides_cancels_what_runs_and_lets_nothing_start(
    stub: StartStub, log: Log
) -> None:
    server = await stub("all")
    held = Gate({"n": 1})

    async def doomed(_: Received) -> Answered:
        await soon(held.arrived)
        return Answered({"secret": CANARY}, 500)

    server.on("/doomed", doomed).on("/held", held).on("/waiting", [])
    upstream = Upstream(server.url, timeout=SLOW, retry=None)
    with asking([path("page", Failing.as_view())], {"all": upstream}) as client:
        answer = await client.get("/page", headers={"Authorization": CANARY})

    assert answer.status_code == 502
    assert answer.json()["errors"] == {
        "doomed": {
            "upstream": "all",
            "error": "http_response_status",
            "status": 500,
            "attempts": 1,
            "retryable": True,
        }
    }
    assert server.asked("/waiting") == []
    assert [event["outcome"] for event in log.events("attempt.finished", call="held")] == ["cancelled"]
    assert {event["call"]: event["outcome"] for event in log.events("call.finished")} == {
        "doomed": "failed",
        "held": "cancelled",
    }
    assert log.events("request.finished")[0]["outcome"] == "failed"


class Late(AggregateView):
    deadline = SHORT

    @call("all")
    def quick(self) -> Request[Item]:
        return GET("/quick")

    @call("all", optional=True)
    def slow(self) -> Request[Item]:
        return GET("/slow")

    @call("all", optional=True)
    def after_slow(self, slow: Item) -> Request[Item]:
        return GET("/after")


class LateAndRequired(Late):
    @call("all")
    def needed(self) -> Request[Item]:
        return GET("/slow")


async def test_at_the_deadline_what_is_optional_is_missing(stub: StartStub) -> None:
    server = await stub("all")
    server.on("/quick", {"n": 1}).on("/slow", Gate(None))
    with asking([path("page", Late.as_view())], {"all": Upstream(server.url, timeout=SLOW)}) as client:
        answer = await client.get("/page")

    assert answer.status_code == 200
    body = answer.json()
    assert body["data"] == {"quick": {"n": 1}, "slow": None, "after_slow": None}
    assert body["complete"] is False
    assert {name: error["error"] for name, error in body["errors"].items()} == {
        "slow": "deadline_exceeded",
        "after_slow": "skipped",
    }
    assert server.asked("/after") == []


async def test_at_the_deadline_a_required_call_without_its_value_is_a_504(stub: StartStub) -> None:
    server = await stub("all")
    server.on("/quick", {"n": 1}).on("/slow", Gate(None))
    with asking([path("page", LateAndRequired.as_view())], {"all": Upstream(server.url, timeout=SLOW)}) as client:
        answer = await client.get("/page")

    assert answer.status_code == 504
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["errors"]["needed"]["error"] == "deadline_exceeded"


# Statuses that pass through


class Passing(PatientPage):
    @call("plain", passthrough=(404, 409))
    def named(self) -> Request[Item]:
        return GET("/named")


class PassingOptional(PatientPage):
    @call("plain", passthrough=(404,), optional=True)
    def named(self) -> Request[Item]:
        return GET("/named")


class PassingUpstream(PatientPage):
    @call("passing")
    def named(self) -> Request[Item]:
        return GET("/named")


class PassingUpstreamOptional(PatientPage):
    @call("passing", optional=True)
    def named(self) -> Request[Item]:
        return GET("/named")


class PassingEach(PatientPage):
    @each("plain", passthrough=(404,), optional=True)
    def named(self, n: int) -> Request[Item]:
        return GET("/named")

    @named.keys
    def keys(self) -> list[int]:
        return [1]


class PassingPart(PatientPage):
    @part(optional=True)
    async def named(self, fan: Fan) -> Item:
        return await fan.call("plain", GET("/named"), Item, passthrough=(404,))


class PassingInside(PatientPage):
    @part
    async def named(self, fan: Fan) -> JSON | None:
        return await fan.call("plain", GET("/named"), optional=True, passthrough=(404,))


class PassingPartUpstream(PatientPage):
    @part
    async def named(self, fan: Fan) -> Item:
        return await fan.call("passing", GET("/named"), Item)


class PassingOptionalPartUpstream(PatientPage):
    @part(optional=True)
    async def named(self, fan: Fan) -> Item:
        return await fan.call("passing", GET("/named"), Item)


@pytest.mark.parametrize(
    ("page", "upstream_says", "page_says"),
    [
        (Passing, 404, 404),
        (Passing, 409, 409),
        (Passing, 410, 502),
        (PassingOptional, 404, 404),
        (PassingOptional, 409, 200),
        (PassingUpstream, 404, 404),
        (PassingUpstream, 409, 502),
        (PassingUpstreamOptional, 404, 200),
        (PassingEach, 404, 404),
        (PassingPart, 404, 404),
        (PassingPart, 409, 200),
        (PassingInside, 404, 404),
        (PassingPartUpstream, 404, 404),
        (PassingOptionalPartUpstream, 404, 200),
    ],
)
async def test_a_status_passes_through_where_the_call_says_so_or_the_upstream_of_a_required_one(
    stub: StartStub, page: type[AggregateView], upstream_says: int, page_says: int
) -> None:
    server = await stub("all")
    server.on("/named", Answered({"secret": CANARY}, upstream_says, headers={"X-Secret": CANARY}))
    upstreams = {"plain": Upstream(server.url), "passing": Upstream(server.url, passthrough=(404,))}
    with asking([path("page", page.as_view())], upstreams) as client:
        answer = await client.get("/page")

    assert answer.status_code == page_says
    assert answer.json()["errors"]["named"]["status"] == upstream_says
    assert answer["X-Complete"] == "false"
    assert CANARY not in f"{answer.headers} {answer.content.decode()}"
    if page_says != 200:
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == page_says


@pytest.mark.parametrize(("page", "status"), [(Passing, 502), (PassingOptional, 200), (PassingInside, 200)])
async def test_a_status_does_not_pass_through_when_that_is_not_what_failed(
    page: type[AggregateView], status: int
) -> None:
    async with tapping() as server:
        server.on("/named", lambda peer: peer.write(b"HTTP/1.1 404 Never\r\nTransfer-Encoding: gzip\r\n\r\n"))
        with asking([path("page", page.as_view())], {"plain": Upstream(server.url, retry=None)}) as client:
            answer = await client.get("/page")

    errors = {(error["error"], error["status"]) for error in answer.json()["errors"].values()}
    assert errors == {("http_protocol_error", 404)}
    assert answer.status_code == status


async def test_a_busy_upstreams_wait_is_passed_on_from_calls_and_parts(stub: StartStub) -> None:
    class Busy(PatientPage):
        @call("all")
        def named(self) -> Request[Item]:
            return GET("/busy")

    class BusyPart(PatientPage):
        @part
        async def named(self, fan: Fan) -> Item:
            return await fan.call("all", GET("/busy"), Item)

    server = await stub("all")
    server.on("/busy", Answered(None, 503, headers={"Retry-After": "7"}))
    pages = [path("call", Busy.as_view()), path("part", BusyPart.as_view())]
    with asking(pages, {"all": Upstream(server.url, retry=None)}) as client:
        answers = [await client.get("/call"), await client.get("/part")]

    assert [(answer.status_code, answer["Retry-After"]) for answer in answers] == [(503, "7"), (503, "7")]


# What authors raise


class Raised(NamedTuple):
    error: Callable[[], BaseException]
    status: int
    title: str
    detail: str | None = None


RAISED = {
    "Http404": Raised(lambda: Http404("said to nobody"), 404, "Not Found"),
    "PermissionDenied": Raised(lambda: PermissionDenied("said to nobody"), 403, "Forbidden"),
    "Problem": Raised(lambda: Problem(422, "Too many", "At most 9"), 422, "Too many", "At most 9"),
    "ValueError": Raised(lambda: ValueError("said to nobody"), 500, "Internal Server Error"),
    "TimeoutError": Raised(lambda: TimeoutError("said to nobody"), 500, "Internal Server Error"),
    "CancelledError": Raised(lambda: asyncio.CancelledError("said to nobody"), 500, "Internal Server Error"),
}


def tracebacks_in(log: Log) -> list[bytes]:
    return [line for line in log.lines() if b"Traceback (most recent call last)" in line]


class Sibling(AggregateView):
    """Its subclasses raise `error` in one place each, once the call held by its upstream is under way."""

    deadline = 60.0
    error: ClassVar[Any]

    @call("all", optional=True)
    def held(self) -> Request[Item]:
        return GET("/held")

    @call("all")
    def trigger(self) -> Request[Item]:
        return GET("/trigger")


class RaisingInCall(Sibling):
    @call("all", optional=True)
    def raising(self, trigger: Item) -> Request[Item]:
        raise self.error()


class RaisingInKeys(Sibling):
    @batch("all", key="id", optional=True)
    def raising(self, ids: list[int]) -> Request[list[Row]]:
        return GET("/rows", id=ids)

    @raising.keys
    def ids(self, trigger: Item) -> Iterable[int]:
        yield 1
        raise self.error()


class RaisingInEach(Sibling):
    @each("all", optional=True)
    def raising(self, n: int) -> Request[Item]:
        raise self.error()

    @raising.keys
    def ids(self, trigger: Item) -> list[int]:
        return [1, 2]


class RaisingInPart(Sibling):
    @part(optional=True)
    async def raising(self, fan: Fan, trigger: Item) -> Item:
        raise self.error()


@pytest.mark.parametrize("place", [RaisingInCall, RaisingInKeys, RaisingInEach, RaisingInPart])
@pytest.mark.parametrize("raised", RAISED.values(), ids=list(RAISED))
async def test_what_an_author_raises_is_the_pages_problem_and_its_siblings_are_reaped(
    stub: StartStub, log: Log, place: type[Sibling], raised: Raised
) -> None:
    server = await stub("all")
    held = Gate({"n": 1})

    async def trigger(_: Received) -> dict[str, int]:
        await soon(held.arrived)
        return {"n": 1}

    server.on("/trigger", trigger).on("/held", held).on("/rows", [{"id": 1}])
    page: Any = type("Raising", (place,), {"error": staticmethod(raised.error)})
    with asking([path("page", page.as_view())], {"all": Upstream(server.url, timeout=SLOW)}) as client:
        answer = await client.get("/page")

    body = answer.json()
    assert (answer.status_code, body["status"], body["title"]) == (raised.status, raised.status, raised.title)
    assert body.get("detail") == raised.detail
    assert answer["Content-Type"] == "application/problem+json"
    assert "said to nobody" not in answer.content.decode()
    assert [b"said to nobody" in line for line in tracebacks_in(log)] == [True] * (raised.status == 500)
    assert [event["outcome"] for event in log.events("attempt.finished", call="held")] == ["cancelled"]
    assert [event["outcome"] for event in log.events("call.finished", call="raising")] == ["failed"]
    assert not log.events("client.disconnected")


@pytest.mark.parametrize("raised", RAISED.values(), ids=list(RAISED))
async def test_what_merge_raises_is_the_pages_problem(stub: StartStub, log: Log, raised: Raised) -> None:
    class Merging(PatientPage):
        @call("all")
        def item(self) -> Request[Item]:
            return GET("/item")

        def merge(self, item: Item) -> Answer[Item]:
            raise raised.error()

    server = await stub("all")
    server.on("/item", {"n": 1})
    with asking([path("page", Merging.as_view())], {"all": server}) as client:
        answer = await client.get("/page")

    assert (answer.status_code, answer.json()["title"]) == (raised.status, raised.title)
    assert "said to nobody" not in answer.content.decode()
    assert [b"said to nobody" in line for line in tracebacks_in(log)] == [True] * (raised.status == 500)
    assert not log.events("client.disconnected")


# Values that fit into no request


class Sorting(msgspec.Struct, rename="camel"):
    sort_by: str = "name"
    tags: list[str] = []
    limit: float = 1.0


class Line(msgspec.Struct):
    sku: str


class Order(msgspec.Struct):
    sku: str = "a"
    lines: list[Line] = []
    by_shop: dict[str, Line] = {}


class FromKwarg(PatientPage):
    @call("all")
    def wrong(self, name: str) -> Request[Item]:
        return GET("/wrong/{id}", id=name)


class FromKwargChanged(PatientPage):
    @call("all", optional=True)
    def wrong(self, name: str) -> Request[Item]:
        return GET("/wrong/{id}", id=name.strip())


class FromQuery(PatientPage):
    @call("all", fallback={"n": 0})
    def wrong(self, query: Sorting) -> Request[Item]:
        return GET("/wrong/{by}", by=query.sort_by)


class FromQueryList(PatientPage):
    @call("all")
    def wrong(self, query: Sorting) -> Request[Item]:
        return GET("/wrong", tag=query.tags)


class FromQueryNumber(PatientPage):
    @call("all")
    def wrong(self, query: Sorting) -> Request[Item]:
        return GET("/wrong", limit=query.limit)


class FromQueryHeader(PatientPage):
    @call("all")
    def wrong(self, query: Sorting) -> Request[Item]:
        return GET("/wrong", headers={"X-Sort": query.sort_by})


class FromQueryKeys(PatientPage):
    @each("all", optional=True)
    def wrong(self, tag: str) -> Request[Item]:
        return GET("/wrong/{tag}", tag=tag)

    @wrong.keys
    def tags(self, query: Sorting) -> list[str]:
        return query.tags


class Tagged(msgspec.Struct):
    tags: list[str]


class FromBody(PatientPage):
    @call("all")
    def wrong(self, body: Order) -> Request[Item]:
        return GET("/wrong/{sku}", sku=body.sku)


class FromBodyLast(PatientPage):
    @call("all")
    def wrong(self, body: Tagged) -> Request[Item]:
        return GET("/wrong/{tag}", tag=body.tags[-1])


class FromBodyDeep(PatientPage):
    @each("all")
    def wrong(self, sku: str) -> Request[Item]:
        return GET("/wrong/{sku}", sku=sku)

    @wrong.keys
    def skus(self, body: Order) -> list[str]:
        return [line.sku for line in (*body.lines, *body.by_shop.values())]


class FromPart(PatientPage):
    @part(optional=True)
    async def wrong(self, fan: Fan, name: str) -> JSON:
        return await fan.call("all", GET("/wrong/{id}", id=name))


class Wrong(NamedTuple):
    page: type[AggregateView]
    url: str
    field: str
    body: Any = None


WRONG = [
    Wrong(FromKwarg, "/page/..", "name"),
    Wrong(FromKwarg, "/page/a%00b", "name"),
    Wrong(FromKwarg, "/page/a%0D%0Ab", "name"),
    Wrong(FromKwargChanged, "/page/%20.%20", "name"),
    Wrong(FromQuery, "/page/x?sortBy=..", "query.sortBy"),
    Wrong(FromQuery, "/page/x?sortBy=", "query.sortBy"),
    Wrong(FromQueryList, "/page/x?tags=a&tags=%0D%0Ab", "query.tags[1]"),
    Wrong(FromQueryNumber, "/page/x?limit=nan", "query.limit"),
    Wrong(FromQueryNumber, "/page/x?limit=-inf", "query.limit"),
    Wrong(FromQueryHeader, "/page/x?sortBy=a%0D%0AX-Evil:1", "query.sortBy"),
    Wrong(FromQueryKeys, "/page/x?tags=a&tags=.", "query.tags[1]"),
    Wrong(FromBody, "/page/x", "body.sku", {"sku": ".."}),
    Wrong(FromBodyDeep, "/page/x", "body.lines[1].sku", {"lines": [{"sku": "a"}, {"sku": ".."}]}),
    Wrong(FromBodyDeep, "/page/x", "body.by_shop.here.sku", {"by_shop": {"here": {"sku": ""}}}),
    Wrong(FromPart, "/page/..", "name"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=[f"{wrong.page.__name__} {wrong.url} {wrong.body}" for wrong in WRONG])
async def test_a_clients_value_that_fits_into_no_request_is_a_400_naming_the_field(
    stub: StartStub, wrong: Wrong
) -> None:
    server = await stub("all")
    server.on("/wrong/a", Gate({"n": 0}))
    with asking([path("page/<name>", wrong.page.as_view())], {"all": Upstream(server.url, timeout=SLOW)}) as client:
        if wrong.body is None:
            answer = await client.get(wrong.url)
        else:
            answer = await client.post(wrong.url, wrong.body, content_type="application/json")

    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert list(answer.json()["invalid"]) == [wrong.field]
    assert [asked.path for asked in server.received if asked.path != "/wrong/a"] == []


@pytest.mark.parametrize(("tags", "field"), [(10, "body.tags[9]"), (100_000, "body")])
async def test_a_value_is_not_looked_for_in_all_of_a_large_body(stub: StartStub, tags: int, field: str) -> None:
    body = {"tags": [*["a"] * (tags - 1), ".."]}
    with asking([path("page", FromBodyLast.as_view())], {"all": await stub("all")}) as client:
        answer = await client.post("/page", body, content_type="application/json")

    assert (answer.status_code, list(answer.json()["invalid"])) == (400, [field])


class Named(msgspec.Struct):
    name: str


class Befriended(PatientPage):
    """The upstream gives what the client gave to another call: still the upstream's."""

    @call("all")
    def user(self) -> Request[Named]:
        return GET("/user")

    @call("all")
    def listing(self, query: Sorting) -> Request[Item]:
        return GET("/listing", by=query.sort_by)


class FromUpstream(Befriended):
    @call("all")
    def friends(self, user: Named) -> Request[Item]:
        return GET("/friends/{name}", name=user.name)


class FromUpstreamOptional(Befriended):
    @call("all", optional=True)
    def friends(self, user: Named) -> Request[Item]:
        return GET("/friends/{name}", name=user.name)


class FromUpstreamEach(Befriended):
    @each("all", optional=True)
    def friends(self, name: str) -> Request[Item]:
        return GET("/friends/{name}", name=name)

    @friends.keys
    def names(self, user: Named) -> list[str]:
        return ["ok", user.name]


class FromUpstreamPart(Befriended):
    @part(optional=True)
    async def friends(self, fan: Fan, user: Named) -> JSON:
        return await fan.call("all", GET("/friends/{name}", name=user.name))


@pytest.mark.parametrize(
    ("page", "status", "friends"),
    [
        (FromUpstream, 502, None),
        (FromUpstreamOptional, 200, None),
        (FromUpstreamEach, 200, {"ok": {"n": 1}}),
        (FromUpstreamPart, 200, None),
    ],
)
@pytest.mark.parametrize("given", ["..", ""])
async def test_an_upstreams_value_that_fits_into_no_request_is_a_failed_call(
    stub: StartStub, page: type[AggregateView], status: int, friends: Any, given: str
) -> None:
    server = await stub("all")
    server.on("/user", {"name": given}).on("*", {"n": 1})
    with asking([path("page", page.as_view())], {"all": Upstream(server.url)}) as client:
        answer = await client.get("/page", {"sortBy": given})

    error = answer.json()["errors"]["friends"]
    assert answer.status_code == status
    assert (error["error"], error["attempts"]) == ("http_request_denied", 0)
    assert [
        asked.path for asked in server.received if asked.path.startswith("/friends/") and asked.path != "/friends/ok"
    ] == []
    if status == 200:
        assert answer.json()["data"]["friends"] == friends
        assert answer.json()["complete"] is False


# The log


async def test_every_call_is_told_once_with_what_came_of_it_and_the_wide_line_counts_all_attempts(
    stub: StartStub, log: Log
) -> None:
    class Told(PatientPage):
        @call("all")
        def fine(self) -> Request[Item]:
            return GET("/fine")

        @call("all", absent=(404,))
        def absent(self) -> Request[Item]:
            return GET("/absent")

        @call("all", optional=True)
        def failing(self) -> Request[Item]:
            return GET("/failing")

        @call("all", optional=True)
        def skipped(self, failing: Item) -> Request[Item]:
            return GET("/skipped")

        @each("all")
        def several(self, n: int) -> Request[Item]:
            return GET("/fine", n=n)

        @several.keys
        def keys(self) -> list[int]:
            return [1, 2, 3]

        @part
        async def inner(self, fan: Fan) -> list[JSON]:
            first = await fan.call("all", GET("/fine", of="first"), name="first")
            return [first, await fan.call("all", GET("/fine", of="second"))]

    server = await stub("all")
    server.on("/fine", {"n": 1}).on("/absent", Answered(None, 404)).on("/failing", Answered(None, 500))
    with asking([path("page", Told.as_view())], {"all": Upstream(server.url, retry=None)}) as client:
        await client.get("/page")

    told = [(event["call"], event["outcome"], event["attempts"]) for event in log.events("call.finished")]
    assert sorted(told) == [
        ("absent", "absent", 1),
        ("failing", "failed", 1),
        ("fine", "ok", 1),
        ("inner", "ok", 2),
        ("inner.all", "ok", 1),
        ("inner.first", "ok", 1),
        ("several", "ok", 3),
    ]
    assert [(event["call"], event["because"]) for event in log.events("call.skipped")] == [("skipped", "failing")]
    (wide,) = log.events("request.finished")
    assert wide["attempts"] == len(server.received) == 8
    assert wide["calls_failed"] == ["failing", "skipped"]
    assert wide["outcome"] == "partial"
