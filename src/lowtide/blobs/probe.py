"""The check at start that a store keeps the two promises that everything else is built on.

Called by every adapter's `probe`. Some stores accept the condition of a create-only write and
ignore it; a replaced segment would be lost results, so such a store is refused before the first
request.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence

from lowtide.ports.blobs import BlobError, BlobExists, BlobNotFound, Blobs, BlobsUnavailable

WayToWrite = Callable[[str, bytes], Awaitable[None]]


async def probe_create_only(blobs: Blobs, place: str, ways: Sequence[WayToWrite]) -> None:
    """Writes, writes again in each way the adapter has, reads back, deletes.

    Raises BlobError, which says what to do.
    """
    key = f"probe/{secrets.token_hex(8)}"
    try:
        await blobs.put(key, b"first")
    except BlobNotFound as error:  # what a store says of a bucket that it does not have
        raise BlobsUnavailable(
            f"{place} does not exist. Create the bucket, or correct server.blob_url."
        ) from error
    try:
        for way in ways:
            await _refuses_second(way, key, place)
        if await blobs.read(key) != b"first":
            raise BlobsUnavailable(
                f"{place} did not return what was just written to it; Lowtide needs a store that"
                " reads its own writes. Check caches and proxies in front of it."
            )
    finally:
        await blobs.delete(key)


async def _refuses_second(way: WayToWrite, key: str, place: str) -> None:
    try:
        await way(key, b"second")
    except BlobExists:
        return
    raise BlobError(
        f"{place} replaced a blob although the write was create-only. Results could be lost there,"
        " so Lowtide will not start on it. Use a local disk, or a bucket on a store that honours"
        " `If-None-Match: *` (Amazon S3, GCS, Azure, Ceph, a current MinIO)."
    )
