"""What a browser is shown: the demo's services, a gateway with its console, and a log of what customers did."""

from __future__ import annotations

import os
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.error import HTTPError

from playwright.sync_api import Browser, sync_playwright

from demo.__main__ import HOST, SERVICES, address, process, wait_for

TOKEN: Final = "browser-" * 5
#: Where Debian and others put it.
CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
#: What customers did, over and over: most of it goes well.
_VISITS: Final = (
    *("home/7", "orders/7?limit=2", "product/D-00358", "home/8", "home/9?fault=reviews:503", "orders/8"),
    *("home/12", "product/D-00102", "home/7?fault=users:503", "orders/9?fault=catalog:timeout"),
)


@contextmanager
def shop(folder: Path) -> Iterator[str]:
    """Run the services, two of them the catalogue's, and the gateway, which logs to a folder; yields its base URL."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDEVMODE"}
    environment = {**inherited, "DJANGO_SETTINGS_MODULE": "settings.demo", "LOG_DIR": str(folder), "OPS_TOKEN": TOKEN}
    with ExitStack() as running:
        started = [(name, running.enter_context(process("-m", "demo.services", name, says=True)))
                   for name in (*SERVICES, "catalog")]  # fmt: skip
        for name, service in started:
            variable = f"{name.upper()}_URL"
            environment[variable] = ",".join(filter(None, (environment.get(variable), address(name, service))))
            running.callback(service.stdout.close)  # type: ignore[union-attr]
        port = _port()
        gateway = running.enter_context(process("manage.py", "serve", "--port", str(port), environment=environment))
        wait_for(port, gateway)
        yield f"http://{HOST}:{port}"


def _port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def visit(base: str, path: str, request_id: str | None = None) -> int:
    """Do as a customer does; returns the status."""
    headers = {"X-Request-ID": request_id} if request_id else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{base}/demo/{path}", headers=headers)) as answer:
            answer.read()
            return int(answer.status)
    except HTTPError as refused:
        with refused:
            return refused.code


def visits(base: str, rounds: int) -> None:
    """Let customers come."""
    for _ in range(rounds):
        for path in _VISITS:
            visit(base, path)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the system's Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_OPTIONS))
        try:
            yield browser
        finally:
            browser.close()
