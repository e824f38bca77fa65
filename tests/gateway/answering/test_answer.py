"""What goes back to the client: the envelope, exact bytes, partial and failed answers."""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Iterator
from typing import Any

import aiohttp
import http_sf
import msgspec
import pytest
from django.urls import path

from gateway import AggregateView, Answer, CallFailed, Problem, call, each
from gateway.answering.answer import Failure
from tests.conftest import StartStub
from tests.logs import CANARY, Log
from tests.serving import PatientPage, gateway
from tests.stub import Answered, Received, Stub
from upstreams import GET, JSON, POST, Fault, Reply, Request, Upstream

EXACT = b'{"id": 12345678901234567890, "price": 1.10, "n": 1e3}'


class User(msgspec.Struct):
    id: int
    name: str


class Wrapped(msgspec.Struct):
    number: int
    thing: JSON


def once(server: Stub) -> Upstream:
    """The upstream that makes one attempt: failures are what the stub says, and nothing is tried again."""
    return Upstream(server.url, retry=None)


class Plain(PatientPage):
    @call("all")
    def thing(self) -> Request[JSON]:
        return GET("/thing")


class Itself(Plain):
    def merge(self, thing: JSON) -> JSON:
        return thing


class InAList(Plain):
    def merge(self, thing: JSON) -> list[JSON]:
        return [thing, thing]


class InADict(Plain):
    def merge(self, thing: JSON) -> dict[str, object]:
        return {"deep": {"er": [thing]}}


class InAStruct(Plain):
    def merge(self, thing: JSON) -> Wrapped:
        return Wrapped(1, thing)


class InAnAnswer(Plain):
    def merge(self, thing: JSON) -> Answer[JSON]:
        return Answer(thing)


class Bare(Plain):
    envelope = False


class OfAReply(PatientPage):
    @call("all")
    def thing(self) -> Request[Reply[JSON]]:
        return GET("/thing")

    def merge(self, thing: Reply[JSON]) -> JSON:
        return thing.value


class PublicReplies(PatientPage):
    @call("all")
    def thing(self) -> Request[Reply[JSON]]:
        return GET("/thing")

    @each("all")
    def things(self, key: int) -> Request[Reply[int]]:
        return GET("/things/{key}", key=key)

    @things.keys
    def numbers(self) -> list[int]:
        return [1, 2]


class ThroughAnotherCall(PatientPage):
    @call("all", internal=True)
    def thing(self) -> Request[JSON]:
        return GET("/thing")

    @call("all")
    def itself(self, thing: JSON) -> Request[JSON]:
        return POST("/echo", json=thing, safe=True)

    @call("all")
    def wrapped(self, thing: JSON) -> Request[JSON]:
        return POST("/echo", json=Wrapped(2, thing), safe=True)


@pytest.mark.parametrize("accept", ["application/json", "application/jsonl"])
async def test_of_a_public_reply_the_client_sees_the_value_and_no_header(
    stub: StartStub, client: aiohttp.ClientSession, accept: str
) -> None:
    server = (await stub("all")).on("*", Answered(5, headers={"Set-Cookie": CANARY}))
    async with (
        gateway([path("", PublicReplies.as_view())], {"all": once(server)}) as base,
        client.get(base, headers={"Accept": accept}) as answer,
    ):
        text = await answer.text()
    last = msgspec.json.decode(text.splitlines()[-1])
    assert last.get("data", last.get("result")) == {"thing": 5, "things": {"1": 5, "2": 5}}
    assert CANARY not in text


