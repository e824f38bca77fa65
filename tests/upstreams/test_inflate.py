"""Compressed bodies come out whole or not at all, and never larger than allowed."""

from __future__ import annotations

import gzip
import sys
import tracemalloc
import types
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstreams.inflate import CODINGS, BodyIncomplete, BodyTooLarge, CodingError, Inflater

TEXT = b'{"name": "' + bytes(range(97, 123)) * 400 + b'"}'
LIMIT = 1024 * 1024


def inflate(body: bytes, coding: str = "gzip", limit: int = LIMIT, step: int = 1 << 16) -> bytes:
    """Feed a body in steps of some bytes and close it."""
    inflater = Inflater(coding, limit)
    pieces = [inflater.feed(body[start : start + step]) for start in range(0, len(body), step)]
    inflater.close()
    return b"".join(pieces)


@pytest.mark.parametrize("step", [1, 7, 1 << 16])
@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", gzip.compress(TEXT)), ("x-gzip", gzip.compress(TEXT)), ("deflate", zlib.compress(TEXT))],
    ids=["gzip", "x-gzip", "deflate"],
)
def test_a_body_comes_out_as_it_went_in_however_it_arrives(coding: str, body: bytes, step: int) -> None:
    assert inflate(body, coding, step=step) == TEXT


@given(
    st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.integers(1, 90), st.sampled_from(["gzip", "deflate"])
)
def test_any_bytes_in_any_members_and_any_chunks_come_out_again(parts: list[bytes], step: int, coding: str) -> None:
    compress = gzip.compress if coding == "gzip" else zlib.compress

    assert inflate(b"".join(compress(part) for part in parts), coding, step=step) == b"".join(parts)


@pytest.mark.parametrize("coding", sorted(CODINGS))
def test_a_body_without_a_byte_is_empty(coding: str) -> None:
    assert inflate(b"", coding) == b""


@pytest.mark.parametrize("kept", [1, 5, 10, -1, -4, -8, -9])
def test_a_body_whose_end_is_missing_is_incomplete(kept: int) -> None:
    with pytest.raises(BodyIncomplete):
        inflate(gzip.compress(TEXT)[:kept])


def test_so_is_one_whose_second_member_breaks_off() -> None:
    with pytest.raises(BodyIncomplete):
        inflate(gzip.compress(b"a") + gzip.compress(b"b")[:-3])


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b'{"plain": 1}'),
        ("gzip", zlib.compress(TEXT)),
        ("gzip", gzip.compress(TEXT)[:-8] + b"\0\0\0\0" + gzip.compress(TEXT)[-4:]),
        ("gzip", gzip.compress(TEXT)[:-4] + b"\0\0\0\0"),
        ("gzip", gzip.compress(TEXT) + b"garbage after it"),
        ("deflate", gzip.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)[2:-4]),
        ("deflate", zlib.compress(TEXT)[:-4] + b"\0\0\0\0"),
    ],
    ids=["plain", "zlib", "checksum", "length", "trailing", "deflate is gzip", "raw deflate", "adler"],
)
def test_a_body_in_another_coding_than_it_says_is_refused(coding: str, body: bytes) -> None:
    with pytest.raises(CodingError):
        inflate(body, coding)


@pytest.mark.parametrize("step", [1, 100, 1 << 16])
def test_a_body_may_fill_the_limit_and_not_pass_it(step: int) -> None:
    body = gzip.compress(TEXT)

    assert inflate(body, limit=len(TEXT), step=step) == TEXT
    with pytest.raises(BodyTooLarge):
        inflate(body, limit=len(TEXT) - 1, step=step)


def test_the_limit_is_for_all_members_together() -> None:
    with pytest.raises(BodyTooLarge):
        inflate(gzip.compress(b"a" * 60) + gzip.compress(b"b" * 60), limit=100)


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """200 KiB of gzip that would become 200 MiB."""
    compressor = zlib.compressobj(wbits=31)
    return b"".join(compressor.compress(bytes(LIMIT)) for _ in range(200)) + compressor.flush()


@contextmanager
def counted() -> Iterator[list[int]]:
    """Count the calls of zlib's decompressors: yields the length of the input of none, one, two ... of them."""
    calls: list[int] = []

    def see(frame: types.FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ == "decompress":
            calls.append(len(frame.f_locals["chunk"]))

    sys.setprofile(see)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("step", [1 << 12, 1 << 16, 1 << 20])
def test_a_bomb_is_inflated_to_its_limit_and_no_further(bomb: bytes, step: int) -> None:
    tracemalloc.start()
    try:
        with counted() as calls, pytest.raises(BodyTooLarge):
            inflate(bomb, step=step)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(bomb) < 205_000
    assert most < 4 * LIMIT
    assert sum(calls[:-1]) < LIMIT / 1000  # deflate makes at most 1032 bytes of one


def test_members_that_hold_nothing_cannot_go_on_for_ever() -> None:
    with counted() as calls, pytest.raises(CodingError, match="too many members"):
        inflate(gzip.compress(b"") * 5000)
    assert len(calls) == 1000
    assert inflate(gzip.compress(b"") * 900) == b""


def test_a_bomb_in_many_members_is_none_the_larger() -> None:
    with counted() as calls, pytest.raises(BodyTooLarge):
        inflate(gzip.compress(b"\0" * 10_000) * 5000)
    assert len(calls) == LIMIT // 10_000 + 1
