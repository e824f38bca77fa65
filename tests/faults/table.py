"""The table of faults: its rows, and the cases that are made of bytes alone.

A case says what the upstream does and what comes of it. The number is that of the fault plan; `docs/errors.md` has the
words. A read is tried three times where the fault may pass; a write is tried once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pytest

from tests.faults.scene import Answer


@dataclass
class Row:
    """One line: what is expected of the page, what it answered, attempts on the wire and in the log."""

    expected: str = ""
    got: str = ""
    wire: int | None = None
    logged: int | None = None


class Variant(NamedTuple):
    """Whether the page can do without the call, and whether it reads or writes."""

    required: bool
    method: str

    def __str__(self) -> str:
        return f"{'required' if self.required else 'optional'} {self.method}"


VARIANTS: Final = [Variant(required, method) for method in ("GET", "POST") for required in (True, False)]
READS: Final = VARIANTS[:2]


class Ending(NamedTuple):
    """What comes of a call: the word in `errors` (several: any of them), the page's status, the attempts of a read.

    Without a word the page is whole, and `value` is the very bytes of the call's member in it.
    """

    words: tuple[str, ...] = ()
    status: int = 200
    attempts: int = 1
    value: bytes = b"{}"
    wait: int | None = None

    def expected(self, variant: Variant) -> str:
        """Say what the page answers."""
        if not self.words:
            return "200 complete"
        status = self.status if variant.required else 200
        return f"{status} {' or '.join(self.words)}"

    def tries(self, variant: Variant) -> int:
        """Say how many attempts are made."""
        return self.attempts if variant.method == "GET" else 1

    def check(self, found: Answer, variant: Variant) -> None:
        """See that the page answered so."""
        if not self.words:
            assert found.status == 200
            assert b'"it":' + self.value + b"," in found.body
            return
        error = found.error
        assert error["error"] in self.words
        assert found.status == (self.status if variant.required else 200)
        assert error["upstream"] == "failing"
        assert error["attempts"] == self.tries(variant)
        if variant.required:
            assert found.headers.get("retry-after") == (None if self.wait is None else str(self.wait))


def fails(*words: str, status: int = 502, attempts: int = 1, wait: int | None = None) -> Ending:
    """Return the ending of a call that has no value."""
    return Ending(words, status, attempts, wait=wait)


def whole(value: bytes = b"{}", attempts: int = 1) -> Ending:
    """Return the ending of a call that has one."""
    return Ending(value=value, attempts=attempts)


def param(number: str, words: str, case: Any, variant: Variant) -> Any:
    """Return a case in a variant as a parameter of a test, with its number."""
    name = f"{number}-{words} {variant}".replace(",", "").replace(" ", "-")
    return pytest.param(case, variant, id=name, marks=pytest.mark.fault(number, words))
