"""Ports that nobody listens on, and that nobody is given meanwhile."""

from __future__ import annotations

import random
import socket

#: Below those that systems give to who asks for any: other tests do, at the same time.
_PORTS = range(10_000, 30_000)


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
