"""Starts a server somebody else wrote on a free port, waits until it answers, and stops it."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

Command = Callable[[int], Sequence[str]]
"""The program and its arguments that serve on a port of 127.0.0.1, in the foreground."""

WARDEN = Path(__file__).with_name("warden.py")
STARTS = 3
"""How often a server is started anew, on another port, when it exits at once: somebody may have taken the first."""
READY_WITHIN = 30.0
"""Seconds a server has to answer its first request."""
STOPPED_WITHIN = 15.0
"""Seconds the warden has to leave; more than it gives its server."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server process under its warden, and the file that holds all it printed."""

    port: int
    warden: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def answers(self, path: str) -> bool:
        """Ask for the path until it answers 200; False when the server exits first.

        Raises TimeoutError when neither happens within READY_WITHIN seconds.
        """
        latest = time.monotonic() + READY_WITHIN
        while time.monotonic() < latest:
            if status(self.port, path) == 200 and self.warden.poll() is None:
                return True
            if exited(self.warden, within=0.05):
                return False
        raise TimeoutError(f"{self.url}{path} did not answer 200 within {READY_WITHIN} s:\n{self.printed()}")

    def printed(self) -> str:
        """All the server has printed."""
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        """Stop the server and wait until it is gone. Raises subprocess.TimeoutExpired when it will not go."""
        assert self.warden.stdin is not None
        self.warden.stdin.close()
        self.warden.wait(STOPPED_WITHIN)


@contextmanager
def serving(command: Command, folder: Path, *, ready: str) -> Iterator[str]:
    """Run `command(port)` in a folder for the length of the block; give its base URL once the path `ready` answers."""
    server = start(command, folder, ready)
    try:
        yield server.url
    finally:
        server.stop()


def start(command: Command, folder: Path, ready: str) -> Server:
    """Start on one free port after another until a server stays and answers. A RuntimeError has what it printed."""
    printed = ""
    for _ in range(STARTS):
        server = launch(command, folder)
        with ExitStack() as unless_ready:
            unless_ready.callback(server.stop)
            if server.answers(ready):
                unless_ready.pop_all()
                return server
        printed = server.printed()
    raise RuntimeError(f"The server exits each time it is started:\n{printed}")


def launch(command: Command, folder: Path) -> Server:
    """Start the command, under a warden, on a port free a moment ago; what it prints goes to `server.log`."""
    port, log = free_port(), folder / "server.log"
    with log.open("wb") as output:
        warden = subprocess.Popen(
            [sys.executable, str(WARDEN), *command(port)],
            cwd=folder,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            # An interrupt at the terminal is for the test run alone, which then stops its servers in order.
            start_new_session=True,
        )
    return Server(port, warden, log)


def environment() -> dict[str, str]:
    """Ours, without what is meant for this test run's own Python: its development mode, its warnings, its coverage."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}


def status(port: int, path: str) -> int | None:
    """The status a GET of the path gets; None when nobody answers it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def exited(process: subprocess.Popen[bytes], *, within: float) -> bool:
    """Whether the process has exited, or does within so many seconds."""
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        return False
    return True
