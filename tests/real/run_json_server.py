"""json-server (npm) over a JSON file of the shop: the one of the servers here that takes writes."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .server import serving
from .shop import write_json_server

PROGRAM = Path(__file__).parent / "node_modules" / "json-server" / "lib" / "cli" / "bin.js"


@contextmanager
def run_json_server(folder: Path) -> Iterator[str]:
    """Serve the shop at `/{table}`, `/carts` and `/shop` for the length of the block; give the base URL."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed: apt-get install nodejs npm, then npm ci in tests/real")
    if not PROGRAM.exists():
        pytest.skip("json-server is not installed: npm ci in tests/real")
    write_json_server(folder / "db.json")

    def command(port: int) -> list[str]:
        return [node, str(PROGRAM), "--host", "127.0.0.1", "--port", str(port), "--quiet", "db.json"]

    with serving(command, folder, ready="/shop") as url:
        yield url
