"""The port to the object store: immutable blobs under create-only keys.

Contract, held by every adapter and checked by tests/contract/test_blobs_contract.py:
- A blob appears whole or not at all. A write that fails, is cancelled, or dies with its process
  leaves nothing readable under the key, and what it left on disk is removed (at once, or by
  `clean_up`).
- `put` and `write` never replace: an existing key raises BlobExists.
- When a write has returned, the bytes survive a crash of the process and of the machine.
- Reads never hold more than `limits.STREAM_BLOCK_BYTES` x 2 in memory.
- Foreign exceptions never pass: BlobNotFound, BlobExists, BlobsFull (no space, quota),
  BlobsUnavailable.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final, Protocol

import msgspec


class BlobError(Exception):
    """Base of what this port raises."""


class BlobNotFound(BlobError):
    """No blob under that key."""


class BlobExists(BlobError):
    """The key is taken; blobs are immutable."""


class BlobsFull(BlobError):
    """No space left, or over quota."""


class BlobsUnavailable(BlobError):
    """The store cannot be reached or refuses access; try again later."""


FOLDERS: Final = ("files/", "parts/", "plans/", "segments/", "results/")
"""The prefixes of all keys; anything else in the store is not Lowtide's."""


class BlobInfo(msgspec.Struct, frozen=True):
    key: str
    bytes: int
    modified_at: datetime


class BlobWriter(Protocol):
    """A blob being written; it appears when the context is left without an exception."""

    async def write(self, data: bytes) -> None: ...


class Blobs(Protocol):
    """Keys are relative, `/`-separated, of letters, digits, `-`, `_`, `.`."""

    async def put(self, key: str, data: bytes) -> None:
        """Stores a small blob whole. Raises BlobExists, BlobsFull, BlobsUnavailable."""

    def write(self, key: str, *, is_fresh: bool = False) -> AbstractAsyncContextManager[BlobWriter]:
        """Stores a blob piece by piece, in bounded memory. Leaving by an exception stores nothing.

        BlobExists may be raised on entering or on leaving. `is_fresh`: the caller made the key by
        chance for this one write, so that no other call ever writes it. A bucket then needs no copy
        to keep it create-only, and S3 copies no more than 5 GiB.
        """

    async def size(self, key: str) -> int:
        """Bytes. Raises BlobNotFound."""

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """A range, whole in memory: for small ranges. Raises BlobNotFound."""

    async def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several `(offset, length)` ranges of one blob; near ones are fetched together."""

    def stream(self, key: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """A range in blocks of at most `limits.STREAM_BLOCK_BYTES`. Raises BlobNotFound at the
        start.
        """

    async def delete(self, key: str) -> None:
        """Removes; a missing key is no error."""

    def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Blobs whose key starts with the folder `prefix` (e.g. `segments/`)."""

    async def clean_up(self, older_than: datetime) -> int:
        """Removes what dead writers left behind before that instant; returns how many."""

    async def probe(self) -> None:
        """Checks at start that writing works and that create-only is honoured. Raises BlobError."""
