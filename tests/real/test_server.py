"""A server started for the tests is gone when they are, whatever happens to either."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .server import WARDEN, serving, status

FILES = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]
EXITS = [sys.executable, "-c", "raise SystemExit('address already in use')"]
STUBBORN = """
import signal, sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
signal.signal(signal.SIGTERM, signal.SIG_IGN)
HTTPServer(("127.0.0.1", int(sys.argv[1])), SimpleHTTPRequestHandler).serve_forever()
"""
PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"])
"""
RUN = """
import subprocess, sys, time
warden = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE, start_new_session=True)
time.sleep(60)
"""


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_a_server_answers_for_the_length_of_the_block_and_no_longer(tmp_path: Path) -> None:
    (tmp_path / "here").touch()

    with serving(lambda port: [*FILES, str(port)], tmp_path, ready="/here") as url:
        during = status(port_of(url), "/here")

    assert (during, status(port_of(url), "/here")) == (200, None)


def test_a_server_that_exits_at_once_is_started_again_on_another_port(tmp_path: Path) -> None:
    ports: list[int] = []

    def taken_at_first(port: int) -> list[str]:
        ports.append(port)
        return EXITS if len(ports) == 1 else [*FILES, str(port)]

    with serving(taken_at_first, tmp_path, ready="/") as url:
        assert port_of(url) == ports[1]


def test_a_server_that_never_stays_is_an_error_that_shows_what_it_printed(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="address already in use"),
        serving(lambda port: EXITS, tmp_path, ready="/"),
    ):
        pass


def test_a_server_that_will_not_leave_is_killed(tmp_path: Path) -> None:
    with serving(lambda port: [sys.executable, "-c", STUBBORN, str(port)], tmp_path, ready="/") as url:
        pass

    assert status(port_of(url), "/") is None


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_a_test_run_that_is_killed(end: signal.Signals) -> None:
    # The output ends when the last who holds it is gone: the run, the warden, the server, and what the server started.
    command = [sys.executable, "-c", RUN, str(WARDEN), sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        started = run.stdout.readline()
        run.send_signal(end)

        rest, _ = run.communicate(timeout=20)

    assert (started, rest, run.returncode) == (b"up\n", b"", -end)
