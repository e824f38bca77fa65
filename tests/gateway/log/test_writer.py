"""Whatever becomes of a sink, nobody who logs waits, nobody gets an exception, and every line is written or counted."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from django.urls import path

from gateway import call
from gateway.log.events import log_dropped
from gateway.log.outputs import Stream
from gateway.log.setup import writer
from gateway.log.writer import Output, Queue, Writer
from tests.conftest import StartStub
from tests.gateway.log.processes import ROOT, command, events, lost, numbers, run, start, written
from tests.logs import Log
from tests.serving import PatientPage, gateway
from upstreams import GET, JSON, Request

KIB = 1024
QUEUE = 8 * KIB * KIB


class Held:
    """An output that takes what it is given when the test lets it, and loses it while `broken`."""

    name = "held"

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.open = threading.Event()
        self.reported = threading.Semaphore(0)
        self.broken = False
        self.lines: list[bytes] = []
        self.closed = threading.Event()

    def begin(self) -> None: ...

    def write(self, lines: list[bytes]) -> int:
        self.arrived.set()
        self.open.wait()
        if self.broken:
            return len(lines)
        self.lines += lines
        if b"log.dropped" in lines[0]:
            self.reported.release()
        return 0

    def counts(self) -> list[int]:
        """Return the losses reported."""
        return [msgspec.json.decode(line)["count"] for line in self.lines if b"log.dropped" in line]

    def forget(self) -> None: ...

    def close(self) -> None:
        self.closed.set()


@contextmanager
def queue_before(output: Output) -> Iterator[Queue]:
    queue = Queue(output, log_dropped)
    yield queue
    queue.close()


@pytest.fixture
def held() -> Iterator[Held]:
    output = Held()
    yield output
    output.open.set()


def test_lines_arrive_in_the_order_they_were_logged_whichever_thread_logged_them(held: Held) -> None:
    held.open.set()
    with queue_before(held) as queue:
        threads = [threading.Thread(target=_log_numbers, args=(queue, name)) for name in (b"a", b"b", b"c")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert queue.written().wait(10)

    for name in (b"a", b"b", b"c"):
        assert [line for line in held.lines if line.startswith(name)] == [b"%s %d" % (name, nth) for nth in range(3000)]


def _log_numbers(queue: Queue, name: bytes) -> None:
    for nth in range(3000):
        queue.write(b"%s %d" % (name, nth))


def test_a_queue_holds_eight_mebibytes_and_counts_what_comes_after(held: Held) -> None:
    with queue_before(held) as queue:
        queue.write(b"first")
        assert held.arrived.wait(10)
        for nth in range(10_000):
            queue.write(b"%d" % nth + b" " * (KIB - len(str(nth))))
        kept = QUEUE // KIB
        assert repr(queue) == f"<Queue held waiting={kept} lost={10_000 - kept}>"

        held.open.set()
        assert queue.written().wait(10)

        written = [line for line in held.lines if b"log.dropped" not in line]
        assert [line.split()[0] for line in written] == [b"first", *(b"%d" % nth for nth in range(kept))]
        assert held.counts() == [10_000 - kept]
        assert b"log.dropped" in held.lines[1]  # it is told as soon as lines flow again, not when all are through
        assert repr(queue) == "<Queue held waiting=0 lost=0>"


def test_lines_that_were_written_make_room_for_others(held: Held) -> None:
    held.open.set()
    with queue_before(held) as queue:
        for _ in range(4):
            for _ in range(QUEUE // KIB // 2):
                queue.write(b" " * KIB)
            assert queue.written().wait(10)

    assert len(held.lines) == 2 * QUEUE // KIB
    assert held.counts() == []


def test_a_loss_is_reported_when_lines_flow_again_though_no_other_line_comes(held: Held) -> None:
    held.broken = True
    held.open.set()
    with queue_before(held) as queue:
        for line in (b"one", b"two", b"three"):
            queue.write(line)
        assert queue.written().wait(10)
        assert held.counts() == []

        held.broken = False

        assert held.reported.acquire(timeout=10)
        assert held.counts() == [3]
        assert held.lines[1:] == []


def test_losses_are_reported_once_a_second_at_most(held: Held) -> None:
    held.open.set()
    with queue_before(held) as queue:
        reported = []
        for _ in range(2):
            held.broken = True
            queue.write(b"lost")
            assert queue.written().wait(10)
            held.broken = False
            assert held.reported.acquire(timeout=10)
            reported.append(time.monotonic())

    assert held.counts() == [1, 1]
    assert reported[1] - reported[0] > 0.9


def test_an_output_that_raises_loses_its_lines_and_the_thread_goes_on(held: Held) -> None:
    class Raising(Held):
        def write(self, lines: list[bytes]) -> int:
            if b"bad" in lines:
                raise RuntimeError
            return super().write(lines)

    output = Raising()
    output.open.set()
    with queue_before(output) as queue:
        queue.write(b"bad")
        queue.write(b"bad")
        assert queue.written().wait(10)
        queue.write(b"good")
        assert queue.written().wait(10)

    assert output.counts() == [2]
    assert b"good" in output.lines


def test_a_sink_that_stands_still_costs_the_others_nothing(held: Held) -> None:
    other = Held()
    other.open.set()
    with queue_before(held) as stuck, queue_before(other) as free:
        both = Writer()
        both.sinks[:] = [stuck, free]
        for _ in range(5000):
            both.put(b'{"text":"%b"}' % (b" " * KIB))
        assert free.written().wait(10)

    assert [event["seq"] for event in map(msgspec.json.decode, other.lines)] == list(range(1, 5001))
    assert held.lines == []


def test_a_sink_that_fails_is_told_of_its_own_losses_and_the_other_has_none(held: Held) -> None:
    other = Held()
    held.broken = True
    held.open.set()
    other.open.set()
    with queue_before(held) as failing, queue_before(other) as sound:
        both = Writer()
        both.sinks[:] = [failing, sound]
        for nth in range(100):
            both.put(b'{"nth":%d}' % nth)
        both.flush()
        held.broken = False
        both.flush()

    assert held.counts() == [100]
    assert [msgspec.json.decode(line)["nth"] for line in other.lines] == list(range(100))


def test_a_flush_waits_two_seconds_at_most_for_all_sinks_together(held: Held) -> None:
    second = Held()
    with queue_before(held) as one, queue_before(second) as two:
        both = Writer()
        both.sinks[:] = [one, two]
        both.put(b'{"text":"stuck"}')
        began = time.monotonic()
        both.flush()
        took = time.monotonic() - began
        second.open.set()

    assert 1.9 < took < 3.9  # and not two for each


def test_sinks_that_are_replaced_are_written_out_and_closed(held: Held) -> None:
    held.open.set()
    used = Writer()
    used.use([Queue(held, log_dropped)])
    used.put(b'{"text":"one"}')
    used.use([])

    assert held.closed.wait(10)
    assert [msgspec.json.decode(line)["text"] for line in held.lines] == ["one"]
    used.put(b'{"text":"nowhere"}')
    assert "[]" in repr(used)


def test_a_writer_at_rest_has_let_go_of_its_outputs_and_writes_what_comes_all_the_same(held: Held) -> None:
    held.open.set()
    with queue_before(held) as queue:
        used = Writer()
        used.sinks[:] = [queue]
        used.put(b'{"text":"one"}')
        used.rest()
        assert held.closed.is_set()
        held.closed.clear()

        used.put(b'{"text":"two"}')
        used.flush()

        assert [msgspec.json.decode(line)["text"] for line in held.lines] == ["one", "two"]
        assert not held.closed.is_set()


def test_a_writer_that_has_had_nothing_to_write_is_at_rest_at_once(held: Held) -> None:
    with queue_before(held) as queue:
        used = Writer()
        used.sinks[:] = [queue]
        used.rest()
        held.open.set()
        used.put(b'{"text":"one"}')
        used.flush()

        assert not held.closed.is_set()


def test_an_output_that_cannot_be_made_ready_is_written_to_all_the_same() -> None:
    class Unready(Held):
        def begin(self) -> None:
            raise RuntimeError

    output = Unready()
    output.open.set()
    with queue_before(output) as queue:
        queue.write(b"one")
        assert queue.written().wait(10)

    assert output.lines == [b"one"]


def test_a_signal_handler_may_log_while_its_own_thread_is_logging(held: Held) -> None:
    held.open.set()
    logged = {b"main": 0, b"handler": 0}
    with queue_before(held) as queue:

        def log(name: bytes) -> None:
            logged[name] += 1
            queue.write(name)

        former = signal.signal(signal.SIGALRM, lambda *_: log(b"handler"))
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        try:
            while logged[b"handler"] < 200:
                log(b"main")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        assert queue.written().wait(30)

    lines = [line for line in held.lines if line in logged]
    assert len(lines) + sum(held.counts()) == sum(logged.values())


# A gateway whose log goes nowhere answers as if nothing were.


class Plain(PatientPage):
    @call("items")
    def item(self) -> Request[JSON]:
        return GET("/item")


Broken = Callable[[Path], int]


def _full_pipe(_: Path) -> int:
    _reader, descriptor = os.pipe()  # the reader is open, and never reads
    os.set_blocking(descriptor, False)
    try:
        while True:
            os.write(descriptor, b"x" * KIB)
    except BlockingIOError:
        os.set_blocking(descriptor, True)
    return descriptor


def _full_disk(_: Path) -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _no_reader(_: Path) -> int:
    reader, descriptor = os.pipe()
    os.close(reader)
    return descriptor


def _closed(folder: Path) -> int:
    descriptor = os.open(folder / "closed", os.O_WRONLY | os.O_CREAT)
    os.close(descriptor)
    return 1_000_000 + descriptor  # a number that no file will be given meanwhile


def _read_only(folder: Path) -> int:
    (folder / "read-only").touch()
    return os.open(folder / "read-only", os.O_RDONLY)


@pytest.mark.parametrize("broken", [_full_pipe, _full_disk, _no_reader, _closed, _read_only])
async def test_requests_are_answered_whatever_becomes_of_standard_output(
    broken: Broken, stub: StartStub, client: aiohttp.ClientSession, log: Log, tmp_path: Path
) -> None:
    server = (await stub("items")).on("/item", {"id": 1})
    stdout = Queue(Stream(broken(tmp_path), "stdout"), log_dropped)
    async with gateway([path("", Plain.as_view())], {"items": server}) as base:
        writer.sinks.append(stdout)
        for _ in range(20):
            async with client.get(base) as answer:
                assert answer.status == 200
        writer.sinks.remove(stdout)
    stdout.close()

    assert len(log.events("request.finished", outcome="ok")) == 20


# What only processes can show.


def test_ten_thousand_lines_are_all_there_when_the_process_exits(tmp_path: Path) -> None:
    code, found, complaint = run("for nth in range(10_000): log(nth)\nsys.exit(3)", LOG_DIR=str(tmp_path / "logs"))

    assert (code, complaint) == (3, b"")
    assert numbers(found) == list(range(10_000))
    (file,) = (tmp_path / "logs").iterdir()
    assert numbers(events(file.read_bytes())) == list(range(10_000))


def test_a_process_that_is_killed_loses_no_more_than_its_queue_and_tears_no_earlier_line(tmp_path: Path) -> None:
    program = """
