"""The servers that are compared, each started as its own users would start it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.comparing.needs import lua_modules
from bench.comparing.upstreams import filled, nginx
from bench.running import ROOT, free_port, running

_PEERS = ROOT / "bench" / "peers"
_KEPT = 600  # seconds an idle connection is kept, everywhere


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server runs: its port, its cores, how many workers, a folder of its own, its upstreams."""

    port: int
    cores: str
    workers: int
    folder: Path
    upstreams: list[str]


@dataclass(frozen=True, slots=True)
class Contender:
    """A server asked for one of its pages. `page` is the path, with `{size}` in it; `shape` is how it has to answer."""

    server: str
    start: Callable[[Place], list[str]] | None
    page: str = "/merged/{size}"
    shape: str = "merged"
    headers: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs: its address, the process that was started, and the folder it logs in, if it does."""

    url: str
    pid: int
    logs: Path | None = None


@contextmanager
def started(contender: Contender, cores: str, folder: Path, upstreams: list[str]) -> Iterator[Server]:
    """Run a contender until the end of the block. One without a command is the upstream itself."""
    if contender.start is None:
        yield Server(upstreams[0], 0)
        return
    folder.mkdir()
    folder.chmod(0o755)
    place = Place(free_port(), cores, contender.workers, folder, upstreams)
    environment = {
        "BENCH_UPSTREAM": " ".join(upstreams),
        "BENCH_PORT": str(place.port),
        "DJANGO_SETTINGS_MODULE": "bench.settings",
        "LOG_DIR": str(folder),
        **contender.environment,
    }
    with running(contender.start(place), **environment) as process:
        yield Server(f"http://127.0.0.1:{place.port}", process.pid, folder if contender.start is _tributary else None)


def _tributary(place: Place) -> list[str]:
    serve = ["manage.py", "serve", "--port", str(place.port), "--workers", str(place.workers)]
    return [*_pinned(place), sys.executable, *serve, "--keep-alive", str(_KEPT)]


def _uvicorn(app: str, lifespan: str = "on") -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        serve = ["uvicorn", app, "--port", str(place.port), "--workers", str(place.workers), "--lifespan", lifespan]
        fast = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        return [*_pinned(place), sys.executable, "-m", *serve, *fast, "--timeout-keep-alive", str(_KEPT)]

    return command


def _fastify(place: Place) -> list[str]:
    return [*_pinned(place), "node", str(_PEERS / "fastify" / "server.js")]


def _lua(place: Place) -> list[str]:
    upstreams = {f"upstream{number}": url.removeprefix("http://") for number, url in enumerate(place.upstreams)}
    configuration = filled(
        _PEERS / "lua" / "nginx.conf",
        modules=lua_modules(),
        workers=str(place.workers),
        folder=str(place.folder),
        port=str(place.port),
        **upstreams,
    )
    (place.folder / "nginx.conf").write_text(configuration)
    return nginx(place.folder, place.cores)


def _pinned(place: Place) -> list[str]:
    return ["taskset", "-c", place.cores]


UPSTREAM = Contender("the upstream itself", None, "/{size}/user.json", "none")
FLOOR = Contender("bare ASGI + aiohttp", _uvicorn("bench.peers.floor:app"))
TRIBUTARY = Contender("Tributary", _tributary)
LUA = Contender("nginx + Lua", _lua)
FASTIFY = Contender("fastify + undici", _fastify, environment={"NODE_ENV": "production"})
STOCK = Contender("stock Django + aiohttp", _uvicorn("bench.peers.stock.asgi:application", "off"))
FASTAPI = Contender("FastAPI + httpx", _uvicorn("bench.peers.fastapi_httpx:app"))
PEERS = (LUA, FASTIFY, STOCK, FASTAPI)
