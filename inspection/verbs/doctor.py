"""`doctor`: whether the log can be believed: lines that are none, lines that are missing, clocks that were set back."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from inspection.database import Logs
from inspection.fields import Fields
from inspection.processes import Count, counts, named, state
from inspection.question import Question, Verb
from inspection.search import lines_of
from inspection.showing.figures import number, size
from inspection.showing.lines import safe
from inspection.showing.paint import BOLD, DIM, GREEN, RED, YELLOW, Paint
from inspection.times import stamp

SCHEMA: Final = 1
_OK, _LOOK, _LOST = "ok", "look", "lost"
_COLOURS: Final = {_OK: GREEN, _LOOK: YELLOW, _LOST: RED}
_MOST_SHOWN: Final = 5
#: Lines are looked at one by one in a small log, else in so many blocks of neighbours or fewer.
_BLOCKS: Final = 40_000
_LINE_BYTES, _PACKED_LINE_BYTES = 400, 40
_BACK_US: Final = 1_000_000
_AHEAD_US: Final = 5_000_000
_SUMMED: Final = ("lines", "none", "unknown", "ahead", "dropped", "dropped_elsewhere", "started", "stopped")
_SCAN: Final = """
    SELECT file, "service.instance.id" AS process, seq // {block} AS block,
        count(*) AS lines, min(seq) AS first, max(seq) AS last,
        min(us) AS earliest, max(us) AS latest, arg_min(us, seq) AS opening, arg_max(us, seq) AS closing,
        count(*) FILTER (us IS NULL OR schema IS NULL) AS none,
        count(*) FILTER (us IS NOT NULL AND schema <> {schema}) AS unknown,
        count(*) FILTER (us > {ahead}) AS ahead,
        sum("count") FILTER (event = 'log.dropped' AND sink = 'file') AS dropped,
        sum("count") FILTER (event = 'log.dropped' AND sink IS DISTINCT FROM 'file') AS dropped_elsewhere,
        count(*) FILTER (event = 'gateway.started') AS started,
        count(*) FILTER (event = 'gateway.stopped') AS stopped
    FROM (SELECT *, epoch_us(try_cast(timestamp AS TIMESTAMP)) AS us FROM {everything})
    GROUP BY ALL
"""


class _Part(NamedTuple):
    """A process's lines in one file: blocks of neighbours, by their numbers."""

    file: Path
    process: str
    blocks: list[Mapping[str, Any]]

    @property
    def first(self) -> int:
        return int(self.blocks[0]["first"])

    @property
    def last(self) -> int:
        return int(max(block["last"] for block in self.blocks))

    @property
    def is_doubled(self) -> bool:
        """Tell whether numbers come twice: lines are there twice, or two processes of one name in one file."""
        return any(block["lines"] > block["last"] - block["first"] + 1 for block in self.blocks)


def _arguments(_: argparse.ArgumentParser) -> None:
    """Take nothing of its own."""


def answer(question: Question) -> dict[str, Any] | None:
    """Return what was looked at and found, of all of the log whatever the window; None without files.

    `verdict` is the worst of the checks': `ok`; `look`: odd, or not to be told; `lost`: lines are missing. `checks`
    each have `check` (files, readable, lines, schema, gaps, dropped, killed, ended, clock), `verdict`, `says` (a
    sentence) and `found`, a list of what it is about: objects with `file`, `process` and figures, at most 100.
    """
    if not question.files:
        return None
    logs = Logs(question.files, Fields())
    block = _block(question.files)
    ahead = int(question.now.timestamp() * 1_000_000) + _AHEAD_US
    blocks = logs.rows(
        _SCAN.replace("{block}", str(block)).replace("{schema}", str(SCHEMA)).replace("{ahead}", str(ahead))
    )
    rows = _totals(blocks)
    states = _states(rows)
    parts = _parts(blocks)
    checks = [
        _files(question.files, rows),
        _readable(logs.damaged),
        _no_lines(rows, states),
        _schema(rows),
        _gaps(parts),
        _dropped(rows),
        _killed(question.files, parts),
        _ended(rows, states),
        _clock(rows, parts),
    ]
    worst = max((check["verdict"] for check in checks), key=(_OK, _LOOK, _LOST).index)
    return {"verdict": worst, "checks": checks}