for nth in range(5000): log(nth)
writer.flush()
for nth in range(5000, 6000): log(nth)
os.kill(os.getpid(), 9)
"""
    with start(program, LOG_DIR=str(tmp_path)) as process:
        process.communicate(timeout=60)
    (file,) = tmp_path.glob("*.ndjson")
    found = numbers(events(file.read_bytes().rpartition(b"\n")[0]))

    assert process.returncode == -signal.SIGKILL
    assert found == list(range(len(found)))
    assert len(found) >= 5000


def test_a_reader_that_stands_still_stops_nothing_and_is_told_afterwards_what_it_missed() -> None:
    with start(
        """
for nth in range(40_000): log(nth, "x" * 400)
print("logged", file=sys.stderr, flush=True)
sys.stdin.readline()
"""
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"logged\n"  # while nobody has read a byte
        said, _ = process.communicate(b"\n", timeout=60)
    found = events(said)

    assert lost(found) > 0
    assert len(numbers(found)) + lost(found) == 40_000
    assert numbers(found) == sorted(numbers(found))
    missing = set(range(1, 40_001)) - {event["seq"] for event in found if event["event"] == "request.started"}
    assert len(missing) == lost(found)
    assert {event["event"] for event in found if "seq" not in event} == {"log.dropped"}
    assert {event["service.instance.id"] for event in found} == {f"{os.uname().nodename}-{process.pid}"}


def test_a_process_whose_output_nobody_reads_exits_all_the_same() -> None:
    with start('for nth in range(1000): log(nth, "x" * 400)') as process:
        assert process.wait(timeout=30) == 0


def test_a_process_without_standard_output_logs_to_its_file_alone(tmp_path: Path) -> None:
    shell = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command("log(1)")],
        env={**os.environ, "LOG_DIR": str(tmp_path)},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    (file,) = tmp_path.iterdir()

    assert shell.stderr == b""
    assert numbers(events(file.read_bytes())) == [1]


def test_a_process_whose_standard_output_leads_nowhere_logs_to_its_file_alone(tmp_path: Path) -> None:
    program = "log(1); sys.stderr.write(repr(writer))"
    with start(program, stdout=subprocess.DEVNULL, LOG_DIR=str(tmp_path)) as process:
        _, sinks = process.communicate(timeout=60)
    (file,) = tmp_path.iterdir()

    assert sinks.count(b"<Queue ") == sinks.count(b"<Queue file ") == 1
    assert numbers(events(file.read_bytes())) == [1]


def test_another_device_as_standard_output_is_written_to(tmp_path: Path) -> None:
    program = "log(1); sys.stderr.write(repr(writer))"
    with Path("/dev/zero").open("wb") as device, start(program, stdout=device, LOG_DIR=str(tmp_path)) as process:
        _, sinks = process.communicate(timeout=60)

    assert [sinks.count(b"<Queue stdout "), sinks.count(b"<Queue file ")] == [1, 1]


def test_a_forked_process_writes_its_own_lines_once_and_to_its_own_file(tmp_path: Path) -> None:
    code, found, complaint = run(
        """
