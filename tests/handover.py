"""`python -m tests.handover`: a log handed over to other tools, and read by them, as far as this machine has them.

Each tool answers from it by what `export-config` gives: ClickHouse by chdb, where this Python can import it, from a
compressed file and a plain one; lnav, where it is installed, from the plain one. Exit code 1 when an answer is wrong.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from inspection.verbs.export import FILES, TEMPLATES
from tests.inspection.shop import text, traffic

_SECONDS, _PER_SECOND = 60, 20
_LNAV: Final = ";SELECT count(*) FROM tributary_log WHERE event = 'attempt.finished'"


def main() -> int:
    """Try every tool there is."""
    with tempfile.TemporaryDirectory() as folder:
        lines = list(traffic(random.Random(1), _SECONDS, _PER_SECOND))
        half = len(lines) // 2
        logs = Path(folder) / "logs"
        logs.mkdir()
        (logs / "gateway-7-20260504T090030.000000Z.ndjson.gz").write_bytes(gzip.compress(text(lines[:half])))
        (logs / "gateway-7.ndjson").write_bytes(text(lines[half:]))
        wrong = [name for name, check in _CHECKS.items() if not _said(name, check(logs, lines))]
    return int(bool(wrong))


def _said(name: str, answer: str | None) -> bool:
    print(f"{name}: {answer or 'ok'}")  # noqa: T201
    return answer is None or answer.startswith("not run")


def _clickhouse(logs: Path, lines: list[dict[str, Any]]) -> str | None:
    """Load the log into a table, and run every query of the file."""
    if importlib.util.find_spec("chdb") is None:
        return "not run here: no chdb"
    with (logs / "gateway-7.ndjson").open("ab") as file:
        file.write(b'{"half a li')  # as a gateway leaves it that writes meanwhile
    session = importlib.import_module("chdb.session").Session()
    written = (TEMPLATES / FILES["clickhouse"]).read_text().replace("@LOG_DIR@", str(logs))
    statements = "\n".join(line for line in written.splitlines() if not line.startswith("--")).split(";")
    for statement in filter(str.strip, statements):
        print(session.query(statement, "PrettyCompact"))  # noqa: T201
    attempts = sum(line["event"] == "attempt.finished" for line in lines)
    counted = str(session.query("SELECT count(*) FROM gateway_log WHERE event = 'attempt.finished'", "CSV")).strip()
    print(f"ClickHouse {str(session.query('SELECT version()', 'CSV')).strip()}")  # noqa: T201
    return None if counted == str(attempts) else f"{counted} attempts instead of {attempts}"


def _lnav(logs: Path, lines: list[dict[str, Any]]) -> str | None:
    """Install the format for a user of its own, and ask by SQL."""
    lnav = shutil.which("lnav")
    if lnav is None:
        return "not run here: no lnav"
    home = {name: value for name, value in os.environ.items() if name != "XDG_CONFIG_HOME"}
    home["HOME"] = str(logs.parent)
    subprocess.run([lnav, "-i", TEMPLATES / FILES["lnav"]], env=home, check=True, capture_output=True, timeout=60)
    asked: list[str | Path] = [lnav, "-n", "-c", _LNAV, "-c", ":write-csv-to -", logs / "gateway-7.ndjson"]
    said = subprocess.run(asked, env=home, check=False, capture_output=True, timeout=120, text=True)
    attempts = sum(line["event"] == "attempt.finished" for line in lines[len(lines) // 2 :])
    counted = said.stdout.split()[-1:]
    return None if counted == [str(attempts)] else f"{counted} attempts instead of {attempts}: {said.stderr.strip()}"


_CHECKS: Final[dict[str, Callable[[Path, list[dict[str, Any]]], str | None]]] = {
    "clickhouse": _clickhouse,
    "lnav": _lnav,
}


if __name__ == "__main__":
    sys.exit(main())
