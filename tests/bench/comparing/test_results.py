"""The result files keep what was measured last of each work, and of which run it is."""

from __future__ import annotations

from pathlib import Path

from bench.comparing import results
from bench.comparing.results import Results
from bench.comparing.rows import Row
from tests.bench.comparing.measured import FIRST, SECOND, of, run, widths


def test_results_that_were_written_are_read_again(tmp_path: Path) -> None:
    written = of(*widths(), Row(server="Tributary", work="5 KB merged", cpu_us=300.0, ratios={"nginx": 7.5}))
    results.write(written, tmp_path)

    assert results.read(tmp_path) == written


def test_without_files_there_are_no_results(tmp_path: Path) -> None:
    assert results.read(tmp_path) == Results([], [])


def test_a_run_replaces_what_it_measured_and_leaves_the_rest_to_the_run_before() -> None:
    before = of(Row(server="Tributary", work="5 KB merged", cpu_us=300.0), *widths())
    after = before.with_run(run(SECOND), [Row(server="Tributary", work="5 KB merged", cpu_us=200.0)])

    assert [(row.cpu_us, row.run) for row in after.of("5 KB merged")] == [(200.0, SECOND)]
    assert {row.run for row in after.of("fan-out of 10")} == {FIRST}
    assert [one.date for one in after.runs] == [SECOND, FIRST]


def test_a_run_of_which_nothing_is_left_is_forgotten() -> None:
    before = of(Row(server="Tributary", work="5 KB merged", cpu_us=300.0))
    after = before.with_run(run(SECOND), [Row(server="Tributary", work="5 KB merged", cpu_us=200.0)])

    assert [one.date for one in after.runs] == [SECOND]


def test_a_caption_says_machine_date_versions_and_commit_of_the_runs_that_figures_are_of() -> None:
    before = of(*widths())
    after = before.with_run(run(SECOND), [Row(server="Tributary", work="5 KB merged", cpu_us=200.0)])
    (caption,) = after.captions(after.of("fan-out of 3"))

    assert all(part in caption for part in ("a processor", "2026-01-01 10:00", "aiohttp 3.14.5", "commit abc1234"))