class TestExactBytes:
    @pytest.mark.parametrize(
        ("page", "shape"),
        [
            (Plain, b'{"data":{"thing":%s},"complete":true,"errors":{}}'),
            (Itself, b'{"data":%s,"complete":true,"errors":{}}'),
            (InAList, b'{"data":[%s,%s],"complete":true,"errors":{}}'),
            (InADict, b'{"data":{"deep":{"er":[%s]}},"complete":true,"errors":{}}'),
            (InAStruct, b'{"data":{"number":1,"thing":%s},"complete":true,"errors":{}}'),
            (InAnAnswer, b'{"data":%s,"complete":true,"errors":{}}'),
            (OfAReply, b'{"data":%s,"complete":true,"errors":{}}'),
            (Bare, b'{"thing":%s}'),
            (
                ThroughAnotherCall,
                b'{"data":{"itself":%s,"wrapped":{"number":2,"thing":%s}},"complete":true,"errors":{}}',
            ),
        ],
    )
    async def test_opaque_json_passes_byte_for_byte(
        self, stub: StartStub, client: aiohttp.ClientSession, page: type[AggregateView], shape: bytes
    ) -> None:
        server = (await stub("all")).on("/thing", Answered(EXACT)).on("/echo", echo)
        async with gateway([path("", page.as_view())], {"all": server}) as base, client.get(base) as answer:
            body = await answer.read()

        assert body == shape.replace(b"%s", EXACT)
        assert answer.content_type == "application/json"

    async def test_megabytes_are_merged_whole_and_in_the_order_of_declaration(
        self, stub: StartStub, client: aiohttp.ClientSession
    ) -> None:
        texts = {name: b'["' + name.encode() * 200_000 + b'", "\xc3\xa9\\u00e9"]' for name in ("one", "two", "six")}
        server = await stub("all")
        for name, text in texts.items():
            server.on(f"/{name}", Answered(text))
        async with gateway([path("", Three.as_view())], {"all": server}) as base, client.get(base) as answer:
            body = await answer.read()

        assert body == b'{"data":{"six":%s,"one":%s,"two":%s},"complete":true,"errors":{}}' % (
            texts["six"],
            texts["one"],
            texts["two"],
        )

    async def test_a_decoded_value_keeps_every_letter_of_every_alphabet(
        self, stub: StartStub, client: aiohttp.ClientSession
    ) -> None:
        name = "Ада λ \u6f22\u5b57 \U0001f408 é \u2028"
        server = (await stub("all")).on("/user", {"id": 2**70, "name": name})
        async with gateway([path("", JustUser.as_view())], {"all": server}) as base, client.get(base) as answer:
            body = await answer.read()

        assert name.encode() in body
        assert msgspec.json.decode(body)["data"]["user"] == {"id": 2**70, "name": name}


class Three(PatientPage):
    @call("all")
    def six(self) -> Request[JSON]:
        return GET("/six")

    @call("all")
    def one(self) -> Request[JSON]:
        return GET("/one")

    @call("all")
    def two(self) -> Request[JSON]:
        return GET("/two")


async def echo(asked: Received) -> Answered:
    return Answered(asked.body)


class JustUser(PatientPage):
    @call("all")
    def user(self) -> Request[User]:
        return GET("/user")


class Partial(PatientPage):
    """The `user` waits for the reviews, so what is known of them is known when it fails."""

    @call("reviews", optional=True)
    def reviews(self) -> Request[JSON]:
        return GET("/reviews")

    @call("users")
    def user(self, reviews: JSON | None) -> Request[User]:
        return GET("/user")


class AlsoAccepted(Partial):
    partial_status = 203


class WithoutEnvelope(AlsoAccepted):
    envelope = False


class DecidesItself(AlsoAccepted):
    def merge(self, user: User) -> Answer[User]:
        return Answer(user, status=201)


ADA = {"id": 7, "name": "Ada"}
LOST = {"upstream": "reviews", "error": "http_response_status", "status": 500, "attempts": 1, "retryable": True}


class TestPartial:
    @pytest.mark.parametrize(
        ("page", "status", "body"),
        [
            (Partial, 200, {"data": {"reviews": None, "user": ADA}, "complete": False, "errors": {"reviews": LOST}}),
            (
                AlsoAccepted,
                203,
                {"data": {"reviews": None, "user": ADA}, "complete": False, "errors": {"reviews": LOST}},
            ),
            (WithoutEnvelope, 203, {"reviews": None, "user": ADA}),
            (DecidesItself, 201, {"data": ADA, "complete": False, "errors": {"reviews": LOST}}),
        ],
    )
    async def test_what_an_optional_call_lacks_is_told(
        self, stub: StartStub, client: aiohttp.ClientSession, page: type[AggregateView], status: int, body: object
    ) -> None:
        server = (await stub("all")).on("/user", ADA).on("/reviews", Answered({"secret": CANARY}, 500))
        upstreams = {"users": once(server), "reviews": once(server)}
        async with gateway([path("", page.as_view())], upstreams) as base, client.get(base) as answer:
            assert await answer.json() == body

        assert answer.status == status
        assert answer.headers["X-Complete"] == "false"
        assert member(answer) == {
            "error": "http_response_status",
            "next-hop": "reviews",
            "received-status": 500,
            "details": "no value: reviews",
        }

    @pytest.mark.parametrize("page", [Partial, AlsoAccepted, WithoutEnvelope])
    async def test_a_complete_answer_says_so_and_nothing_of_proxies(
        self, stub: StartStub, client: aiohttp.ClientSession, page: type[AggregateView]
    ) -> None:
        server = (await stub("all")).on("/user", ADA).on("/reviews", [])
        async with (
            gateway([path("", page.as_view())], {"users": server, "reviews": server}) as base,
            client.get(base) as answer,
        ):
            await answer.read()

        assert (answer.status, answer.headers["X-Complete"]) == (200, "true")
        assert "Proxy-Status" not in answer.headers


