"""The test suite: no upstreams but those a test starts, nothing from the environment that could differ."""

from __future__ import annotations

from settings.base import *
from upstreams import Upstream

DEBUG = False
SECRET_KEY = "tests"  # noqa: S105
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.urls"
UPSTREAMS: dict[str, Upstream] = {}
LOGGING = {"level": "info", "steps": "all", "dir": None}
GATEWAY_ADMISSION_WAIT = 60.0  # seconds: however busy the machine is, no test is about it but those that say so
