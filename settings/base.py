"""What is true everywhere."""

from __future__ import annotations

from typing import Any

from settings import env

INSTALLED_APPS = ["gateway"]

# Ordinary views, WSGI and Django's test clients go through these ...
MIDDLEWARE = [
    "gateway.middleware.Edge",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
# ... and pages, under the ASGI application, through native async middleware only.
PAGE_MIDDLEWARE = ["gateway.middleware.Edge"]
CSRF_FAILURE_VIEW = "gateway.answering.problems.csrf_failure"

ROOT_URLCONF = "gateway.urls"
ASGI_APPLICATION = "gateway.asgi.application"
WSGI_APPLICATION = "gateway.wsgi.application"

DATABASES: dict[str, Any] = {}
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_CHARSET = "utf-8"

GATEWAY_NAME = env.text("GATEWAY_NAME", "tributary")
GATEWAY_SERVER_TIMING = env.flag("GATEWAY_SERVER_TIMING", default=False)
GATEWAY_METRICS = env.flag("GATEWAY_METRICS", default=False)
GATEWAY_METRICS_TOKEN = env.secret("GATEWAY_METRICS_TOKEN", "")
GATEWAY_OTLP_ENDPOINT = env.text("GATEWAY_OTLP_ENDPOINT", "")
GATEWAY_CONTROL_DIR = env.folder("GATEWAY_CONTROL_DIR")
OPS_TOKEN = env.secret("OPS_TOKEN", "")

LOGGING_CONFIG = "gateway.log.configure"
LOGGING = {
    "level": env.choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error", "critical")),
    "steps": env.choice("LOG_STEPS", "all", ("all", "problems")),
    "dir": env.folder("LOG_DIR"),
    "file_bytes": int(env.number("LOG_FILE_BYTES", 128 * 1024 * 1024, least=64 * 1024)),
    "keep_days": env.number("LOG_KEEP_DAYS", 14, most=36525),
    "keep_bytes": int(env.number("LOG_KEEP_BYTES", 4 * 1024 * 1024 * 1024, least=64 * 1024)),
}
