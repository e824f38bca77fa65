"""`python -m demo.incident`: an incident by the minute, to find it again in the log.

The shop with three hosts for its catalog, and visitors. After a while one of the hosts turns slow and answers 503;
later it recovers. What was seen stays in the log's folder, and what to ask of it is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Final

import aiohttp

from demo.__main__ import HOST, SERVICES, address, free_port, process, wait_for

HOSTS: Final = 3
#: What the host does from the one minute to the other, in the words of the services' own faults.
FAULTS: Final = ("slow=300", "503")
PATHS: Final = ("/demo/product/D-00358", "/demo/orders/7?limit=2", "/demo/home/7")

FOUND: Final = """
From {begin} to {end} the catalog's host {host} was slow and answered 503.
The log is in {logs}/. Ask it, as if nobody had told you:

  python manage.py logs stats --dir {logs} --by upstream
  python manage.py logs compare --dir {logs} --bad {begin}..{end}
  python manage.py logs stats --dir {logs} --by host -f upstream=catalog
"""


def main() -> None:
    """Play the incident, and say what to ask."""
    asked = _arguments()
    logs = os.environ.get("LOG_DIR") or "logs"
    port = free_port()
    with ExitStack() as running:
        hosts = {name: [None] * (HOSTS if name == "catalog" else 1) for name in SERVICES}
        urls = {
            name: [address(name, running.enter_context(process("-m", "demo.services", name, says=True))) for _ in each]
            for name, each in hosts.items()
        }
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "settings.demo", "LOG_DIR": logs}
        environment |= {f"{name.upper()}_URL": ",".join(addresses) for name, addresses in urls.items()}
        serve = ("manage.py", "serve", "--port", str(port), "--workers", str(asked.workers))
        wait_for(port, running.enter_context(process(*serve, environment=environment)))
        begin, end = asyncio.run(_played(asked, f"http://{HOST}:{port}", urls["catalog"][0]))
    print(FOUND.format(begin=begin, end=end, host=urls["catalog"][0].removeprefix("http://"), logs=logs.rstrip("/")))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.incident", description="Play an incident into the log.")
    parser.add_argument("--before", type=float, default=60.0, metavar="S", help="seconds of calm (default: 60)")
    parser.add_argument("--bad", type=float, default=60.0, metavar="S", help="seconds of trouble (default: 60)")
    parser.add_argument("--after", type=float, default=20.0, metavar="S", help="seconds of calm again (default: 20)")
    parser.add_argument("--rate", type=float, default=20.0, metavar="N", help="pages a second (default: 20)")
    parser.add_argument("--workers", type=int, default=1, help="the gateway's worker processes (default: 1)")
    return parser.parse_args()


async def _played(asked: argparse.Namespace, gateway: str, host: str) -> tuple[str, str]:
    """Let visitors come while the host is well, ill and well; returns when it was ill."""
    # Each comes on a connection of its own, as visitors do: so workers share them.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        visitors = asyncio.create_task(_visit(session, gateway, asked.rate))
        await _pass("All is well", asked.before)
        await _make(session, host, FAULTS)
        begin = _now()
        await _pass(f"{host} is slow and answers 503", asked.bad)
        await _make(session, host, ())
        end = _now()
        await _pass("It is well again", asked.after)
        visitors.cancel()
        await asyncio.wait([visitors])
    return begin, end


async def _pass(what: str, seconds: float) -> None:
    """Say what is going on for how long, and wait."""
    print(f"{datetime.now().astimezone():%H:%M:%S}  {what}, for {seconds:.0f} s", flush=True)
    await asyncio.sleep(seconds)


async def _visit(session: aiohttp.ClientSession, gateway: str, rate: float) -> None:
    """Ask for one page after the other, whether or not the former has been answered; ends by being cancelled."""
    asking: set[asyncio.Task[None]] = set()
    try:
        for path in itertools.cycle(PATHS):
            task = asyncio.create_task(_ask(session, gateway + path))
            asking.add(task)
            task.add_done_callback(asking.discard)
            await asyncio.sleep(1 / rate)
    finally:
        if asking:
            await asyncio.wait(asking)


async def _ask(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(url) as answer:
        await answer.read()


async def _make(session: aiohttp.ClientSession, host: str, faults: Sequence[str]) -> None:
    """Give a host of the demo's a standing fault, or none."""
    async with session.put(f"{host}/_faults", json=list(faults)) as answer:
        answer.raise_for_status()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


if __name__ == "__main__":
    main()
