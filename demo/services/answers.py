"""HTTP in and out, alike in every service: JSON answers, questions checked by type, refusals as `{"error": ...}`."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

MOST_IDS = 50
JSON = msgspec.json.Encoder(decimal_format="number")  # money keeps its digits: 310.10, not "310.10" nor 310.1

Key = TypeVar("Key")
Shape = TypeVar("Shape")
Thing = TypeVar("Thing")


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`value` as JSON."""
    return web.Response(body=JSON.encode(value), status=status, headers=headers, content_type="application/json")


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What cannot be answered is said in JSON: a bad question is a 400, the rest is as raised."""
    try:
        return await handler(request)
    except msgspec.MsgspecError as fault:
        return answer({"error": str(fault)}, 400)
    except web.HTTPException as refusal:
        kept = {name: value for name, value in refusal.headers.items() if name != hdrs.CONTENT_TYPE}
        return answer({"error": refusal.text}, refusal.status, kept)


def found(things: Mapping[Key, Thing], key: Key) -> Thing:
    """The thing of that key, or a 404."""
    if key not in things:
        raise web.HTTPNotFound(text=f"{key} is not known here")
    return things[key]


def question(request: web.Request, shape: type[Shape]) -> Shape:
    """The query string as a Struct; what does not fit it is a 400."""
    return msgspec.convert(dict(request.query), shape, strict=False)


def asked_ids(request: web.Request, kind: type[Key]) -> list[Key]:
    """The distinct values of `?id=1&id=2`, at most `MOST_IDS` of them as asked."""
    values = request.query.getall("id", [])
    if not 1 <= len(values) <= MOST_IDS:
        raise web.HTTPBadRequest(text=f"ask for 1 to {MOST_IDS} ids, not {len(values)}")
    return list(dict.fromkeys(msgspec.convert(value, kind, strict=False) for value in values))
