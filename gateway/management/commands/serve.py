"""`manage.py serve`: the gateway in production, on uvicorn with workers."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from gateway.checks import routes
from gateway.conf import conf
from gateway.serving.lifespan import refuse_faults

_DRAIN: Final = 1.0
_PORTS: Final = range(65536)


class Command(BaseCommand):
    """Serves with what a gateway needs: uvloop, httptools, a lifespan that must succeed, contexts that do not leak."""

    help = "Serve the gateway with uvicorn."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own form; refuse_faults runs the gateway's

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take what differs between machines."""
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
        parser.add_argument("--workers", type=int, default=1, help="worker processes (default: 1)")
        parser.add_argument(
            "--forwarded-allow-ips",
            default="",
            help="addresses of proxies whose X-Forwarded-* headers are believed (default: none)",
        )
        parser.add_argument(
            "--keep-alive",
            type=int,
            default=5,
            help="seconds an idle connection is kept (behind a proxy: more than its)",
        )

    def handle(self, **options: Any) -> None:
        """Serve until told to stop. Raises CommandError for what keeps the gateway from starting."""
        try:
            refuse_faults()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        refuse_taken(options["host"], options["port"])
        with _shared_metrics(options["workers"]):
            uvicorn.run(
                "gateway.asgi:application",
                host=options["host"],
                port=options["port"],
                workers=options["workers"],
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                reset_contextvars=True,
                proxy_headers=bool(options["forwarded_allow_ips"]),
                forwarded_allow_ips=options["forwarded_allow_ips"] or None,
                timeout_keep_alive=options["keep_alive"],
                timeout_graceful_shutdown=_longest_page(),
            )


def refuse_taken(host: str, port: int) -> None:
    """Raise CommandError if this process could not listen there; the server itself would only log it."""
    try:
        if port not in _PORTS:  # more than that, and it would be another port that is listened on
            raise OSError(errno.EINVAL, "a port is a number from 0 to 65535")  # noqa: TRY301
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
    except OSError as error:
        raise CommandError(f"cannot listen on {host} port {port}: {error.strerror}") from None


@contextmanager
def _shared_metrics(workers: int) -> Iterator[None]:
    """Give several workers a directory to count in together, unless the operator has named one.

    The library looks for it when it is imported, which workers do after this.
    """
    if workers == 1 or not conf().metrics or os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="gateway-metrics-") as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        yield


def _longest_page() -> int:
    """Return how long a shutdown may have to wait for the slowest page, in whole seconds."""
    deadlines = [route.page.deadline for route in routes()]
    return int(max(deadlines, default=2.0) + _DRAIN) + 1
