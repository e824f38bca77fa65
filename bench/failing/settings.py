"""The project whose upstreams fail: everything on, as it comes, but for what is compared."""

from __future__ import annotations

import dataclasses
import os

from settings.base import *  # noqa: F403 - what this module is for
from upstreams import Hedge, Upstream

SECRET_KEY = "bench"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "bench.failing.pages"

_ONE, _TWO, _THREE, _FOUR, _FIVE = map(Upstream, os.environ["BENCH_SERVICES"].split())
UPSTREAMS = {
    "one": _ONE,
    "two": _TWO,
    "three": _THREE,
    "four": _FOUR,
    "five": _FIVE,
    "one-once": dataclasses.replace(_ONE, retry=None),
    "two-once": dataclasses.replace(_TWO, retry=None),
    "three-once": dataclasses.replace(_THREE, retry=None),
    "two-hedged": dataclasses.replace(_TWO, hedge=Hedge()),
}
