"""`manage.py serve`: the gateway in production, on uvicorn with workers."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import uvicorn
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from gateway.checks import routes
from gateway.conf import conf
from gateway.log.lines import writer
from gateway.serving.lifespan import refuse_faults
from gateway.serving.protocol import Protocol

logger = logging.getLogger(__name__)
#: What a gateway needs of the server, wherever it runs: contexts that do not leak, a lifespan that must succeed.
UVICORN: Final[Mapping[str, Any]] = {
    "http": Protocol,
    "ws": "none",
    "lifespan": "on",
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "reset_contextvars": True,
}
_DRAIN: Final = 1.0
_MORE: Final = 7  # listeners
_PORTS: Final = range(65536)


class Command(BaseCommand):
    """Serves by uvloop and httptools."""

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
        if options["workers"] < 1:
            raise CommandError("--workers is a number of processes, 1 at least")
        listeners = bound(options["host"], options["port"])
        config = uvicorn.Config(
            "gateway.asgi:application",
            host=options["host"],
            port=options["port"],
            workers=options["workers"],
            loop="uvloop",
            **UVICORN,
            proxy_headers=bool(options["forwarded_allow_ips"]),
            forwarded_allow_ips=options["forwarded_allow_ips"] or None,
            timeout_keep_alive=options["keep_alive"],
            timeout_graceful_shutdown=_longest_page(),
        )
        with _shared_metrics(options["workers"]), suppress(KeyboardInterrupt):
            serve(config, listeners)


def serve(config: uvicorn.Config, listeners: list[socket.socket]) -> None:
    """Run uvicorn's server, or several, until told to stop; exits where it could not start.

    One that is alone listens several times at an address: uvloop takes one connection from a listener in a turn of its
    loop, and new clients of a busy worker would wait for as many turns as there are of them. Workers that share an
    address do not: the first to look would take many at once, and the others would have none to do.
    """
    if config.workers > 1:
        _listen(listeners, config)
        _tell(listeners)
        Multiprocess(config, listeners).run()
        return
    server = _Server(config, partial(_tell, listeners))
    server.run([*listeners, *(listener.dup() for listener in listeners for _ in range(_MORE))])
    if not server.started:
        sys.exit(STARTUP_FAILURE)


class _Server(uvicorn.Server):
    """uvicorn's, which tells only of sockets that it has made itself."""

    def __init__(self, config: uvicorn.Config, tell: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = tell

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell where it listens as soon as it does. Raises CommandError where another got there since it was bound."""
        await super().startup(sockets)
        # uvloop closes a socket on which it cannot listen, and raises nothing.
        if any(socket_.fileno() < 0 for socket_ in sockets or ()):
            await self.lifespan.shutdown()
            raise _taken(self.config, "the port has been taken")
        self._tell()


def _listen(listeners: Iterable[socket.socket], config: uvicorn.Config) -> None:
    """Listen before the workers do, who share the sockets. Raises CommandError where another was sooner."""
    try:
        for listener in listeners:
            listener.listen(config.backlog)
    except OSError as error:
        raise _taken(config, error.strerror) from None


def _taken(config: uvicorn.Config, why: str | None) -> CommandError:
    return CommandError(f"cannot listen on {config.host} port {config.port}: {why}")


def _tell(listeners: Iterable[socket.socket]) -> None:
    """Log where it listens. That has been written when the first client is answered, who may have waited for it."""
    for listener in listeners:
        host, port, *_ = listener.getsockname()
        logger.info("serving on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    writer.flush()


def bound(host: str, port: int) -> list[socket.socket]:
    """Return a socket bound to each address of a host. Raises CommandError; uvicorn would only log it."""
    found: list[socket.socket] = []
    try:
        if port not in _PORTS:  # more than that, and it would be another port that is listened on
            raise OSError(errno.EINVAL, "a port is a number from 0 to 65535")  # noqa: TRY301
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            found.append(listener := socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # the other addresses have their own
            listener.bind(address)
    except OSError as error:
        for listener in found:
            listener.close()
        raise CommandError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return found


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
