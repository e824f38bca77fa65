"""The upstream that is measured against: answers after as many milliseconds as it is told. Prints its address."""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import web


async def item(request: web.Request) -> web.Response:
    """Answer one row."""
    await asyncio.sleep(int(request.query.get("ms", 0)) / 1000)
    return web.json_response({"id": int(request.match_info["id"]), "text": "x" * 1500})


async def rows(request: web.Request) -> web.Response:
    """Answer a list whose keys repeat."""
    await asyncio.sleep(int(request.query.get("ms", 0)) / 1000)
    count, distinct = int(request.match_info["count"]), int(request.query["distinct"])
    return web.json_response([{"id": index % distinct} for index in range(count)])


async def bulk(request: web.Request) -> web.Response:
    """Answer the rows that are asked for."""
    await asyncio.sleep(int(request.query.get("ms", 0)) / 1000)
    return web.json_response([{"id": int(value)} for value in request.query.getall("id")])


async def main() -> None:
    """Serve until told to stop."""
    app = web.Application()
    app.add_routes([web.get("/item/{id}", item), web.get("/list/{count}", rows), web.get("/bulk", bulk)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
