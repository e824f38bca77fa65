"""nginx over files of the shop and files that no client should trust; `nginx.conf` says which URL misbehaves how."""

import asyncio
import gzip
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from .server import serving
from .shop import write_files

TEMPLATE = Path(__file__).with_name("nginx.conf")
STATUSES = (400, 401, 403, 404, 405, 409, 410, 415, 422, 429, 500, 501, 502, 503, 504, 507)
"""What `/status/{status}` answers as HTML (422: with no body), and `/problem/{status}` as problem+json.

Not 408: to nginx it means that the caller is gone, and it hangs up without an answer.
"""
REDIRECTS = (301, 302, 303, 307, 308)
"""`/redirect/{status}/{path}` sends a caller to `/{path}` with such a status."""
LOGIN = ("gateway", "open sesame")
"""Who may read `/private/`."""
MIB = 1 << 20

BODIES = {
    "page.json": b"<!doctype html><title>Scheduled maintenance</title><p>We will be back soon.</p>\n",
    "latin-1.json": '{"city": "Malmö"}'.encode("latin-1"),
    "utf-16.json": '{"city": "Malmö"}'.encode("utf-16"),
    "bom.json": b'\xef\xbb\xbf{"city": "Malm\xc3\xb6"}',
    "nan.json": b'{"price": NaN}',
    "half.json": b'[{"sku": "D-00001", "title": "0.23 ct Id',
    "trailing.json": b'{"sku": "D-00001"}\n<!-- 12 ms -->\n',
    "empty.json": b"",
    "null.json": b"null",
    "duplicate-keys.json": b'{"price": 1, "price": 2}',
    "surrogate.json": b'{"title": "\\ud800"}',
    "exact.json": b'{"price": 326.00, "exact": 12345678901234567890.12345678901234567890, "beyond": 1e400}',
    "crlf.json": b'{\r\n  "sku": "D-00001",\r\n  "title": "two\\nlines"\r\n}\r\n',
    "deep.json": b"[" * 100_000 + b"]" * 100_000,
    "huge.json": b"[" + b'"D-00001", ' * (8 * MIB // 11) + b'"D-00002"]',
}
"""Files at `/bodies/{name}`, all of them sent as application/json."""

DOCUMENT = b'{"sku": "D-00001", "text": "' + b"It is fine. " * 400 + b'"}'
TABLE = b"sku,stock\n" + b"".join(b"D-%05d,%d\n" % (number, number * number % 9973) for number in range(4000))
GZIPPED = gzip.compress(DOCUMENT, mtime=0)
ENCODED = {
    "whole.json": GZIPPED,
    "truncated.json": GZIPPED[: len(GZIPPED) // 2],
    "truncated.csv": gzip.compress(TABLE, mtime=0)[:-4096],
    "no-trailer.json": GZIPPED[:-8],
    "wrong-checksum.json": GZIPPED[:-8] + bytes(4) + GZIPPED[-4:],
    "plain.json": DOCUMENT,
    "bomb.json": gzip.compress(b"[" + b" " * (64 * MIB) + b"]", compresslevel=6, mtime=0),
}
"""Files at `/encoded/gzip/{name}` and `/encoded/br/{name}`, sent with that Content-Encoding whatever they are."""


class Exchange(msgspec.Struct, frozen=True):
    """One request as nginx saw it. `status` 499: the caller left first; 444: nginx did. Headers not sent are ""."""

    method: str
    uri: str
    status: int
    body_bytes: int
    seconds: float
    connection: int  # the connection's number, and which request on it this was
    nth: int
    host: str
    request_id: str
    traceparent: str
    via: str
    authorization: str
    cookie: str
    user_agent: str
    accept: str
    accept_encoding: str
    content_length: str


@dataclass(frozen=True, slots=True)
class WireLog:
    """What nginx says it was asked: a second opinion on attempts, connections, headers and departures."""

    file: Path

    def holding(self, token: str) -> list[Exchange]:
        """The exchanges so far whose URI contains the token, in the order they ended."""
        lines = self.file.read_bytes().splitlines()
        return [seen for seen in (msgspec.json.decode(line, type=Exchange) for line in lines) if token in seen.uri]

    async def seen(self, token: str, count: int = 1) -> list[Exchange]:
        """The same, once there are so many: a line is written after its answer. Raises TimeoutError in 20 seconds."""
        async with asyncio.timeout(20):
            # nginx tells nobody when it has written.
            while len(exchanges := await asyncio.to_thread(self.holding, token)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return exchanges


@contextmanager
def run_nginx(folder: Path) -> Iterator[str]:
    """Serve the folder's `site` for the length of the block; give the base URL. `wire.log` is a WireLog's file."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    write_site(folder)

    def command(port: int) -> list[str]:
        (folder / "nginx.conf").write_text(configuration(port))
        return [nginx, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]

    with serving(command, folder, ready="/products/D-00001.json") as url:
        yield url


def write_site(folder: Path) -> None:
    """Everything nginx reads but its configuration."""
    write_files(folder / "site")
    write_all(folder / "site" / "bodies", BODIES)
    write_all(folder / "encoded", ENCODED)
    (folder / "temporary").mkdir()
    (folder / "accounts").write_text("{}:{{PLAIN}}{}\n".format(*LOGIN))


def write_all(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def configuration(port: int) -> str:
    """nginx.conf with its blanks filled in."""
    blanks = {
        "@PORT@": str(port),
        "@KIB@": "x" * 1024,
        "@MANY@": "\n".join(f"add_header X-Header-{number} {number};" for number in range(300)),
        "@REDIRECTS@": "\n".join(redirect(status) for status in REDIRECTS),
        "@STATUSES@": "\n".join(answers(status) for status in STATUSES),
    }
    text = TEMPLATE.read_text()
    for blank, filling in blanks.items():
        text = text.replace(blank, filling)
    return text


def redirect(status: int) -> str:
    return f"location ~ ^/redirect/{status}(?<rest{status}>/.*)$ {{ return {status} $rest{status}; }}"


def answers(status: int) -> str:
    problem = msgspec.json.encode({"type": "about:blank", "status": status, "detail": "as you wished"}).decode()
    return (
        f"location = /status/{status} {{ return {status}; }}\n"
        f"location = /problem/{status} {{ default_type application/problem+json; return {status} '{problem}'; }}"
    )
