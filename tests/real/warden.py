"""Runs one server for exactly as long as whoever asked for it lives: `python warden.py PROGRAM ARGUMENT...`.

Standard input is a pipe whose other end the asker holds. It ends when the asker closes it and when the asker dies, were
it by SIGKILL; then the server is stopped, with all it started. The exit status is the server's.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

STOP_WITHIN = 2.0
"""Seconds a server has to leave after SIGTERM; then it is killed."""


def main(command: Sequence[str]) -> int:
    """Run the command until it exits or standard input ends; give its exit status."""
    # So that asking the warden to leave is as good as ending its input.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # The server holds the other end of this pipe, which therefore ends when the server does: one wait for both ends.
    alive, held = os.pipe()
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[held])
    os.close(held)
    try:
        select.select([sys.stdin.fileno(), alive], [], [])
    finally:
        stop(server)
    return server.returncode


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and its process group."""
    end_group(server.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        server.wait(STOP_WITHIN)
    end_group(server.pid, signal.SIGKILL)
    server.wait()


def end_group(leader: int, number: signal.Signals) -> None:
    """Signal every process of the group that is still there."""
    with suppress(ProcessLookupError):
        os.killpg(leader, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
