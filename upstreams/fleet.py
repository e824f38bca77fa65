"""Every client of this process, opened together and closed together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from upstreams.breaker import Forced
from upstreams.call import Call
from upstreams.client import Client
from upstreams.connections import open_connector
from upstreams.journal import Journal
from upstreams.outcome import Outcome
from upstreams.upstream import Upstream, check_table


class Sender(Protocol):
    """What a page needs of a fleet: one call sent to a named upstream, one outcome back."""

    def send(self, upstream: str, call: Call) -> Coroutine[Any, Any, Outcome]:
        """Make the call; awaiting it raises nothing but cancellation."""


class Fleet:
    """The clients by upstream name."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self._clients = clients

    def __repr__(self) -> str:
        """Show every client's live state."""
        return f"<Fleet {' '.join(map(repr, self._clients.values()))}>"

    def send(self, upstream: str, call: Call) -> Coroutine[Any, Any, Outcome]:
        """Make a call to a named upstream; KeyError is a page naming one that the start-up checks did not see."""
        return self._clients[upstream].send(call)

    def force(self, upstream: str, state: Forced | None, reason: str, time: float | None = None) -> None:
        """Hold an upstream's breaker open or closed, or (None) let it decide again; a name that is not here is ignored.

        `reason` and `time` (seconds) are for the journal.
        """
        if (client := self._clients.get(upstream)) is not None:
            client.guards.breaker.force(state, reason, time)


@asynccontextmanager
async def open_fleet(
    table: Mapping[str, Upstream], journal: Journal, *, via: str = "tributary"
) -> AsyncIterator[Fleet]:
    """Open one connector per upstream in the running loop, and close them at the end.

    Raises UpstreamTableError, before anything is opened, when the table cannot be used. `via` names this gateway to
    the upstreams.
    """
    upstreams = check_table(table)
    async with AsyncExitStack() as stack:
        clients = {}
        for name, upstream in upstreams.items():
            client = Client(name, upstream, open_connector(upstream), journal, via)
            stack.push_async_callback(client.close)
            clients[name] = client
        yield Fleet(clients)
