"""The project that is measured: everything on, as it comes. Upstreams take turns at the addresses that there are."""

from __future__ import annotations

import itertools
import os

from settings.base import *  # noqa: F403 - what this module is for
from upstreams import Upstream

SECRET_KEY = "bench"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "bench.pages"

_ADDRESSES = itertools.cycle(os.environ["BENCH_UPSTREAM"].split())
UPSTREAMS = {name: Upstream(next(_ADDRESSES)) for name in ("users", "orders", "catalog")}
