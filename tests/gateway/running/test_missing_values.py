"""When a call has no value: DESIGN's table, crossed with who takes the value and how its parameter is annotated."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import pytest
from django.urls import path

from gateway import AggregateView, DeclarationError, call
from tests.conftest import StartStub
from tests.logs import CANARY
from tests.serving import PatientPage, asking
from tests.stub import Answered, Gate
from upstreams import GET, Request, Upstream


class Item(msgspec.Struct):
    n: int


class Failing(NamedTuple):
    """A way for the upstream called `bad` to fail, and what is said of it."""

    word: str
    status: int | None
    page_status: int
    retryable: bool


FAILING = {
    "status": Failing("http_response_status", 500, 502, retryable=True),
    "timeout": Failing("http_response_timeout", None, 504, retryable=True),
    "malformed": Failing("body_malformed", 200, 502, retryable=False),
    "refused": Failing("connection_refused", None, 502, retryable=True),
}


class Culprit(NamedTuple):
    """How call `a` comes to have no value of its upstream's: its declarations, and what then stands in the answer."""

    declared: Callable[[], dict[str, Any]]
    fails: bool
    value: Mapping[str, int] | None
    complete: bool
    skipped: bool = False

    @property
    def may_be_none(self) -> bool:
        return self.value is None


def asking_bad(**policy: Any) -> dict[str, Any]:
    @call("bad", **policy)
    def a(self: AggregateView) -> Request[Item]:
        return GET("/a")

    return {"a": a}


def declining(**policy: Any) -> dict[str, Any]:
    @call("bad", **policy)
    def a(self: AggregateView) -> Request[Item] | None:
        return None

    return {"a": a}


def needing_z(**policy: Any) -> dict[str, Any]:
    @call("bad", **policy)
    def z(self: AggregateView) -> Request[Item]:
        return GET("/a")

    @call("good", optional=True)
    def a(self: AggregateView, z: Item) -> Request[Item]:
        return GET("/b", n=z.n)

    return {"z": z, "a": a}


FALLBACK = {"n": 0}
CULPRITS = {
    "required": Culprit(asking_bad, fails=True, value={}, complete=False),
    "optional": Culprit(lambda: asking_bad(optional=True), fails=True, value=None, complete=False),
    "fallback": Culprit(lambda: asking_bad(fallback=FALLBACK), fails=True, value=FALLBACK, complete=False),
    "absent": Culprit(lambda: asking_bad(absent=(404,)), fails=False, value=None, complete=True),
    "optional-absent": Culprit(
        lambda: asking_bad(absent=(404,), optional=True), fails=False, value=None, complete=True
    ),
    "fallback-absent": Culprit(
        lambda: asking_bad(absent=(404,), fallback=FALLBACK), fails=False, value=None, complete=True
    ),
    "declined": Culprit(declining, fails=False, value=None, complete=True),
    "optional-declined": Culprit(lambda: declining(optional=True), fails=False, value=None, complete=True),
    "fallback-declined": Culprit(lambda: declining(fallback=FALLBACK), fails=False, value=None, complete=True),
    "skipped-for-a-failed": Culprit(
        lambda: needing_z(optional=True), fails=True, value=None, complete=False, skipped=True
    ),
    "skipped-for-an-absent": Culprit(
        lambda: needing_z(absent=(404,)), fails=False, value=None, complete=True, skipped=True
    ),
}

TAKEN_FALLBACK = {"n": 9}
POLICIES: dict[str, dict[str, Any]] = {
    "required": {},
    "optional": {"optional": True},
    "fallback": {"fallback": TAKEN_FALLBACK},
}
TAKERS = [*itertools.product((*POLICIES, "merge"), ("T", "T | None"))]


def taking(policy: str, annotation: str) -> dict[str, Any]:
    if policy == "merge":
        return {"merge": _merge_optional if annotation == "T | None" else _merge}

    @call("good", **POLICIES[policy])
    def strict(self: AggregateView, a: Item) -> Request[Item]:
        return GET("/b", n=a.n)

    @call("good", **POLICIES[policy])
    def lenient(self: AggregateView, a: Item | None) -> Request[Item]:
        return GET("/b", n=None if a is None else a.n)

    return {"b": lenient if annotation == "T | None" else strict}


def _merge(self: AggregateView, a: Item) -> dict[str, Item]:
    return {"a": a}


