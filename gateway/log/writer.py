"""The threads that write: before each sink lines wait in a bounded queue, and no request waits for a disk or a pipe.

No sink misses a line because another one is slow. A queue that is full, or an output that fails, loses lines and counts
them; each sink is told of its own losses, once a second, when lines flow again.

Every line is numbered as it is handed over, and the number of the last one is in `tally`: what is missing can be told.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from gateway.log.count import Tally
from gateway.log.observers import observers

_QUEUE_BYTES: Final = 8 * 1024 * 1024
_BATCH_LINES: Final = 128
_GATHERING_TIME: Final = 0.02
_FLUSH_TIME: Final = 2.0
_REPORT_EVERY: Final = 1.0


class Sink(Protocol):
    """Somewhere lines go. Neither waits nor raises."""

    def write(self, line: bytes) -> None:
        """Take a whole line, without its line end."""


class Output(Protocol):
    """Where a queue's lines end up. May wait as long as it must."""

    name: str

    def begin(self) -> None:
        """Make ready: the first lines are about to come."""

    def write(self, lines: list[bytes]) -> int:
        """Write whole lines, each without its line end; returns how many of them are lost."""

    def forget(self) -> None:
        """Let go of what a forked process has of its parent's."""

    def close(self) -> None:
        """Let go of what is open, all that came having been written; a line may come all the same."""


class Writer:
    """Numbers every line and hands it to every sink. Live: prints them.

    The numbers count what this process has logged, from 1, each once. The lines of a thread are in their order; of two
    threads that log at the same moment, the later number may come first.
    """

    def __init__(self) -> None:
        self.sinks: list[Sink] = []
        self.tally = Tally()
        self._forks: list[None] = []
        self._parting = threading.RLock()
        self._begin()
        atexit.register(self.rest)
        # Nothing of Python's runs in the child: it may be about to become another program, and the locks that threads
        # held which it has not are held for ever there. A tracer's is one, such as coverage has.
        os.register_at_fork(after_in_child=partial(self._forks.append, None))

    def _begin(self) -> None:
        instance = json.dumps(f"{os.uname().nodename}-{os.getpid()}").encode()
        self._instance = b',"service.instance.id":%b' % instance
        self._numbered = b'%b,"seq":' % self._instance
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        """Show the sinks."""
        return f"<Writer {self.sinks}>"

    def put(self, line: bytes) -> None:
        """Pass a line, an object of JSON, on with its number; never waits, never raises."""
        if self._forks:
            self._part()
        number = next(self._numbers)
        self.tally.count(number)
        numbered = b"%b%b%d}" % (line[:-1], self._numbered, number)
        for sink in self.sinks:
            sink.write(numbered)

    def sign(self, line: bytes) -> bytes:
        """Return a line that goes to one sink alone, with this process's name and no number: no other would have it."""
        self._part()
        return b"%b%b}" % (line[:-1], self._instance)

    def flush(self) -> None:
        """Wait until what is queued has been written, two seconds at most."""
        _wait(queue.written() for queue in self._queues())

    def rest(self) -> None:
        """Do as `flush` does, and let go of what is open: no more is expected, though what comes is written."""
        _wait(queue.written(rest=True) for queue in self._queues())

    def use(self, sinks: list[Sink]) -> None:
        """Write to these sinks from now on; those used so far are written out and closed."""
        self.rest()
        former = self._queues()
        self.sinks[:] = sinks
        for queue in former:
            queue.close()

    def _queues(self) -> list[Queue]:
        self._part()
        return [sink for sink in self.sinks if isinstance(sink, Queue)]

    def _part(self) -> None:
        """In a process that has been forked, leave to its parent what is the parent's, once."""
        if not self._forks:
            return
        with self._parting:
            if not self._forks:  # another thread has just done it
                return
            self.tally.begin()
            self._begin()
            for sink in self.sinks:
                if isinstance(sink, Queue):
                    sink.forget()
            self._forks.clear()


def _wait(events: Iterable[threading.Event]) -> None:
    """Wait for all of them, two seconds at most."""
    until = time.monotonic() + _FLUSH_TIME
    for event in list(events):
        event.wait(max(0.0, until - time.monotonic()))


