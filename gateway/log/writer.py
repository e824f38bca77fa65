"""The thread that writes: lines wait in a bounded queue, and whatever the disk or the pipe does, no request does.

A queue that is full, or a sink that fails, loses lines and counts them; the count is logged once lines flow again.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol

_QUEUE_LINES: Final = 10_000
_BATCH_BYTES: Final = 64 * 1024
_FLUSH_TIME: Final = 2.0
_REPORT_EVERY: Final = 1.0


class Sink(Protocol):
    """Somewhere lines go. May raise OSError; the lines are then counted as dropped."""

    def write(self, lines: list[bytes]) -> None:
        """Write whole lines, each without its line end."""


class FileSink:
    """A file descriptor; lines that cannot be written at once are written in pieces, never mixed."""

    def __init__(self, descriptor: int, render: Callable[[bytes], bytes] | None = None) -> None:
        self._descriptor = descriptor
        self._render = render

    def write(self, lines: list[bytes]) -> None:
        """Write lines, rendered for people where a terminal shows them."""
        if self._render is not None:
            lines = [self._render(line) for line in lines]
        data = memoryview(b"\n".join(lines) + b"\n")
        while data:
            data = data[os.write(self._descriptor, data) :]


class Writer:
    """A bounded queue and its thread. Live: prints how much waits and how much was lost."""

    def __init__(self, dropped: Callable[[int], bytes]) -> None:
        self.sinks: list[Sink] = []
        self._dropped = dropped
        self._lost = 0
        self._reported = 0.0
        self._queue: deque[bytes] = deque()
        self._some = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None
        atexit.register(self.flush)
        os.register_at_fork(after_in_child=self._forked)

    def __repr__(self) -> str:
        """Show the queue's length and the lines lost and not yet reported."""
        return f"<Writer waiting={len(self._queue)} lost={self._lost}>"

    def put(self, line: bytes) -> None:
        """Queue a line; never waits, never raises."""
        if len(self._queue) >= _QUEUE_LINES:
            self._lost += 1
            return
        self._queue.append(line)
        if not self._some.is_set():
            self._idle.clear()
            self._some.set()
            if self._thread is None:
                self._start()

    def flush(self) -> None:
        """Wait until what is queued has been written, two seconds at most."""
        if self._thread is not None and self._thread.is_alive():
            self._idle.wait(_FLUSH_TIME)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def _forked(self) -> None:
        """Leave the parent's lines to the parent; the child's thread starts with its first line."""
        self._queue.clear()
        self._some, self._idle = threading.Event(), threading.Event()
        self._idle.set()
        self._thread = None

    def _run(self) -> None:
        while True:
            self._some.wait()
            self._some.clear()
            for batch in self._batches():
                self._write(batch)
            if not self._some.is_set():
                self._idle.set()

    def _batches(self) -> Iterator[list[bytes]]:
        """Take lines off the queue, up to 64 KiB at a time, until it is empty."""
        batch: list[bytes] = []
        size = 0
        while self._queue:
            line = self._queue.popleft()
            batch.append(line)
            size += len(line)
            if size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _write(self, batch: list[bytes]) -> None:
        now = time.monotonic()
        if self._lost and now - self._reported >= _REPORT_EVERY:
            batch = [*batch, self._dropped(self._lost)]
            self._lost, self._reported = 0, now
        for sink in self.sinks:
            try:
                sink.write(batch)
            except OSError:
                self._lost += len(batch)
