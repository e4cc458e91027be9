"""The probe refuses the stores that would lose results."""

from pathlib import Path

import pytest

from lowtide.blobs.folder_blobs import FolderBlobs
from lowtide.ports.blobs import BlobError, BlobsUnavailable


class ReplacingBlobs(FolderBlobs):
    """A store that takes the condition of a create-only write and ignores it."""

    async def put(self, key: str, data: bytes) -> None:
        await self.delete(key)
        await super().put(key, data)


class StaleBlobs(FolderBlobs):
    """A store behind a cache that does not show what was just written."""

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        return b"stale"


async def test_a_store_that_replaces_is_refused_and_left_clean(tmp_path: Path) -> None:
    blobs = ReplacingBlobs(tmp_path)
    with pytest.raises(BlobError, match=r"create-only.*will not start.*If-None-Match"):
        await blobs.probe()
    assert [info async for info in blobs.list("")] == []


async def test_a_store_that_reads_stale_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BlobsUnavailable, match="reads its own writes"):
        await StaleBlobs(tmp_path).probe()
