"""Misbehaviour on demand: `X-Demo-Fault: orders:503, reviews:slow=250` breaks this one request at those two services.

A service reads the items that name it, and applies several in their order. A new kind of fault is a row of `FAULTS`.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from demo.services.answers import answer

HEADER = "X-Demo-Fault"
FAILED_ONCE = web.AppKey("FAILED_ONCE", set[str])  # requests whose next attempt succeeds
STANDING = web.AppKey("STANDING", list[str])  # faults of every request, until others are put
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # linger for 0 s: the peer sees a reset, not an end


@dataclass(frozen=True)
class Attempt:
    """A request to be spoiled: what would answer it, and the number that the header gave the fault."""

    request: web.Request
    handler: Handler
    number: int

    async def answered(self) -> web.StreamResponse:
        """The answer as it should be."""
        return await self.handler(self.request)


@dataclass(frozen=True)
class Fault:
    """What to do instead of answering well, and which numbers the header may give it."""

    spoil: Callable[[Attempt], Awaitable[web.StreamResponse]]
    numbers: range = range(1)
    default: int = 0

    def around(self, handler: Handler, number: int) -> Handler:
        """`handler` with this fault before it."""
        return lambda request: self.spoil(Attempt(request, handler, number))


def faults(service: str) -> Middleware:
    """The middleware that lets `service` be broken by header, and for good by `PUT /_faults`."""

    @web.middleware
    async def misbehave(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/_"):
            return await handler(request)
        try:
            wanted = [fault_named(fault) for fault in request.app[STANDING]]
            wanted += wanted_of(service, request.headers.getall(HEADER, []))
        except ValueError as unknown:
            return answer({"error": str(unknown)}, 400)
        for fault, number in reversed(wanted):
            handler = fault.around(handler, number)
        return await handler(request)

    return misbehave


async def put_faults(request: web.Request) -> web.Response:
    """Break every request from now on: `["slow=300", "503"]`; an empty list is the end of it."""
    wanted = msgspec.json.decode(await request.read(), type=list[str])
    try:
        for fault in wanted:
            fault_named(fault)
    except ValueError as unknown:
        return answer({"error": str(unknown)}, 400)
    request.app[STANDING][:] = wanted
    return answer(wanted)


def wanted_of(service: str, headers: list[str]) -> list[tuple[Fault, int]]:
    """The faults that the headers ask of this service. Raises ValueError for one that does not exist."""
    items = [item.partition(":") for header in headers for item in header.split(",")]
    return [fault_named(fault.strip()) for name, _, fault in items if name.strip() == service]


def fault_named(text: str) -> tuple[Fault, int]:
    """`slow`, `slow=250`, or a bare status such as `503`."""
    name, given, digits = ("status", "=", text) if text.isdecimal() else text.partition("=")
    fault = FAULTS.get(name)
    if fault is not None and (digits.isdecimal() or not given):
        number = int(digits or fault.default)
        if number in fault.numbers:
            return fault, number
    raise ValueError(f"no fault {text!r}: there are {', '.join(sorted(FAULTS))}, and any status from 400 to 599")


async def never_answer(_attempt: Attempt) -> web.StreamResponse:
    """Holds the connection until the client leaves, which cancels this."""
    never: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
    return await never


async def answer_late(attempt: Attempt) -> web.StreamResponse:
    """So many milliseconds late."""
    await asyncio.sleep(attempt.number / 1000)
    return await attempt.answered()


async def answer_status(attempt: Attempt) -> web.StreamResponse:
    """An error of that status; nothing is done."""
    headers = {"Retry-After": "1"} if attempt.number == 429 else None
    return answer({"error": f"{attempt.number}, as asked"}, attempt.number, headers)


async def fail_once(attempt: Attempt) -> web.StreamResponse:
    """The first of two attempts is a 503 and does nothing."""
    if first_of_two(attempt.request):
        return await answer_status(replace(attempt, number=503))
    return await attempt.answered()


async def lose_once(attempt: Attempt) -> web.StreamResponse:
    """The first of two attempts is carried out and its answer lost: what idempotency keys are for."""
    answered = await attempt.answered()
    return await reset(attempt) if first_of_two(attempt.request) else answered


async def reset(attempt: Attempt) -> web.StreamResponse:
    """No answer: the connection is reset."""
    transport = transport_of(attempt.request)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    transport.abort()
    return await never_answer(attempt)


async def answer_garbage(attempt: Attempt) -> web.StreamResponse:
    """The first half of the answer, as if it were all."""
    body = await body_of(attempt)
    return web.Response(body=body[: len(body) // 2], content_type="application/json")


async def answer_html(_attempt: Attempt) -> web.StreamResponse:
    """A page for people, with a 200."""
    return web.Response(text="<!doctype html><title>Down for maintenance</title>", content_type="text/html")


async def truncate(attempt: Attempt) -> web.StreamResponse:
    """The first half of the answer, under the length of all of it; then the connection ends."""
    body = await body_of(attempt)
    cut = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await cut.prepare(attempt.request)
    await cut.write(body[: len(body) // 2])
    transport_of(attempt.request).close()
    return await never_answer(attempt)


async def body_of(attempt: Attempt) -> bytes:
    """The body of the answer as it should be; an empty object where there is none."""
    answered = await attempt.answered()
    body = answered.body if isinstance(answered, web.Response) else None
    return body if isinstance(body, bytes) else b"{}"


def first_of_two(request: web.Request) -> bool:
    """Whether this is an odd attempt at the same method and URL."""
    attempted = f"{request.method} {request.path_qs}"
    failed = request.app[FAILED_ONCE]
    failed.symmetric_difference_update({attempted})
    return attempted in failed


def transport_of(request: web.Request) -> asyncio.Transport:
    """The connection; raises as writing to it would when the client has left."""
    if request.transport is None:
        raise ConnectionResetError("the client left first")
    return request.transport


FAULTS = {
    "flaky": Fault(fail_once),
    "garbage": Fault(answer_garbage),
    "html": Fault(answer_html),
    "lost": Fault(lose_once),
    "reset": Fault(reset),
    "slow": Fault(answer_late, numbers=range(60_001), default=400),
    "status": Fault(answer_status, numbers=range(400, 600)),
    "timeout": Fault(never_answer),
    "truncated": Fault(truncate),
}
