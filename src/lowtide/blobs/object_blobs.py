"""The blobs port on a bucket: S3 and its like, Google Cloud Storage, Azure; through obstore.

Opened by `url.open_blobs`. The store itself guarantees durability and that an object appears whole;
this module guards create-only (see object_writer.py), bounded memory and the port's errors.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING

import obstore

from lowtide import limits
from lowtide.blobs.keys import check_key, check_prefix, check_range
from lowtide.blobs.object_errors import translated
from lowtide.blobs.object_writer import STAGING_FOLDER, ObjectWriter, put_new, remove
from lowtide.blobs.probing import probe_create_only
from lowtide.blobs.ranges import Span, coalesce, slices
from lowtide.ports.blobs import BlobInfo, BlobsUnavailable, BlobWriter

if TYPE_CHECKING:
    from obstore.store import ObjectStore


class ObjectBlobs:
    """Blobs as objects of `store`; `place` names it in messages, without secrets."""

    def __init__(self, store: "ObjectStore", place: str) -> None:
        self._store = store
        self._place = place

    async def put(self, key: str, data: bytes) -> None:
        with translated(check_key(key), self._place):
            await put_new(self._store, key, data)

    def write(self, key: str) -> AbstractAsyncContextManager[BlobWriter]:
        return ObjectWriter(self._store, check_key(key), self._place)

    async def size(self, key: str) -> int:
        with translated(check_key(key), self._place):
            return (await obstore.head_async(self._store, key))["size"]

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        check_range(offset, length)
        with translated(check_key(key), self._place):
            end = await self._clipped_end(key, offset, length)
            return await self._fetch(key, offset, end)

    async def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        for offset, length in ranges:
            check_range(offset, length)
        found = [b""] * len(ranges)
        turns = asyncio.Semaphore(limits.BLOB_SPANS_AT_ONCE)

        async def fetch_span(span: Span) -> None:
            async with turns:
                data = await self._fetch(key, span.start, min(span.end, size))
            for position, part in slices(span, data, ranges):
                found[position] = part

        with translated(check_key(key), self._place):
            size = (await obstore.head_async(self._store, key))["size"]
            done = await asyncio.gather(*map(fetch_span, coalesce(ranges)), return_exceptions=True)
            for error in filter(None, done):  # raised here, when no request is under way any more
                raise error
        return found

    async def stream(
        self, key: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        check_range(offset, length)
        with translated(check_key(key), self._place):
            end = await self._clipped_end(key, offset, length)
            if offset >= end:
                return
            reply = await obstore.get_async(self._store, key, options={"range": (offset, end)})
            async for piece in reply.stream(min_chunk_size=limits.STREAM_BLOCK_BYTES):
                view = memoryview(piece)
                offset += len(view)
                for start in range(0, len(view), limits.STREAM_BLOCK_BYTES):
                    yield bytes(view[start : start + limits.STREAM_BLOCK_BYTES])
        if offset < end:
            raise BlobsUnavailable(f"{self._place} ended {key} before its last byte")

    async def delete(self, key: str) -> None:
        with translated(check_key(key), self._place):
            await remove(self._store, key)

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        async for info in self._list(check_prefix(prefix)):
            if not info.key.startswith("."):
                yield info

    async def clean_up(self, older_than: datetime) -> int:
        """Removes staged blobs; parts of an upload that died are removed by the bucket's own rule
        for incomplete uploads, which no store lets us list through obstore."""
        removed = 0
        async for info in self._list(STAGING_FOLDER):
            if info.modified_at < older_than:
                with translated(info.key, self._place):
                    await remove(self._store, info.key)
                removed += 1
        return removed

    async def probe(self) -> None:
        await probe_create_only(self, self._place)

    async def _list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        with translated(prefix, self._place):
            pages = obstore.list(
                self._store, prefix.rstrip("/") or None, chunk_size=limits.BLOB_LIST_PAGE
            )
            async for page in pages:
                for meta in page:
                    yield BlobInfo(meta["path"], meta["size"], meta["last_modified"])

    async def _clipped_end(self, key: str, offset: int, length: int | None) -> int:
        """Where the range ends in the blob: stores differ in what they answer beyond its end."""
        size = (await obstore.head_async(self._store, key))["size"]
        return size if length is None else min(offset + length, size)

    async def _fetch(self, key: str, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        return bytes(await obstore.get_range_async(self._store, key, start=start, end=end))
