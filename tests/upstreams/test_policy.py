"""A policy that cannot be meant is refused with the table of upstreams, in a sentence that names what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from upstreams import Breaker, Budget, Ejection, Hedge, Retry, Upstream, UpstreamTableError, check_table
from upstreams.policy import is_count, is_number

NAN, INFINITE = float("nan"), float("inf")

#: Policy, field, what it must be, values that it may not have, values on the edge that it may.
FIELDS: list[tuple[type, str, str, list[Any], list[Any]]] = [
    (Retry, "attempts", "1 or more", [0, -1, 1.0, "3", None, True], [1, 100]),
    (Retry, "longest_wait", "0 seconds or more", [-0.1, NAN, INFINITE, "1", None, True], [0.025, 60]),
    (Retry, "first_wait", "from 0 to longest_wait", [-0.1, 0.26, NAN, INFINITE, "0", None, False], [0, 0.25]),
    (Budget, "share", "from 0 to 1 attempt for each call", [-0.1, 1.1, 20, NAN, INFINITE, "0.2", None, True], [0, 1]),
    (Budget, "floor", "0 attempts a second or more", [-1, NAN, INFINITE, "1", None, True], [0, 0.1, 1000]),
    (Budget, "burst", "1 attempt or more", [0, -1, 1.5, INFINITE, "1", None, True], [1, 1000]),
    (Breaker, "minimum_calls", "1 or more", [0, -1, 1.5, "20", None, True], [1, 1000]),
    (Breaker, "probes", "1 or more", [0, -1, 1.5, "2", None, True], [1, 10]),
    (Breaker, "successes", "1 or more", [0, -1, 1.5, "3", None, True], [1, 10]),
    (Breaker, "failure_rate", "above 0 and at most 1", [0, -0.5, 1.1, 50, NAN, "0.5", None, True], [0.001, 1]),
    (Breaker, "slow_rate", "above 0 and at most 1", [0, -0.5, 1.1, 80, NAN, "0.8", None, True], [0.001, 1]),
    (Breaker, "window", "0.001 seconds or more", [0, 5e-324, -10, NAN, INFINITE, "10", None, True], [0.1, 3600]),
    (Breaker, "slow_after", "above 0 seconds", [0, -1, NAN, INFINITE, "1", True], [0.001, 1.0, None]),
    (Breaker, "longest_open_time", "above 0 seconds", [0, -60, NAN, INFINITE, "60", None, True], [5, 3600]),
    (Breaker, "open_time", "above 0 and at most longest_open_time", [0, -5, 61, NAN, "5", None, True], [0.1, 60]),
    (
        Hedge,
        "after",
        "above 0 seconds, or None for the observed p95",
        [0, -0.1, NAN, INFINITE, "p95", True],
        [0.001, 0.999, None],
    ),
    (Ejection, "failures", "1 or more", [0, -1, 1.5, "5", None, True], [1, 100]),
    (Ejection, "longest_time", "above 0 seconds", [0, -1, NAN, INFINITE, "300", None, True], [30, 3600]),
    (Ejection, "first_time", "above 0 and at most longest_time", [0, -1, 301, NAN, "30", None, True], [0.1, 300]),
    (Ejection, "share", "above 0 and below 1", [0, 1, -0.5, 1.5, NAN, "0.5", None, True], [0.001, 0.999]),
]

EACH = pytest.mark.parametrize(
    ("kind", "field", "wanted", "wrong", "right"),
    FIELDS,
    ids=[f"{kind.__name__}.{field}" for kind, field, *_ in FIELDS],
)


def faults(**fields: Any) -> list[str]:
    """Return what is said of an upstream called `users`."""
    try:
        check_table({"users": Upstream("http://users.internal", **fields)})
    except UpstreamTableError as error:
        return error.faults
    return []


@EACH
def test_a_value_that_cannot_be_meant_is_refused_by_name(
    kind: type, field: str, wanted: str, wrong: list[Any], right: list[Any]
) -> None:
    name = kind.__name__.lower()

    for value in wrong:
        assert faults(**{name: kind(**{field: value})}) == [f"users: {name}.{field} must be {wanted}, not {value!r}"]


@EACH
def test_a_value_on_the_edge_is_taken(kind: type, field: str, wanted: str, wrong: list[Any], right: list[Any]) -> None:
    assert not [value for value in right if faults(**{kind.__name__.lower(): kind(**{field: value})})]


def test_every_number_of_every_policy_is_looked_at() -> None:
    looked_at = {(kind, field) for kind, field, *_ in FIELDS} | {(Retry, "statuses")}

    assert looked_at == {
        (kind, field) for kind in (Retry, Budget, Breaker, Hedge, Ejection) for field in kind.__dataclass_fields__
    }


@pytest.mark.parametrize("kind", [Retry, Budget, Breaker, Hedge, Ejection])
@pytest.mark.parametrize("value", [True, False, 0, "", "on", {}, Retry, 0.2])
def test_only_a_policy_or_none_stands_in_a_policys_place(kind: type, value: Any) -> None:
    name = kind.__name__.lower()

    assert faults(**{name: value}) == [f"users: {name} must be {kind.__name__}(...) or None, not {value!r}"]
    assert faults(**{name: None}) == []


def test_one_policy_does_not_stand_in_anothers_place() -> None:
    assert faults(budget=Hedge()) == ["users: budget must be Budget(...) or None, not Hedge(after=None)"]


@pytest.mark.parametrize(
    ("statuses", "sentence"),
    [
        ((399,), "holds 399, which is no error status (400 to 599)"),
        ((503, 600), "holds 600, which is no error status (400 to 599)"),
        ((True,), "holds True, which is no error status (400 to 599)"),
        (("503",), "holds '503', which is no error status (400 to 599)"),
        ({503}, "must be a tuple of statuses, not {503}"),
        (None, "must be a tuple of statuses, not None"),
    ],
)
def test_only_error_statuses_are_retried(statuses: Any, sentence: str) -> None:
    assert faults(retry=Retry(statuses=statuses)) == [f"users: retry.statuses {sentence}"]


@pytest.mark.parametrize("statuses", [(), (400, 599), [503]])
def test_any_error_statuses_may_be(statuses: Any) -> None:
    assert faults(retry=Retry(statuses=statuses)) == []


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"hedge": Hedge(after=1.0)}, "hedge.after must be below timeout (1 s), not 1.0"),
        ({"hedge": Hedge(after=0.3), "timeout": 0.25}, "hedge.after must be below timeout (0.25 s), not 0.3"),
        ({"hedge": Hedge(), "budget": None}, "hedge is paid from the budget, which is None"),
        ({"breaker": Breaker(slow_after=1.5)}, "breaker.slow_after must be at most timeout (1 s), not 1.5"),
        (
            {"breaker": Breaker(slow_after=0.3), "timeout": 0.25},
            "breaker.slow_after must be at most timeout (0.25 s), not 0.3",
        ),
    ],
)
def test_policies_that_contradict_each_other_are_refused(fields: dict[str, Any], sentence: str) -> None:
    assert faults(**fields) == [f"users: {sentence}"]


@pytest.mark.parametrize(
    "fields",
    [
        {"hedge": Hedge(after=0.3), "timeout": 0.31},
        {"hedge": Hedge(), "budget": Budget(share=0, floor=1)},
        {"breaker": Breaker(slow_after=0.25), "timeout": 0.25},
        {"retry": None, "budget": None, "breaker": None, "hedge": None, "ejection": None},
    ],
)
def test_policies_that_do_not_are_taken(fields: dict[str, Any]) -> None:
    assert faults(**fields) == []


def test_all_that_is_wrong_with_policies_is_told_at_once() -> None:
    said = faults(
        budget=Budget(share=2, burst=0), breaker=Breaker(probes=0, successes=0), hedge=Hedge(after=9), ejection=5
    )

    assert [one.split()[1] for one in said] == [
        "budget.share", "budget.burst", "breaker.probes", "breaker.successes", "ejection",
    ]  # fmt: skip


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Budget().share = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("value", [True, False, None, "1", 1j, b"2", [1]])
def test_what_is_no_number_is_no_number(value: object) -> None:
    assert not is_number(value)
    assert not is_count(value)
