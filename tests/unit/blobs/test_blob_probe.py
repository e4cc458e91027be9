"""The probe refuses the stores that would lose results."""

from pathlib import Path

import pytest

from lowtide.blobs.folder.folder_blobs import FolderBlobs
from lowtide.ports.blobs import BlobError, BlobNotFound, BlobsUnavailable


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


class NoBucket(FolderBlobs):
    """What S3 says of any key in a bucket that is not there."""

    async def put(self, key: str, data: bytes) -> None:
        raise BlobNotFound(f"no blob {key}")


async def test_a_bucket_that_is_not_there_is_named_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(BlobsUnavailable, match=r"does not exist.*server\.blob_url"):
        await NoBucket(tmp_path).probe()
