"""The blobs port on a bucket: S3 and its like, Google Cloud Storage, Azure; through obstore.

Opened by `url.open_blobs`. The store itself guarantees durability and that an object appears whole;
this module guards create-only (see staged_object.py), bounded memory and the port's errors. It
calls obstore's blocking functions in threads of its own: the async ones leave threads behind that
abort the process when the interpreter ends right after a call.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import obstore
import structlog

from lowtide import limits
from lowtide.blobs.bucket.object_errors import translated
from lowtide.blobs.bucket.publishing import Publish, can_put, publish_by_copy, publish_by_put
from lowtide.blobs.bucket.staged_object import STAGING_FOLDER, StagedObject, remove
from lowtide.blobs.keys import check_key, check_prefix, check_range
from lowtide.blobs.probe import probe_create_only
from lowtide.blobs.ranges import Span, coalesce, slices
from lowtide.blobs.shield import shield_to_end
from lowtide.blobs.writer import BufferedBlobWriter
from lowtide.ports.blobs import BlobError, BlobInfo, BlobsUnavailable, BlobWriter

if TYPE_CHECKING:
    from obstore import BytesStream
    from obstore.store import ObjectStore

T = TypeVar("T")
log = structlog.get_logger(__name__)


class ObjectBlobs:
    """Blobs as objects of `store`; `place` names it in messages, without secrets."""

    def __init__(self, store: "ObjectStore", place: str) -> None:
        self._store = store
        self._place = place
        self._publish: Publish = publish_by_copy
        # Not the loop's own pool: a bucket that hangs must not hold up the rest of the process.
        self._threads = ThreadPoolExecutor(limits.BLOB_THREADS, "bucket")

    async def put(self, key: str, data: bytes) -> None:
        staged = StagedObject(self._store, check_key(key), self._publish)
        await self._write(key, lambda: staged.finish(data), lambda _: staged.take_back())

    @asynccontextmanager
    async def write(self, key: str, *, is_fresh: bool = False) -> AsyncIterator[BlobWriter]:
        publish = None if is_fresh else self._publish
        staged = StagedObject(self._store, check_key(key), publish)
        writer = BufferedBlobWriter(
            lambda data: self._write(key, lambda: staged.append(data)), limits.BLOB_PART_BYTES
        )
        try:
            yield writer
        except BaseException:
            await self._write(key, staged.discard)
            raise
        rest = writer.take()
        await self._write(key, lambda: staged.finish(rest), lambda _: staged.take_back())

    async def size(self, key: str) -> int:
        check_key(key)
        return await self._call(key, lambda: obstore.head(self._store, key)["size"])

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        check_range(offset, length)
        end = await self._clipped_end(key, offset, length)
        return await self._fetch(key, offset, end)

    async def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        for offset, length in ranges:
            check_range(offset, length)
        parts = [b""] * len(ranges)
        size = await self.size(key)
        turns = asyncio.Semaphore(limits.BLOB_SPANS_AT_ONCE)

        async def fetch_span(span: Span) -> None:
            async with turns:
                data = await self._fetch(key, span.start, min(span.end, size))
            for position, part in slices(span, data, ranges):
                parts[position] = part

        done = await asyncio.gather(*map(fetch_span, coalesce(ranges)), return_exceptions=True)
        for error in filter(None, done):  # raised here, when no request is under way any more
            raise error
        return parts

    async def stream(
        self, key: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        check_range(offset, length)
        end = await self._clipped_end(key, offset, length)
        if offset >= end:
            return
        pieces = await self._call(key, lambda: self._open_stream(key, offset, end))
        while (piece := await self._call(key, lambda: next(pieces, None))) is not None:
            view = memoryview(piece)
            offset += len(view)
            for start in range(0, len(view), limits.STREAM_BLOCK_BYTES):
                yield bytes(view[start : start + limits.STREAM_BLOCK_BYTES])
        if offset < end:
            raise BlobsUnavailable(f"{self._place} ended {key} before its last byte")

    async def delete(self, key: str) -> None:
        check_key(key)
        await self._write(key, lambda: remove(self._store, key))

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        async for info in self._list(check_prefix(prefix)):
            if not info.key.startswith("."):
                yield info

    async def clean_up(self, older_than: datetime) -> int:
        """Removes staged blobs; the parts of an upload that died cannot be listed through obstore
        and are left to the bucket's own rule for incomplete uploads."""
        removed = 0
        async for info in self._list(STAGING_FOLDER):
            if info.modified_at < older_than:
                await self._write(info.key, partial(remove, self._store, info.key))
                removed += 1
        return removed

    async def probe(self) -> None:
        """Checks the store, and settles how large blobs are published: in the first way
        that is create-only.
        """
        await probe_create_only(self, self._place, [self.put])
        try:
            await self._probe_publishing(publish_by_copy)
        except BlobError as error:
            if not can_put(self._store):
                raise
            log.info("bucket.publish_by_put", place=self._place, why=str(error))
            await self._probe_publishing(publish_by_put)

    async def _probe_publishing(self, publish: Publish) -> None:
        self._publish = publish
        await probe_create_only(self, self._place, [self._put_staged])

    async def _put_staged(self, key: str, data: bytes) -> None:
        """The way of a large blob, for the probe: it rests on another condition than `put` does."""
        staged = StagedObject(self._store, key, self._publish)
        await self._write(key, staged.open)
        await self._write(key, lambda: staged.finish(data))

    async def _list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        folder = prefix.rstrip("/") or None
        pages = obstore.list(self._store, folder, chunk_size=limits.BLOB_LIST_PAGE)
        while (page := await self._call(prefix, lambda: next(pages, None))) is not None:
            for meta in page:
                yield BlobInfo(meta["path"], meta["size"], meta["last_modified"])

    async def _clipped_end(self, key: str, offset: int, length: int | None) -> int:
        """The end of the range within the blob: stores differ in what they
        answer beyond its end.
        """
        size = await self.size(key)
        return size if length is None else min(offset + length, size)

    async def _fetch(self, key: str, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        return await self._call(
            key, lambda: bytes(obstore.get_range(self._store, key, start=start, end=end))
        )

    def _open_stream(self, key: str, start: int, end: int) -> "BytesStream":
        reply = obstore.get(self._store, key, options={"range": (start, end)})
        return reply.stream(min_chunk_size=limits.STREAM_BLOCK_BYTES)

    async def _call(self, key: str, work: Callable[[], T]) -> T:
        """Runs a blocking request in a thread; its errors become the port's."""
        with translated(key, self._place):
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _write(
        self, key: str, work: Callable[[], T], undo: Callable[[T], None] | None = None
    ) -> T:
        """Runs a request that changes the store to its end; undoes it when cancelled meanwhile."""

        async def undo_result(result: T) -> None:
            if undo is not None:
                await self._call(key, lambda: undo(result))

        return await shield_to_end(self._call(key, work), undo_result)
