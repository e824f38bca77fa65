"""`compare` puts first what an operator should look at first."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.inspection.conftest import Logs
from tests.inspection.shop import at, attempt, line, request, traffic, write

BAD = ("--bad", f"{at(300)}..{at(400)}")


@pytest.mark.parametrize("seed", range(4))
def test_the_one_of_three_hosts_that_turned_slow_and_503_comes_first(logs: Logs, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    write(
        tmp_path / "gateway-1.ndjson",
        *traffic(chance, 300, 5),
        *traffic(chance, 100, 5, sick="10.0.0.2:80", begin=300),
    )

    said = logs("compare", *BAD, "--json").json
    first, second = said["places"][:2]

    assert (first["field"], first["value"], first["unit"]) == ("server.address", "10.0.0.2:80", "attempt")
    assert (second["field"], second["value"]) == ("upstream", "catalog")
    assert said["slow"][0]["value"] == "10.0.0.2:80"
    assert first["bad"]["troubled_share"] > 0.95
    assert first["base"]["troubled_share"] < 0.15
    assert first["bad"]["p95_ms"] > 5 * first["base"]["p95_ms"]
    assert "http.route" not in {row["field"] for row in said["places"]}
    assert ("error.type", "http_response_status") in {(row["field"], row["value"]) for row in said["symptoms"]}
    assert said["base"]["from"] == at(0)
    assert (said["bad"]["requests"], said["bad"]["rate"]) == (500, 5.0)
    told = logs("compare", *BAD).out
    assert told.index("10.0.0.2:80") < told.index("catalog")


def test_a_time_like_any_other_has_no_place_of_trouble(logs: Logs, tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", *traffic(random.Random(1), 400, 5))

    said = logs("compare", *BAD)

    assert "No value differs more than chance would make it." in said.out
    assert logs("compare", *BAD, "--json").json["places"] == []


def test_a_new_version_that_fails_is_told_by_its_version(logs: Logs, tmp_path: Path) -> None:
    old, new = {"service__instance__id": "web-1-7"}, {"service__instance__id": "web-1-8"}
    write(
        tmp_path / "gateway-1.ndjson",
        line("gateway.started", 0, **old, service__version="1.0"),
        line("gateway.started", 300, **new, service__version="1.1"),
        *(request(second, **old) for second in range(400)),
        *(request(second, "failed", **new, error__type="proxy_internal_error") for second in range(300, 400)),
    )

    (first, *_) = logs("compare", *BAD, "--json").json["places"]

    assert (first["field"], first["value"], first["lift"]) == ("service.version", "1.1", None)


def test_what_is_asked_for_more_is_told_apart_also_of_a_projects_own_fields(logs: Logs, tmp_path: Path) -> None:
    chance = random.Random(3)
    write(
        tmp_path / "gateway-1.ndjson",
        *(request(second, plan=chance.choice(["free", "free", "free", "pro"])) for second in range(300)),
        *(request(second / 3, plan=chance.choice(["free", "pro", "pro", "pro"])) for second in range(900, 1200)),
    )

    said = logs("compare", *BAD, "--json").json

    assert [(row["field"], row["value"]) for row in said["shifts"]] == [("plan", "pro"), ("plan", "free")]
    assert said["places"] == []
    assert 2 < said["shifts"][0]["lift"] < 4


def test_trouble_that_is_everywhere_alike_is_said_to_be(logs: Logs, tmp_path: Path) -> None:
    write(
        tmp_path / "gateway-1.ndjson",
        *(request(second, http__route=f"r{second % 2}") for second in range(300)),
        *(request(second, "failed", http__route=f"r{second % 2}") for second in range(300, 400)),
    )

    assert "The trouble is everywhere alike" in logs("compare", *BAD).out


def test_trouble_in_one_place_is_found_although_the_others_have_less_than_before(logs: Logs, tmp_path: Path) -> None:
    sick = {"upstream": "catalog", "server__address": "10.0.0.2:80"}
    write(
        tmp_path / "gateway-1.ndjson",
        *(attempt(number, "users", "failed" if number % 10 == 0 else "ok") for number in range(300)),
        *(attempt(number, outcome="ok", **sick) for number in range(0, 300, 10)),
        *(attempt(300 + number / 3, "users") for number in range(300)),
        *(attempt(300 + number, outcome="failed", **sick) for number in range(15)),
    )

    (first, *_) = logs("compare", *BAD, "--json").json["places"]

    assert (first["field"], first["value"]) == ("server.address", "10.0.0.2:80")


def test_without_a_base_what_fails_is_told_all_the_same(logs: Logs, tmp_path: Path) -> None:
    write(
        tmp_path / "gateway-1.ndjson",
        *(attempt(300 + number / 10, "users" if number % 2 else "catalog", "failed" if number % 2 else "ok")
          for number in range(200)),
    )  # fmt: skip

    said = logs("compare", *BAD)

    assert "nothing of the base to compare with" in said.out
    assert logs("compare", *BAD, "--json").json["places"][0]["value"] == "users"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "the following arguments are required: --bad"),
        (("--bad", "soon"), "'soon' is no window; write it as A..B"),
        ((*BAD, "--base", f"{at(350)}..{at(500)}"), "the base and the bad time overlap"),
    ],
)
def test_a_question_that_cannot_be_asked_is_answered_with_one_sentence(
    logs: Logs, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    write(tmp_path / "gateway-1.ndjson", request())

    said = logs("compare", *arguments)

    assert said.code == 2
    assert sentence in said.err
    assert said.err.count("\n") == 1


def test_a_time_in_which_nothing_was_asked_is_said_to_be_empty(logs: Logs, tmp_path: Path) -> None:
    write(tmp_path / "gateway-1.ndjson", request(0))

    said = logs("compare", *BAD)

    assert (said.code, said.out) == (1, f"Nothing found in 1 file ({BAD[1]}).\n")


def test_lines_that_lack_what_they_should_have_are_compared_as_far_as_they_go(logs: Logs, tmp_path: Path) -> None:
    odd = [line("request.finished", second, outcome=["x"], duration_ms="slow") for second in (10, 310)]
    write(tmp_path / "gateway-1.ndjson", *odd, line("attempt.finished", 310, upstream="\x1b[2J", duration_ms=-5))

    said = logs("compare", *BAD)

    assert (said.code, said.err) == (0, "")
    assert "\x1b" not in said.out
