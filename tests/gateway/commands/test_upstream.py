"""`manage.py upstream`: a breaker held open or closed from the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.serving.holds import Hold, hold, holds
from tests.program import Ended, ran
from tests.serving import project
from upstreams import Upstream

TABLE = {"users": Upstream("http://127.0.0.1:1"), "orders": Upstream("http://127.0.0.1:1")}

Ask = Callable[..., Ended]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    def asked(*arguments: str, folder: Path | None = tmp_path) -> Ended:
        with project([], TABLE, GATEWAY_CONTROL_DIR=folder):
            return ran("upstream", *arguments)

    return asked


def test_open_holds_it_open_and_says_by_whom(ask: Ask, tmp_path: Path) -> None:
    ended = ask("users", "--open")

    assert ended.code == 0
    assert re.search(r"users: held open by \S+ at a terminal, until it is let go", ended.out)
    assert holds(tmp_path)["users"].state == "open"


def test_a_hold_can_be_for_a_time(ask: Ask, tmp_path: Path) -> None:
    ended = ask("users", "--close", "--for", "30m")

    assert re.search(r"held closed by .*, for another (30m|29m 5\ds)", ended.out)
    left = holds(tmp_path)["users"].left
    assert left is not None
    assert 1700 < left <= 1800


def test_auto_lets_it_go(ask: Ask, tmp_path: Path) -> None:
    hold(tmp_path, "users", Hold("open", "ada"))
    ended = ask("users", "--auto")

    assert "users: its breaker decides by itself" in ended.out
    assert holds(tmp_path) == {}


def test_without_an_action_it_says_what_is_held(ask: Ask, tmp_path: Path) -> None:
    hold(tmp_path, "users", Hold("open", "ada"))

    assert ask("users").out.strip() == "users: held open by ada, until it is let go"
    assert ask("orders").out.strip() == "orders: its breaker decides by itself"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["usrs", "--open"], "no upstream is called 'usrs'; did you mean users?"),
        (["x", "--open"], "no upstream is called 'x'; UPSTREAMS has users, orders"),
        (["users", "--open", "--for", "soon"], "'soon' is no length of time; write it as 90s, 30m or 2h"),
        (["users", "--open", "--for", "367d"], "--for is a year at most; without it there is no end"),
        (["users", "--open", "--for", f"{'9' * 400}d"], "--for is a year at most; without it there is no end"),
        (["users", "--open", "--for", "-5m"], "expected one argument"),
        (["users", "--auto", "--for", "5m"], "--for says how long to hold it: it goes with --open or --close"),
        (["users", "--open", "--close"], "not allowed with argument"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(ask: Ask, tmp_path: Path, arguments: list[str], said: str) -> None:
    ended = ask(*arguments)

    assert ended.code != 0
    assert said in ended.err
    assert holds(tmp_path) == {}


def test_without_a_folder_it_says_what_to_set(ask: Ask) -> None:
    ended = ask("users", "--open", folder=None)

    assert ended.code != 0
    assert "set LOG_DIR or GATEWAY_CONTROL_DIR" in ended.err


def test_a_file_that_cannot_be_written_is_said_in_a_sentence(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    ended = ask("users", "--open", folder=tmp_path / "taken")

    assert ended.code != 0
    assert "taken" in ended.err
