"""What keeps a question from being answered."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Unanswerable(Exception):
    """A question that cannot be asked so; its text is one sentence for whoever asked, with the mend if one is known."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` with the known words that resemble this one, or nothing."""
    candidates = sorted(known)
    found = difflib.get_close_matches(word, candidates, n=2, cutoff=0.6)
    found += [name for name in candidates if word and name.rpartition(".")[2] == word and name not in found]
    return f"; did you mean {' or '.join(found[:3])}?" if found else ""
