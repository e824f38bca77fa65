"""Asking the gateway, and the upstreams behind it as these tests configure them."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiohttp import ClientSession

from upstreams import Retry, Upstream

TWICE = Retry(attempts=2, first_wait=0.0, longest_wait=0.0)
"""Two attempts, one right after the other."""


class Got(NamedTuple):
    """An answer of the gateway, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        return self.json["data"]

    @property
    def errors(self) -> Any:
        return self.json["errors"]


async def ask(client: ClientSession, url: str, method: str = "GET", **options: Any) -> Got:
    """Send one request to the gateway."""
    async with client.request(method, url, **options) as answer:
        return Got(answer.status, answer.headers, await answer.read())


def patient(url: str, **options: Any) -> Upstream:
    """An upstream that is given time, whatever else this machine is doing."""
    return Upstream(url, **{"timeout": 20.0, "retry": TWICE, **options})