class Queue:
    """A sink that may be slow: a bounded queue before an output, and the thread that carries lines across.

    `dropped` renders the report of a loss. Live: prints how much waits and how much was lost.
    """

    def __init__(self, output: Output, dropped: Callable[[int, str], bytes]) -> None:
        self._output = output
        self._dropped = dropped
        self._begin()

    def _begin(self) -> None:
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._reported = 0.0
        # Reentrant: a finalizer or a signal handler may log while its own thread is in the midst of logging.
        self._counting = threading.RLock()
        self._starting = threading.Lock()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._rung = False
        self._flushes: deque[threading.Event] = deque()
        self._resting = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        """Show the queue's length and the lines lost and not yet reported."""
        return f"<Queue {self._output.name} waiting={len(self._lines)} lost={self._lost}>"

    def write(self, line: bytes) -> None:
        """Queue a line, or count it as lost; never waits, never raises."""
        if self._size < _QUEUE_BYTES:
            self._lines.append(line)
            self._size += len(line)
        else:
            self._lose(1)
        if not self._rung:
            self._ring()

    def written(self, *, rest: bool = False) -> threading.Event:
        """Return what will be set when the lines queued so far have been written or lost, and the output is closed."""
        written = threading.Event()
        if self._thread is None:
            written.set()
        else:
            self._resting = self._resting or rest
            self._flushes.append(written)
            self._bell.put(None)
        return written

    def close(self) -> None:
        """End the thread once it has written what is queued; nothing may be written here any more."""
        self._closed = True
        if self._thread is None:
            self._output.close()
        else:
            self._bell.put(None)

    def forget(self) -> None:
        """Leave the parent's lines to the parent; a forked process starts its own thread with its first line."""
        self._output.forget()
        self._begin()

    def _ring(self) -> None:
        """Wake the thread, or start it; one that cannot be started is tried again with the next line."""
        if sys.is_finalizing():
            return  # a thread that is started now would never run, and its starter wait for it
        self._rung = True
        if self._thread is not None or self._start():
            self._bell.put(None)

    def _start(self) -> bool:
        """Start the thread, unless somebody is just doing so: two would write at once. Tells whether it was done."""
        if not self._starting.acquire(blocking=False):
            return False
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=f"log-{self._output.name}", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError:
            self._rung = False
            return False
        finally:
            self._starting.release()
        return True

    def _run(self) -> None:
        with suppress(Exception):  # whatever it is, the thread goes on, and lines may find it mended
            self._output.begin()
        while not self._closed:
            self._gather()
            resting, self._resting = self._resting, False
            flushes = [self._flushes.popleft() for _ in range(len(self._flushes))]
            while batch := self._take():
                self._report(at_once=False)
                self._lose(self._deliver(batch))
            self._report(at_once=bool(flushes) or self._closed)
            if resting:
                self._output.close()
            for written in flushes:
                written.set()
        self._output.close()

    def _gather(self) -> None:
        """Sleep until there is a line, then let more come, unless somebody waits: to be woken for each costs more."""
        with suppress(Empty):
            self._bell.get(timeout=_REPORT_EVERY if self._lost else None)
            if not (self._flushes or self._closed):
                self._bell.get(timeout=_GATHERING_TIME)
        self._rung = False

    def _take(self) -> list[bytes]:
        """Take some lines off the queue.

        The size is kept without a lock: where threads log at once it may be a little off, until the queue is empty.
        """
        batch = [self._lines.popleft() for _ in range(min(len(self._lines), _BATCH_LINES))]
        self._size = self._size - sum(map(len, batch)) if self._lines else 0
        return batch

    def _deliver(self, lines: list[bytes]) -> int:
        try:
            return self._output.write(lines)
        except Exception:  # noqa: BLE001 - whatever it is, the thread goes on
            return len(lines)

    def _report(self, *, at_once: bool) -> None:
        """Log how many lines were lost, if any were; the count stands until that line itself has been written."""
        now = time.monotonic()
        if not self._lost or (now - self._reported < _REPORT_EVERY and not at_once):
            return
        self._reported = now
        count = self._lost
        if not self._deliver([self._dropped(count, self._output.name)]):
            self._lose(-count)

    def _lose(self, count: int) -> None:
        with self._counting:
            self._lost += count
        if count > 0 and observers.all:  # each loss once: the line that reports it may be tried again
            observers.tell("log.dropped", {"count": count, "sink": self._output.name})
