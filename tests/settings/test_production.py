"""Production settings: complete and clean, or a start that is refused by the name of the variable."""

from __future__ import annotations

import importlib
import secrets
import subprocess
import sys
from types import ModuleType

import pytest

from settings.env import EnvironmentFault
from tests.program import ROOT

SERVICES = ("USERS", "ORDERS", "CATALOG", "REVIEWS", "RECOMMENDATIONS")
COMPLETE = {
    "SECRET_KEY": secrets.token_urlsafe(50),
    "ALLOWED_HOSTS": "shop.example.com, www.example.com",
    **{f"{service}_URL": f"https://{service.lower()}.example.com" for service in SERVICES},
}
OPTIONAL = {
    "ROOT_URLCONF": ("gateway.urls", "no.such.module"),
    "SECURE_SSL_REDIRECT": ("no", "perhaps"),
    "BEHIND_TLS_PROXY": ("yes", "perhaps"),
    "SECURE_HSTS_SECONDS": ("3600", "an hour"),
    "GATEWAY_SERVER_TIMING": ("on", "perhaps"),
    "LOG_LEVEL": ("warning", "loud"),
    "LOG_STEPS": ("problems", "some"),
    "LOG_DIR": (str(ROOT), "/dev/null/logs"),
    "LOG_FILE_BYTES": ("1e6", "65535"),
    "LOG_KEEP_DAYS": ("0.5", "-1"),
    "LOG_KEEP_BYTES": ("1000000000", "1 GB"),
}


@pytest.fixture(autouse=True)
def only_these_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*COMPLETE, *OPTIONAL):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


def read() -> ModuleType:
    """Read the settings as a starting process does."""
    for name in ("settings.production", "settings.base"):
        sys.modules.pop(name, None)
    return importlib.import_module("settings.production")


def test_with_every_variable_set_the_deployment_check_is_clean() -> None:
    checked = subprocess.run(
        [sys.executable, "-B", "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={**COMPLETE, "DJANGO_SETTINGS_MODULE": "settings.production"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout == "System check identified no issues (0 silenced).\n"


def test_a_missing_variable_stops_the_start_with_its_name_alone() -> None:
    started = subprocess.run(
        [sys.executable, "-B", "manage.py", "serve"],
        cwd=ROOT,
        env={**COMPLETE, "ORDERS_URL": "", "DJANGO_SETTINGS_MODULE": "settings.production"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (started.returncode, started.stdout) == (1, "")
    assert started.stderr == "environment variable ORDERS_URL is not set\n"


def test_the_variables_are_what_the_settings_are_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**COMPLETE, **{name: good for name, (good, _) in OPTIONAL.items()}}.items():
        monkeypatch.setenv(name, value)
    production = read()

    assert COMPLETE["SECRET_KEY"] == production.SECRET_KEY
    assert production.ALLOWED_HOSTS == ["shop.example.com", "www.example.com"]
    assert {name: upstream.urls for name, upstream in production.UPSTREAMS.items()} == {
        service.lower(): (COMPLETE[f"{service}_URL"],) for service in SERVICES
    }
    assert (production.DEBUG, production.SECURE_SSL_REDIRECT, production.SECURE_HSTS_SECONDS) == (False, False, 3600)
    assert production.SECURE_PROXY_SSL_HEADER == ("HTTP_X_FORWARDED_PROTO", "https")
    assert {
        "level": "warning",
        "steps": "problems",
        "dir": str(ROOT),
        "file_bytes": 1_000_000,
        "keep_days": 0.5,
        "keep_bytes": 1_000_000_000,
    } == production.LOGGING
    assert (production.ROOT_URLCONF, production.GATEWAY_SERVER_TIMING) == ("gateway.urls", True)


@pytest.mark.parametrize("missing", COMPLETE)
def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name, value in COMPLETE.items():
        if name != missing:
            monkeypatch.setenv(name, value)
    with pytest.raises(EnvironmentFault) as fault:
        read()

    assert fault.value.code == f"environment variable {missing} is not set"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, bad) for name, (_, bad) in OPTIONAL.items()),
        *((f"{service}_URL", "ftp://elsewhere") for service in SERVICES),
        ("ALLOWED_HOSTS", ","),
        ("SECRET_KEY_FILE", "/no/such/file"),
    ],
)
def test_a_malformed_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    for set_name, set_value in {**COMPLETE, name: value}.items():
        monkeypatch.setenv(set_name, set_value)
    with pytest.raises(EnvironmentFault) as fault:
        read()

    assert str(fault.value.code).startswith(f"environment variable {name} ")
