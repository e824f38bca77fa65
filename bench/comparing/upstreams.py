"""The upstreams: one nginx on three ports, which serves files, and so is never what limits."""

from __future__ import annotations

import re
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.comparing import bodies
from bench.comparing.needs import lua_modules
from bench.running import free_port, running

_HOSTS = 3


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Where they are, and the folder of what they serve."""

    urls: list[str]
    files: Path

    def count(self) -> int:
        """Return how many requests they have had, this one included."""
        with urllib.request.urlopen(f"{self.urls[0]}/count") as answer:
            said = re.search(r"^ \d+ \d+ (\d+)", answer.read().decode(), re.MULTILINE)
        return int(said[1]) if said else 0


@contextmanager
def serving(cores: str) -> Iterator[Upstreams]:
    """Serve on those cores until the end of the block."""
    ports = [free_port() for _ in range(_HOSTS)]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx reads as another user when it is started by root
        bodies.write(folder / "files")
        listens = " ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in ports)
        configuration = filled(
            Path(__file__).with_name("upstreams.conf"), modules=lua_modules(), folder=name, listens=listens
        )
        (folder / "nginx.conf").write_text(configuration)
        with running(nginx(folder, cores)):
            yield Upstreams([f"http://127.0.0.1:{port}" for port in ports], folder / "files")


def nginx(folder: Path, cores: str) -> list[str]:
    """Return the command that runs nginx with the configuration of a folder."""
    log = str(folder / "error.log")
    return ["taskset", "-c", cores, "nginx", "-e", log, "-p", str(folder), "-c", str(folder / "nginx.conf")]


def filled(template: Path, **values: str) -> str:
    """Return a configuration whose `<name>`s are filled in."""
    text = template.read_text()
    for name, value in values.items():
        text = text.replace(f"<{name}>", value)
    return text
