"""Bounded decompression of answers: counts what comes out, and notices when the end is missing.

aiohttp's own is switched off: it gives half the data of a truncated gzip body without an error, and has no limit.
"""

from __future__ import annotations

from typing import Final

from isal import isal_zlib

_GZIP: Final = isal_zlib.MAX_WBITS | 16
_MOST_MEMBERS: Final = 1000  # each costs time even when nothing comes out of it
CODINGS: Final = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": isal_zlib.MAX_WBITS}


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
        self._members = 0
        self._left = limit
        self._begun = False
        self._begin_member()

    def feed(self, chunk: bytes) -> bytes:
        """Return what a chunk inflates to; raises BodyTooLarge or CodingError."""
        pieces = []
        self._begun = True
        while chunk:
            if self._stream.eof:
                self._begin_member()
            try:
                piece = self._stream.decompress(chunk, self._left + 1)
            except isal_zlib.error as error:  # type: ignore[misc]  # its stub takes it for an instance
                raise CodingError(str(error)) from None
            if len(piece) > self._left:
                raise BodyTooLarge
            self._left -= len(piece)
            pieces.append(piece)
            chunk = self._stream.unused_data
        return b"".join(pieces)

    def close(self) -> None:
        """Say that the body has ended; raises BodyIncomplete if its coding has begun and not ended."""
        if self._begun and not self._stream.eof:
            raise BodyIncomplete

    def _begin_member(self) -> None:
        """A gzip body may be several, one after another (RFC 1952 section 2.2)."""
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise CodingError("too many members")
        self._stream = isal_zlib.decompressobj(self._wbits)
