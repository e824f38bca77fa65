"""Parts: ordinary async code inside the graph, with the page's client, deadline and policies, and nothing left over."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import msgspec
import pytest
from django.urls import path

from gateway import AggregateView, CallFailed, Fan, call, page_test, part
from tests.conftest import StartStub
from tests.logs import CANARY, Log
from tests.serving import SHORT, SLOW, PatientPage, asking
from tests.stub import Answered, Gate, Received, Turns
from upstreams import FOLLOW, GET, JSON, Request, Upstream


class Post(msgspec.Struct):
    id: int


class Leaf(msgspec.Struct):
    posts: list[Post]
    next: str | None = None


class Job(msgspec.Struct):
    state: str
    result: int | None = None


def test_a_status_that_cannot_pass_through_is_the_author_s_mistake() -> None:
    class Page(PatientPage):
        @part
        async def feed(self, fan: Fan) -> JSON:
            return await fan.call("posts", GET("/posts"), passthrough=(302,))

    with pytest.raises(ValueError, match=r"feed.posts: passthrough holds 302, which is no error status"):
        page_test(Page, answers={"feed.posts": []})


async def soon(*events: asyncio.Event) -> None:
    """Wait for events that are on their way, and fail rather than hang when they are not."""
    async with asyncio.timeout(20):
        for event in events:
            await event.wait()


# What parts are for


class Paginated(PatientPage):
    @call("posts")
    def user(self) -> Request[Post]:
        return GET("/user")

    @part
    async def feed(self, fan: Fan, user: Post) -> list[Post]:
        leaf = await fan.call("posts", GET("/posts", author=user.id), Leaf, name="first")
        found = leaf.posts
        while leaf.next is not None:
            leaf = await fan.call("posts", FOLLOW(leaf.next), Leaf)
            found += leaf.posts
        return found

    @call("posts")
    def newest(self, feed: list[Post]) -> Request[JSON]:
        return GET("/posts/{id}", id=feed[-1].id)


async def test_a_part_follows_the_links_of_a_list_to_its_end(stub: StartStub, log: Log) -> None:
    server = await stub("posts")
    server.on("/user", {"id": 7}).on("/posts/5", {"text": "5"})
    server.on("/posts", {"posts": [{"id": 1}, {"id": 2}], "next": "/more?from=3"})

    async def more(asked: Received) -> dict[str, Any]:
        if asked.query == [("from", "3")]:
            return {"posts": [{"id": 3}], "next": f"{server.url}/more?from=4"}
        return {"posts": [{"id": 4}, {"id": 5}], "next": None}

    server.on("/more", more)
    with asking([path("page", Paginated.as_view())], {"posts": server}) as client:
        answer = await client.get("/page")

    body = answer.json()
    assert body["data"]["feed"] == [{"id": id_} for id_ in range(1, 6)]
    assert body["data"]["newest"] == {"text": "5"}
    assert body["complete"] is True
    told = [event["call"] for event in log.events("attempt.finished")]
    assert told == ["user", "feed.first", "feed.posts", "feed.posts-2", "newest"]


async def test_a_link_to_another_origin_fails_the_call(stub: StartStub) -> None:
    server = await stub("posts")
    server.on("/user", {"id": 7}).on("/posts", {"posts": [], "next": "http://127.0.0.1:1/more"})
    with asking([path("page", Paginated.as_view())], {"posts": server}) as client:
        answer = await client.get("/page")

    errors = answer.json()["errors"]
    assert answer.status_code == 502
    assert errors["feed"]["error"] == errors["feed.posts"]["error"] == "http_request_denied"


class Polling(AggregateView):
    deadline = 60.0

    @part
    async def job(self, fan: Fan) -> int | None:
        while True:
            job = await fan.call("jobs", GET("/job"), Job)
            if job.state == "done":
                return job.result


async def test_a_part_may_ask_until_it_is_told_what_it_wants(stub: StartStub) -> None:
    server = await stub("jobs")
    server.on("/job", Turns([{"state": "new"}, {"state": "running"}, {"state": "done", "result": 42}]))
    with asking([path("page", Polling.as_view())], {"jobs": server}) as client:
        answer = await client.get("/page")

    assert answer.json()["data"] == {"job": 42}
    assert len(server.received) == 3


# Parts that fail


def failure(upstream: str | None, error: str, status: int | None, attempts: int, *, retryable: bool) -> dict[str, Any]:
    return {"upstream": upstream, "error": error, "status": status, "attempts": attempts, "retryable": retryable}


BROKEN = failure("posts", "http_response_status", 500, 1, retryable=True)


class OptionalPart(PatientPage):
    @part(optional=True)
    async def feed(self, fan: Fan) -> JSON:
        return await fan.call("posts", GET("/posts"))

    @call("posts", optional=True)
    def after(self, feed: JSON) -> Request[JSON]:
        return GET("/after")


class FallbackPart(PatientPage):
    @part(fallback=[])
    async def feed(self, fan: Fan) -> list[int]:
        return await fan.call("posts", GET("/posts"), list[int])


class RequiredPart(PatientPage):
    @part
    async def feed(self, fan: Fan) -> JSON:
        likes = fan.call("posts", GET("/likes"), optional=True)
        await likes
        return await fan.call("posts", GET("/posts"))


async def test_an_optional_part_fails_with_the_call_it_could_not_do_without(stub: StartStub) -> None:
    server = await stub("posts")
    server.on("/posts", Answered({"secret": CANARY}, 500))
    upstream = Upstream(server.url, retry=None)
    with asking([path("page", OptionalPart.as_view())], {"posts": upstream}) as client:
        answer = await client.get("/page")

    body = answer.json()
    assert answer.status_code == 200
    assert body["data"] == {"feed": None, "after": None}
    assert body["complete"] is False
    assert body["errors"] == {
        "feed": BROKEN,
        "after": {**failure("posts", "skipped", None, 0, retryable=False), "because": "feed"},
        "feed.posts": BROKEN,
    }
    assert CANARY not in answer.content.decode()


async def test_a_parts_fallback_stands_in_for_it(stub: StartStub) -> None:
    server = await stub("posts")
    server.on("/posts", Answered(None, 500))
    with asking([path("page", FallbackPart.as_view())], {"posts": Upstream(server.url, retry=None)}) as client:
        answer = await client.get("/page")

    assert answer.json()["data"] == {"feed": []}
    assert list(answer.json()["errors"]) == ["feed", "feed.posts"]
    assert answer["X-Complete"] == "false"


async def test_a_required_part_fails_the_page_and_tells_all_its_calls(stub: StartStub) -> None:
    server = await stub("posts")
    server.on("*", Answered(None, 500))
    with asking([path("page", RequiredPart.as_view())], {"posts": Upstream(server.url, retry=None)}) as client:
        answer = await client.get("/page")

    body = answer.json()
    assert answer.status_code == 502
    assert answer["Content-Type"] == "application/problem+json"
    assert body["detail"] == "feed has no value: http_response_status"
    assert body["errors"] == {"feed": BROKEN, "feed.posts": BROKEN, "feed.posts-2": BROKEN}


class Catching(PatientPage):
    @part
    async def feed(self, fan: Fan) -> list[int]:
        try:
            return await fan.call("posts", GET("/posts"), list[int])
        except CallFailed as failed:
            return [failed.failure.status or 0]


class OptionalInside(PatientPage):
    @part
    async def feed(self, fan: Fan) -> list[int | None]:
        calls = [fan.call("posts", GET("/posts"), int, optional=True), fan.call("posts", GET("/nine"), int)]
        return [await pending for pending in calls]


@pytest.mark.parametrize(("page", "feed"), [(Catching, [500]), (OptionalInside, [None, 9])])
async def test_a_part_that_does_without_a_call_has_its_value_in_an_answer_that_is_not_complete(
    stub: StartStub, page: type[AggregateView], feed: Any
) -> None:
    server = await stub("posts")
    server.on("/posts", Answered(None, 500)).on("/nine", 9)
    with asking([path("page", page.as_view())], {"posts": Upstream(server.url, retry=None)}) as client:
        answer = await client.get("/page")

    body = answer.json()
    assert answer.status_code == 200
    assert body["data"] == {"feed": feed}
    assert (body["complete"], body["errors"]) == (False, {"feed.posts": BROKEN})
    assert answer["X-Complete"] == "false"


class Unawaited(PatientPage):
    @part(optional=True)
    async def feed(self, fan: Fan) -> int:
        _unawaited = fan.call("posts", GET("/posts"))
        return await fan.call("posts", GET("/after"), int)


async def test_a_required_call_that_failed_unawaited_fails_its_part(stub: StartStub, log: Log) -> None:
    server = await stub("posts")

    async def after(_: Received) -> int:
        async with asyncio.timeout(20):
            while not log.events("call.finished", call="feed.posts"):  # noqa: ASYNC110 - a line sets off nothing
                await asyncio.sleep(0)
        return 9

    server.on("/posts", Answered(None, 500)).on("/after", after)
    upstream = Upstream(server.url, retry=None, timeout=SLOW)
    with asking([path("page", Unawaited.as_view())], {"posts": upstream}) as client:
        answer = await client.get("/page")

    assert answer.json()["data"] == {"feed": None}
    assert answer.json()["errors"] == {"feed": BROKEN, "feed.posts": BROKEN}


class Absent(PatientPage):
    @part
    async def feed(self, fan: Fan) -> JSON | None:
        return await fan.call("posts", GET("/posts"), absent=(404,))


async def test_what_is_absent_in_a_part_is_no_failure(stub: StartStub) -> None:
    server = await stub("posts")
    with asking([path("page", Absent.as_view())], {"posts": server}) as client:
        answer = await client.get("/page")

    assert answer.json() == {"data": {"feed": None}, "complete": True, "errors": {}}


# The deadline


class LateCall(AggregateView):
    deadline = SHORT

    @part(optional=True)
    async def feed(self, fan: Fan) -> JSON:
        return await fan.call("posts", GET("/posts"))


class LateSleep(AggregateView):
    deadline = SHORT

    @part(optional=True)
    async def feed(self, fan: Fan) -> JSON:
        value = await fan.call("posts", GET("/quick"))
        await asyncio.Event().wait()
        return value


class LateRequired(AggregateView):
    deadline = SHORT

    @part
    async def feed(self, fan: Fan) -> None:
        await asyncio.Event().wait()


class LateButUseful(AggregateView):
    deadline = SHORT

    @part
    async def feed(self, fan: Fan) -> list[int]:
        first = await fan.call("posts", GET("/quick"), int)
        second = await fan.call("posts", GET("/posts"), int, optional=True)
        return [first, *([] if second is None else [second])]


@pytest.mark.parametrize(
    ("page", "errors"),
    [
        (
            LateCall,
            {
                "feed": failure("posts", "deadline_exceeded", None, 1, retryable=True),
                "feed.posts": failure("posts", "deadline_exceeded", None, 1, retryable=True),
            },
        ),
        (LateSleep, {"feed": failure(None, "deadline_exceeded", None, 1, retryable=True)}),
    ],
)
async def test_at_the_deadline_a_part_has_no_value(
    stub: StartStub, page: type[AggregateView], errors: dict[str, Any]
) -> None:
    server = await stub("posts")
    server.on("/posts", Gate(None)).on("/quick", 1)
    with asking([path("page", page.as_view())], {"posts": Upstream(server.url, timeout=SLOW)}) as client:
        answer = await client.get("/page")

    assert answer.status_code == 200
    assert answer.json() == {"data": {"feed": None}, "complete": False, "errors": errors}


async def test_at_the_deadline_a_required_part_is_a_504(stub: StartStub) -> None:
    with asking([path("page", LateRequired.as_view())], {}) as client:
        answer = await client.get("/page")

    assert answer.status_code == 504
    assert answer.json()["errors"] == {"feed": failure(None, "deadline_exceeded", None, 0, retryable=True)}


async def test_at_the_deadline_a_part_may_give_what_it_has(stub: StartStub) -> None:
    server = await stub("posts")
    server.on("/posts", Gate(None)).on("/quick", 1)
    with asking([path("page", LateButUseful.as_view())], {"posts": Upstream(server.url, timeout=SLOW)}) as client:
        answer = await client.get("/page")

    assert answer.status_code == 200
    assert answer.json()["data"] == {"feed": [1]}
    assert list(answer.json()["errors"]) == ["feed.posts-2"]


# Nothing is left over


class Leaving(AggregateView):
    deadline = 60.0

    @part
    async def feed(self, fan: Fan) -> int:
        _left = fan.call("posts", GET("/held"))
        return await fan.call("posts", GET("/quick"), int)


async def test_what_a_part_leaves_under_way_is_cancelled_when_it_ends(stub: StartStub, log: Log) -> None:
    server = await stub("posts")
    held = Gate(None)

    async def quick(_: Received) -> int:
        await soon(held.arrived)
        return 1

    server.on("/held", held).on("/quick", quick)
    with asking([path("page", Leaving.as_view())], {"posts": Upstream(server.url, timeout=SLOW)}) as client:
        answer = await client.get("/page")

    assert answer.json() == {"data": {"feed": 1}, "complete": True, "errors": {}}
    assert [event["outcome"] for event in log.events("attempt.finished", call="feed.posts")] == ["cancelled"]
    assert [event["outcome"] for event in log.events("call.finished", call="feed.posts")] == ["cancelled"]


class Failing(AggregateView):
    deadline = 60.0
    let_go: asyncio.Event
    cleaned_up: ClassVar[list[str]]

    @call("posts")
    def doomed(self) -> Request[JSON]:
        return GET("/doomed")


class Obedient(Failing):
    @part
    async def feed(self, fan: Fan) -> None:
        try:
            await fan.call("posts", GET("/held"))
        finally:
            self.cleaned_up.append("feed")


class Stubborn(Failing):
    @part
    async def feed(self, fan: Fan) -> None:
        pending = fan.call("posts", GET("/held"))
        while not self.let_go.is_set():
            try:
                await (pending if not pending.task.done() else self.let_go.wait())
            except asyncio.CancelledError:
                self.cleaned_up.append("refused")
            except RuntimeError as error:
                self.cleaned_up.append(str(error))
        try:
            await fan.call("posts", GET("/too-late"))
        except RuntimeError as error:
            self.cleaned_up.append(str(error))


def failing_beside_held(server: Any) -> None:
    held = Gate(None)

    async def doomed(_: Received) -> Answered:
        await soon(held.arrived)
        return Answered(None, 500)

    server.on("/held", held).on("/doomed", doomed)


async def test_a_siblings_failure_cancels_a_part_and_its_calls_and_waits_for_it_to_clean_up(
    stub: StartStub, log: Log
) -> None:
    server = await stub("posts")
    failing_beside_held(server)

    class Page(Obedient):
        cleaned_up: ClassVar[list[str]] = []

    upstream = Upstream(server.url, timeout=SLOW, retry=None)
    with asking([path("page", Page.as_view())], {"posts": upstream}) as client:
        answer = await client.get("/page")

    assert answer.status_code == 502
    assert Page.cleaned_up == ["feed"]
    assert {event["call"]: event["outcome"] for event in log.events("call.finished")} == {
        "doomed": "failed",
        "feed": "cancelled",
        "feed.posts": "cancelled",
    }


async def test_a_part_that_swallows_its_cancellation_is_named_in_the_log_and_makes_no_more_calls(
    stub: StartStub, log: Log
) -> None:
    server = await stub("posts")
    failing_beside_held(server)

    class Page(Stubborn):
        let_go = asyncio.Event()
        cleaned_up: ClassVar[list[str]] = []

    upstream = Upstream(server.url, timeout=SLOW, retry=None)
    with asking([path("page", Page.as_view())], {"posts": upstream}) as client:
        try:
            answer = await client.get("/page")
        finally:
            Page.let_go.set()
    await _no_other_tasks()

    assert answer.status_code == 502
    assert [event["message"] for event in log.events("log.recorded")] == [
        "part feed resists cancellation and is left to itself"
    ]
    assert Page.cleaned_up == [
        "refused",
        "feed.posts was cancelled at the end of its fan's block: await it inside",
        "feed.posts-2 was called after the end of its fan's block",
    ]
    assert server.asked("/too-late") == []
    assert [event["outcome"] for event in log.events("attempt.finished", call="feed.posts")] == ["cancelled"]


class StubbornPastTheDeadline(AggregateView):
    deadline = SHORT
    let_go: asyncio.Event

    @part(optional=True)
    async def feed(self, fan: Fan) -> None:
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                continue


async def test_a_part_that_swallows_its_cancellation_does_not_keep_the_page_past_its_deadline(log: Log) -> None:
    class Page(StubbornPastTheDeadline):
        let_go = asyncio.Event()

    with asking([path("page", Page.as_view())], {}) as client:
        try:
            async with asyncio.timeout(20):
                answer = await client.get("/page")
        finally:
            Page.let_go.set()
    await _no_other_tasks()

    assert answer.status_code == 200
    assert answer.json()["errors"]["feed"]["error"] == "deadline_exceeded"
    assert [event["message"] for event in log.events("log.recorded")] == [
        "part feed resists cancellation and is left to itself"
    ]


async def _no_other_tasks() -> None:
    """Let every task of the test's end, and fail if one does not."""
    async with asyncio.timeout(20):
        while parts := [task for task in asyncio.all_tasks() if task.get_name().startswith("part ")]:
            await asyncio.wait(parts)


