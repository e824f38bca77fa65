"""A production machine: everything that matters is in the environment, and missing things stop the start."""

from __future__ import annotations

from settings import env
from settings.base import *
from settings.upstreams import shop

DEBUG = False
SECRET_KEY = env.secret("SECRET_KEY")
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS")
ROOT_URLCONF = env.module("ROOT_URLCONF", "demo.urls")
UPSTREAMS = shop(lambda name: env.urls(f"{name.upper()}_URL"))

SECURE_SSL_REDIRECT = env.flag("SECURE_SSL_REDIRECT", default=True)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.flag("BEHIND_TLS_PROXY", default=False) else None
SECURE_HSTS_SECONDS = int(env.number("SECURE_HSTS_SECONDS", 31_536_000))
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