for nth in range(1000): log(nth)
child = os.fork()
for nth in range(2000, 2010) if child else range(1000, 2000): log(nth)
if child:
    os.waitpid(child, 0)
else:
    writer.flush()
    os._exit(0)
""",
        LOG_DIR=str(tmp_path),
    )
    by_parent, by_child = sorted(
        (numbers(events(file.read_bytes())) for file in tmp_path.glob("*.ndjson")), key=len, reverse=True
    )

    assert (code, complaint) == (0, b"")
    assert by_parent == [*range(1000), *range(2000, 2010)]
    assert by_child == list(range(1000, 2000))
    assert sorted(numbers(found)) == list(range(2010))


def test_the_first_lines_of_a_forked_process_may_come_from_several_threads(tmp_path: Path) -> None:
    """Its interpreter is made to change threads all the time."""
    code, _, complaint = run(
        """
import sys, threading
log(0)
for nth in range(20):
    writer.flush()
    child = os.fork()
    if not child:
        sys.setswitchinterval(1e-6)
        together = threading.Barrier(8)
        def tell(number):
            together.wait()
            log(number)
        threads = [threading.Thread(target=tell, args=(number,)) for number in range(1, 9)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        writer.flush()
        tidied()
        os._exit(0)
    os.waitpid(child, 0)
tidied()
""",
        LOG_DIR=str(tmp_path),
    )
    files = list(written(tmp_path).values())

    assert (code, complaint) == (0, b"")
    assert sorted(map(len, files)) == [1, *[8] * 20]
    for found in files:
        assert len({event["service.instance.id"] for event in found}) == 1
        assert sorted(event["seq"] for event in found) == list(range(1, len(found) + 1))


def test_nothing_of_ours_runs_in_a_forked_process_until_it_logs() -> None:
    """It may be about to become another program, and a lock of a thread that it has not is held for ever there."""
    code, _, complaint = run("""
called = []
def trace(frame, event, argument):
    called.append(frame.f_code.co_filename)
sys.settrace(trace)
child = os.fork()
sys.settrace(None)
if not child:
    ours = [name for name in called if "/gateway/" in name]
    sys.stderr.write(f"{ours} ")
    os._exit(0)
os.waitpid(child, 0)
""")

    assert (code, complaint) == (0, b"[] ")


def test_what_is_logged_while_the_interpreter_ends_neither_raises_nor_waits() -> None:
    code, _, complaint = run("""
class Last:
    def __del__(self, log=events.client_disconnected, end=lambda error=sys.stderr: error.write("end")):
        log()
        end()
last = Last()
""")

    assert (code, complaint) == (0, b"end")
