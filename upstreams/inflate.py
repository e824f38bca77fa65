"""Bounded decompression of answers: counts what comes out, and notices when the end is missing.

aiohttp's own is switched off: it gives half the data of a truncated gzip body without an error, and has no limit.
"""

from __future__ import annotations

import zlib
from typing import Final

_GZIP: Final = zlib.MAX_WBITS | 16
CODINGS: Final = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}


class BodyTooLarge(Exception):
    """More bytes than an upstream's `max_body`."""


class CodingError(Exception):
    """Bytes that are not in the content coding they are said to be in."""


class BodyIncomplete(Exception):
    """A compressed body whose end is missing."""


class Inflater:
    """Inflates one body, a chunk at a time, never past `limit` bytes in all."""

    def __init__(self, coding: str, limit: int) -> None:
        self._wbits = CODINGS[coding]
        self._stream = zlib.decompressobj(self._wbits)
        self._left = limit

    def feed(self, chunk: bytes) -> bytes:
        """Return what a chunk inflates to; raises BodyTooLarge or CodingError."""
        pieces = []
        while chunk:
            if self._stream.eof:
                self._stream = zlib.decompressobj(self._wbits)  # a further gzip member, RFC 1952 section 2.2
            try:
                piece = self._stream.decompress(chunk, self._left + 1)
            except zlib.error as error:
                raise CodingError(str(error)) from None
            if len(piece) > self._left:
                raise BodyTooLarge
            self._left -= len(piece)
            pieces.append(piece)
            chunk = self._stream.unused_data
        return b"".join(pieces)

    def close(self) -> None:
        """Say that the body has ended; raises BodyIncomplete if its coding has not."""
        if not self._stream.eof:
            raise BodyIncomplete