class Decides(PatientPage):
    """`merge` returns what the test's `make` does, or raises it."""

    make: Any = None

    @call("all")
    def user(self) -> Request[User]:
        return GET("/user")

    def merge(self, user: User) -> Answer[Any]:
        made = self.make()
        if isinstance(made, Exception):
            raise made
        return made  # type: ignore[no-any-return] # as wrong as the test wants it


def deciding(make: Any) -> Any:
    return Decides.as_view(make=make)


class TestAnswer:
    async def test_merge_may_decide_on_status_headers_and_cookies(
        self, stub: StartStub, client: aiohttp.ClientSession
    ) -> None:
        headers = {"Location": "/users/7", "Content-Type": "application/vnd.shop+json", "X-Name": "Zo\xe9"}
        cookies: dict[str, Any] = {"seen": "yes", "cart": {"value": "7", "max_age": 60, "httponly": True}}
        server = (await stub("all")).on("/user", ADA)
        view = deciding(lambda: Answer({"made": True}, status=201, headers=headers, cookies=cookies))
        async with gateway([path("", view)], {"all": server}) as base, client.get(base) as answer:
            assert await answer.json(content_type=None) == {"data": {"made": True}, "complete": True, "errors": {}}

        assert answer.status == 201
        assert answer.headers["Location"] == "/users/7"
        assert answer.headers["Content-Type"] == "application/vnd.shop+json"
        assert answer.cookies["seen"].value == "yes"
        assert (answer.cookies["cart"]["max-age"], answer.cookies["cart"]["httponly"]) == ("60", True)

    @pytest.mark.parametrize("status", [204, 205, 304])
    async def test_a_status_without_content_leaves_the_connection_usable(
        self, stub: StartStub, client: aiohttp.ClientSession, status: int
    ) -> None:
        server = (await stub("all")).on("/user", ADA)
        view = deciding(lambda: Answer(None, status=status))
        async with gateway([path("", view)], {"all": server}) as base:
            for _ in range(2):
                async with client.get(base) as answer:
                    assert (answer.status, await answer.read()) == (status, b"")

    @pytest.mark.parametrize(
        "headers",
        [
            {"X-Name": "a\r\nX-Evil: 1"},
            {"X-Name": "a\nX-Evil: 1"},
            {"X-Name": "a\rb"},
            {"X-Name": "a\0b"},
            {"X-Name\r\nX-Evil": "1"},
            {"X Name": "1"},
            {"X-N\xe4me": "1"},
            {"": "1"},
            {"Content-Length": "2"},
            {"transfer-encoding": "chunked"},
            {"Connection": "close"},
            {"Content-Encoding": "gzip"},
        ],
    )
    async def test_a_header_cannot_change_the_shape_of_the_answer(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log, headers: dict[str, str]
    ) -> None:
        server = (await stub("all")).on("/user", ADA)
        view = deciding(lambda: Answer({}, headers=headers))
        async with gateway([path("", view)], {"all": server}) as base, client.get(base) as answer:
            body = await answer.json(content_type="application/problem+json")

        assert (answer.status, body["type"]) == (500, "urn:tributary:problem:proxy_internal_error")
        assert "X-Evil" not in answer.headers
        assert "ValueError" in str(log.events("log.recorded", level="error"))

    @pytest.mark.parametrize(
        "cookie",
        [
            {"value": "1", "path": "/\r\nX-Evil: 1"},
            {"value": "1", "domain": "a\r\n\r\nbody"},
            {"value": "1", "path": "/\u0416"},
            {"value": "\u0416"},
        ],
    )
    async def test_a_cookie_cannot_either(
        self, stub: StartStub, client: aiohttp.ClientSession, cookie: dict[str, str]
    ) -> None:
        server = (await stub("all")).on("/user", ADA)
        view = deciding(lambda: Answer({}, cookies={"seen": cookie}))
        async with gateway([path("", view)], {"all": server}) as base, client.get(base) as answer:
            body = await answer.json(content_type="application/problem+json")

        assert (answer.status, body["type"]) == (500, "urn:tributary:problem:proxy_internal_error")
        assert not answer.headers.keys() & {"X-Evil", "Set-Cookie"}

    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(lambda: Answer(object()), id="an object"),
            pytest.param(lambda: Answer({"deep": [{1, 2}, object()]}), id="an object inside"),
            pytest.param(lambda: Answer(number for number in range(3)), id="a generator"),
            pytest.param(lambda: Answer("\ud800"), id="a lone surrogate"),
            pytest.param(lambda: Answer({("a", "b"): 1}), id="a tuple for a key"),
            pytest.param(lambda: Answer({}, status=199), id="a status that ends nothing"),
            pytest.param(lambda: Answer({}, status=600), id="a status that is none"),
            pytest.param(lambda: Problem(200), id="a problem that is none"),
            pytest.param(lambda: Problem(404, detail=object()), id="a detail that is no text"),  # type: ignore[arg-type]
            pytest.param(lambda: Problem(404, more=object()), id="an extension that is no JSON"),
            pytest.param(lambda: Problem(404, headers={"X-Name": "a\r\nX-Evil: 1"}), id="a header in a header"),
            pytest.param(lambda: KeyError("unexpected"), id="an exception"),
        ],
    )
    async def test_a_mistake_in_merge_is_a_500_with_its_traceback_in_the_log_alone(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log, make: Any
    ) -> None:
        server = (await stub("all")).on("/user", ADA)
        async with gateway([path("", deciding(make))], {"all": server}) as base, client.get(base) as answer:
            text = await answer.text()

        assert (answer.status, answer.content_type) == (500, "application/problem+json")
        assert msgspec.json.decode(text) == {
            "type": "urn:tributary:problem:proxy_internal_error",
            "title": "Internal Server Error",
            "status": 500,
            "request_id": answer.headers["X-Request-ID"],
        }
        (recorded,) = log.events("log.recorded", level="error")
        assert "Traceback" in str(recorded)
        (finished,) = log.events("request.finished")
        assert (finished["outcome"], finished["error.type"]) == ("failed", "proxy_internal_error")

    async def test_what_an_exception_says_is_in_the_log_and_not_in_the_answer(
        self, stub: StartStub, client: aiohttp.ClientSession, log: Log
    ) -> None:
        said = "said by the merge"
        server = (await stub("all")).on("/user", ADA)
        view = deciding(lambda: KeyError(said))
        async with gateway([path("", view)], {"all": server}) as base, client.get(base) as answer:
            text = await answer.text()

        assert said not in str(answer.headers) + text
        assert said in str(log.events("log.recorded", level="error"))


