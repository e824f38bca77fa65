"""A filter means the same to the files' query and to a line at hand; what is none is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspection.database import Logs
from inspection.fault import Unanswerable
from inspection.fields import Fields
from inspection.files import decoded, sample
from inspection.filters import parse
from tests.inspection.shop import at, line, write

TEXTS = st.sampled_from(
    [
        "",
        "a",
        "A",
        "ab",
        "orders",
        "Orders x",
        "5",
        "5.0",
        "-1",
        "null",
        "true",
        "it's",
        '"',
        "%",
        "\u00e4\u00c4",
        "[1]",
    ]
)
NUMBERS = st.sampled_from([-1, 0, 1, 5, 5.0, 0.1, 500, 1e9])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "upstream": TEXTS,
    "duration_ms": NUMBERS,
    "attempts": st.integers(-5, 600),
    "complete": st.booleans(),
    "calls_failed": st.lists(st.sampled_from(["a", "orders", "it's"]), max_size=2),
    "own": TEXTS,
}
LINES = st.fixed_dictionaries({}, optional={name: st.none() | values for name, values in VALUES.items()})
CONDITIONS = st.tuples(
    st.sampled_from([*VALUES]),
    st.sampled_from(["=", "!=", "~", "!~", ">", ">=", "<", "<="]),
    TEXTS | NUMBERS.map(str) | st.sampled_from(["true", "false", '["a"]', "[]", "orders"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, min_size=1, max_size=8), conditions=st.lists(CONDITIONS, min_size=1, max_size=3))
def test_the_query_and_the_line_at_hand_agree(
    tmp_path: Path, lines: list[dict[str, Any]], conditions: list[tuple[str, str, str]]
) -> None:
    written = [line("x", seq=number, own="text") | one for number, one in enumerate(lines)]
    path = write(tmp_path / "gateway-1.ndjson", *written)
    fields = Fields(sample([path]))
    filters = []
    for name, sign, value in conditions:
        try:
            filters.append(parse(f"{name}{sign}{value}", fields))
        except Unanswerable:
            assert value not in {"5", "-1", "500"}
    held = [one["seq"] for one in decoded(path.read_bytes().splitlines()) if all(f.holds(one) for f in filters)]

    found = Logs([path], fields, filters=filters).rows("SELECT seq FROM {logs} ORDER BY seq")

    assert [row["seq"] for row in found] == held


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("upstream=orders", [1]),
        ("upstream!=orders", [2, 3]),
        ("upstream~ORD", [1]),
        ("upstream!~ord", [2, 3]),
        ("upstream=", [3]),
        ("upstream!=", [1, 2]),
        ("duration_ms>500", [2]),
        ("duration_ms<=500", [1]),
        ("duration_ms=500.0", [1]),
        ("status=503", [2]),
        (" status != 503 ", [1, 3]),
        ("error.type=", [1, 2, 3]),
        ("complete=true", [1]),
    ],
)
def test_a_filter_keeps_what_it_says(tmp_path: Path, written: str, expected: list[int]) -> None:
    path = write(
        tmp_path / "gateway-1.ndjson",
        line("x", seq=1, upstream="orders", duration_ms=500, complete=True),
        line("x", seq=2, upstream="users", duration_ms=500.5, http__response__status_code=503),
        line("x", seq=3),
    )
    fields = Fields(sample([path]))
    asked = parse(written, fields)

    assert [
        row["seq"] for row in Logs([path], fields, filters=[asked]).rows("SELECT seq FROM {logs} ORDER BY seq")
    ] == expected
    assert [one["seq"] for one in decoded(path.read_bytes().splitlines()) if asked.holds(one)] == expected


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("upstream", "is no filter; write key=value"),
        ("=x", "is no filter"),
        ("", "is no filter"),
        ("upstrem=orders", "no line has a field 'upstrem'; did you mean upstream or upstreams?"),
        ("duration=5", "did you mean duration_ms"),
        ("stat=5", "did you mean status"),
        ("duration_ms>fast", "duration_ms is compared with a number, not with 'fast'"),
        ("status=ok", "http.response.status_code is compared with a number, not with 'ok'"),
        ("duration_ms>nan", "is compared with a number"),
    ],
)
def test_what_cannot_be_filtered_by_is_refused_with_what_was_meant(written: str, sentence: str) -> None:
    with pytest.raises(Unanswerable) as refused:
        parse(written, Fields())

    assert sentence in str(refused.value)


def test_a_value_is_never_sql(tmp_path: Path) -> None:
    path = write(tmp_path / "gateway-1.ndjson", {"timestamp": at(0), "event": "x", "o'\"dd": "'; DROP"})
    fields = Fields(sample([path]))

    (row,) = Logs([path], fields, filters=[parse("o'\"dd='; DROP", fields)]).rows("SELECT * FROM {logs}")

    assert row["o'\"dd"] == "'; DROP"
    assert msgspec.json.decode(path.read_bytes())["o'\"dd"] == row["o'\"dd"]
