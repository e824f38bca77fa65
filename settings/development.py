"""A developer's machine: the shop's pages over services on this machine, errors with their traceback in the log."""

from __future__ import annotations

from settings import env
from settings.base import *
from settings.upstreams import shop

DEBUG = True
SECRET_KEY = "development-only-and-guards-nothing"  # noqa: S105
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
ROOT_URLCONF = "demo.urls"
GATEWAY_SERVER_TIMING = True

_PORTS = {"users": 9101, "orders": 9102, "catalog": 9103, "reviews": 9104, "recommendations": 9105}
UPSTREAMS = shop(lambda name: env.urls(f"{name.upper()}_URL", f"http://127.0.0.1:{_PORTS[name]}"))
