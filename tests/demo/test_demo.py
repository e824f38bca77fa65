"""`python -m demo` as a person sees it: in a terminal, from the welcome to Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from demo.__main__ import address, process, wait_for
from tests.ports import free_port

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
PATIENCE = 60.0
CTRL_C = b"\x03"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A terminal of 100 columns with the demo in its foreground; keeps all that was shown."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self._bytes = b""
        self._more = threading.Condition()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()

    @property
    def shown(self) -> str:
        return COLOUR.sub("", self._bytes.decode(errors="replace")).replace("\r\n", "\n")

    def until(self, text: str) -> str:
        """Wait until a text is shown; return all that was shown."""
        with self._more:
            assert self._more.wait_for(lambda: text in self.shown, PATIENCE), f"no {text!r} in:\n{self.shown}"
            return self.shown

    def end(self) -> tuple[int, str]:
        """Wait until no process holds the terminal any more; return the exit code and all that was shown."""
        self._looking.join(PATIENCE)
        assert not self._looking.is_alive(), f"it does not end:\n{self.shown}"
        return self.process.wait(PATIENCE), self.shown

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def is_empty(self) -> bool:
        """Tell whether no process of the demo's is left: they are one process group, as a shell's job is."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def _look(self) -> None:
        """Read until the other end is closed, which Linux says by an error; who does not look keeps writers waiting."""
        with contextlib.suppress(OSError):
            while read := os.read(self._master, 65536):
                with self._more:
                    self._bytes += read
                    self._more.notify_all()


@contextmanager
def running(logs: Path, port: int | str) -> Iterator[Terminal]:
    """Run the demo in a terminal of its own."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL],
        cwd=ROOT,
        env={**environment(), "PORT": str(port), "LOG_DIR": str(logs)},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(master)


# What a shell does for the job in its foreground, so that the terminal sends it Ctrl-C.
TAKE_TERMINAL = """
import fcntl, runpy, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv = ["demo"]
runpy.run_module("demo", run_name="__main__", alter_sys=True)
"""


def environment() -> dict[str, str]:
    """Ours, without the development mode of this test run's own Python, which nobody has on at a terminal."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDEVMODE"}