STATUSES = {
    Fault.DNS_ERROR: 502,
    Fault.DNS_TIMEOUT: 504,
    Fault.DESTINATION_IP_PROHIBITED: 502,
    Fault.DESTINATION_UNAVAILABLE: 503,
    Fault.CONNECTION_REFUSED: 502,
    Fault.CONNECTION_TIMEOUT: 504,
    Fault.CONNECTION_TERMINATED: 502,
    Fault.CONNECTION_LIMIT_REACHED: 503,
    Fault.TLS_PROTOCOL_ERROR: 502,
    Fault.TLS_CERTIFICATE_ERROR: 502,
    Fault.HTTP_REQUEST_DENIED: 502,
    Fault.HTTP_RESPONSE_TIMEOUT: 504,
    Fault.HTTP_RESPONSE_INCOMPLETE: 502,
    Fault.HTTP_RESPONSE_HEADER_SIZE: 502,
    Fault.HTTP_RESPONSE_BODY_SIZE: 502,
    Fault.HTTP_RESPONSE_CONTENT_CODING: 502,
    Fault.HTTP_PROTOCOL_ERROR: 502,
    Fault.HTTP_RESPONSE_STATUS: 502,
    Fault.BODY_MALFORMED: 502,
    Fault.BODY_MISMATCH: 502,
    Fault.DEADLINE_EXCEEDED: 504,
    Fault.SKIPPED: 502,
    Fault.PROXY_INTERNAL_ERROR: 500,
}


