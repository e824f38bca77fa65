"""Every setting and every environment variable stands in docs/settings.md, and nothing stands there that is none."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Final

from gateway.conf import Conf
from settings import upstreams
from tests.gateway.test_conf import by_default

ROOT: Final = Path(__file__).parent.parent.parent
DOCUMENT: Final = (ROOT / "docs" / "settings.md").read_text()


def names(heading: str) -> list[str]:
    """Return the first column of the tables below a heading."""
    chapter = DOCUMENT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", chapter, re.MULTILINE)


def calls(*folders: str) -> Iterator[ast.Call]:
    for folder in folders:
        for file in (ROOT / folder).rglob("*.py"):
            yield from (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))


def first(call: ast.Call) -> str:
    """Return a call's first argument where it is a plain text, else nothing."""
    return str(call.args[0].value) if call.args and isinstance(call.args[0], ast.Constant) else ""


def test_every_setting_the_gateway_reads_is_described() -> None:
    read = {first(call) for call in calls("gateway") if ast.unparse(call.func) == "_setting"}

    assert len(read) == len(fields(Conf))
    assert sorted(name for name in names("Settings of the gateway") if name.isupper()) == sorted(
        {*read, "LOGGING", "LOGGING_CONFIG", "CSRF_FAILURE_VIEW"}
    )


def test_every_option_of_the_log_is_described() -> None:
    from gateway.log import setup  # noqa: PLC0415 - private names, for this one

    assert {name for name in names("Settings of the gateway") if name.islower()} == setup._OPTIONS


def test_a_default_is_what_it_is_said_to_be() -> None:
    found = by_default()
    chapter = DOCUMENT.partition("\n## Environment\n")[0]
    defaults = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", chapter, re.MULTILINE))
    assert {
        name: ast.literal_eval(defaults[name]) for name in ("UPSTREAMS", "GATEWAY_NAME", "GATEWAY_SERVER_TIMING")
    } == {
        "UPSTREAMS": dict(found.upstreams),
        "GATEWAY_NAME": found.name,
        "GATEWAY_SERVER_TIMING": found.server_timing,
    }
    assert tuple(ast.literal_eval(defaults["PAGE_MIDDLEWARE"])) == found.page_middleware
    assert ast.literal_eval(defaults["GATEWAY_DEADLINE_HEADER"]).lower() == found.deadline_header
    assert ast.literal_eval(defaults["GATEWAY_ADMISSION_WAIT"]) == found.admission_wait


def test_every_environment_variable_is_described() -> None:
    readers = {
        "env.text",
        "env.secret",
        "env.flag",
        "env.number",
        "env.words",
        "env.choice",
        "env.urls",
        "env.module",
        "env.folder",
    }
    asked = {first(call) for call in calls("settings") if ast.unparse(call.func) in readers}
    others = {
        first(call)
        for call in calls("gateway", "upstreams", "inspection", "demo")
        if ast.unparse(call.func).startswith("os.environ.")
    }
    secrets = {f"{first(call)}_FILE" for call in calls("settings") if ast.unparse(call.func) == "env.secret"}
    services = {f"{name.upper()}_URL" for name in upstreams.shop(lambda name: [f"http://{name}"])}

    assert {*names("Environment")} == {*asked, *others, *services, *secrets, "DJANGO_SETTINGS_MODULE"} - {""}


def test_every_reader_of_the_environment_is_known_to_the_test_above() -> None:
    tree = ast.parse((ROOT / "settings" / "env.py").read_text())
    public = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}

    assert public == {"text", "secret", "flag", "number", "words", "choice", "urls", "module", "folder"}