def _merge_optional(self: AggregateView, a: Item | None) -> dict[str, Item | None]:
    return {"a": a}


def cases() -> Iterator[Any]:
    for (name, culprit), (taker, annotation) in itertools.product(CULPRITS.items(), TAKERS):
        for kind in FAILING if culprit.fails else ("status",):
            failing = f"-{kind}" if culprit.fails else ""
            yield pytest.param(culprit, kind, taker, annotation, id=f"{name}{failing}-taken by {taker} as {annotation}")


def page_of(culprit: Culprit, taker: str, annotation: str) -> type[AggregateView]:
    return type("Page", (PatientPage,), {**culprit.declared(), **taking(taker, annotation), "__module__": __name__})


@pytest.fixture
def refusing() -> Iterator[str]:
    """A port of this machine that is taken, and listened on by nobody."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(("culprit", "kind", "taker", "annotation"), [*cases()])
async def test_a_call_without_a_value(
    stub: StartStub, refusing: str, culprit: Culprit, kind: str, taker: str, annotation: str
) -> None:
    indispensable = taker in {"required", "merge"} and annotation == "T"
    if indispensable and culprit.may_be_none:
        with pytest.raises(DeclarationError, match=r"may have no value: annotate"):
            page_of(culprit, taker, annotation)
        return
    page = page_of(culprit, taker, annotation)
    server = await stub("both")
    server.on("/b", {"n": 2}).on("/a", _answer(culprit, kind))
    upstreams = {
        "good": Upstream(server.url, timeout=20, retry=None),
        "bad": Upstream(
            refusing if kind == "refused" else server.url, timeout=0.9 if kind == "timeout" else 20, retry=None
        ),
    }

    with asking([path("page", page.as_view())], upstreams) as client:
        answer = await client.get("/page")
    body = answer.json()

    failing = FAILING[kind]
    errors = _expected_errors(culprit, failing, taker, annotation)
    told = {name: {key: error.get(key) for key in errors.get(name, {})} for name, error in body["errors"].items()}
    assert told == errors
    assert CANARY not in answer.content.decode()
    if culprit.value == {}:
        assert answer.status_code == failing.page_status
        assert answer["Content-Type"] == "application/problem+json"
        assert answer["X-Complete"] == "false"
        assert body["type"] == f"urn:tributary:problem:{failing.word}"
        assert server.asked("/b") == []
        return
    assert answer.status_code == 200
    assert body["data"]["a"] == culprit.value
    assert body["complete"] is culprit.complete
    assert answer["X-Complete"] == ("true" if culprit.complete else "false")
    _check_taker(culprit, taker, annotation, body["data"], [asked.query for asked in server.asked("/b")])


def _answer(culprit: Culprit, kind: str) -> Any:
    if not culprit.fails:
        return Answered({"secret": CANARY}, 404)
    return {
        "status": Answered({"secret": CANARY}, 500),
        "timeout": Gate(None),
        "malformed": Answered(b'{"n": "' + CANARY.encode()),
        "refused": None,
    }[kind]


def _expected_errors(culprit: Culprit, failing: Failing, taker: str, annotation: str) -> dict[str, dict[str, Any]]:
    failed = {
        "upstream": "bad",
        "error": failing.word,
        "status": failing.status,
        "attempts": 1,
        "retryable": failing.retryable,
    }
    skipped = {"upstream": "good", "error": "skipped", "status": None, "attempts": 0, "retryable": False}
    errors: dict[str, dict[str, Any]] = {}
    if culprit.fails:
        errors["z" if culprit.skipped else "a"] = failed
    if culprit.skipped:
        errors["a"] = {**skipped, "because": "z"}
    if culprit.may_be_none and taker in {"optional", "fallback"} and annotation == "T":
        errors["b"] = {**skipped, "because": "a"}
    return errors


def _check_taker(culprit: Culprit, taker: str, annotation: str, data: Any, asked: list[list[tuple[str, str]]]) -> None:
    """A taker that can do without runs with None; one that cannot is skipped; else it runs with what stands there."""
    if taker == "merge":
        assert asked == []
        assert data == {"a": culprit.value}
    elif culprit.value is None and annotation == "T":
        assert asked == []
        assert data["b"] == (TAKEN_FALLBACK if taker == "fallback" else None)
    else:
        assert asked == [[("n", str(culprit.value["n"]))] if culprit.value is not None else []]
        assert data["b"] == {"n": 2}
