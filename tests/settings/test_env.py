"""Readers of the environment: the value, or a sentence that names the variable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from settings import env

READ: list[tuple[str, str, dict[str, Any], Any]] = [
    ("abc", "text", {}, "abc"),
    ("", "text", {"default": "else"}, "else"),
    ("yes", "flag", {"default": False}, True),
    ("ON", "flag", {"default": False}, True),
    ("0", "flag", {"default": True}, False),
    ("", "flag", {"default": True}, True),
    ("1.5", "number", {"default": 0}, 1.5),
    ("1e3", "number", {"default": 0}, 1000.0),
    ("", "number", {"default": 7}, 7),
    ("a, b,,c ", "words", {}, ["a", "b", "c"]),
    ("", "words", {"default": ""}, []),
    ("b", "choice", {"default": "a", "allowed": ("a", "b")}, "b"),
    ("", "choice", {"default": "a", "allowed": ("a", "b")}, "a"),
    ("http://users:8000/v1", "urls", {}, ["http://users:8000/v1"]),
    ("http://a:8000, http://b:8000", "urls", {}, ["http://a:8000", "http://b:8000"]),
    ("", "urls", {"default": "http://127.0.0.1"}, ["http://127.0.0.1"]),
    ("demo.urls", "module", {"default": "gateway.urls"}, "demo.urls"),
    ("", "module", {"default": "gateway.urls"}, "gateway.urls"),
    ("", "folder", {}, None),
    ("abc", "secret", {}, "abc"),
]

REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("", "text", {}, "is not set"),
    ("maybe", "flag", {"default": True}, "must be true or false, not 'maybe'"),
    ("many", "number", {"default": 0}, "must be a number, not 'many'"),
    ("-1", "number", {"default": 0}, "must be 0 or more, not '-1'"),
    ("nan", "number", {"default": 0}, "must be 0 or more, not 'nan'"),
    ("inf", "number", {"default": 0}, "must be 0 or more, not 'inf'"),
    ("8", "number", {"default": 0, "most": 7}, "must be 7 or less, not '8'"),
    (" , ", "words", {}, "names nothing"),
    ("", "words", {}, "is not set"),
    ("c", "choice", {"default": "a", "allowed": ("a", "b")}, "must be one of a, b, not 'c'"),
    ("users:8000", "urls", {}, "is no base URL: 'users:8000' must start with http:// or https://"),
    ("http://", "urls", {}, "is no base URL: 'http://' names no host"),
    ("http://me:word@users", "urls", {}, "is no base URL: 'http://***@users' holds a user name"),
    ("", "urls", {}, "is not set"),
    ("no.such.module", "module", {"default": "a"}, "must name a Python module, not 'no.such.module'"),
    ("demo.no_such", "module", {"default": "a"}, "must name a Python module, not 'demo.no_such'"),
    (".", "module", {"default": "a"}, "must name a Python module, not '.'"),
    ("/dev/null/logs", "folder", {}, "must name a folder that can be written to, not '/dev/null/logs'"),
    ("", "secret", {}, "is not set"),
]


@pytest.mark.parametrize(("given", "reader", "options", "value"), READ, ids=[str(row[:3]) for row in READ])
def test_a_variable_is_read(
    monkeypatch: pytest.MonkeyPatch, given: str, reader: str, options: dict[str, Any], value: Any
) -> None:
    monkeypatch.setenv("THING", given)

    assert getattr(env, reader)("THING", **options) == value


@pytest.mark.parametrize("unset", ["text", "words", "urls", "secret"])
def test_a_variable_that_must_be_there_and_is_not_is_named(monkeypatch: pytest.MonkeyPatch, unset: str) -> None:
    monkeypatch.delenv("THING", raising=False)
    with pytest.raises(env.EnvironmentFault) as fault:
        getattr(env, unset)("THING")

    assert fault.value.code == "environment variable THING is not set"


@pytest.mark.parametrize(("given", "reader", "options", "why"), REFUSED, ids=[str(row[:3]) for row in REFUSED])
def test_a_variable_that_makes_no_sense_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, given: str, reader: str, options: dict[str, Any], why: str
) -> None:
    monkeypatch.setenv("THING", given)
    with pytest.raises(env.EnvironmentFault) as fault:
        getattr(env, reader)("THING", **options)

    assert str(fault.value.code).startswith(f"environment variable THING {why}")


def test_a_secret_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from the file\n", encoding="utf-8")
    monkeypatch.setenv("THING", "from the variable")
    monkeypatch.setenv("THING_FILE", str(tmp_path / "secret"))

    assert env.secret("THING") == "from the file"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "names a file that cannot be read (FileNotFoundError)"),
        (b"\xff", "names a file that cannot be read (UnicodeDecodeError)"),
        (b" \n", "names a file with nothing in it"),
    ],
)
def test_a_secrets_file_that_is_of_no_use_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, why: str
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv("THING_FILE", str(tmp_path / "secret"))
    with pytest.raises(env.EnvironmentFault) as fault:
        env.secret("THING", "a default does not help")

    assert fault.value.code == f"environment variable THING_FILE {why}"


def test_a_folder_may_be_there_or_yet_to_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "logs" / "today"):
        monkeypatch.setenv("THING", str(folder))
        assert env.folder("THING") == str(folder)

    assert list(tmp_path.iterdir()) == []
