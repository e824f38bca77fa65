"""The works that servers are compared at: some for every day, and all of them."""

from __future__ import annotations

from dataclasses import replace

from bench.comparing.measuring import Work
from bench.comparing.servers import FASTIFY, FLOOR, LUA, PEERS, STOCK, TRIBUTARY, UPSTREAM

TYPED = replace(TRIBUTARY, server="Tributary, typed", page="/typed/{size}")
_PROJECTED = replace(TRIBUTARY, server="Tributary, projected", page="/projected/{size}", shape="projected")
_DECODED = replace(TRIBUTARY, server="Tributary, decoded", page="/decoded/{size}")
SHARED = replace(TRIBUTARY, server="Tributary, coalesced", page="/coalesced/{size}")
_LINES = replace(TRIBUTARY, server="Tributary, JSON lines", shape="streamed", headers={"Accept": "application/jsonl"})
_EVENTS = replace(TRIBUTARY, server="Tributary, events", shape="streamed", headers={"Accept": "text/event-stream"})
_PROBLEMS = replace(TRIBUTARY, server="Tributary, log of problems", environment={"LOG_STEPS": "problems"})
_SILENT = replace(TRIBUTARY, server="Tributary, log off", environment={"LOG_DIR": "", "LOG_LEVEL": "critical"})
_PAIR = (FLOOR, TRIBUTARY)
_EVERYBODY = (FLOOR, TRIBUTARY, TYPED, *PEERS)

# Few connections: the end of a round cuts off what is under way, which of a slow server's answers would be many. Short
# rounds, and more of them: a shared machine is fast and slow by turns, and each ratio is of one round.
MERGED = (
    Work("5 KB merged", _EVERYBODY, size="5k", rounds=6, seconds=1),
    Work("30 KB merged", _EVERYBODY, size="30k", rounds=6, seconds=1),
    Work("270 KB merged", _EVERYBODY, size="270k", connections=4, rounds=6, seconds=1),
)
LATENCY = Work(
    "one client, three upstreams of 20 ms",
    (UPSTREAM, *_PAIR, LUA, FASTIFY),
    upstream_ms=20,
    connections=1,
    seconds=4,
)
COALESCED = Work("64 clients, one page", (FLOOR, TRIBUTARY, SHARED), upstream_ms=20, connections=64, rounds=5)
TWO = replace(TRIBUTARY, server="Tributary, 2 workers", workers=2)
WORKERS = Work(
    "workers",
    (*_PAIR, replace(FLOOR, server=f"{FLOOR.server}, 2 workers", workers=2), TWO),
    connections=64,
    rounds=5,
)
SHORT = (*MERGED, LATENCY, COALESCED, WORKERS)


def _wide(width: int) -> Work:
    contenders = (replace(one, page="/wide/{width}/{size}", shape="wide") for one in (*_PAIR, *PEERS))
    return Work(f"fan-out of {width}", tuple(contenders), width=width, seconds=3)


WIDE = tuple(_wide(width) for width in (1, 3, 10, 32))
LARGE = Work("3 MB merged", _EVERYBODY, size="3m", connections=2, seconds=6)
READ = tuple(
    Work(f"{size} read", (*_PAIR, TYPED, _PROJECTED, _DECODED), size=size, connections=connections)
    for size, connections in (("5k", 8), ("30k", 8), ("270k", 4))
)
SLOW = tuple(
    Work(f"upstreams of {ms} ms", (*_PAIR, LUA, FASTIFY, STOCK), upstream_ms=ms, connections=64, seconds=4)
    for ms in (0, 20, 200)
)
STREAMED = tuple(
    Work(f"{size} streamed", (*_PAIR, _LINES, _EVENTS), size=size, connections=connections)
    for size, connections in (("5k", 8), ("270k", 4))
)
LOG = Work("log", (*_PAIR, _PROBLEMS, _SILENT), rounds=5, seconds=3)
CLIENTS = tuple(
    Work(f"{clients} clients", (*_PAIR, LUA, FASTIFY), connections=clients, seconds=seconds)
    for clients, seconds in ((1, 4), (8, 4), (64, 4), (256, 4), (1000, 8), (2000, 8))
)
FULL = (
    *(replace(work, rounds=8, seconds=2) for work in MERGED),
    LARGE,
    *WIDE,
    *READ,
    *SLOW,
    replace(LATENCY, contenders=(UPSTREAM, *_PAIR, *PEERS), rounds=4, seconds=5),
    replace(COALESCED, rounds=8, seconds=3),
    *STREAMED,
    LOG,
    replace(WORKERS, rounds=8, seconds=3),
    *CLIENTS,
)
# Each has had one answer, of one call: with three, the slow servers would take minutes.
IDLE = replace(_wide(1), name="10000 idle connections", connections=10_000)
