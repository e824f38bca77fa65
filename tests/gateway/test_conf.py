"""The gateway's settings: right, or refused in a sentence that names the setting."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from gateway.conf import Conf, conf
from upstreams import Upstream

SETTINGS = (
    "UPSTREAMS",
    "GATEWAY_NAME",
    "GATEWAY_SERVER_TIMING",
    "GATEWAY_DEADLINE_HEADER",
    "GATEWAY_ADMISSION_WAIT",
    "GATEWAY_METRICS",
    "GATEWAY_METRICS_TOKEN",
    "GATEWAY_OTLP_ENDPOINT",
    "GATEWAY_CONTROL_DIR",
    "OPS_TOKEN",
    "PAGE_MIDDLEWARE",
)


def by_default() -> Conf:
    """Return the settings of a project that has none of its own; nobody after this sees them."""
    with override_settings():
        for name in SETTINGS:
            if hasattr(settings, name):
                delattr(settings, name)
        conf.cache_clear()
        try:
            return conf()
        finally:
            conf.cache_clear()


def test_without_settings_of_its_own_a_project_has_good_ones() -> None:
    assert by_default() == Conf(
        upstreams={},
        name="tributary",
        server_timing=False,
        page_middleware=("gateway.middleware.Edge",),
        deadline_header="x-request-timeout-ms",
        admission_wait=0.5,
        metrics=False,
        metrics_token=None,
        otlp_endpoint=None,
        log_dir=None,
        control_dir=None,
        ops_token=None,
    )


def test_settings_are_read_again_after_a_test_has_overridden_them() -> None:
    before = conf().name
    with override_settings(GATEWAY_NAME="edge-1"):
        inside = conf().name

    assert (inside, conf().name) == ("edge-1", before)


@pytest.mark.parametrize("name", ["edge", "a", "edge-1.prod_eu", "x" * 64])
def test_a_name_that_fits_into_headers_is_taken(name: str) -> None:
    with override_settings(GATEWAY_NAME=name):
        assert conf().name == name


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"GATEWAY_NAME": ""}, "GATEWAY_NAME must be letters"),
    ({"GATEWAY_NAME": "1st"}, "GATEWAY_NAME must be letters"),
    ({"GATEWAY_NAME": "two words"}, "GATEWAY_NAME must be letters"),
    ({"GATEWAY_NAME": "a\r\nb"}, "GATEWAY_NAME must be letters"),
    ({"GATEWAY_NAME": "x" * 65}, "GATEWAY_NAME must be letters"),
    ({"GATEWAY_NAME": None}, "GATEWAY_NAME must be letters"),
    ({"PAGE_MIDDLEWARE": "gateway.middleware.Edge"}, "PAGE_MIDDLEWARE must be a list of dotted paths"),
    ({"PAGE_MIDDLEWARE": [object]}, "PAGE_MIDDLEWARE must be a list of dotted paths"),
    ({"PAGE_MIDDLEWARE": None}, "PAGE_MIDDLEWARE must be a list of dotted paths"),
    ({"GATEWAY_DEADLINE_HEADER": "two words"}, "GATEWAY_DEADLINE_HEADER must be the name of a header"),
    ({"GATEWAY_DEADLINE_HEADER": None}, "GATEWAY_DEADLINE_HEADER must be the name of a header"),
    *(
        ({"GATEWAY_ADMISSION_WAIT": wait}, "GATEWAY_ADMISSION_WAIT must be a number of seconds above 0")
        for wait in (0, -1, "0.5", None, True, float("inf"), float("nan"))
    ),
    ({"GATEWAY_SERVER_TIMING": "no"}, "GATEWAY_SERVER_TIMING must be True or False, not 'no'"),
    ({"GATEWAY_METRICS": "off"}, "GATEWAY_METRICS must be True or False, not 'off'"),
    ({"GATEWAY_METRICS": None}, "GATEWAY_METRICS must be True or False, not None"),
    ({"GATEWAY_METRICS_TOKEN": "two words"}, "GATEWAY_METRICS_TOKEN must be letters"),
    ({"GATEWAY_METRICS_TOKEN": "caf\xe9"}, "GATEWAY_METRICS_TOKEN must be letters"),
    ({"GATEWAY_METRICS_TOKEN": b"bytes"}, "GATEWAY_METRICS_TOKEN must be letters"),
    *(
        ({"GATEWAY_OTLP_ENDPOINT": endpoint}, "GATEWAY_OTLP_ENDPOINT must be a base URL")
        for endpoint in (
            "collector:4318",
            "ftp://collector",
            "http://",
            "http://collector:port",
            "http://collector:0",
            "http://[collector",
            "http://user:word@collector",
            "http://collector?key=a",
            "http://collector#part",
            "http://coll ector",
            "http://collector\n",
            4318,
        )
    ),
    ({"UPSTREAMS": None}, "UPSTREAMS cannot be used:\n  it must be a dict"),
    ({"UPSTREAMS": {"a": "http://a"}}, "  a: must be an Upstream, not str"),
    ({"UPSTREAMS": {"a": Upstream("a"), "b": Upstream("http://b", timeout=0)}}, "  b: timeout must be above 0"),
]


@pytest.mark.parametrize(("settings", "said"), WRONG, ids=[str(settings) for settings, _ in WRONG])
def test_a_setting_that_makes_no_sense_is_refused_by_name(settings: dict[str, Any], said: str) -> None:
    with override_settings(**settings), pytest.raises(ImproperlyConfigured) as refused:
        conf()

    assert said in str(refused.value)


def test_a_token_is_not_shown_with_the_other_settings() -> None:
    with override_settings(GATEWAY_METRICS_TOKEN="s3cret=="):
        assert conf().metrics_token == "s3cret=="
        assert "s3cret" not in repr(conf())


@pytest.mark.parametrize("name", ["GATEWAY_METRICS_TOKEN", "GATEWAY_OTLP_ENDPOINT"])
def test_a_setting_that_is_empty_is_off(name: str) -> None:
    with override_settings(**{name: ""}):
        assert (conf().metrics_token, conf().otlp_endpoint) == (None, None)


@pytest.mark.parametrize("endpoint", ["http://collector:4318", "https://collector/otlp", "http://[::1]:4318"])
def test_an_endpoint_is_a_base_url(endpoint: str) -> None:
    with override_settings(GATEWAY_OTLP_ENDPOINT=f"{endpoint}/"):
        assert conf().otlp_endpoint == endpoint
