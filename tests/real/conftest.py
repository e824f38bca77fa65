"""One fixture a server: its base URL, without a slash at its end. They live as long as the test run."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from .run_datasette import run_datasette
from .run_httpbin import run_httpbin
from .run_json_server import run_json_server
from .run_nginx import WireLog, run_nginx


@pytest.fixture(scope="session")
def datasette(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_datasette(tmp_path_factory.mktemp("datasette")) as url:
        yield url


@pytest.fixture(scope="session")
def json_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_json_server(tmp_path_factory.mktemp("json-server")) as url:
        yield url


@pytest.fixture(scope="session")
def httpbin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_httpbin(tmp_path_factory.mktemp("httpbin")) as url:
        yield url


@pytest.fixture(scope="session")
def nginx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nginx")


@pytest.fixture(scope="session")
def nginx(nginx_folder: Path) -> Iterator[str]:
    with run_nginx(nginx_folder) as url:
        yield url


@pytest.fixture(scope="session")
def wire_log(nginx: str, nginx_folder: Path) -> WireLog:
    """What nginx was asked."""
    return WireLog(nginx_folder / "wire.log")


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A plain client, to see a server as it is."""
    async with aiohttp.ClientSession() as session:
        yield session
