"""`python -m demo`: the shop's five services and the gateway in front of them, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

SERVICES: Final = ("users", "orders", "catalog", "reviews", "recommendations")
START_TIME: Final = 60.0
STOP_TIME: Final = 10.0
ROOT: Final = Path(__file__).parent.parent

WELCOME: Final = """
The shop is open. Its pages, each one REST call over several services:

  {base}/demo/home/7
  {base}/demo/orders/7?limit=2
  {base}/demo/product/D-00358

Try:

  curl -i {base}/demo/home/7                               # everything, merged
  curl -i '{base}/demo/home/7?fault=reviews:timeout'       # a part is missing, and named
  curl -i '{base}/demo/home/7?fault=users:503'             # a required part is missing: problem+json
  curl -N -H 'Accept: application/jsonl' {base}/demo/home/7  # each part as it comes

Every step is in the log: below, and as JSON lines in {logs}
Ctrl-C stops everything.
"""


def main() -> None:
    """Start everything, say what to try, and stop everything on Ctrl-C."""
    port = int(os.environ.get("PORT", "8000"))
    if not _is_free(port):
        sys.exit(f"port {port} is taken; choose another: make demo PORT=8001")
    logs = os.environ.get("LOG_DIR", "logs")
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "settings.demo", "LOG_DIR": logs, "PYTHONUNBUFFERED": "1"}
    signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.suppress(KeyboardInterrupt), ExitStack() as running:
        print("Starting five services and the gateway ...", flush=True)
        services = {name: running.enter_context(_process("-m", "demo.services", name, say=True)) for name in SERVICES}
        for name, service in services.items():
            environment[f"{name.upper()}_URL"] = _address(name, service)
        gateway = running.enter_context(_process("manage.py", "serve", "--port", str(port), environment=environment))
        base = f"http://localhost:{port}"
        _wait_for(f"{base}/demo/home/7", gateway)
        print(WELCOME.format(base=base, logs=logs), flush=True)
        gateway.wait()


@contextmanager
def _process(
    *arguments: str, environment: Mapping[str, str] | None = None, say: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python with these arguments in the project's folder, and stop it at the end."""
    process = subprocess.Popen(  # noqa: S603 - our own programs
        [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE if say else None
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIME)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(name: str, service: subprocess.Popen[bytes]) -> str:
    """Return the address a service says it listens on."""
    said = service.stdout.readline().decode().split() if service.stdout else []
    if len(said) != 2 or said[0] != name:
        sys.exit(f"the {name} service did not start")
    return said[1]


def _wait_for(url: str, gateway: subprocess.Popen[bytes]) -> None:
    """Wait until the gateway answers."""
    until = time.monotonic() + START_TIME
    while time.monotonic() < until:
        if gateway.poll() is not None:
            sys.exit("the gateway did not start; what it said is above")
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(url, timeout=START_TIME).close()  # noqa: S310 - our own address
            return
        time.sleep(0.1)
    sys.exit(f"the gateway did not answer within {START_TIME:.0f} s")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
