"""What other code logs may be anything; what stands in the log afterwards is plain, bounded and without secrets."""

from __future__ import annotations

import datetime
import decimal
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from gateway.log.redact import LONGEST_TEXT, MASK, redact, redact_text
from tests.logs import CANARY

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnktN2YzYSJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "name",
    [
        "password", "PASSWORD", "db_passwd", "passphrase", "pwd", "token", "access_token", "csrfToken", "secret",
        "client-secret", "SECRET_KEY", "api_key", "apikey", "X-Api-Key", "private_key", "access-key", "Authorization",
        "Proxy-Authorization", "authorisation", "auth", "oauth", "cookie", "Set-Cookie", "session", "sessionid",
        "credentials", "signature", "jwt", "card", "credit_card", "card_number", "cvv", "cvc", "ssn", "pin",
        "user_pin", "otp",
    ],
)  # fmt: skip
def test_the_value_of_a_secret_name_is_masked(name: str) -> None:
    assert redact({name: CANARY}) == {name: MASK}
    assert redact({name: {"value": [CANARY]}}) == {name: MASK}
    assert CANARY not in redact_text(f"{name}={CANARY}")
    assert CANARY not in redact_text(f"failed with {name}: {CANARY}, sorry")
    assert CANARY not in redact_text(str({"a": 1, name: CANARY}))
    assert CANARY not in redact_text(f'{{"{name}":"{CANARY}"}}')


@pytest.mark.parametrize(
    "name",
    [
        "author",
        "author_id",
        "authored",
        "page",
        "user_id",
        "wildcard",
        "discarded",
        "cardinality",
        "spin",
        "pinned",
        "lesson",
    ],
)
def test_a_name_that_only_resembles_one_is_left_alone(name: str) -> None:
    assert redact({name: "seen"}) == {name: "seen"}
    assert redact_text(f"{name}=seen") == f"{name}=seen"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Bearer {CANARY}", f"Bearer {MASK}"),
        (f"got 'bearer   {CANARY}'.", f"got 'bearer   {MASK}'."),
        ("Basic Y2FuYXJ5LTdmM2E6c2VjcmV0", f"Basic {MASK}"),
        (f"Authorization: Digest username={CANARY}, nonce={CANARY}\nHost: a", f"Authorization: {MASK}\nHost: a"),
        (f"Cookie: a=1; b={CANARY}\nHost: a", f"Cookie: {MASK}\nHost: a"),
        (f"{{'Cookie': 'a=1; b={CANARY}', 'Host': 'a'}}", f"{{'Cookie': {MASK}, 'Host': 'a'}}"),
        (f"[(b'cookie', b'a=1; b={CANARY}'), (b'host', b'a')]", f"[(b'cookie', b{MASK}), (b'host', b'a')]"),
        (
            f'{{"sent": "{{\\"token\\": \\"{CANARY}\\", \\"n\\": 1}}"}}',
            f'{{"sent": "{{\\"token\\": {MASK}, \\"n\\": 1}}"}}',
        ),
        (f'"{{\\\\\\"pin\\\\\\":\\\\\\"a\\\\\\\\\\\\\\"{CANARY}\\\\\\"}}"', f'"{{\\\\\\"pin\\\\\\":{MASK}}}"'),
        (f"run --password {CANARY} --fast", f"run --password {MASK} --fast"),
        (f"<password>{CANARY}</password>", f"<password>{MASK}"),
        (f"password => {CANARY}", f"password => {MASK}"),
        ("the <Session> is closed", "the <Session> is closed"),
        (f"it is {JWT}", f"it is {MASK}"),
        (JWT.partition(".")[0], MASK),
        ("key AKIAIOSFODNN7EXAMPLE ends", f"key {MASK} ends"),
        ("ASIAIOSFODNN7EXAMPLE", MASK),
        (f"redis://user:{CANARY}@cache:6379/0", f"redis://{MASK}@cache:6379/0"),
        (f"redis://:{CANARY}@cache:6379/0", f"redis://{MASK}@cache:6379/0"),
        (f"https://{CANARY}@host/x", f"https://{MASK}@host/x"),
        (f"https://user:p@{CANARY}@host/x", f"https://{MASK}@host/x"),
        (f"GET /search?q={CANARY}&page=2 HTTP/1.1", f"GET /search?{MASK} HTTP/1.1"),
        (f"'http://host/?q={CANARY}'", f"'http://host/?{MASK}'"),
        (f'password="a \\" {CANARY}" next', f"password={MASK} next"),
        (f"password='open {CANARY}", f"password={MASK}"),
        (f"User(name='Ada', password='{CANARY}')", f"User(name='Ada', password={MASK})"),
        (f"{{'card': {{'number': '{CANARY}'}}}}", f"{{'card': {MASK}}}}}"),
        ("user ada of 7 has 3 items: a, b", "user ada of 7 has 3 items: a, b"),
        ("plain text; at 12:30:00, in /srv/app/x.py", "plain text; at 12:30:00, in /srv/app/x.py"),
    ],
)
def test_what_looks_like_a_secret_in_a_text_is_masked(text: str, expected: str) -> None:
    assert redact_text(text) == expected
    assert redact_text(expected) == expected
    assert CANARY not in expected


