"""The log set up in another way than the tests', for the length of a block."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings

from gateway.log import configure
from gateway.log.records import Records
from gateway.log.setup import writer
from tests.logs import Log


@contextmanager
def configured(log: Log, **options: Any) -> Iterator[None]:
    """Configure logging with these options, its lines coming to the test as before."""
    configure(options)
    writer.sinks[:] = [log]
    try:
        yield
    finally:
        configure(settings.LOGGING)
        writer.sinks[:] = [log]


def heard(name: str = "mine") -> logging.Logger:
    """Return a logger that our handler alone listens to: the test runner's own would stumble over bad arguments."""
    logger = logging.Logger(name)  # noqa: LOG001 - known to nobody else
    logger.addHandler(Records())
    return logger
