"""`trace`: one request by an id of its, as a waterfall: what was tried, what was waited for, where the time went."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from inspection.database import Logs
from inspection.fault import Unanswerable
from inspection.files import decoded, within
from inspection.question import Question, Verb
from inspection.search import containing
from inspection.showing.columns import columns
from inspection.showing.figures import milliseconds
from inspection.showing.lines import safe
from inspection.showing.paint import BOLD, DIM, Paint
from inspection.showing.waterfall import WIDTH, markdown, waterfall
from inspection.story import Line, Other, Row, Story, divided, leaders, refused, text, told
from inspection.times import parsed, shown

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}", re.IGNORECASE)
_ID: Final = re.compile(r"[A-Za-z0-9._-]{4,128}")
_AMBIGUOUS: Final = 2
#: Characters of an id from which on it is hardly found anywhere but in an id.
_RARE: Final = 8
_MOST_LISTED: Final = 50
_GATEWAY: Final = "http://127.0.0.1:8000"
_READS: Final = frozenset({"GET", "HEAD"})


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="a request id, trace id or traceparent, or the first 4 characters and "
                        "more of an id")  # fmt: skip
    parser.add_argument("--last", action="store_true", help="of several requests, the latest")
    parser.add_argument("--format", choices=("tree", "md", "json"), default="tree", help="(default: tree)")
    parser.add_argument("--curl", action="store_true", help="how to repeat it, and which attempts failed")


def answer(question: Question) -> dict[str, Any] | None:
    """Return the story of the one request that an id names, None of none; times are milliseconds from its arrival.

    As inspection.story.Story has it: `request` (the wide line's), `rows`, `span_ms`, `attempts`, `calls`, `slowest`,
    `missing`, `remarks`, `lines`; beside it `curl`, a list of lines for a shell. Of several requests only `matched`,
    how many there are, and `matches`, the latest last: `at`, `method`, `path`, `status`, `outcome`, `duration_ms`,
    `request_id`, `trace_id`, `instance`. Raises Unanswerable for what is no id.
    """
    wanted, span = _wanted(question.options.id)
    requests = [request for request in divided(_found(question, wanted)) if _asked_for(request, question)]
    if span is not None and (exact := [request for request in requests if _bears(request, span)]):
        requests = exact
    if not requests:
        return None
    if len(requests) > 1 and not question.options.last:
        return {"matched": len(requests), "matches": [_brief(request) for request in requests[-_MOST_LISTED:]]}
    request = requests[-1]
    story = told(request, _other(question, request))
    plain: dict[str, Any] = msgspec.to_builtins(story)
    return {**plain, "curl": list(_curl(story))}


def _wanted(written: str) -> tuple[str, str | None]:
    """Return the id that was given, and of a traceparent the span's beside the trace's. Raises Unanswerable."""
    written = written.strip()
    if whole := _TRACEPARENT.fullmatch(written):
        return whole[1].lower(), whole[2].lower()
    if not _ID.fullmatch(written):
        raise Unanswerable(
            f"{written!r} is no id: give a request id, a trace id, a traceparent, or at least 4 characters of an id"
        )
    return written, None


def _found(question: Question, wanted: str) -> list[Line]:
    """Return the lines that bear an id, or one that begins so if none is the very same."""
    part = wanted if len(wanted) >= _RARE else f'_id":"{wanted}'
    lines = [
        line
        for line in _lines(question, part)
        if any((text(line, name) or "").startswith(wanted) for name in ("trace_id", "request_id"))
    ]
    exact = [line for line in lines if wanted in {text(line, "trace_id"), text(line, "request_id")}]
    return exact or lines


def _lines(question: Question, part: str) -> Iterator[Line]:
    """Yield the lines in which a text occurs; the window is looked at later, for a request may lie across its ends."""
    files = within(question.files, question.window)
    yield from decoded(containing([path for path in files if path.suffix != ".zst"], part))
    if packed := [path for path in files if path.suffix == ".zst"]:
        yield from decoded(Logs(packed, question.fields).texts(part))


def _asked_for(request: Sequence[Line], question: Question) -> bool:
    """Tell whether a request is in the window, and meets every filter by one of its lines."""
    return any(question.window.has(line["timestamp"]) for line in request) and all(
        any(condition.holds(line) for line in request) for condition in question.filters
    )


def _bears(request: Sequence[Line], span: str) -> bool:
    return any(span in {text(line, "span_id"), text(line, "parent_span_id")} for line in request)


def _other(question: Question, request: Sequence[Line]) -> Other:
    """Return what other requests' lines say of this one."""
    attempts = [
        line
        for trace in sorted(leaders(request))
        for line in _lines(question, trace)
        if line.get("event") == "attempt.finished"
    ]
    changes = _lines(question, '"breaker.changed"') if refused(request) else ()
    return Other(attempts, [line for line in changes if line.get("event") == "breaker.changed"])


def _brief(request: Sequence[Line]) -> dict[str, Any]:
    head = told(request).request
    when = head.started or head.finished or text(request[0], "timestamp")
    return {
        "at": when,
        "method": head.method,
        "path": head.path,
        "status": head.status,
        "outcome": head.outcome,
        "duration_ms": head.duration_ms,
        "request_id": head.request_id,
        "trace_id": head.trace_id,
        "instance": head.instance,
    }


def _curl(story: Story) -> Iterator[str]:
    """Yield the request again as far as the log knows it, and the attempts that failed."""
    head = story.request
    method = head.method if head.method and head.method.isalpha() and head.method.isascii() else "GET"
    parts = ["curl", "-i"] + ["-I"] * (method == "HEAD") + ["-X", method] * (method not in _READS)
    if head.request_id is not None and _ID.fullmatch(head.request_id):
        parts += ["-H", f"X-Request-ID: {head.request_id[:100]}-again"]
    path = quote(head.path or "/", safe="/:@!$&'()*+,;=~-._")
    command = " ".join(shlex.quote(part) for part in parts)
    yield "# The log has no query, no headers and no body: add what the request had."
    yield f'{command} "${{GATEWAY:-{_GATEWAY}}}"{shlex.quote(path)}'
    for row in story.rows:
        if row.what == "attempt" and row.outcome == "failed":
            yield f"# {_failure(row, head.trace_id)}"


def _failure(row: Row, trace_id: str | None) -> str:
    """Say of a failed attempt what its upstream's own people need to find it."""
    parts = [
        f"{row.upstream}{f' at {row.host}' if row.host else ''}, {row.call}, try {row.attempt}: {row.error}",
        f"status {row.status}" if row.status is not None else None,
        f"after {milliseconds(row.took_ms)} ms",
        "sent" if row.sent else "not sent",
        f"traceparent 00-{trace_id}-{row.span_id}-.." if row.sent and row.span_id else None,
    ]
    return safe(", ".join(part for part in parts if part is not None))


def _show(answer: Any, question: Question, paint: Paint) -> Iterator[str]:
    options = question.options
    if options.format == "json":
        yield msgspec.json.format(msgspec.json.encode(answer)).decode()
    elif "matches" in answer:
        yield from _listed(answer, options.id, paint)
    elif options.format == "md":
        yield from markdown(msgspec.convert(answer, Story))
        if options.curl:
            yield from ("", "```sh", *answer["curl"], "```")
    else:
        yield from waterfall(msgspec.convert(answer, Story), paint, _width())
        if options.curl:
            yield from ("", *answer["curl"])


def _listed(answer: Mapping[str, Any], wanted: str, paint: Paint) -> Iterator[str]:
    yield f"{answer['matched']} requests bear {safe(wanted)}: give more of the id, or take the latest with --last."
    yield ""
    rows: list[tuple[str, ...]] = [("when", "method", "path", "status", "outcome", "ms", "request", "trace")]
    for match in answer["matches"]:
        when = parsed(match["at"] or "")
        rows.append(
            (
                shown(when) if when else "-",
                *(safe(match[name] if match[name] is not None else "-")[:40] for name in ("method", "path", "status")),
                safe(match["outcome"] or "not finished"),
                milliseconds(match["duration_ms"]),
                safe(match["request_id"] or "-"),
                safe(match["trace_id"] or "-")[:8],
            )
        )
    first, *others = columns(rows, {5})
    yield paint(BOLD, first)
    yield from others
    if answer["matched"] > len(answer["matches"]):
        yield paint(DIM, f"and {answer['matched'] - len(answer['matches'])} before these")


def _width() -> int:
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH


def _code(answer: Any) -> int:
    """Return 2 where the question must be put more exactly."""
    if answer and "matches" in answer:
        return _AMBIGUOUS
    return 0 if answer else 1


TRACE: Final = Verb(
    "trace",
    "One request by an id, drawn as a waterfall: attempts, waits, the critical path.",
    _arguments,
    answer,
    _show,
    _code,
)
