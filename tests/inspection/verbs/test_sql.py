"""`sql` reads the log and nothing else, and ends in time whatever is asked."""

from __future__ import annotations

import csv
import hashlib
import io
import time
from pathlib import Path

import msgspec
import pytest

from inspection.database import Logs as Files
from inspection.fault import Unanswerable
from inspection.fields import Fields
from tests.inspection.conftest import Logs
from tests.inspection.shop import at, attempt, line, request, write

PATIENCE = ("--timeout", "30")


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return write(tmp_path / "gateway-1.ndjson", attempt(0), attempt(1, "users"), request(2, "failed", user_id=7))


def test_a_select_gives_columns_with_types_and_rows(logs: Logs, log_file: Path) -> None:
    said = logs(
        "sql", 'SELECT event, count(*) AS n, max("duration_ms") FROM logs GROUP BY 1 ORDER BY 2', "--json", *PATIENCE
    )

    assert said.code == 0
    assert said.json == {
        "columns": [
            {"name": "event", "type": "VARCHAR"},
            {"name": "n", "type": "BIGINT"},
            {"name": "max(duration_ms)", "type": "DOUBLE"},
        ],
        "rows": [["request.finished", 1, 20.0], ["attempt.finished", 2, 10.0]],
        "more": False,
    }


def test_timestamps_are_moments_and_windows_and_filters_hold(logs: Logs, log_file: Path) -> None:
    said = logs(
        "sql",
        "SELECT timestamp, date_part('second', timestamp) FROM logs",
        "--since",
        at(1),
        "-f",
        "upstream!=",
        "--json",
        *PATIENCE,
    )

    assert said.json["rows"] == [["2026-05-04T09:00:01.000000", 1]]


def test_every_type_becomes_what_json_has(logs: Logs, log_file: Path) -> None:
    asked = (
        "SELECT 170141183460469231731687303715884105727::HUGEINT, 1.5::DECIMAL, INTERVAL 3 DAY, DATE '2026-01-31', "
        "TIME '10:05', [1, 2], {'a': TIMESTAMP '2026-01-31'}, 'x'::BLOB, NULL, true, MAP {'k': 1}, "
        "uuid '00000000-0000-0000-0000-000000000001'"
    )

    assert logs("sql", asked, "--json", *PATIENCE).json["rows"] == [
        ["170141183460469231731687303715884105727", 1.5, 259200.0, "2026-01-31", "10:05:00", [1, 2],
         {"a": "2026-01-31T00:00:00.000000"}, "b'x'", None, True, {"k": 1}, "00000000-0000-0000-0000-000000000001"]
    ]  # fmt: skip


def test_without_a_query_the_columns_are_told(logs: Logs, log_file: Path) -> None:
    told = {tuple(row.split()) for row in logs("sql").out.splitlines()}

    assert {
        ("timestamp", "TIMESTAMP"),
        ("duration_ms", "DOUBLE"),
        ("user_id", "BIGINT"),
        ("error.type", "VARCHAR"),
    } <= told


def test_rows_are_shown_as_a_table_csv_json_or_markdown(logs: Logs, log_file: Path) -> None:
    asked = ("sql", "SELECT upstream, 'a|b,\"c\"' AS text, NULL AS none FROM logs WHERE upstream = 'users'", *PATIENCE)

    assert logs(*asked).out == 'upstream  text     none\nusers     a|b,"c"  -\n'
    assert list(csv.reader(io.StringIO(logs(*asked, "--format", "csv").out))) == [
        ["upstream", "text", "none"], ["users", 'a|b,"c"', ""],
    ]  # fmt: skip
    assert msgspec.json.decode(logs(*asked, "--format", "json").out) == [
        {"upstream": "users", "text": 'a|b,"c"', "none": None}
    ]
    assert logs(*asked, "--format", "md").out.splitlines()[-1] == '| users | a\\|b,"c" | - |'


def test_no_more_rows_come_than_the_limit_and_that_is_said(logs: Logs, log_file: Path) -> None:
    asked = ("sql", "SELECT 1 FROM logs, range(1000)", "--limit", "10", *PATIENCE)

    assert logs(*asked).out.splitlines()[-1] == "... and more; these are the first 10 (--limit)"
    found = logs(*asked, "--json").json
    assert (len(found["rows"]), found["more"]) == (10, True)


def test_what_controls_a_terminal_is_shown_and_not_obeyed(logs: Logs, log_file: Path) -> None:
    assert "\x1b" not in logs("sql", "SELECT chr(27) || '[2J' AS \"a\x1b\"", *PATIENCE).out


