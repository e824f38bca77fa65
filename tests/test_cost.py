"""What a request costs does not creep up: calls of Python functions are counted beside those of the floor."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import aiohttp
import msgspec
import pytest

from tests.counting import COUNTED, REQUESTS, ROWS, Count
from tests.program import program
from tests.tap import answer, tapping


class Bound(NamedTuple):
    """The most that is called for one request, as a multiple of what the floor calls to ask as many upstreams."""

    most: float
    floor: int


#: Each about 5 % above what was counted: lower it with the count.
BOUNDS: Final = {
    "/spliced/1": Bound(2.01, floor=1),
    "/spliced/3": Bound(1.45, floor=3),
    "/spliced/10": Bound(1.20, floor=10),
    "/spliced/3 application/jsonl": Bound(1.96, floor=3),
    "/typed/3": Bound(1.44, floor=3),
    "/shared/3": Bound(2.83, floor=1),
}
STRAIGHT: Final = 0.03  # how much the cost of one more call may differ between few calls and many
_FLOORS: Final = {f"/floor/{bound.floor}" for bound in BOUNDS.values()}
_COVERAGE: Final = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")


@pytest.fixture(scope="module")
def counts() -> dict[str, Count]:
    """What one request to each path costs."""
    with pytest.MonkeyPatch.context() as environment:
        for name in _COVERAGE:  # it makes everything slower, and no call more
            environment.delenv(name, raising=False)
        return asyncio.run(_counts([*BOUNDS, *_FLOORS, "/lasting", "/hopping/3"]), debug=False)


@pytest.mark.parametrize("path", BOUNDS)
def test_a_request_calls_no_more_than_its_multiple_of_the_floor(counts: dict[str, Count], path: str) -> None:
    floor = counts[f"/floor/{BOUNDS[path].floor}"]
    assert counts[path].calls / floor.calls <= BOUNDS[path].most, f"{counts[path]} and the floor's {floor}"


@pytest.mark.parametrize("path", BOUNDS)
def test_a_request_is_answered_on_the_loop_alone(counts: dict[str, Count], path: str) -> None:
    assert counts[path].hops == 0


@pytest.mark.parametrize("path", [*BOUNDS, "/lasting"])
def test_a_request_leaves_nothing_to_the_garbage_collector(counts: dict[str, Count], path: str) -> None:
    assert counts[path].circles == 0


def test_one_more_call_costs_as_much_on_a_wide_page_as_on_a_narrow_one(counts: dict[str, Count]) -> None:
    one, three, ten = (counts[f"/spliced/{width}"].calls for width in (1, 3, 10))
    assert (ten - one) / 9 == pytest.approx((three - one) / 2, rel=STRAIGHT)


def test_a_hop_to_another_thread_is_counted_and_breaks_the_bound(counts: dict[str, Count]) -> None:
    assert counts["/hopping/3"].hops >= COUNTED
    assert counts["/hopping/3"].calls / counts["/floor/3"].calls > BOUNDS["/spliced/3"].most


async def _counts(asked: list[str]) -> dict[str, Count]:
    async with tapping() as tap:
        tap.on("*", answer(ROWS))
        async with (
            program("-m", "tests.counting", tap.url, environment={}) as server,
            aiohttp.ClientSession(await server.base()) as client,
        ):
            for what in asked:
                path, _, accept = what.partition(" ")
                for _ in range(REQUESTS):
                    await _complete(client, path, accept or "*/*")
            async with client.get("/counts") as response:
                return msgspec.json.decode(await response.read(), type=dict[str, Count])


async def _complete(client: aiohttp.ClientSession, path: str, accept: str) -> None:
    async with client.get(path, headers={"Accept": accept}) as response:
        assert b'"complete":true' in await response.read()
        assert response.status == 200
