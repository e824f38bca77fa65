"""httpbin (httpbin.org's own program): echoes what it was asked, waits, drips, redirects, encodes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .server import serving

# In an environment of its own: on Python 3.11 it insists on a greenlet that is years old, which is no matter of ours.
PYTHON = Path(__file__).parent / ".httpbin" / "bin" / "python"


@contextmanager
def run_httpbin(folder: Path) -> Iterator[str]:
    """Serve httpbin for the length of the block; give the base URL."""
    if not PYTHON.exists():
        pytest.skip(
            "httpbin is not installed: python3 -m venv tests/real/.httpbin && "
            "tests/real/.httpbin/bin/pip install --require-hashes -r tests/real/httpbin.txt"
        )
    with serving(command, folder, ready="/get") as url:
        yield url


def command(port: int) -> list[str]:
    return [str(PYTHON), "-m", "flask", "--app", "httpbin:app", "run", "--host", "127.0.0.1", "--port", str(port)]
