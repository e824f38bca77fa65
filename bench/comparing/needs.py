"""What the machine has to have for the comparison, and the sentence that names what it has not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

_PROGRAMS = {"wrk": "wrk", "nginx": "nginx", "taskset": "util-linux", "node": "nodejs", "npm": "npm"}
_OLDEST_NODE = (20, 18, 1)


def missing() -> str | None:
    """Return what is missing and how to get it, or None if nothing is."""
    if not Path("/proc/self/stat").exists():
        return "The comparison needs Linux, whose /proc tells of CPU time and memory."
    if len(os.sched_getaffinity(0)) < 2:
        return (
            "The comparison needs two cores: one for the server under test, the other for its load and its upstreams."
        )
    lacking = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    if "nginx" in lacking or not lua_modules():
        lacking.append("libnginx-mod-http-lua")
    if lacking:
        return f"The comparison needs {', '.join(lacking)}; on Debian: apt-get install {' '.join(lacking)}"
    if _node() < _OLDEST_NODE:
        return f"The comparison needs Node.js {'.'.join(map(str, _OLDEST_NODE))} or newer, for fastify and undici."
    return None


def lua_modules() -> str:
    """Return the lines of nginx's configuration that load Lua; empty if it is not installed."""
    said = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"--modules-path=(\S+)", said)
    paths = [Path(found[1] if found else "modules") / f"{name}_module.so" for name in ("ndk_http", "ngx_http_lua")]
    return "\n".join(f"load_module {path};" for path in paths) if all(path.exists() for path in paths) else ""


def _node() -> tuple[int, ...]:
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"\d+", said)[:3]))
