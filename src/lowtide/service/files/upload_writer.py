"""Bytes on their way in: counted, hashed and bounded in the one pass that stores them.

Used by the file verbs for every kind of upload. Leaving the context by an exception (a refusal, a
client that went away) stores nothing, because the blob appears only when it is whole.
"""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from lowtide import limits
from lowtide.core.errors import LowtideError
from lowtide.ports.blobs import Blobs, BlobWriter


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """A stored upload: bytes, lines (an unterminated last one counts), SHA-256 in hex, blob key."""

    bytes: int
    lines: int
    sha256: str
    blob_key: str


class UploadWriter:
    """A blob being filled. `content` is the measure of what was written so far, `head` what it
    begins with, for who asks what its lines are.
    """

    def __init__(
        self,
        writer: BlobWriter,
        key: str,
        bytes_max: int,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`on_bytes` is called with the number of bytes before they are written, and
        may refuse them.
        """
        self.head = b""
        self._on_bytes = on_bytes
        self._writer = writer
        self._key = key
        self._bytes_max = bytes_max
        self._bytes = 0
        self._newlines = 0
        self._ends_in_newline = True
        self._hash = hashlib.sha256()

    async def write(self, data: bytes) -> None:
        """Raises LowtideError `file_too_large`, and what `BlobWriter.write` raises."""
        if not data:
            return
        self._bytes += len(data)
        if self._bytes > self._bytes_max:
            raise too_large(self._bytes_max)
        self._on_bytes(len(data))
        if len(self.head) < limits.UPLOAD_HEAD_BYTES:
            self.head += bytes(data[: limits.UPLOAD_HEAD_BYTES - len(self.head)])
        self._newlines += data.count(b"\n")
        self._ends_in_newline = data.endswith(b"\n")
        self._hash.update(data)
        await self._writer.write(data)

    @property
    def content(self) -> Content:
        return Content(
            bytes=self._bytes,
            lines=self._newlines + (not self._ends_in_newline),
            sha256=self._hash.hexdigest(),
            blob_key=self._key,
        )


@asynccontextmanager
async def open_upload(
    blobs: Blobs, key: str, bytes_max: int, on_bytes: Callable[[int], None] = lambda _: None
) -> AsyncIterator[UploadWriter]:
    """An UploadWriter under a fresh `key`; the blob is durable once the context ends
    without an exception.
    """
    async with blobs.write(key, is_fresh=True) as writer:
        yield UploadWriter(writer, key, bytes_max, on_bytes)


class _Nowhere:
    """A BlobWriter that keeps nothing."""

    async def write(self, data: bytes) -> None:
        """Does nothing."""


def measuring_writer(bytes_max: int) -> UploadWriter:
    """An UploadWriter that counts and hashes, and stores nothing."""
    return UploadWriter(_Nowhere(), "", bytes_max)


def too_large(bytes_max: int) -> LowtideError:
    """The refusal of a file above the bound `limits.file_bytes` of the settings."""
    mb = f" ({bytes_max / 1024**2:.4g} MiB)" if bytes_max >= 1024**2 else ""
    return LowtideError(
        "file_too_large",
        f"The file is larger than this server takes: limits.file_bytes is {bytes_max} bytes{mb}."
        " Nothing was kept. Split the file and run a batch for each part.",
        "file",
    )
