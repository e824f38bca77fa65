"""`export-config`: ready files for the tools that a log is handed over to when it outgrows this one."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from inspection.fault import Unanswerable
from inspection.question import Question, Verb
from inspection.showing.paint import Paint

TEMPLATES: Final = Path(__file__).parent.parent / "handover"
FILES: Final = {
    "otelcol": "otelcol.yaml",
    "victorialogs": "victorialogs.sh",
    "clickhouse": "clickhouse.sql",
    "lnav": "lnav.json",
}
_FOLDER: Final = "@LOG_DIR@"
#: A path that means the same in YAML, SQL and a shell.
_PLAIN: Final = re.compile(r"[A-Za-z0-9._/@+:-]+")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", choices=tuple(FILES), help=f"{', '.join(FILES)}")


def answer(question: Question) -> dict[str, Any]:
    """Return `target`, `file` (what it is best called) and `text`: the file, with the path of the log in it.

    Raises Unanswerable for a path that would have to be quoted.
    """
    target = question.options.target
    given = question.options.dir or [os.environ.get("LOG_DIR") or "logs"]
    folder = str(Path(given[0]).absolute())
    text = (TEMPLATES / FILES[target]).read_text()
    if _FOLDER in text and not _PLAIN.fullmatch(folder):
        raise Unanswerable(f"{folder!r} has characters that would have to be quoted; name the folder by a plainer path")
    return {"target": target, "file": FILES[target], "text": text.replace(_FOLDER, folder)}


def _show(answer: Any, _: Question, __: Paint) -> Iterator[str]:
    yield answer["text"].rstrip("\n")


EXPORT: Final = Verb(
    "export-config",
    "Prints a ready file for another tool: otelcol, victorialogs, clickhouse or lnav.",
    _arguments,
    answer,
    _show,
    reads=False,
)