# What parts raise


class OwnTimeout(AggregateView):
    deadline = 60.0

    @part(optional=True)
    async def feed(self, fan: Fan) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_a_timeout_of_the_authors_own_is_not_taken_for_the_deadline(log: Log) -> None:
    with asking([path("page", OwnTimeout.as_view())], {}) as client:
        answer = await client.get("/page")

    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:tributary:problem:proxy_internal_error"
    assert [event["exception.type"] for event in log.events("log.recorded")] == ["TimeoutError"]


class HandledTimeout(AggregateView):
    deadline = 60.0
    given_up: asyncio.Event

    @part
    async def feed(self, fan: Fan) -> int:
        pending = fan.call("posts", GET("/posts"), int)
        try:
            async with asyncio.timeout(0.01):
                return await pending
        except TimeoutError:
            self.given_up.set()
            return await pending


async def test_giving_up_waiting_for_a_call_does_not_end_the_call(stub: StartStub) -> None:
    server = await stub("posts")

    class Page(HandledTimeout):
        given_up = asyncio.Event()

    async def posts(_: Received) -> int:
        await soon(Page.given_up)
        return 9

    server.on("/posts", posts)
    with asking([path("page", Page.as_view())], {"posts": Upstream(server.url, timeout=SLOW)}) as client:
        answer = await client.get("/page")

    assert answer.json()["data"] == {"feed": 9}
    assert len(server.received) == 1


class UnknownUpstream(PatientPage):
    @part(optional=True)
    async def feed(self, fan: Fan) -> JSON:
        return await fan.call("nobody", GET("/"))


async def test_an_upstream_that_nobody_configured_is_our_mistake_and_no_missing_value(log: Log) -> None:
    with asking([path("page", UnknownUpstream.as_view())], {}) as client:
        answer = await client.get("/page")

    assert answer.status_code == 500
    assert [event["exception.type"] for event in log.events("log.recorded")] == ["KeyError"]


class AwaitedTwice(PatientPage):
    @part
    async def feed(self, fan: Fan) -> list[int]:
        pending = fan.call("posts", GET("/posts"), int)
        return [await pending, *(await asyncio.gather(pending, pending))]


async def test_a_call_may_be_awaited_often_and_is_made_once(stub: StartStub) -> None:
    server = await stub("posts")
    server.on("/posts", 4)
    with asking([path("page", AwaitedTwice.as_view())], {"posts": server}) as client:
        answer = await client.get("/page")

    assert answer.json()["data"] == {"feed": [4, 4, 4]}
    assert len(server.received) == 1
