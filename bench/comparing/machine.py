"""What the figures were made on and with."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.running import ROOT

_PACKAGES = ("django", "aiohttp", "uvicorn", "uvloop", "httptools", "msgspec", "structlog", "tenacity", "orjson",
             "fastapi", "httpx")  # fmt: skip
_MODULES = ROOT / "bench" / "peers" / "fastify" / "node_modules"


def described() -> dict[str, Any]:
    """Return the machine, how busy it has been, the date, the commit, and versions of all that takes part."""
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": _versions(),
    }


def _commit() -> str | None:
    """Return the commit that is measured, with `+` if files differ from it; None outside of a repository."""
    ran = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return ran.stdout.strip() or None


def _versions() -> dict[str, str]:
    """Return the version of everything by its name."""
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions["node"] = _said("node", "--version")
    for name in ("fastify", "undici"):
        versions[name] = json.loads((_MODULES / name / "package.json").read_text())["version"]
    return versions | {"nginx": _said("nginx", "-v"), "wrk": _said("wrk", "--version")}


def _said(*command: str) -> str:
    """Return the first version that a program names."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", ran.stdout + ran.stderr)
    return found[0] if found else "unknown"