NO_SELECT = [
    "COPY logs TO '{folder}/out'", "COPY (SELECT 1) TO '{file}'", "ATTACH '{folder}/x.db'", "INSTALL httpfs",
    "LOAD httpfs",
    "SET threads = 1", "RESET memory_limit", "CREATE TABLE x AS SELECT 1", "INSERT INTO logs VALUES (1)",
    "DELETE FROM logs",
    "DROP VIEW logs", "EXPORT DATABASE '{folder}/x'", "CALL pragma_version()", "SELECT 1; SELECT 2", "", "BEGIN",
    "PREPARE a AS SELECT 1", "EXPLAIN ANALYZE SELECT 1", "CHECKPOINT", "USE memory", "VACUUM",
]  # fmt: skip


@pytest.mark.parametrize("asked", NO_SELECT)
def test_only_one_select_is_run(logs: Logs, log_file: Path, asked: str) -> None:
    with pytest.raises(Unanswerable):
        Files([log_file], Fields()).table(asked.format(folder=log_file.parent, file=log_file), limit=1, seconds=30)


OUTSIDE = [
    "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM read_blob('/etc/hostname')", "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_text('/proc/self/environ')",
    "SELECT * FROM read_csv('/dev/stdin')", "SELECT * FROM glob('/*')", "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM read_json('{folder}/other.ndjson')", "SELECT * FROM read_text('{file}/../other.ndjson')",
    "SELECT * FROM read_text('{folder}/./other.ndjson')", "SELECT getenv('PATH')", "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM 'https://localhost/x.csv'", "SELECT * FROM sqlite_scan('{folder}/x', 'y')",
    "SELECT * FROM read_duckdb('{folder}/x')", "SELECT * FROM query('COPY logs TO ''{folder}/out''')",
    "WITH a AS (INSERT INTO logs VALUES (1) RETURNING *) SELECT * FROM a", "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM parquet_metadata('/etc/passwd')", "SELECT * FROM duckdb_extensions()",
]  # fmt: skip


@pytest.mark.parametrize("asked", OUTSIDE)
def test_there_is_nothing_but_the_log(log_file: Path, asked: str) -> None:
    write(log_file.parent / "other.ndjson", line("x"))
    before = hashlib.sha256(log_file.read_bytes()).digest()

    with pytest.raises(Unanswerable):
        Files([log_file], Fields()).table(asked.format(folder=log_file.parent, file=log_file), limit=1, seconds=30)

    assert hashlib.sha256(log_file.read_bytes()).digest() == before
    assert sorted(path.name for path in log_file.parent.iterdir()) == ["gateway-1.ndjson", "other.ndjson"]


@pytest.mark.parametrize(
    "asked",
    [
        "SELECT list_sum(range(200000000))",
        "SELECT repeat('x', 3000000000)",
        "SELECT list(range) FROM range(500000000)",
        "SELECT count(*) FROM range(100000000) a, range(100000000) b",
        "WITH RECURSIVE a AS (SELECT 1 x UNION ALL SELECT x + 1 FROM a) SELECT count(*) FROM a",
    ],
)
def test_what_takes_too_much_time_or_memory_ends_with_a_sentence(logs: Logs, log_file: Path, asked: str) -> None:
    began = time.monotonic()

    said = logs("sql", asked, "--timeout", "1")

    assert said.code == 2
    assert "narrow it with --since" in said.err
    assert said.err.count("\n") == 1
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("SELECT evnt FROM logs",), 'Referenced column "evnt" not found in FROM clause! Candidate bindings: "event"'),
        (("SELECT 1 FROM lgs",), 'Table with name lgs does not exist! Did you mean "logs"?'),
        (("SELEC 1",), 'syntax error at or near "SELEC"'),
        (("SELECT now()",), "a TIMESTAMP WITH TIME ZONE cannot be shown; CAST it AS TIMESTAMP"),
        (("DROP VIEW logs",), "only one SELECT is run here"),
        (("SELECT 1", "--timeout", "61"), "--timeout is a number of seconds, at most 60"),
        (("SELECT 1", "--limit", "0"), "--limit is a number of rows, 1 at least"),
        (("SELECT 1", "--format", "xml"), "invalid choice: 'xml'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_sentence_with_what_was_meant(
    logs: Logs, log_file: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    said = logs("sql", *arguments, *(() if "--timeout" in arguments else PATIENCE))

    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert sentence in said.err


def test_nothing_found_is_said(logs: Logs, log_file: Path) -> None:
    assert logs("sql", "SELECT 1 FROM logs WHERE event = 'x'", *PATIENCE).code == 1


def test_what_is_left_of_a_damaged_log_is_read(logs: Logs, log_file: Path) -> None:
    (log_file.parent / "gateway-2.ndjson.gz").write_bytes(b"no gzip")

    said = logs("sql", "SELECT count(*) FROM logs", "--json", *PATIENCE)

    assert said.json["rows"] == [[3]]
    assert said.err.startswith("Left out, for it cannot be read:")
