"""Upstreams that fail as they are told: each a port with knobs, its luck and its counts, set and read on another port.

    python -m bench.failing.services 5

Prints one line of JSON, the address of the control and those of the services. `PUT /<n>` on the control sets the knobs
of the n-th service, `GET /` answers how many requests each has had.
"""

from __future__ import annotations

import asyncio
import random
import sys

import msgspec
import uvloop
from aiohttp import web

_ANSWER = b'{"id":1,"text":"' + b"x" * 1500 + b'"}'
_LARGE = b'{"id":1,"text":"' + b"x" * 150_000 + b'"}'


class Knobs(msgspec.Struct):
    """How a service behaves: the share of requests it fails with 503, its latency in seconds, and its tail.

    A share `tail` of the answers takes `factor` times as long.
    """

    failures: float = 0.0
    latency: float = 0.01
    tail: float = 0.0
    factor: float = 10.0


class Addresses(msgspec.Struct):
    """Where to find the control and the services."""

    control: str
    services: list[str]


class Service:
    """One upstream. Its luck is its own, and the same in every run, in the order in which it is asked."""

    def __init__(self, number: int) -> None:
        self.knobs = Knobs()
        self.requests = 0
        self._chance = random.Random(number)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one request, with a hundred times as much at `/large`."""
        self.requests += 1
        knobs = self.knobs
        fails, is_slow = self._chance.random() < knobs.failures, self._chance.random() < knobs.tail
        await asyncio.sleep(knobs.latency * (knobs.factor if is_slow else 1.0))
        body = _LARGE if request.path == "/large" else _ANSWER
        return web.Response(status=503 if fails else 200, body=body, content_type="application/json")


class Control:
    """Sets and tells."""

    def __init__(self, services: list[Service]) -> None:
        self._services = services

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Set the knobs of the service that the path names; answer how many requests each has had."""
        if request.method == "PUT":
            knobs = msgspec.json.decode(await request.read(), type=Knobs)
            self._services[int(request.path.removeprefix("/"))].knobs = knobs
        return web.json_response([service.requests for service in self._services])


async def main(count: int) -> None:
    """Serve until told to stop."""
    services = [Service(number) for number in range(count)]
    handlers = [Control(services).answer, *(service.answer for service in services)]
    runners = [web.ServerRunner(web.Server(handler)) for handler in handlers]
    for runner in runners:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
    control, *others = [f"http://127.0.0.1:{runner.addresses[0][1]}" for runner in runners]
    print(msgspec.json.encode(Addresses(control, others)).decode(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