class TestFailed:
    @pytest.mark.parametrize(
        ("given", "status", "wait"),
        [
            (Answered({"secret": CANARY}, 404, {"X-Secret": CANARY}), 502, None),
            (Answered({"secret": CANARY}, 500, {"Retry-After": "7"}), 502, None),
            (Answered({"secret": CANARY}, 503, {"Retry-After": "7"}), 503, "7"),
            (Answered({"secret": CANARY}, 503), 503, "1"),
            (Answered({"secret": CANARY}, 503, {"Retry-After": "0"}), 503, "1"),
            (Answered({"secret": CANARY}, 503, {"Retry-After": CANARY}), 503, "1"),
            (Answered({"secret": CANARY}, 429, {"Retry-After": "120"}), 503, "120"),
            (Answered({"secret": CANARY}, 429), 503, "1"),
        ],
    )
    async def test_a_required_call_decides_the_status(
        self, stub: StartStub, client: aiohttp.ClientSession, given: Answered, status: int, wait: str | None
    ) -> None:
        server = (await stub("all")).on("/user", given)
        async with (
            gateway([path("", JustUser.as_view())], {"all": once(server)}) as base,
            client.get(base, headers={"X-Request-ID": "abc-1", "Authorization": CANARY}) as answer,
        ):
            text = await answer.text()

        titles = {502: "An upstream failed", 503: "An upstream is not available"}
        assert msgspec.json.decode(text) == {
            "type": "urn:tributary:problem:http_response_status",
            "title": titles[status],
            "status": status,
            "detail": "user has no value: http_response_status",
            "request_id": "abc-1",
            "complete": False,
            "errors": {
                "user": {
                    "upstream": "all",
                    "error": "http_response_status",
                    "status": given.status,
                    "attempts": 1,
                    "retryable": given.status != 404,
                }
            },
        }
        assert (answer.status, answer.headers.get("Retry-After")) == (status, wait)
        assert (answer.content_type, answer.headers["Cache-Control"]) == ("application/problem+json", "no-store")
        assert (answer.headers["X-Complete"], answer.headers["X-Request-ID"]) == ("false", "abc-1")
        assert CANARY not in str(answer.headers) + text

    async def test_a_date_to_retry_after_becomes_whole_seconds_and_never_too_few(
        self, stub: StartStub, client: aiohttp.ClientSession
    ) -> None:
        server = await stub("all")

        async def busy(_: Received) -> Answered:
            when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
            return Answered({}, 503, {"Retry-After": email.utils.format_datetime(when, usegmt=True)})

        server.on("/user", busy)
        async with gateway([path("", JustUser.as_view())], {"all": once(server)}) as base, client.get(base) as answer:
            assert 1 < int(answer.headers["Retry-After"]) <= 100

    async def test_a_dead_upstream_is_told_without_its_address(
        self, stub: StartStub, client: aiohttp.ClientSession, unused_port: int
    ) -> None:
        upstreams = {"all": Upstream(f"http://127.0.0.1:{unused_port}/{CANARY}", retry=None)}
        async with gateway([path("", JustUser.as_view())], upstreams) as base, client.get(base) as answer:
            text = await answer.text()

        assert (answer.status, msgspec.json.decode(text)["type"]) == (502, "urn:tributary:problem:connection_refused")
        assert not [
            secret for secret in (CANARY, "127.0.0.1", str(unused_port)) if secret in str(answer.headers) + text
        ]

    async def test_all_known_failures_are_told_and_the_first_required_one_decides(
        self, stub: StartStub, client: aiohttp.ClientSession
    ) -> None:
        server = (await stub("all")).on("/reviews", Answered({}, 503)).on("/user", Answered([CANARY]))
        upstreams = {"users": once(server), "reviews": once(server)}
        async with gateway([path("", Partial.as_view())], upstreams) as base, client.get(base) as answer:
            body = await answer.json(content_type="application/problem+json")

        assert (answer.status, body["type"]) == (502, "urn:tributary:problem:body_mismatch")
        assert {name: error["error"] for name, error in body["errors"].items()} == {
            "reviews": "http_response_status",
            "user": "body_mismatch",
        }
        assert member(answer) == {
            "error": "body_mismatch",
            "next-hop": "users",
            "received-status": 200,
            "details": "no value: reviews, user",
        }

    async def test_a_mismatch_tells_the_path_and_no_value(self, stub: StartStub, client: aiohttp.ClientSession) -> None:
        server = (await stub("all")).on("/user", {"id": CANARY, "name": CANARY})
        async with gateway([path("", JustUser.as_view())], {"all": once(server)}) as base, client.get(base) as answer:
            text = await answer.text()

        assert msgspec.json.decode(text)["errors"]["user"]["detail"] == "Expected `int`, got `str` - at `$.id`"
        assert CANARY not in text

    @pytest.mark.parametrize(
        "given",
        [
            Answered({}, content_type=f"application/json; charset={CANARY}"),
            Answered({}, content_type=f"text/{CANARY}"),
            Answered(b'{"' + CANARY.encode()),
            Answered({}, headers={"Content-Encoding": CANARY}),
            Answered({}, 302, {"Location": f"http://{CANARY}/"}),
        ],
    )
    async def test_nothing_an_upstream_sends_is_told_of_it(
        self, stub: StartStub, client: aiohttp.ClientSession, given: Answered
    ) -> None:
        server = (await stub("all")).on("/user", given)
        async with gateway([path("", JustUser.as_view())], {"all": once(server)}) as base, client.get(base) as answer:
            text = await answer.text()

        assert answer.status == 502
        assert CANARY not in str(answer.headers) + text

    @pytest.mark.parametrize(("status", "wait"), [(404, None), (409, None), (429, "9"), (503, "9")])
    async def test_a_status_passed_through_is_the_pages_own_as_our_problem(
        self, stub: StartStub, client: aiohttp.ClientSession, status: int, wait: str | None
    ) -> None:
        server = (await stub("all")).on("/user", Answered({"secret": CANARY}, status, {"Retry-After": "9"}))
        upstreams = {"all": Upstream(server.url, retry=None, passthrough=(404, 409, 429, 503))}
        async with gateway([path("", JustUser.as_view())], upstreams) as base, client.get(base) as answer:
            text = await answer.text()

        body = msgspec.json.decode(text)
        assert (answer.status, body["status"], body["type"]) == (status, status, "urn:tributary:problem:passthrough")
        assert (body["complete"], list(body["errors"])) == (False, ["user"])
        assert answer.headers.get("Retry-After") == wait
        assert CANARY not in str(answer.headers) + text

    @pytest.mark.parametrize("fault", Fault)
    def test_each_way_to_fail_makes_one_status(self, fault: Fault) -> None:
        failure = Failure(upstream="all", error=fault, status=None, attempts=1, retryable=False)
        problem = CallFailed("user", failure).problem({})

        assert (problem.status, problem.kind) == (STATUSES[fault], fault.word)
        assert problem.headers == ({"Retry-After": "1"} if STATUSES[fault] == 503 else {})

    @pytest.mark.parametrize(
        ("asked", "told"), [(None, "1"), (0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (86400.0, "86400")]
    )
    def test_the_wait_is_rounded_up(self, asked: float | None, told: str) -> None:
        failure = Failure(upstream="all", error=Fault.HTTP_RESPONSE_STATUS, status=503, attempts=1, retryable=True)

        assert CallFailed("user", failure, retry_after=asked).problem({}).headers == {"Retry-After": told}


def member(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """Parse Proxy-Status back (RFC 9209): one member, this gateway's; tokens become text."""
    (proxy,) = answer.headers.getall("Proxy-Status")
    parsed: Any = http_sf.parse(proxy.encode(), tltype="list")
    ((name, params),) = parsed
    assert isinstance(name, http_sf.Token)
    assert isinstance(params["error"], http_sf.Token)
    assert str(name) == "tributary"
    return {key: str(value) if isinstance(value, http_sf.Token) else value for key, value in params.items()}


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port of this machine that refuses connections: bound, and not listened on."""
    import socket  # noqa: PLC0415 - used here alone

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
