"""The Proxy-Status header (RFC 9209): one member, parsed back as the structured field it must be."""

from __future__ import annotations

from typing import Any

import http_sf
import pytest
from django.test import override_settings

from gateway.answering.answer import Failure, denied, skipped
from gateway.answering.proxy_status import proxy_status
from upstreams import Fault


def failure(fault: Fault, upstream: str | None = "users", status: int | None = None) -> Failure:
    return Failure(upstream=upstream, error=fault, status=status, attempts=1, retryable=False)


def parsed(text: str) -> tuple[str, dict[str, Any]]:
    members: Any = http_sf.parse(text.encode("ascii"), tltype="list")
    ((name, params),) = members
    assert isinstance(name, http_sf.Token)
    return str(name), params


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_makes_a_valid_header_with_its_word_as_a_token(fault: Fault) -> None:
    name, params = parsed(proxy_status({"user": failure(fault)}))

    assert name == "tributary"
    assert isinstance(params["error"], http_sf.Token)
    assert str(params["error"]) == fault.word


def test_the_last_failure_decides_and_all_calls_without_a_value_are_named() -> None:
    failures = {
        "reviews": failure(Fault.CONNECTION_REFUSED, "reviews"),
        "likes": skipped("likes", because="reviews"),
        "user": failure(Fault.HTTP_RESPONSE_STATUS, "users", 503),
    }
    assert proxy_status(failures) == (
        "tributary;error=http_response_status"
        ';next-hop="users";received-status=503;details="no value: reviews, likes, user"'
    )


def test_what_is_not_known_is_left_out() -> None:
    _, params = parsed(proxy_status({"feed": denied(None, "..")}))

    assert params.keys() == {"error", "details"}


@pytest.mark.parametrize("name", ["cr\xe8me", "\u6f22\u5b57", 'a"b\\c', "a\r\nX-Evil: 1", "\x00", "a;b,c"])
def test_no_name_a_view_gives_its_calls_breaks_the_header(name: str) -> None:
    text = proxy_status({name: failure(Fault.BODY_MALFORMED)})

    assert parsed(text)[1]["details"].startswith("no value: ")
    assert text.isprintable()


def test_the_gateway_goes_by_the_name_of_its_deployment() -> None:
    with override_settings(GATEWAY_NAME="Shop-eu.1"):
        assert parsed(proxy_status({"user": failure(Fault.DNS_ERROR)}))[0] == "Shop-eu.1"
