"""`python -m demo`: the shop's five services and the gateway in front of them, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from types import FrameType
from typing import Final

HOST: Final = "127.0.0.1"
SERVICES: Final = ("users", "orders", "catalog", "reviews", "recommendations")
START_TIME: Final = 60.0
STOP_TIME: Final = 10.0
ROOT: Final = Path(__file__).parent.parent

WELCOME: Final = """
The shop is open: five services, and a gateway that makes one answer of theirs.

  {base}/demo/home/7
  {base}/demo/orders/7?limit=2
  {base}/demo/product/D-00358

Try, in another terminal:

  # everything, merged
  curl -i {base}/demo/home/7
  # the reviews never come: the answer goes without them, and says so
  curl -i '{base}/demo/home/7?fault=reviews:timeout'
  # the customer is required: a problem
  curl -i '{base}/demo/home/7?fault=users:503'
  # each part as it comes
  curl -N -H 'Accept: application/jsonl' {base}/demo/home/7

Every step is in the log: below, as JSON lines in {logs}/, and in the console:
  {base}/ops/door?token={token}
Ctrl-C stops everything.
"""


def main() -> None:
    """Start everything, say what to try, and stop everything on Ctrl-C."""
    port = free_port()
    logs = os.environ.get("LOG_DIR") or "logs"
    token = os.environ.get("OPS_TOKEN") or secrets.token_hex(16)
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "settings.demo", "LOG_DIR": logs, "OPS_TOKEN": token}
    signal.signal(signal.SIGTERM, interrupt)
    with contextlib.suppress(KeyboardInterrupt), ExitStack() as running:
        print("Starting five services and the gateway ...", flush=True)
        services = {name: running.enter_context(process("-m", "demo.services", name, says=True)) for name in SERVICES}
        for name, service in services.items():
            environment[f"{name.upper()}_URL"] = address(name, service)
        gateway = running.enter_context(process("manage.py", "serve", "--port", str(port), environment=environment))
        wait_for(port, gateway)
        print(WELCOME.format(base=f"http://{HOST}:{port}", logs=logs.rstrip("/"), token=token), flush=True)
        sys.exit(f"The gateway ended by itself, with exit code {gateway.wait()}.")


def free_port() -> int:
    """Return the port that PORT names, or 8000. Exits with a sentence if that is none, or is taken."""
    given = os.environ.get("PORT") or "8000"
    if not (given.isdecimal() and 0 < int(given) < 65536):
        sys.exit(f"PORT must be a number from 1 to 65535, not {given!r}.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, int(given)))
        except OSError as error:
            sys.exit(f"Port {given} cannot be had ({error.strerror}). Choose another: make demo PORT=8001")
    return int(given)


@contextmanager
def process(
    *arguments: str, environment: Mapping[str, str] | None = None, says: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python with these arguments in the project's folder, and stop it at the end; `says` opens its stdout."""
    with subprocess.Popen(  # noqa: S603 - our own programs
        [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE if says else None
    ) as started:
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(STOP_TIME)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):  # it does not go, or somebody cannot wait
                started.kill()


def address(name: str, service: subprocess.Popen[bytes]) -> str:
    """Return the address that a service says it listens on."""
    said = service.stdout.readline().decode().split() if service.stdout else []
    if len(said) != 2 or said[0] != name:
        sys.exit(f"The {name} service did not start.")
    return said[1]


def wait_for(port: int, gateway: subprocess.Popen[bytes]) -> None:
    """Wait until the gateway answers, which it does once its worker is ready and has said so."""
    until = time.monotonic() + START_TIME
    while time.monotonic() < until:
        if gateway.poll() is not None:
            sys.exit("The gateway did not start; what it said is above.")
        with contextlib.suppress(OSError), contextlib.closing(HTTPConnection(HOST, port, timeout=START_TIME)) as asking:
            asking.request("GET", "/healthz")
            if asking.getresponse().status == HTTPStatus.OK:
                return
        time.sleep(0.05)
    sys.exit(f"The gateway did not answer within {START_TIME:.0f} s.")


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Take SIGTERM as Ctrl-C."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
