"""`manage.py probe`: which upstream is there, in a table and in the exit code."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.program import Ended, program, ran, write_project
from tests.serving import Table, project
from tests.stub import Answered, serving_stub
from upstreams import Upstream

NOBODY = "http://127.0.0.1:1"


async def probed(table: Table, *arguments: str) -> Ended:
    with project([], table):
        return await asyncio.to_thread(ran, "probe", *arguments)


async def test_all_up_is_a_table_and_success() -> None:
    async with serving_stub("users") as users, serving_stub("recommendations") as recommendations:
        users.on("/", {})
        ended = await probed({"users": users, "recommendations": recommendations})

    assert ended.code == 0
    rows = [line.split() for line in ended.out.splitlines()]
    assert [(row[0], row[1], row[4], row[5]) for row in rows] == [
        ("users", "up", "200", users.url),
        ("recommendations", "up", "404", recommendations.url),  # an answer too: somebody is there
    ]
    assert len({line.index("http://") for line in ended.out.splitlines()}) == 1
    assert [len(server.received) for server in (users, recommendations)] == [1, 1]


@pytest.mark.parametrize("status", [500, 503])
async def test_one_down_is_a_failure(status: int) -> None:
    async with serving_stub("users") as users:
        users.on("/", Answered({}, status))
        ended = await probed({"users": users, "orders": Upstream(NOBODY)})

    assert ended.code == 1
    broken, absent = [line.split() for line in ended.out.splitlines()]
    assert (broken[1], broken[4], len(users.received)) == ("down", str(status), 1)
    assert (absent[0], absent[1], absent[4], absent[5]) == ("orders", "down", "connection_refused", NOBODY)


async def test_every_address_of_an_upstream_is_asked() -> None:
    async with serving_stub("first") as first:
        ended = await probed({"catalog": Upstream([first.url, NOBODY])})

    assert ended.code == 1
    assert [line.split()[:2] for line in ended.out.splitlines()] == [["catalog", "up"], ["catalog", "down"]]


async def test_upstreams_can_be_chosen_and_asked_for_a_path_of_theirs() -> None:
    async with serving_stub("users") as users:
        users.on("/base/health", {}).on("*", Answered({}, 500))
        table = {"users": Upstream(f"{users.url}/base"), "orders": Upstream(NOBODY)}
        ended = await probed(table, "users", "--path", "/health")

    assert ended.code == 0
    assert [asked.path for asked in users.received] == ["/base/health"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("usres",), "no upstream is called 'usres'; UPSTREAMS has users, orders"),
        (("--path", "health"), "--path: path 'health' must start with /"),
        (("--path", "/{id}"), "--path: path '/{id}' names {id}, which is not given"),
    ],
)
async def test_a_wrong_argument_is_said_in_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    ended = await probed({"users": Upstream(NOBODY), "orders": Upstream(NOBODY)}, *arguments)

    assert (ended.code, ended.out, ended.err) == (1, "", f"CommandError: {said}")


async def test_nobody_to_ask_is_no_success() -> None:
    ended = await probed({})

    assert (ended.code, ended.err) == (1, "CommandError: UPSTREAMS is empty: there is nobody to ask")


async def test_a_table_that_cannot_be_used_is_said_in_a_sentence() -> None:
    ended = await probed({"users": Upstream("users")})

    assert ended.code == 1
    assert ended.err.startswith("CommandError: UPSTREAMS cannot be used:")


async def test_who_wants_no_colour_gets_none(tmp_path: Path) -> None:
    environment = write_project(tmp_path, {"shop": NOBODY})
    coloured = await probed({"shop": Upstream(NOBODY)}, "--force-color")
    arguments = ("manage.py", "probe", "--force-color")
    async with program(*arguments, environment={**environment, "NO_COLOR": "1"}) as probing:
        plain = await probing.ends()

    assert re.fullmatch(r"\x1b\[[0-9;]+mshop  down .*\x1b\[0m\n", coloured.out)
    assert re.fullmatch(r"shop  down .*", plain.out)
    assert plain.code == 1
