"""Answers that several people watch at once: a question is asked again when its last answer is some seconds old."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final
from weakref import WeakKeyDictionary

from gateway.conf import conf
from gateway.console.questions import Found, asked

_FRESH: Final = 5.0
#: A loop's own, for so are its tasks: the questions that wait for an answer, or had it so many seconds ago.
_answers: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[object, ...], asyncio.Task[Found]]]] = (
    WeakKeyDictionary()
)


async def recent(verb: str, *options: str, words: Sequence[str] = ()) -> Found:
    """Put a question as `asked` does, or share the answer that somebody else waits for or has just had."""
    loop = asyncio.get_running_loop()
    answers = _answers.setdefault(loop, {})
    question = (conf().log_dir, verb, options, tuple(words))
    if question not in answers:
        answers[question] = asyncio.create_task(asked(verb, *options, words=words))
        answers[question].add_done_callback(lambda _: loop.call_later(_FRESH, answers.pop, question, None))
    return await asyncio.shield(answers[question])