def _block(files: Sequence[Path]) -> int:
    """Return how many neighbours are looked at together."""
    lines = 0
    for path in files:
        with suppress(OSError):
            lines += path.stat().st_size // (_LINE_BYTES if path.suffix == ".ndjson" else _PACKED_LINE_BYTES)
    return max(lines // _BLOCKS, 1)


def _totals(blocks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the blocks come to for each process in each file."""
    found: dict[tuple[str, str | None], dict[str, Any]] = {}
    for block in blocks:
        total = found.setdefault((block["file"], block["process"]), {**block, **dict.fromkeys(_SUMMED, 0)})
        for name in _SUMMED:
            total[name] += block[name] or 0
        for name, better in (("earliest", min), ("latest", max)):
            if block[name] is not None:
                total[name] = better(block[name], total[name]) if total[name] is not None else block[name]
    return list(found.values())


def _states(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Return what each process does now, by the folder of its files and its name."""
    known = {(str(Path(row["file"]).parent), row["process"]) for row in rows if row["process"]}
    return {(folder, process): state(Path(folder), process) for folder, process in known}


def _parts(blocks: Iterable[Mapping[str, Any]]) -> list[list[_Part]]:
    """Return each process's parts in the order of its lines; one whose numbers begin again is another process."""
    by_file = defaultdict[tuple[str, str], list[Mapping[str, Any]]](list)
    for block in blocks:
        if block["process"] and block["first"] is not None and block["earliest"] is not None:
            by_file[block["process"], block["file"]].append(block)
    found = [
        _Part(Path(file), process, sorted(own, key=lambda row: int(row["first"])))
        for (process, file), own in by_file.items()
    ]
    found.sort(key=lambda part: (part.process, part.blocks[0]["earliest"]))
    processes: list[list[_Part]] = []
    for part in found:
        former = processes[-1][-1] if processes else None
        if former is not None and former.process == part.process and former.last < part.first:
            processes[-1].append(part)
        else:
            processes.append([part])
    return processes


def _check(name: str, verdict: str, says: str, found: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    return {"check": name, "verdict": verdict, "says": says, "found": list(found)[:100]}


def _files(files: Sequence[Path], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sizes = []
    for path in files:
        with suppress(OSError):
            sizes.append(path.stat().st_size)
    packed = sum(path.suffix != ".ndjson" for path in files)
    times = [row[name] for row in rows for name in ("earliest", "latest") if row[name] is not None]
    span = f", from {_time(min(times))} to {_time(max(times))}" if times else ""
    says = f"{_many(len(files), 'file')}, {packed} of them compressed, {size(sum(sizes))}"
    lines = sum(row["lines"] for row in rows)
    return _check("files", _OK, f"{says}; {_many(lines, 'line')}{span}.")


def _readable(damaged: Sequence[Path]) -> dict[str, Any]:
    if not damaged:
        return _check("readable", _OK, "Every file can be read to its end.")
    says = f"{_many(len(damaged), 'file')} cannot be read to the end: what was behind is not counted here."
    return _check("readable", _LOST, says, [{"file": str(path)} for path in damaged])


def _no_lines(rows: Sequence[Mapping[str, Any]], states: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """Count what is no log line; a line that a living process is about to finish is none of them."""
    by_file = defaultdict[str, int](int)
    for row in rows:
        by_file[row["file"]] += row["none"]
    found = []
    for file, count in sorted(by_file.items()):
        writing = count and _is_half(Path(file)) and "running" in _states_of(Path(file), rows, states)
        if count > bool(writing):
            found.append({"file": file, "lines": count - bool(writing), "first_offset": _first_offset(Path(file))})
    if not found:
        return _check("lines", _OK, "Every line is a log line.")
    total = sum(int(str(one["lines"])) for one in found)
    return _check("lines", _LOOK, f"{_many(total, 'line')} in {_many(len(found), 'file')} are no log lines.", found)


def _states_of(file: Path, rows: Sequence[Mapping[str, Any]], states: Mapping[tuple[str, str], str]) -> set[str]:
    processes = {row["process"] for row in rows if row["file"] == str(file) and row["process"]}
    return {states[str(file.parent), process] for process in processes}


def _is_half(path: Path) -> bool:
    """Tell whether a plain file ends in the middle of a line."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(-1, 2)
        return path.suffix == ".ndjson" and file.read(1) != b"\n"
    return False


def _first_offset(path: Path) -> int | None:
    """Return where in a file, unpacked, the first thing begins that is no log line; None if it cannot be told."""
    at = 0
    for line in lines_of(path):
        if line.strip() and not _is_line(line):
            return at
        at += len(line) + 1
    return None


def _is_line(line: bytes) -> bool:
    try:
        fields = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return fields.timestamp is not None and fields.schema is not None


class _Line(msgspec.Struct):
    """What every line has."""

    timestamp: str | None = None
    schema: int | None = None


def _schema(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    by_file = _summed(rows, "file", "unknown")
    if not by_file:
        return _check("schema", _OK, f"Every line is of schema {SCHEMA}.")
    says = (
        f"{_many(sum(by_file.values()), 'line')} are not of schema {SCHEMA}: a newer gateway's, which this may misread."
    )
    return _check("schema", _LOOK, says, [{"file": file, "lines": count} for file, count in by_file.items()])


def _gaps(processes: Sequence[Sequence[_Part]]) -> dict[str, Any]:
    """Count the numbers that are missing between a process's first and last line, and those that come twice."""
    found: list[dict[str, Any]] = []
    doubled = sorted({part.process for parts in processes for part in parts if part.is_doubled})
    for parts in processes:
        if parts[0].process not in doubled:
            found += _missing([block for part in parts for block in part.blocks])
    if found:
        total = sum(gap["missing"] for gap in found)
        return _check("gaps", _LOST, f"{_many(total, 'line')} are missing between others of their process.", found)
    if doubled:
        says = "Numbers come twice: lines are in the files twice, or a process's name was used again in the same file."
        return _check("gaps", _LOOK, says, [{"process": process} for process in doubled])
    return _check(
        "gaps", _OK, f"No line is missing between others of its process ({_many(len(processes), 'process')})."
    )


def _missing(blocks: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    former: Mapping[str, Any] | None = None
    for block in blocks:
        if former is not None and block["first"] > former["last"] + 1:
            yield _gap(block, former["last"], block["first"], block["first"] - former["last"] - 1)
        if within := block["last"] - block["first"] + 1 - block["lines"]:
            yield _gap(block, block["first"], block["last"], within)
        former = block


def _gap(block: Mapping[str, Any], after: int, before: int, missing: int) -> dict[str, Any]:
    return {
        "process": block["process"],
        "after": after,
        "before": before,
        "missing": missing,
        "at": _time(block["latest"]),
    }


def _dropped(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what the processes themselves reported."""
    files, others = _summed(rows, "process", "dropped"), _summed(rows, "process", "dropped_elsewhere")
    found = [
        {"process": process, "file": files.get(process, 0), "stdout": others.get(process, 0)}
        for process in sorted({*files, *others})
    ]
    if files:
        says = f"{_many(sum(files.values()), 'line')} did not get into the files, as log.dropped reports."
        return _check("dropped", _LOST, says, found)
    if others:
        says = f"{_many(sum(others.values()), 'line')} did not get to standard output; the files have them."
        return _check("dropped", _LOOK, says, found)
    return _check("dropped", _OK, "No process reported lines that it had to drop.")


def _killed(files: Sequence[Path], processes: Sequence[Sequence[_Part]]) -> dict[str, Any]:
    """Compare what dead processes handed to their files with what is in them."""
    found, running = [], 0
    for folder in sorted({path.parent for path in files}):
        former: Count | None = None
        for count in counts(folder):
            since = former.name.stamp if former is not None and former.name.pid == count.name.pid else None
            former = count
            running += count.running
            missing = count.number - _last(folder, count, since, processes)
            if not count.running and missing > 0:
                found.append(
                    {"file": str(folder), "pid": count.name.pid, "handed_over": count.number, "missing": missing}
                )
    if found:
        total = sum(int(str(one["missing"])) for one in found)
        return _check("killed", _LOST, f"{_many(total, 'line')} went down with processes that were killed.", found)
    says = f"No process took lines with it that it had still to write ({running} running)."
    return _check("killed", _OK, says)


def _last(folder: Path, count: Count, since: str | None, processes: Sequence[Sequence[_Part]]) -> int:
    """Return the number of the last line in the files that a count is about; 0 if there is none."""
    numbers = [0]
    for part in (part for parts in processes for part in parts):
        name = named(part.file)
        if part.file.parent == folder and name is not None and name.pid == count.name.pid:
            early = name.stamp is not None and since is not None and name.stamp <= since
            late = count.name.stamp is not None and (name.stamp is None or name.stamp > count.name.stamp)
            if not early and not late:
                numbers.append(part.last)
    return max(numbers)


def _ended(rows: Sequence[Mapping[str, Any]], states: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """Find the processes that started, do not run and have not said that they stopped."""
    starts, stops = defaultdict[tuple[str, str], int](int), defaultdict[tuple[str, str], int](int)
    for row in rows:
        if row["process"]:
            starts[str(Path(row["file"]).parent), row["process"]] += row["started"]
            stops[str(Path(row["file"]).parent), row["process"]] += row["stopped"]
    open_ends = [process for process, count in starts.items() if count > stops[process]]
    found = [
        {"process": process[1], "times": starts[process] - stops[process] - (states[process] == "running")}
        for process in open_ends
        if states[process] == "ended" or starts[process] - stops[process] > 1
    ]
    unknown = sum(states[process] == "unknown" for process in open_ends)
    if found:
        says = f"{_many(len(found), 'process')} ended without gateway.stopped: killed, or crashed."
        return _check("ended", _LOOK, says, found)
    beside = f"; of {unknown} it cannot be told from here whether they run" if unknown else ""
    return _check("ended", _OK, f"Every process that has ended said so{beside}.")


def _clock(rows: Sequence[Mapping[str, Any]], processes: Sequence[Sequence[_Part]]) -> dict[str, Any]:
    """Find times that go back from one line of a process to the next, and times to come."""
    found: list[dict[str, Any]] = []
    for parts in processes:
        if not any(part.is_doubled for part in parts):
            found += _set_back([block for part in parts for block in part.blocks])
    ahead = _summed(rows, "process", "ahead")
    found += [{"process": process, "lines_ahead": count} for process, count in ahead.items()]
    if not found:
        return _check("clock", _OK, "Times go forward in every process, and none is to come.")
    said = []
    if len(found) > len(ahead):
        said.append(f"clocks were set back {_many(len(found) - len(ahead), 'time')}")
    if ahead:
        said.append(f"{_many(sum(ahead.values()), 'line')} are of a time to come")
    return _check("clock", _LOOK, f"{'; '.join(said).capitalize()}: windows and waterfalls may be off.", found)


def _set_back(blocks: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    former: Mapping[str, Any] | None = None
    for block in blocks:
        back = max(
            former["latest"] - block["earliest"] if former is not None else 0,
            block["latest"] - block["closing"],
            block["opening"] - block["earliest"],
        )
        if back > _BACK_US:
            yield {"process": block["process"], "back_s": round(back / 1_000_000, 3), "at": _time(block["closing"])}
        former = block


def _summed(rows: Sequence[Mapping[str, Any]], by: str, name: str) -> dict[str, int]:
    """Add a figure up by file or process, leaving out what comes to nothing."""
    sums = defaultdict[str, int](int)
    for row in rows:
        sums[row[by] or "?"] += int(row[name] or 0)
    return {key: total for key, total in sorted(sums.items()) if total}


def _time(microseconds: int) -> str:
    try:
        return stamp(datetime.fromtimestamp(microseconds / 1_000_000, UTC))
    except (ValueError, OverflowError, OSError):
        return "?"


def _many(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number(count)} {noun if count == 1 else plural}"


def _show(answer: Any, _: Question, paint: Paint) -> Iterator[str]:
    for check in answer["checks"]:
        verdict = check["verdict"]
        yield f"{paint(_COLOURS[verdict], f'{verdict:<4}')}  {paint(BOLD, check['check'].ljust(8))}  {check['says']}"
        for found in check["found"][:_MOST_SHOWN]:
            yield paint(DIM, f"{'':16}{', '.join(f'{name} {safe(value)}' for name, value in found.items())}")
        if len(check["found"]) > _MOST_SHOWN:
            yield paint(DIM, f"{'':16}and {len(check['found']) - _MOST_SHOWN} more (--json)")


def _code(answer: Any) -> int:
    """Return 0 when all is well, 1 when something was found, or there is no log."""
    return 0 if answer and answer["verdict"] == _OK else 1


DOCTOR: Final = Verb(
    "doctor",
    "Whether the log is whole: garbled and missing lines, losses, damaged files, clocks.",
    _arguments,
    answer,
    _show,
    _code,
)
