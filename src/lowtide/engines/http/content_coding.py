"""Unpacks a reply that a proxy compressed without being asked.

The engine client asks for `identity`, and some proxies compress all the same; the answer inside is
good and was paid for. Called by connection.py for replies that name a coding. Invariant: what comes
out is bounded, however small the bytes are that make it (REPLY_BYTES_MAX in all).
"""

import zlib
from typing import Final

from lowtide.limits import REPLY_BYTES_MAX

_WINDOW_BITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class Unpacker:
    """The bytes of one reply, block by block. A coding that is not known passes unchanged."""

    def __init__(self, coding: bytes) -> None:
        bits = _WINDOW_BITS.get(coding.strip().lower())
        self._coder = None if bits is None else zlib.decompressobj(bits)
        self._is_first = bits == 15
        self._bytes = 0

    def feed(self, data: bytes) -> bytes | None:
        """What they come to; None where that is more than any reply may be. What is not of its
        coding passes unchanged: it is for the reader of the answer to say what it is.
        """
        if self._coder is None:
            return data
        try:
            out = self._unpack(data)
        except zlib.error:
            self._coder = None
            return data
        self._bytes += len(out)
        is_too_large = self._coder.unconsumed_tail or self._bytes > REPLY_BYTES_MAX
        return None if is_too_large else out

    def _unpack(self, data: bytes) -> bytes:
        assert self._coder is not None
        is_first, self._is_first = self._is_first and bool(data), False
        try:
            return self._coder.decompress(data, REPLY_BYTES_MAX)
        except zlib.error:
            if not is_first:
                raise
            # `deflate` without the frame of zlib, as some servers send it (RFC 9110, 8.4.1.2).
            self._coder = zlib.decompressobj(-15)
            return self._coder.decompress(data, REPLY_BYTES_MAX)
