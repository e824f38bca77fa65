"""Who hears of every event beside the log: metrics and spans, where they are switched on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

#: Told of an event by its name and its fields, in the context and the thread that it happened in. Neither waits nor
#: keeps or changes the fields.
Observer = Callable[[str, Mapping[str, Any]], None]

_logger = logging.getLogger(__name__)


class Observers:
    """Whom the catalogue tells, whatever the log's level. Live: `all` are those of this moment."""

    def __init__(self) -> None:
        self.all: tuple[Observer, ...] = ()
        self._failed: set[Observer] = set()

    def __repr__(self) -> str:
        """Show who is told."""
        return f"<Observers {self.all}>"

    @contextmanager
    def telling(self, observer: Observer) -> Iterator[None]:
        """Tell one more for the length of a block."""
        self.all = (*self.all, observer)
        try:
            yield
        finally:
            self.all = tuple(other for other in self.all if other is not observer)
            self._failed.discard(observer)

    def tell(self, event: str, fields: Mapping[str, Any]) -> None:
        """Tell all. One that raises fails no request and silences no other; the log has its first traceback."""
        for observer in self.all:
            try:
                observer(event, fields)
            except Exception:
                if observer not in self._failed:
                    self._failed.add(observer)
                    _logger.exception("an observer of events raised; it is not logged again")


observers: Final = Observers()
