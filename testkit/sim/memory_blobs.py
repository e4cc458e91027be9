"""An object store in memory that holds the contract of ports/blobs.py, and outlives its users.

`BlobDisk` is what is durable; a `MemoryBlobs` is one process's way to it. Each passes `gate` before
and after it touches the disk: there a simulator lets time pass, fails or kills. Checked by the
contract suite like the folder and the bucket.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from lowtide import limits
from lowtide.blobs.keys import check_key, check_prefix, check_range
from lowtide.ports.blobs import BlobExists, BlobInfo, BlobNotFound

Moment = Literal["blob.read", "blob.write", "blob.written", "blob.delete", "blob.deleted"]
Gate = Callable[[Moment, str], Awaitable[None]]
"""Called before and after each access, with what happens and to which key; may
raise a BlobError.
"""

_PROBE: Final = "probe"


async def open_gate(_moment: Moment, _key: str) -> None:
    """A gate that lets everything pass."""


class _Blob(msgspec.Struct, frozen=True):
    data: bytes
    modified_at: datetime


class _Staged(msgspec.Struct, eq=False):
    begun_at: datetime
    parts: list[bytes]


class BlobDisk:
    """Bytes by key, and what writers have staged: a dead one's stays until `clean_up`."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.now = now
        self.blobs: dict[str, _Blob] = {}
        self.staged: list[_Staged] = []

    def create(self, key: str, data: bytes) -> None:
        """Creates the blob whole or not at all. Raises BlobExists."""
        if key in self.blobs:
            raise BlobExists(key)
        self.blobs[key] = _Blob(data, self.now())

    def get(self, key: str) -> bytes:
        """Raises BlobNotFound."""
        if key not in self.blobs:
            raise BlobNotFound(key)
        return self.blobs[key].data


class _Writer:
    def __init__(self, staged: _Staged, key: str, gate: Gate) -> None:
        self._staged = staged
        self._key = key
        self._gate = gate

    async def write(self, data: bytes) -> None:
        await self._gate("blob.write", self._key)
        self._staged.parts.append(bytes(data))


class MemoryBlobs:
    """One process's access to the disk."""

    def __init__(self, disk: BlobDisk, gate: Gate = open_gate) -> None:
        self._disk = disk
        self._gate = gate

    async def put(self, key: str, data: bytes) -> None:
        check_key(key)
        await self._gate("blob.write", key)
        self._disk.create(key, bytes(data))
        await self._gate("blob.written", key)

    @asynccontextmanager
    async def write(self, key: str, *, is_fresh: bool = False) -> AsyncIterator[_Writer]:  # noqa: ARG002
        check_key(key)
        staged = _Staged(self._disk.now(), [])
        self._disk.staged.append(staged)
        try:
            yield _Writer(staged, key, self._gate)
            await self._gate("blob.write", key)
            self._disk.create(key, b"".join(staged.parts))
        finally:
            if staged in self._disk.staged:
                self._disk.staged.remove(staged)
        await self._gate("blob.written", key)

    async def size(self, key: str) -> int:
        return len(await self._bytes(key))

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        check_range(offset, length)
        return _cut(await self._bytes(key), offset, length)

    async def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        for offset, length in ranges:
            check_range(offset, length)
        if not ranges:
            return []
        data = await self._bytes(key)
        return [_cut(data, offset, length) for offset, length in ranges]

    async def stream(
        self, key: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        check_range(offset, length)
        data = _cut(await self._bytes(key), offset, length)
        for start in range(0, len(data), limits.STREAM_BLOCK_BYTES):
            if start:
                await self._gate("blob.read", key)
            yield data[start : start + limits.STREAM_BLOCK_BYTES]

    async def delete(self, key: str) -> None:
        check_key(key)
        await self._gate("blob.delete", key)
        self._disk.blobs.pop(key, None)
        await self._gate("blob.deleted", key)

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        check_prefix(prefix)
        await self._gate("blob.read", prefix)
        for key, blob in sorted(self._disk.blobs.items()):
            if key.startswith(prefix):
                yield BlobInfo(key, len(blob.data), blob.modified_at)

    async def clean_up(self, older_than: datetime) -> int:
        await self._gate("blob.delete", "staged")
        old = [staged for staged in self._disk.staged if staged.begun_at < older_than]
        self._disk.staged = [staged for staged in self._disk.staged if staged not in old]
        return len(old)

    async def probe(self) -> None:
        await self._gate("blob.write", _PROBE)

    async def _bytes(self, key: str) -> bytes:
        check_key(key)
        await self._gate("blob.read", key)
        return self._disk.get(key)


def _cut(data: bytes, offset: int, length: int | None) -> bytes:
    return data[offset:] if length is None else data[offset : offset + length]