class Shown(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int, method: str, target: str, headers: Mapping[str, str] | None = None, body: str | None = None
) -> Shown:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, target, body, dict(headers or {}))
        answer = connection.getresponse()
        return Shown(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def curl(line: str) -> Shown:
    """Do what a printed curl line does."""
    program, *arguments = shlex.split(line)
    assert program == "curl"
    headers = {}
    while len(arguments) > 1:
        option = arguments.pop(0)
        if option == "-H":
            name, _, value = arguments.pop(0).partition(": ")
            headers[name] = value
        else:
            assert option in {"-i", "-N"}
    host, _, target = arguments[0].removeprefix("http://127.0.0.1:").partition("/")
    return ask(int(host), "GET", f"/{target}", headers)


class Demo(NamedTuple):
    """The demo under way; the last four are the printed curl lines."""

    port: int
    welcome: str
    logs: Path
    merged: str
    partial: str
    failed: str
    streamed: str

    def events(self, answer: Shown) -> list[dict[str, Any]]:
        """Return what the files say of a request, once its last line is there."""
        latest = time.monotonic() + PATIENCE
        while time.monotonic() < latest:
            text = "".join(file.read_text() for file in self.logs.glob("gateway-*.ndjson"))
            lines = [json.loads(line) for line in text.splitlines() if answer.headers["x-request-id"] in line]
            if lines and lines[-1]["event"] == "request.finished":
                return lines
        raise AssertionError("the log has no end of that request")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo, started once for all who only ask it things."""
    logs, port = tmp_path_factory.mktemp("logs"), free_port()
    with running(logs, port) as terminal:
        welcome = terminal.until("Ctrl-C stops everything.")
        yield Demo(port, welcome, logs, *re.findall(r"^  (curl .*)$", welcome, re.MULTILINE))
        terminal.process.terminate()  # as another program would end it; what Ctrl-C does is a test of its own
        code, shown = terminal.end()
        assert (code, terminal.is_empty()) == (0, True)
        assert ("gateway.stopped" in shown, "Traceback" in shown) == (True, False)


class TestWelcome:
    def test_names_three_pages_that_are_there_and_the_console(self, demo: Demo) -> None:
        *pages, console = re.findall(r"^  http://127\.0\.0\.1:\d+(/\S+)$", demo.welcome, re.MULTILINE)

        assert [ask(demo.port, "GET", page).status for page in pages] == [200, 200, 200]
        entered = ask(demo.port, "GET", console)
        assert (entered.status, entered.headers["location"]) == (302, "/ops/")

    def test_stands_above_the_log_of_the_first_request(self, demo: Demo) -> None:
        assert "request.started" not in demo.welcome

    def test_stands_below_what_the_gateway_says_of_its_start(self, demo: Demo) -> None:
        assert demo.welcome.index("serving on") < demo.welcome.index("The shop is open")

    def test_fits_a_small_terminal(self, demo: Demo) -> None:
        text = demo.welcome[demo.welcome.index("The shop is open") :].replace(str(demo.logs), "logs")

        assert len(text.splitlines()) < 24
        assert max(map(len, text.splitlines())) <= 80


class TestPrintedLine:
    def test_gets_the_merged_page(self, demo: Demo) -> None:
        answer = curl(demo.merged)

        assert (answer.status, answer.json["complete"], answer.json["errors"]) == (200, True, {})
        assert list(answer.json["data"]) == ["user", "reviews", "recommendations"]
        assert answer.json["data"]["user"]["id"] == 7

    def test_gets_the_partial_page_which_names_what_is_missing(self, demo: Demo) -> None:
        answer = curl(demo.partial)

        assert (answer.status, answer.json["complete"], answer.json["data"]["reviews"]) == (200, False, None)
        assert answer.json["data"]["user"]["id"] == 7
        assert answer.json["errors"] == {
            "reviews": {
                "upstream": "reviews",
                "error": "http_response_timeout",
                "status": None,
                "attempts": 2,
                "retryable": True,
            }
        }

    def test_gets_what_the_readme_shows(self, demo: Demo) -> None:
        merged, missing = map(json.loads, re.findall("^```json\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))

        assert curl(demo.merged).json == merged
        assert {name: value for name, value in curl(demo.partial).json.items() if name != "data"} == missing

    def test_gets_the_failed_page_as_a_problem(self, demo: Demo) -> None:
        answer = curl(demo.failed)

        assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json")
        assert answer.headers["retry-after"].isdecimal()
        assert answer.json["request_id"] == answer.headers["x-request-id"]
        assert answer.json["errors"]["user"] == {
            "upstream": "users",
            "error": "http_response_status",
            "status": 503,
            "attempts": 3,
            "retryable": True,
        }

    def test_gets_the_page_part_by_part(self, demo: Demo) -> None:
        answer = curl(demo.streamed)

        first, *parts, last = [json.loads(line) for line in answer.body.splitlines()]
        assert (answer.status, answer.headers["content-type"]) == (200, "application/jsonl")
        assert first == {"pending": ["user", "reviews", "recommendations"]}
        assert {part["call"]: part["data"] for part in parts} == last["result"]
        assert (last["complete"], last["errors"]) == (True, {})

    def test_has_every_attempt_in_the_log_s_files(self, demo: Demo) -> None:
        events = demo.events(curl(demo.partial))

        attempts = [event["upstream"] for event in events if event["event"] == "attempt.finished"]
        assert sorted(attempts) == ["recommendations", "reviews", "reviews", "users"]
        assert [event["call"] for event in events if event["event"] == "retry.scheduled"] == ["reviews"]


class TestFault:
    @pytest.mark.parametrize(
        ("fault", "status", "error"),
        [
            ("users:timeout", 504, "deadline_exceeded"),
            ("users:reset", 502, "connection_terminated"),
            ("users:garbage", 502, "body_malformed"),
            ("users:html", 502, "body_malformed"),
            ("users:truncated", 502, "http_response_incomplete"),
            ("users:500", 502, "http_response_status"),
        ],
    )
    def test_of_the_required_customer_fails_the_page(self, demo: Demo, fault: str, status: int, error: str) -> None:
        answer = ask(demo.port, "GET", f"/demo/home/7?fault={fault}")

        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
        assert answer.json["errors"]["user"]["error"] == error

    def test_that_passes_is_not_seen(self, demo: Demo) -> None:
        answer = ask(demo.port, "GET", "/demo/home/7?fault=users:flaky,reviews:flaky,recommendations:flaky")

        assert (answer.status, answer.json["complete"]) == (200, True)


class TestCheckout:
    def buy(self, demo: Demo, sku: str, quantity: int, fault: str = "", **headers: str) -> Shown:
        cart = json.dumps({"customer": 7, "lines": [{"sku": sku, "quantity": quantity}]})
        return ask(
            demo.port, "POST", f"/demo/checkout?fault={fault}", {"Content-Type": "application/json", **headers}, cart
        )

    def test_sells_a_stone_once_though_the_answers_are_lost(self, demo: Demo) -> None:
        before = self.stock(demo, "D-00001")

        answer = self.buy(demo, "D-00001", 2, fault="catalog:lost,orders:lost")

        assert (answer.status, self.stock(demo, "D-00001")) == (201, before - 2)

    def test_sells_a_stone_once_to_a_client_who_asks_twice(self, demo: Demo) -> None:
        before = self.stock(demo, "D-00002")

        first, second = (self.buy(demo, "D-00002", 1, **{"Idempotency-Key": "cart-1"}) for _ in range(2))

        assert (first.status, first.json["data"]) == (second.status, second.json["data"])
        assert self.stock(demo, "D-00002") == before - 1

    @pytest.mark.parametrize(("sku", "status"), [("D-00005", 409), ("D-99999", 404)])
    def test_refuses_what_is_not_there(self, demo: Demo, sku: str, status: int) -> None:
        answer = self.buy(demo, sku, 1)

        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")

    @staticmethod
    def stock(demo: Demo, sku: str) -> int:
        return int(ask(demo.port, "GET", f"/demo/product/{sku}").json["data"]["product"]["stock"])


class TestEnd:
    def test_ctrl_c_stops_everything_also_while_a_request_hangs(self, tmp_path: Path) -> None:
        port = free_port()
        with running(tmp_path, port) as terminal, ThreadPoolExecutor() as pool:
            terminal.until("Ctrl-C stops everything.")
            asking = pool.submit(ask, port, "GET", "/demo/orders/7?fault=users:timeout")
            terminal.until("request.started")

            terminal.type(CTRL_C)
            code, shown = terminal.end()

            assert (code, terminal.is_empty()) == (0, True), shown
        assert ("gateway.stopped" in shown, "Traceback" in shown) == (True, False)
        assert asking.result().headers["content-type"] == "application/problem+json"

    def test_a_gateway_that_ends_by_itself_is_told_and_stops_everything(self, tmp_path: Path) -> None:
        with running(tmp_path, free_port()) as terminal:
            terminal.until("Ctrl-C stops everything.")
            gateway = re.search(r"gateway\.started.* pid=(\d+)", terminal.until("upstreams="))
            assert gateway is not None

            os.kill(int(gateway[1]), signal.SIGKILL)
            code, shown = terminal.end()

            assert (code, terminal.is_empty()) == (1, True), shown
        assert shown.rstrip().endswith("The gateway ended by itself, with exit code -9.")


class TestBadInput:
    def test_a_taken_port_is_one_sentence(self, tmp_path: Path) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            with running(tmp_path, port) as terminal:
                code, shown = terminal.end()

        assert code == 1
        assert shown == f"Port {port} cannot be had (Address already in use). Choose another: make demo PORT=8001\n"

    @pytest.mark.parametrize("port", ["http", "0", "-1", "65536", "80.5"])
    def test_a_port_that_is_none_is_one_sentence(self, tmp_path: Path, port: str) -> None:
        with running(tmp_path, port) as terminal:
            code, shown = terminal.end()

        assert (code, shown) == (1, f"PORT must be a number from 1 to 65535, not {port!r}.\n")


class TestFalseStart:
    def test_a_gateway_that_ends_at_once_is_told(self) -> None:
        with process("-c", "") as gateway, pytest.raises(SystemExit, match="The gateway did not start"):
            wait_for(free_port(), gateway)

    def test_a_service_that_ends_at_once_is_told(self) -> None:
        with (
            process("-c", "", says=True) as service,
            pytest.raises(SystemExit, match="The users service did not start"),
        ):
            address("users", service)
