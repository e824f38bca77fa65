"""`logs`: questions to a gateway's log from the terminal.

Exit codes: 0 found, 1 nothing found, 2 the question cannot be asked so, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from inspection.fault import Unanswerable, nearest
from inspection.files import LIVE, STDIN, found, places, spooled
from inspection.question import Question, Verb
from inspection.showing.paint import paint_for
from inspection.times import window

#: Where each verb is. Only the one that is asked for is imported: all of them take longer than many an answer.
VERBS: Final[Mapping[str, str]] = {
    "summary": "inspection.verbs.summary:SUMMARY",
    "stats": "inspection.verbs.stats:STATS",
    "errors": "inspection.verbs.errors:ERRORS",
    "compare": "inspection.verbs.compare:COMPARE",
    "breakers": "inspection.verbs.breakers:BREAKERS",
    "sql": "inspection.verbs.sql:SQL",
    "requests": "inspection.verbs.requests:REQUESTS",
    "inflight": "inspection.verbs.inflight:INFLIGHT",
    "tail": "inspection.verbs.tail:TAIL",
    "trace": "inspection.verbs.trace:TRACE",
    "upstreams": "inspection.verbs.upstreams:UPSTREAMS",
    "doctor": "inspection.verbs.doctor:DOCTOR",
    "export-config": "inspection.verbs.export:EXPORT",
}
_FOUND, _NOTHING, _USAGE, _INTERRUPTED = 0, 1, 2, 130
_DESCRIPTION: Final = "Questions to the gateway's log. They read its files: no gateway need run."
_EPILOG: Final = """examples:
  {program}                                     the last 15 minutes, and what to ask next
  {program} trace 4bf92f35                      one request, by its id or the beginning of it
  {program} stats --since -1h --by route        rates, failures and percentiles
  {program} stats -f upstream=orders --by host  of one upstream's hosts
  {program} compare --bad 14:05..14:12          what is different about a bad time

exit codes: 0 found, 1 nothing found, 2 the question cannot be asked so
"""
_HELP: Final = frozenset({"-h", "--help"})
_WATCH_EVERY: Final = 2.0
_TIMES: Final = frozenset({"--since", "--until", "--bad", "--base", "--new-since"})
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class _Parser(argparse.ArgumentParser):
    """Says in one sentence what cannot be understood."""

    def error(self, message: str) -> NoReturn:
        """Raise Unanswerable, with the option that was meant if one resembles."""
        unknown = message.removeprefix("unrecognized arguments: ").split()[0] if message.startswith("unrec") else ""
        known = [option for action in self._actions for option in action.option_strings]
        raise Unanswerable(f"{message}{nearest(unknown, known) if unknown else ''}")


def main(arguments: Sequence[str], program: str = "logs") -> int:
    """Answer one question on standard output; returns the exit code."""
    try:
        code = _answered(_with_verb(arguments), program)
        sys.stdout.flush()
    except Unanswerable as fault:
        print(f"{program}: {fault}", file=sys.stderr)
        return _USAGE
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FOUND
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def _with_verb(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments, `summary` before them where they name no verb. Raises Unanswerable for one there is not."""
    first = arguments[0] if arguments else ""
    if first in _HELP:
        return arguments
    if not first or first.startswith("-"):
        return ["summary", *arguments]
    if first not in VERBS:
        hint = nearest(first, VERBS) or f": it is one of {', '.join(VERBS)}"
        raise Unanswerable(f"there is no {first!r}{hint}")
    return arguments


def _answered(arguments: Sequence[str], program: str) -> int:
    options = _options(arguments, program)
    verb: Verb = options.verb
    with ExitStack() as open_until_then:
        files = _files(arguments, options, open_until_then)
        if not getattr(options, "watch", False) or not sys.stdout.isatty():
            return _print(verb, _question(files, options), as_json=options.json)
        while True:
            question = _question(files, options)
            told = verb.answer(question)
            lines = verb.show(told, question, paint_for(sys.stdout)) if told else _nothing(question)
            _redraw(lines)
            time.sleep(_WATCH_EVERY)
            files = files if STDIN in arguments else found(places(options.dir))


