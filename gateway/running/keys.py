"""A join's keys, each once.

A client may have chosen them so that they collide: the hash of a number, a UUID or a tuple of them is no secret, and a
dict of keys that all have one takes a time that grows with the square of their number, on the loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from upstreams import InvalidParameter

_FEW: Final = 1000  # which cost milliseconds at the worst
_MOST_ALIKE: Final = 100


def distinct(keys: Iterable[Any]) -> list[Any]:
    """Return the keys, each once, in their order.

    Raises InvalidParameter, whose value are the keys, for some that collide or that cannot be compared.
    """
    given = list(keys)
    try:
        if len(given) > _FEW and _collide(given):
            raise InvalidParameter("keys", keys, "too many of them have one hash")
        return list(dict.fromkeys(given))
    except TypeError:
        raise InvalidParameter("keys", keys, "one of them is an array or an object") from None


def _collide(keys: list[Any]) -> bool:
    """Tell whether many keys have one hash and are written differently."""
    hashes = Counter(map(hash, keys))
    frequent: dict[int, set[str]] = {value: set() for value, count in hashes.items() if count > _MOST_ALIKE}
    for key in keys if frequent else ():
        alike = frequent.get(hash(key))
        if alike is not None:
            alike.add(hex(key) if isinstance(key, int) else repr(key))  # a decimal has an end, and takes longer
            if len(alike) > _MOST_ALIKE:
                return True
    return False
