"""The project that is measured: everything on, as it comes."""

from __future__ import annotations

import os

from settings.base import *  # noqa: F403 - what this module is for
from upstreams import Upstream

SECRET_KEY = "bench"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "bench.pages"
UPSTREAMS = dict.fromkeys(("users", "orders", "catalog"), Upstream(os.environ["BENCH_UPSTREAM"]))