@dataclass
class Account:
    name: str
    password: str


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError(CANARY)


class Torn(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError(CANARY)

    def __len__(self) -> int:
        return 1


VALUES: dict[str, tuple[Any, Any]] = {
    "nothing": (None, None),
    "a switch": (True, True),
    "a number": (1.5, 1.5),
    "the largest whole number": (2**63 - 1, 2**63 - 1),
    "one larger": (2**63, "0x8000000000000000"),
    "one smaller than the least": (-(2**63) - 1, "-0x8000000000000001"),
    "a number too long to be written": (10**5000, hex(10**5000)[:256]),
    "half a character": ("\ud800 half", "\\ud800 half"),
    "bytes": (b"\xff", "b'\\xff'"),
    "tuples": ((1, ("a",)), [1, ["a"]]),
    "a set": ({"x"}, ["x"]),
    "keys of all kinds": ({b"key": 1, 2: 3, None: 4}, {"b'key'": 1, "2": 3, "None": 4}),
    "secrets deep inside": (
        {"a": {"token": "x", "b": [{"secret": "y"}]}},
        {"a": {"token": MASK, "b": [{"secret": MASK}]}},
    ),
    "a dataclass": (Account("Ada", CANARY), f"Account(name='Ada', password={MASK})"),
    "what cannot be printed": (Unprintable(), "<Unprintable>"),
    "a mapping that fails": (Torn(), "<Torn>"),
    "an exception": (ValueError(f"token={CANARY}"), f"ValueError('token={MASK}')"),
    "a time": (datetime.datetime(2026, 5, 4, tzinfo=datetime.UTC), datetime.datetime(2026, 5, 4, tzinfo=datetime.UTC)),
    "a decimal": (decimal.Decimal("1.10"), decimal.Decimal("1.10")),
    "a UUID": (uuid.UUID(int=7), uuid.UUID(int=7)),
}


@pytest.mark.parametrize(("value", "expected"), VALUES.values(), ids=VALUES)
def test_any_value_becomes_one_that_json_has(value: Any, expected: Any) -> None:
    found = redact({"field": value})

    assert found == {"field": expected}
    assert CANARY.encode() not in msgspec.json.encode(found)


def test_a_circle_ends_somewhere() -> None:
    circle: dict[str, Any] = {"name": "circle"}
    circle["itself"] = [circle]

    assert "<" in str(redact(circle))
    assert len(msgspec.json.encode(redact(circle))) < 500


def test_a_long_collection_is_cut() -> None:
    assert len(redact({"many": list(range(100_000))})["many"]) == 100
    assert len(redact({str(nth): nth for nth in range(100_000)})) == 100


def test_a_long_text_is_cut_at_a_blank_so_that_no_half_of_a_secret_stays() -> None:
    before = "word " * (LONGEST_TEXT // 5 - 2)
    text = redact_text(f"{before}https://user:{CANARY * 5}@host and more" + " more" * 10_000)

    assert len(text) <= LONGEST_TEXT + 100
    assert text.endswith("characters cut]")
    assert CANARY[:6] not in text
    assert redact_text(CANARY * 10_000) == f" [{len(CANARY) * 10_000} characters cut]"


@pytest.mark.parametrize(
    "piece",
    [
        "eyJ-", "eyJa.", "token", "token=", 'token="', "token='", "token=[", "token: b'", "bearer ", "bearer  ",
        "basic", "://a:", "://a@", "://", "@", "?", "? ", "AKIA", "a=", "a = ", "a='", '"', "\\", "cookie: ",
        "cookie: \n", "a-", " ", "\n", "\x85", "\u2028", "=", ":", "aB3", 'password="\\', "secret[{(",
    ],
)  # fmt: skip
def test_no_text_takes_long_however_it_was_made_up(piece: str) -> None:
    text = (piece * LONGEST_TEXT)[: LONGEST_TEXT - 1]
    began = time.process_time()
    for ending in ("", "@", ".", '"', " x"):
        redact_text(text[:-2] + ending)
    redact_text(piece * (1_000_000 // len(piece)))

    assert time.process_time() - began < 1.0
