"""A blob on its way into a bucket: one create-only put, or parts under a staging key when large.

Used by ObjectBlobs.write. Guards bounded memory (`limits.BLOB_PART_BYTES` here and at most two such
parts inside obstore) and create-only: obstore's streamed uploads replace what is under their key,
so they go to a random staging key, and a conditional copy publishes.
"""

import secrets
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

import obstore

from lowtide import limits
from lowtide.blobs.object_errors import translated
from lowtide.blobs.settle import settle
from lowtide.ports.blobs import BlobError, BlobExists

if TYPE_CHECKING:
    from obstore import AsyncWritableFile
    from obstore.store import ObjectStore

STAGING_FOLDER = ".staging"


async def put_new(store: "ObjectStore", key: str, data: bytes | bytearray) -> None:
    """Create-only put that is taken back when the caller is cancelled."""

    async def put() -> None:
        await obstore.put_async(store, key, data, mode="create", use_multipart=False)

    await settle(put(), undo=lambda _: remove(store, key))


async def remove(store: "ObjectStore", key: str) -> None:
    """Delete; some stores call a missing key an error, here it is none."""
    try:
        await obstore.delete_async(store, key)
    except FileNotFoundError:
        return


async def publish_copy(store: "ObjectStore", staging: str, key: str) -> None:
    """Give the staged blob its key if that is free; taken back when the caller is cancelled."""

    async def copy() -> None:
        await obstore.copy_async(store, staging, key, overwrite=False)

    await settle(copy(), undo=lambda _: remove(store, key))


class ObjectWriter:
    """The context that ObjectBlobs.write returns, and the BlobWriter inside it."""

    def __init__(self, store: "ObjectStore", key: str, place: str) -> None:
        self._store = store
        self._key = key
        self._place = place
        self._staging = f"{STAGING_FOLDER}/{secrets.token_hex(16)}"
        self._pending = bytearray()
        self._upload: AsyncWritableFile | None = None

    async def __aenter__(self) -> "ObjectWriter":
        with translated(self._key, self._place):
            try:
                await obstore.head_async(self._store, self._key)
            except FileNotFoundError:
                return self
        raise BlobExists(f"{self._key} exists already")  # before a long upload, not after

    async def write(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) >= limits.BLOB_PART_BYTES:
            with translated(self._key, self._place):
                await settle(self._send())

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            await self._abort(exc_type, exc, traceback)
            return
        with translated(self._key, self._place):
            if self._upload is None:
                await put_new(self._store, self._key, self._pending)
                return
            try:
                await settle(self._finish())
                await publish_copy(self._store, self._staging, self._key)
            finally:
                await settle(self._drop_staged())

    async def _abort(
        self,
        exc_type: type[BaseException],
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Forget the parts; when that fails too, the first error counts and `clean_up` remains."""
        if self._upload is not None:
            with suppress(BlobError), translated(self._key, self._place):
                await settle(self._upload.__aexit__(exc_type, exc, traceback))

    async def _send(self) -> None:
        if self._upload is None:
            upload = obstore.open_writer_async(
                self._store, self._staging, buffer_size=limits.BLOB_PART_BYTES, max_concurrency=1
            )
            self._upload = await upload.__aenter__()
        pending, self._pending = self._pending, bytearray()
        await self._upload.write(pending)

    async def _finish(self) -> None:
        assert self._upload is not None
        try:
            await self._upload.write(self._pending)
        except BaseException as error:
            await self._abort(type(error), error, error.__traceback__)
            raise
        await self._upload.close()

    async def _drop_staged(self) -> None:
        """A staged blob that stays for now is no failure of the write: `clean_up` takes it."""
        with suppress(BlobError), translated(self._staging, self._place):
            await remove(self._store, self._staging)