def _files(arguments: Sequence[str], options: argparse.Namespace, closing: ExitStack) -> list[Path]:
    """Return what to read: files, or what has come in on standard input, or that itself where it is followed."""
    if not options.verb.reads:
        return []
    if STDIN not in arguments:
        return found(places(options.dir))
    return [LIVE] if getattr(options, "follow", False) else [closing.enter_context(spooled(sys.stdin.buffer))]


def _redraw(lines: Iterable[str]) -> None:
    """Show lines in place of those before, as many as the terminal has room for."""
    shown = list(lines)[: shutil.get_terminal_size().lines - 1]
    print(_HOME + "".join(f"{line}{_END_OF_LINE}\n" for line in shown) + _END_OF_SCREEN, end="", flush=True)


def _question(files: Sequence[Path], options: argparse.Namespace) -> Question:
    now = datetime.now(UTC)
    return Question(
        files=files,
        window=window(options.since, options.until, now),
        written_filters=options.filter,
        options=options,
        now=now,
    )


def _print(verb: Verb, question: Question, *, as_json: bool) -> int:
    """Print an answer as far as there is one."""
    answer = verb.answer(question)
    if isinstance(answer, Iterator):
        return _print_stream(verb, question, answer, as_json=as_json)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(answer)).decode())
    else:
        for line in verb.show(answer, question, paint_for(sys.stdout)) if answer else _nothing(question):
            print(line)
    return verb.code(answer)


def _print_stream(verb: Verb, question: Question, items: Iterator[Any], *, as_json: bool) -> int:
    code = _NOTHING
    paint = paint_for(sys.stdout)
    for item in items:
        code = _FOUND
        if as_json:
            print(msgspec.json.encode(item).decode(), flush=True)
        else:
            print("\n".join(verb.show(item, question, paint)), flush=True)
    if code == _NOTHING and not as_json:
        print("\n".join(_nothing(question)))
    return code


def _nothing(question: Question) -> Iterator[str]:
    """Say why there is no answer: no files, or no such lines in them."""
    if not question.files:
        yield "There are no log files (*.ndjson, .gz, .zst) there yet."
        return
    asked = "".join(f", {condition}" for condition in question.written_filters)
    when = getattr(question.options, "bad", None) or question.window
    yield f"Nothing found in {len(question.files)} file{'s' * (len(question.files) != 1)} ({when}{asked})."


def _options(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """Return what was asked for. Raises Unanswerable."""
    parser, below = _parsers(program, VERBS if arguments[0] in _HELP else arguments[:1])
    options, unknown = parser.parse_known_args(_readable(arguments))
    if unknown:
        below[options.verb.name].error(f"unrecognized arguments: {' '.join(unknown)}")
    return options


def _readable(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as argparse reads them: it takes the value of `--since -15m` for an option."""
    found: list[str] = []
    for argument in arguments:
        if found and found[-1] in _TIMES and argument.startswith("-"):
            found[-1] += f"={argument}"
        elif argument != STDIN:
            found.append(argument)
    return found


def _parsers(program: str, names: Iterable[str]) -> tuple[_Parser, dict[str, _Parser]]:
    """Return the parser of it all, and those of some verbs by their names."""
    common = _Parser(add_help=False)
    common.add_argument("--dir", action="append", metavar="PATH", help="the log's folder, or a file; may be repeated "
                        "(default: LOG_DIR, else logs); - reads standard input")  # fmt: skip
    common.add_argument("--since", metavar="TIME", help="from then on: -15m, 14:05 or ISO 8601")
    common.add_argument("--until", metavar="TIME", help="before then")
    common.add_argument("-f", "--filter", action="append", default=[], metavar="CONDITION",
                        help="key=value, key!=value, key>number, key~part; may be repeated")  # fmt: skip
    common.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser = _Parser(
        prog=program, description=_DESCRIPTION, epilog=_EPILOG.format(program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    verbs = parser.add_subparsers(metavar="VERB", title="verbs", required=True)
    parsers: dict[str, _Parser] = {}
    for verb in map(_verb, names):
        below = verbs.add_parser(verb.name, parents=[common], help=verb.help, description=verb.help, allow_abbrev=False)
        below.set_defaults(verb=verb)
        verb.arguments(below)
        parsers[verb.name] = below
    return parser, parsers


def _verb(name: str) -> Verb:
    """Import a verb."""
    module, _, constant = VERBS[name].partition(":")
    verb: Verb = getattr(import_module(module), constant)
    return verb
