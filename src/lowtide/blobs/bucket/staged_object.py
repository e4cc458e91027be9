"""One object on its way into a bucket: one create-only put, or parts under a staging key.

Blocking code: ObjectBlobs runs each call in a thread, one call at a time. Guards create-only:
obstore's uploads in parts replace what is under their key, so they go to a random staging key, and
are published from there on the condition that the key is free (publishing.py). A key that is fresh
needs no condition: there the parts go straight to it, and the object appears when they are
complete. obstore holds at most two parts in memory.
"""

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError

from lowtide import limits
from lowtide.blobs.bucket.publishing import Publish, publish_by_copy, refuse_taken

if TYPE_CHECKING:
    from obstore import WritableFile
    from obstore.store import ObjectStore

STAGING_FOLDER = ".staging"


class _Abandoned(Exception):
    """Tells obstore's writer to abort its parts instead of completing them."""


class StagedObject:
    """Becomes the object `key` of `store` in `finish`. `publish` None: the key is fresh."""

    def __init__(
        self, store: "ObjectStore", key: str, publish: Publish | None = publish_by_copy
    ) -> None:
        self._store = store
        self._key = key
        self._publish = publish
        self._staging = f"{STAGING_FOLDER}/{secrets.token_hex(16)}" if publish else key
        self._upload: WritableFile | None = None
        self._staged = False

    def append(self, data: bytes | bytearray) -> None:
        """Uploads `data` behind what went before; the first call opens the upload in parts."""
        if self._upload is None:
            refuse_taken(self._store, self._key)  # before a long upload, not after
        self.open().write(data)

    def open(self) -> "WritableFile":
        """The upload in parts under the staging key; nothing is sent yet."""
        if self._upload is None:
            self._upload = obstore.open_writer(
                self._store, self._staging, buffer_size=limits.BLOB_PART_BYTES, max_concurrency=1
            ).__enter__()
        return self._upload

    def finish(self, rest: bytes | bytearray) -> None:
        """Appends the rest and publishes it; what is staged goes in any case.

        Raises AlreadyExistsError when the key is taken.
        """
        if self._upload is None:
            obstore.put(self._store, self._key, rest, mode="create", use_multipart=False)
            return
        try:
            self._upload.write(rest)
            upload, self._upload = self._upload, None
            self._staged = self._publish is not None
            upload.close()
            if self._publish is not None:
                self._publish(self._store, self._staging, self._key)
        finally:
            self.discard()

    def discard(self) -> None:
        """Removes what is staged; what cannot be removed now is left to `clean_up`."""
        upload, self._upload = self._upload, None
        if upload is not None:
            with suppress(BaseError, OSError):
                upload.__exit__(_Abandoned, _Abandoned(), None)
        if self._staged:
            with suppress(BaseError, OSError):
                remove(self._store, self._staging)

    def take_back(self) -> None:
        """Removes the object again; call it only after this object published it."""
        remove(self._store, self._key)


def remove(store: "ObjectStore", key: str) -> None:
    """Deletes; some stores call a missing key an error, here it is none."""
    with suppress(FileNotFoundError):
        obstore.delete(store, key)
