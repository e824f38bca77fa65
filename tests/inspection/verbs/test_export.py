"""`export-config`: files that other tools take as they are."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
from pathlib import Path

import msgspec
import pytest

from inspection.fields import CATALOGUE
from inspection.verbs.export import FILES, TEMPLATES
from tests.inspection.asking import asked
from tests.inspection.shop import attempt, text, write
from tests.stub import serving_stub

Capture = pytest.CaptureFixture[str]
FIRST, SECOND = [attempt(1, n=1)], [attempt(2, n=2), attempt(3, n=3)]


@pytest.mark.parametrize("target", FILES)
def test_each_file_is_printed_with_the_path_of_the_log_which_need_not_be_there(target: str, capsys: Capture) -> None:
    ended = asked(capsys, "export-config", target, "--dir", "/var/log/gateway")

    assert ended.code == 0
    assert "@LOG_DIR@" not in ended.out
    assert ("/var/log/gateway/gateway-*.ndjson" in ended.out) is (target != "lnav")
    plain = asked(capsys, "export-config", target, "--dir", "/var/log/gateway", "--json").json
    assert (plain["target"], plain["file"], plain["text"]) == (target, FILES[target], ended.out)


def test_there_is_a_target_for_every_template() -> None:
    assert {path.name for path in TEMPLATES.iterdir()} == set(FILES.values())


def test_a_path_that_would_have_to_be_quoted_and_an_unknown_target_are_usage_errors(capsys: Capture) -> None:
    for path in ("/a b", "/a'b", "/a$(id)b", '/a"b', "/a;b", "/a\nb"):
        ended = asked(capsys, "export-config", "victorialogs", "--dir", path)
        assert (ended.code, ended.out, "plainer path" in ended.err) == (2, "", True)
    assert asked(capsys, "export-config", "splunk").code == 2


def test_clickhouse_and_lnav_know_every_field_of_the_catalogue(capsys: Capture) -> None:
    clickhouse = asked(capsys, "export-config", "clickhouse").out
    assert {name for name in CATALOGUE if f'"{name}" ' not in clickhouse} == set()
    lnav = msgspec.json.decode(asked(capsys, "export-config", "lnav").out)["tributary_log"]
    known = {*lnav["value"], lnav["timestamp-field"], lnav["level-field"], lnav["body-field"]}
    assert set(CATALOGUE) - known == {"from", "to"}  # words of SQL, with which lnav cannot make its table
    assert lnav["body-field"] != "event"  # for a body has no column there


@pytest.fixture
def script(tmp_path: Path) -> str:
    """What posts a log of two files, one of them compressed."""
    (tmp_path / "gateway-7-20260504T090000.000000Z.ndjson.gz").write_bytes(gzip.compress(text(FIRST)))
    write(tmp_path / "gateway-7.ndjson", *SECOND)
    return (TEMPLATES / FILES["victorialogs"]).read_text().replace("@LOG_DIR@", str(tmp_path))


async def test_what_victorialogs_gets_is_every_file_whole(script: str) -> None:
    async with serving_stub("victoria") as server:
        server.on("/insert/jsonline", {})
        ended = await asyncio.to_thread(run, script, server.url)

    assert ended.returncode == 0, ended.stderr
    assert sorted(asked.body for asked in server.received) == sorted([text(FIRST), text(SECOND)])
    assert server.received[0].query == [
        ("_time_field", "timestamp"), ("_msg_field", "event"), ("_stream_fields", "service.instance.id"),
    ]  # fmt: skip


def run(script: str, url: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", script],
        env={"PATH": "/usr/bin:/bin", "VICTORIALOGS_URL": url},
        capture_output=True,
        timeout=60,
        check=False,
    )
