"""What the cases get: a row of the table to fill in, certificates, and leave to make networks of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
from blockbuster import BlockBuster

pytest.register_assert_rewrite("tests.faults.scene", "tests.faults.table")

from tests.faults.table import Row  # noqa: E402 - it is rewritten, so that a failed assertion says what was compared


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(number, words): the case's line in the table of faults")


@pytest.fixture(autouse=True)
def networks_are_made_on_the_loop(no_blocking_on_the_loop: BlockBuster) -> None:
    """Only the thread of the loop can bring the loop into another network."""
    for function in no_blocking_on_the_loop.functions.values():
        function.can_block_in("tests/faults/network.py", {"own_network", "run", "naming", "leads", "_permitted"})


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    """When the loop is closed, whatever was opened is closed."""
    before = descriptors()
    yield
    assert descriptors() <= before + 2  # which uvloop keeps for itself once it has run


def descriptors() -> int:
    """Count the open files and sockets of this process, where that can be known."""
    opened = Path("/proc/self/fd")
    return sum(1 for _ in opened.iterdir()) if opened.exists() else 0


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    """The case's line in the table; what the test puts into it is shown by `python -m tests.faults`."""
    line = Row()
    yield line
    request.node.user_properties.append(("row", vars(line)))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of certificates, each with its key: `good.pem` for 127.0.0.1, `expired.pem` for it years ago."""
    if which("openssl") is None:
        pytest.skip("the openssl command makes the certificates, and there is none")
    directory = tmp_path_factory.mktemp("tls")
    (directory / "index.txt").touch()
    (directory / "ca.cnf").write_text(_AUTHORITY)
    for name, dates in (("good", ()), ("expired", ("-startdate", "20200101000000Z", "-enddate", "20200102000000Z"))):
        key, asked, pem = (directory / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        openssl(directory, f"req -new -newkey rsa:2048 -nodes -subj /CN={name} -keyout {key} -out {asked}")
        openssl(directory, f"ca -batch -selfsign -config ca.cnf -keyfile {key} -in {asked} -out {pem}", *dates)
        pem.write_bytes(key.read_bytes() + pem.read_bytes())
    return directory


def openssl(directory: Path, command: str, *more: str) -> None:
    subprocess.run(["openssl", *command.split(), *more], cwd=directory, check=True, capture_output=True)


_AUTHORITY = """
[ca]
default_ca = own
[own]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
default_days = 2
policy = any
unique_subject = no
x509_extensions = v3
[any]
commonName = supplied
[v3]
subjectAltName = IP:127.0.0.1
basicConstraints = CA:TRUE
"""
