"""A wrong table of upstreams is refused when it is read: all faults at once, each a sentence naming its upstream."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from tests.logs import CANARY
from tests.upstreams.asking import Notes
from upstreams import Retry, Upstream, UpstreamTableError, check_table, open_fleet
from upstreams.upstream import RESERVED_HEADERS

URL = "http://users.internal:8000"


def faults(url: Any = URL, **fields: Any) -> list[str]:
    """Return what is said of an upstream called `users`."""
    try:
        check_table({"users": Upstream(url, **fields)})
    except UpstreamTableError as error:
        return error.faults
    return []


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "https://users.internal",
        "https://users.internal/",
        "http://users.internal/base/path/",
        "http://[::1]:8000",
        "http://127.0.0.1",
        "http://users.internal/a%20b",
        ("http://a", "https://b:8443/base"),
        ["http://a"],
    ],
)
def test_a_right_upstream_has_no_fault(url: Any) -> None:
    assert faults(url) == []


def test_every_field_may_be_given() -> None:
    assert not faults(
        timeout=2,
        retry=Retry(attempts=1, first_wait=0, longest_wait=0, statuses=(500,)),
        max_concurrency=1,
        max_body=1,
        headers={"Authorization": "Basic\tabc", "Accept": "text/xml", "User-Agent": "shop"},
        forward_headers=("Authorization", "accept-language"),
        passthrough=(404, 409),
        idempotency_header="Idempotency-Key",
        tls=ssl.create_default_context(),
    )
    assert not faults(retry=None)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "url '' must start with http:// or https://"),
        ("users.internal", "url 'users.internal' must start with http:// or https://"),
        ("//users.internal", "url '//users.internal' must start with http:// or https://"),
        ("ftp://users.internal", "url 'ftp://users.internal' must start with http:// or https://"),
        ("unix:///run/users.sock", "url 'unix:///run/users.sock' must start with http:// or https://"),
        ("http://", "url 'http://' names no host"),
        ("http://:80", "url 'http://:80' names no host"),
        ("http:///path", "url 'http:///path' names no host"),
        ("http://[::1", "url 'http://[::1' cannot be parsed"),
        ("http://users:port", "url 'http://users:port' cannot be parsed"),
        ("http://users:99999", "url 'http://users:99999' cannot be parsed"),
        ("http://users:0", "url 'http://users:0' has port 0"),
        ("http://[::1]x", "url 'http://[::1]x' cannot be parsed"),
        ("http://users..internal", "url 'http://users..internal' names a host that there cannot be"),
        ("http://.", "url 'http://.' names a host that there cannot be"),
        (f"http://{'u' * 64}.internal", f"url 'http://{'u' * 64}.internal' names a host that there cannot be"),
        (f"http://{'u.' * 130}com", f"url 'http://{'u.' * 130}com' names a host that there cannot be"),
        ("http://2852039166", "url 'http://2852039166' names a host that there cannot be"),
        ("http://10.0.0.256", "url 'http://10.0.0.256' names a host that there cannot be"),
        ("http://users?", "url 'http://users' must have no query or fragment"),
        ("http://users/#", "url 'http://users/' must have no query or fragment"),
        ("http://us ers", "url 'http://us ers' has a character that must be percent-encoded"),
        ("http://users\\x", r"url 'http://users\\x' has a character that must be percent-encoded"),
        ("http://users/ä", "url 'http://users/ä' has a character that must be percent-encoded"),
        ("http://users/%", "url 'http://users/%' has a character that must be percent-encoded"),
        ("http://users/a\n", r"url 'http://users/a\n' has a character that must be percent-encoded"),
        ("http://users/a/../b", "url 'http://users/a/../b' must hold no empty, . or .. segment"),
        ("http://users/%2E/b", "url 'http://users/%2E/b' must hold no empty, . or .. segment"),
        ("http://users//b", "url 'http://users//b' must hold no empty, . or .. segment"),
        (None, "url must be a base URL, or several in a tuple, not NoneType"),
        (b"http://users", "url must be a base URL, or several in a tuple, not bytes"),
        (80, "url must be a base URL, or several in a tuple, not int"),
        ((), "url must name at least one base URL"),
        ((URL, None), "url must be text, not NoneType"),
        ((URL, "users"), "url 'users' must start with http:// or https://"),
    ],
)
def test_a_wrong_url_is_said_to_be(url: Any, sentence: str) -> None:
    assert faults(url) == [f"users: {sentence}"]


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{CANARY}@users.internal",
        f"http://{CANARY}@users.internal",
        f"http://me:{CANARY}@[::1",
        f"http://me:{CANARY}@users:port",
        f"http://me:a?{CANARY}@users",
        f"http://me:a#{CANARY}@users",
        f"http://me:a/{CANARY}@users",
        f"http://me:\n{CANARY}@users",
        f"me:{CANARY}@users.internal",
        f"HTTP:/me:{CANARY}@users",
        f"ftp://me:{CANARY}@users",
        f"http://users/?api_key={CANARY}",
        f"http://users#{CANARY}",
    ],
)
def test_what_may_be_secret_in_a_url_is_never_printed(url: str) -> None:
    said = faults(url)

    assert len(said) == 1
    assert CANARY not in said[0]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"timeout": 0}, "timeout must be above 0 seconds, not 0"),
        ({"timeout": -1.0}, "timeout must be above 0 seconds, not -1.0"),
        ({"timeout": float("nan")}, "timeout must be above 0 seconds, not nan"),
        ({"timeout": float("inf")}, "timeout must be above 0 seconds, not inf"),
        ({"timeout": "1"}, "timeout must be above 0 seconds, not '1'"),
        ({"timeout": None}, "timeout must be above 0 seconds, not None"),
        ({"timeout": True}, "timeout must be above 0 seconds, not True"),
        ({"max_concurrency": 0}, "max_concurrency must be 1 or more, not 0"),
        ({"max_concurrency": 1.5}, "max_concurrency must be 1 or more, not 1.5"),
        ({"max_concurrency": None}, "max_concurrency must be 1 or more, not None"),
        ({"max_body": 0}, "max_body must be from 1 byte to 1 GiB, not 0"),
        ({"max_body": "1 MiB"}, "max_body must be from 1 byte to 1 GiB, not '1 MiB'"),
        ({"max_body": 2**30 + 1}, "max_body must be from 1 byte to 1 GiB, not 1073741825"),
        ({"headers": None}, "headers must be a dict of name to value, not NoneType"),
        ({"headers": [("a", "b")]}, "headers must be a dict of name to value, not list"),
        ({"headers": {"a b": "c"}}, "'a b' is not a header name"),
        ({"headers": {"": "c"}}, "'' is not a header name"),
        ({"headers": {None: "c"}}, "None is not a header name"),
        ({"headers": {"x-a": None}}, "header 'x-a' has a value that cannot be sent"),
        ({"headers": {"x-a": f"{CANARY}\r\nx-b: 1"}}, "header 'x-a' has a value that cannot be sent"),
        ({"headers": {"x-a": f"{CANARY}\x1b"}}, "header 'x-a' has a value that cannot be sent"),
        ({"headers": {"x-a": "Zoë"}}, "header 'x-a' has a value that cannot be sent"),
        (
            {"forward_headers": "authorization"},
            "forward_headers must be a tuple of header names, not 'authorization'",
        ),
        ({"forward_headers": None}, "forward_headers must be a tuple of header names, not None"),
        ({"forward_headers": ("a:b",)}, "'a:b' is not a header name"),
        ({"forward_headers": (1,)}, "1 is not a header name"),
        ({"idempotency_header": ""}, "'' is not a header name"),
        ({"idempotency_header": True}, "True is not a header name"),
        ({"deadline_header": "time left"}, "'time left' is not a header name"),
        ({"deadline_header": "Accept"}, "deadline_header cannot be 'Accept', which says something else"),
        (
            {"idempotency_header": "content-type"},
            "idempotency_header cannot be 'content-type', which says something else",
        ),
        (
            {"idempotency_header": "X-Both", "deadline_header": "x-both"},
            "idempotency_header and deadline_header must be two, not both 'x-both'",
        ),
        ({"passthrough": 404}, "passthrough must be a tuple of statuses, not 404"),
        ({"passthrough": (200,)}, "passthrough holds 200, which is no error status (400 to 599)"),
        ({"passthrough": (600,)}, "passthrough holds 600, which is no error status (400 to 599)"),
        ({"passthrough": ("404",)}, "passthrough holds '404', which is no error status (400 to 599)"),
        ({"retry": "x"}, "retry must be Retry(...) or None, not 'x'"),
        ({"retry": 3}, "retry must be Retry(...) or None, not 3"),
        ({"retry": Retry(attempts=0)}, "retry.attempts must be 1 or more, not 0"),
        ({"retry": Retry(attempts="3")}, "retry.attempts must be 1 or more, not '3'"),  # type: ignore[arg-type]
        ({"retry": Retry(first_wait=-1)}, "retry.first_wait must be from 0 to longest_wait, not -1"),
        ({"retry": Retry(first_wait=2, longest_wait=1)}, "retry.first_wait must be from 0 to longest_wait, not 2"),
        ({"retry": Retry(first_wait=float("nan"))}, "retry.first_wait must be from 0 to longest_wait, not nan"),
        ({"retry": Retry(longest_wait=float("inf"))}, "retry.longest_wait must be 0 seconds or more, not inf"),
        ({"retry": Retry(longest_wait=None)}, "retry.longest_wait must be 0 seconds or more, not None"),  # type: ignore[arg-type]
        ({"retry": Retry(statuses=(302,))}, "retry.statuses holds 302, which is no error status (400 to 599)"),
        ({"retry": Retry(statuses=503)}, "retry.statuses must be a tuple of statuses, not 503"),  # type: ignore[arg-type]
        ({"forbidden_networks": "10.0.0.0/8"}, "forbidden_networks must be a tuple of networks, not '10.0.0.0/8'"),
        ({"forbidden_networks": ((),)}, "forbidden_networks: () is no text"),
        ({"forbidden_networks": (True,)}, "forbidden_networks: True is no text"),
        ({"tls": unverified()}, "tls must verify certificates and host names"),
        ({"tls": False}, "tls must be an ssl.SSLContext, not bool"),
    ],
)
def test_a_wrong_value_is_said_to_be(fields: dict[str, Any], sentence: str) -> None:
    said = faults(**fields)

    assert said == [f"users: {sentence}"]
    assert not [one for one in said if CANARY in one]


@pytest.mark.parametrize("name", sorted(RESERVED_HEADERS))
def test_what_belongs_to_the_connection_or_the_gateway_cannot_be_configured(name: str) -> None:
    why = "it belongs to the connection or is written by the gateway"
    sentence = f"users: header {name.upper()!r} cannot be configured: {why}"

    assert faults(headers={name.upper(): "1"}) == [sentence]
    assert faults(forward_headers=(name.upper(),)) == [sentence]
    assert faults(idempotency_header=name.upper()) == [sentence]


@pytest.mark.parametrize(
    "name", ["x-request-id", "traceparent", "via", "host", "content-length", "transfer-encoding", "connection"]
)
def test_the_headers_that_could_forge_or_smuggle_are_reserved(name: str) -> None:
    assert name in RESERVED_HEADERS


@pytest.mark.parametrize("table", [None, [], "users", 3, [("users", Upstream(URL))]])
def test_a_table_that_is_no_dict_is_said_to_be(table: object) -> None:
    with pytest.raises(UpstreamTableError, match=f"it must be a dict of name to Upstream, not {type(table).__name__}"):
        check_table(table)


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "a/b", 'a"b', "a\n", 3, None])
def test_a_name_that_is_none_is_said_to_be(name: object) -> None:
    with pytest.raises(UpstreamTableError) as refused:
        check_table({name: Upstream(URL)})

    assert refused.value.faults == [f"{name!r}: a name is letters, digits, - and _"]


def test_an_entry_that_is_no_upstream_is_said_to_be() -> None:
    with pytest.raises(UpstreamTableError, match="users: must be an Upstream, not str"):
        check_table({"users": URL})


def test_all_faults_of_all_upstreams_are_told_at_once() -> None:
    table = {
        "users": Upstream("users", timeout=0, passthrough=(200,)),
        "orders": Upstream(("http://a", "b"), retry=Retry(attempts=0)),
        "catalog": Upstream(URL),
    }

    with pytest.raises(UpstreamTableError) as refused:
        check_table(table)

    assert [fault.partition(":")[0] for fault in refused.value.faults] == ["users"] * 3 + ["orders"] * 2
    assert str(refused.value).splitlines() == [
        "UPSTREAMS cannot be used:",
        *(f"  {fault}" for fault in refused.value.faults),
    ]


async def test_a_fleet_does_not_open_on_a_wrong_table() -> None:
    with pytest.raises(UpstreamTableError, match="users: timeout"):
        async with open_fleet({"users": Upstream(URL, timeout=0)}, Notes()):
            pytest.fail("it opened")


def test_base_urls_lose_their_trailing_slash() -> None:
    assert Upstream(["http://a/", "http://b/c//"]).urls == ("http://a", "http://b/c")


def test_an_upstream_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Upstream(URL).timeout = 2.0  # type: ignore[misc]
