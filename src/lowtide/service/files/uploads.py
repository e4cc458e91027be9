"""The verbs on uploads in parts: begin, take a part, cancel; uploads_completion.py completes them.

Called by both vendors' routes. Guards: a part counts when its bytes are durable and its row is
written, in that order; what is refused leaves no bytes behind; an upload that is begun has a place
within the organization's limits, which holds until it ends.
"""

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.errors import LowtideError
from lowtide.core.files.upload import Upload, UploadPart, closed
from lowtide.core.idempotency.request_key import RequestKey
from lowtide.ports.blobs import Blobs, BlobWriter
from lowtide.ports.clock import Clock, NewId
from lowtide.ports.uploads import UploadStore
from lowtide.service.files.files import FileService, one_body_at_a_time
from lowtide.service.files.upload_keys import refused_keys

BLOB_FOLDER: Final = "parts"
"""Parts lie under `parts/{upload id}/{part id}`."""


class NewUpload(msgspec.Struct, frozen=True, kw_only=True):
    """What a client announces; its values are checked (service/files/files.py, `checked_...`)."""

    filename: str
    purpose: str
    bytes: int
    ttl_s: int
    """How long the upload may take."""
    parts: int = 0
    checksum: str = ""
    file_ttl_s: int | None = None


class PartIntake:
    """A part being received: counted, hashed and bounded in the pass that stores it."""

    def __init__(
        self,
        writer: BlobWriter,
        part_id: str,
        key: str,
        bytes_max: int,
        on_bytes: Callable[[int], None],
    ) -> None:
        """`on_bytes` is called with the number of bytes before they are written, and
        may refuse them.
        """
        self._on_bytes = on_bytes
        self.id = part_id
        self.blob_key = key
        self.bytes = 0
        self._writer = writer
        self._bytes_max = bytes_max
        self._hash = hashlib.md5(usedforsecurity=False)

    @property
    def md5(self) -> str:
        return self._hash.hexdigest()

    async def write(self, data: bytes) -> None:
        """Raises LowtideError `file_too_large`, and what `BlobWriter.write` raises."""
        self.bytes += len(data)
        if self.bytes > self._bytes_max:
            raise part_too_large(self._bytes_max)
        self._on_bytes(len(data))
        self._hash.update(data)
        await self._writer.write(data)


class UploadService:
    """Uploads of all projects. Methods that take `project_id` see that project's alone."""

    def __init__(
        self, uploads: UploadStore, files: FileService, blobs: Blobs, clock: Clock, new_id: NewId
    ) -> None:
        self._uploads = uploads
        self._keys = files.keys
        self._files = files
        self._blobs = blobs
        self._clock = clock
        self._new_id = new_id
        self._receiving: set[str] = set()
        self._under_way: Counter[str] = Counter()

    async def begin(
        self, project_id: str, asked: NewUpload, key: RequestKey | None = None
    ) -> Upload:
        """Begins an upload, unless `key` began one: that one.

        Raises LowtideError `invalid_request`, `file_too_large`, `storage_limit_exceeded`,
        `idempotency_key_reused`.
        """
        if (earlier_id := await self._keys.made_by(key)) is not None:
            return await self.get(project_id, earlier_id)
        if asked.bytes < 1:
            raise LowtideError("invalid_request", "A file in parts has at least 1 byte.", "bytes")
        await self._files.check_room(project_id, asked.bytes)
        now = self._clock.now()
        upload = Upload(
            id=self._new_id("upload_"),
            project_id=project_id,
            file_id=self._files.new_file_id(),
            purpose=asked.purpose,
            filename=asked.filename,
            bytes=asked.bytes,
            parts=asked.parts,
            checksum=asked.checksum,
            file_ttl_s=limits.FILE_TTL_S if asked.file_ttl_s is None else asked.file_ttl_s,
            created_at=now,
            expires_at=now + timedelta(seconds=asked.ttl_s),
        )
        async with self._files.storage.adding(project_id) as quota:
            with refused_keys(key):
                earlier_id = await self._uploads.add(upload, quota, key)
        return upload if earlier_id is None else await self.get(project_id, earlier_id)

    async def get(self, project_id: str, upload_id: str) -> Upload:
        """Raises LowtideError `upload_not_found`."""
        upload = await self._uploads.get(project_id, upload_id)
        if upload is None:
            raise not_found(upload_id)
        return upload

    async def awaiting(self, upload_id: str) -> Upload:
        """An upload that takes parts at a signed address. Raises LowtideError."""
        upload = await self._uploads.by_id(upload_id)
        if upload is None:
            raise not_found(upload_id)
        self.check_open(upload)
        return upload

    def check_open(self, upload: Upload) -> None:
        """Checks that the upload takes parts now. Raises LowtideError `upload_closed`,
        `upload_expired`.
        """
        now = self._clock.now()
        if refusal := closed(upload, now):
            raise refusal
        if upload.is_completing(now):
            raise _completing(upload)

    @asynccontextmanager
    async def part(
        self, upload: Upload, bytes_max: int, number: int | None = None
    ) -> AsyncIterator[PartIntake]:
        """Takes the bytes of a part; they are durable once the context ends without an exception.

        One body at a time for a part with a number, and for all parts of one upload together no
        more bytes at a time than it has room for. Raises LowtideError `upload_busy`.
        """
        part_id = self._new_id("part_")
        key = f"{BLOB_FOLDER}/{upload.id}/{part_id}"
        subject = part_id if number is None else f"{upload.id}/{number}"
        with one_body_at_a_time(self._receiving, subject), self._counted(upload) as count:
            async with self._blobs.write(key, is_fresh=True) as writer:
                yield PartIntake(writer, part_id, key, min(bytes_max, upload.bytes), count)

    @contextmanager
    def _counted(self, upload: Upload) -> Iterator[Callable[[int], None]]:
        """Counts the bytes of a body under way; they are refused beyond the upload's room."""
        mine = 0

        def count(bytes: int) -> None:
            nonlocal mine
            if self._under_way[upload.id] + bytes > upload.room:
                raise LowtideError(
                    "upload_busy",
                    f"More bytes than {upload.id} was announced with are under way at once. Send"
                    " this part again when others have ended.",
                    retry_after_s=limits.UPLOAD_BUSY_RETRY_AFTER_S,
                )
            self._under_way[upload.id] += bytes
            mine += bytes

        try:
            yield count
        finally:
            self._under_way[upload.id] -= mine
            if not self._under_way[upload.id]:
                del self._under_way[upload.id]

    async def keep_part(
        self, upload: Upload, intake: PartIntake, number: int | None = None
    ) -> UploadPart:
        """Records a part whose bytes are durable. Raises LowtideError, and then keeps nothing.

        When the store fails the blob is left to the sweep: that does not prove that there is no
        row.
        """
        now = self._clock.now()
        part = UploadPart(
            id=intake.id,
            upload_id=upload.id,
            number=number,
            bytes=intake.bytes,
            md5=intake.md5,
            blob_key=intake.blob_key,
            created_at=now,
        )
        async with self._files.storage.adding(upload.project_id, part.blob_key) as quota:
            answer = await self._uploads.add_part(part, now, quota)
        if answer == "kept":
            return part
        await self._blobs.delete(part.blob_key)
        if answer == "full":
            raise LowtideError(
                "invalid_request",
                f"The parts of {upload.id} would have more bytes than the {upload.bytes} that were"
                f" announced, or be more than {limits.UPLOAD_PARTS_MAX}. This part was not kept.",
                "data",
            )
        raise closed(await self.get(upload.project_id, upload.id), now) or _completing(upload)

    async def cancel(self, project_id: str, upload_id: str) -> Upload:
        """Lets go of all parts. Cancelling twice is no error.

        Raises LowtideError `upload_not_found`, `upload_closed`, `upload_expired`.
        """
        now = self._clock.now()
        before = await self.get(project_id, upload_id)
        if before.status != "cancelled" and (refusal := closed(before, now)):
            raise refusal
        upload = await self._uploads.cancel(project_id, upload_id, now)
        if upload is None:
            raise not_found(upload_id)
        if upload.status != "cancelled":
            raise closed(upload, now) or not_found(upload_id)
        return upload


def not_found(upload_id: str) -> LowtideError:
    return LowtideError("upload_not_found", f"No such Upload object: {upload_id}", "upload_id")


def part_too_large(bytes_max: int) -> LowtideError:
    return LowtideError(
        "file_too_large",
        f"A part of this upload may have {bytes_max} bytes. Nothing of it was kept: send smaller"
        " parts.",
        "data",
    )


def _completing(upload: Upload) -> LowtideError:
    return LowtideError(
        "upload_closed", f"The parts of {upload.id} are being put together: it takes no others."
    )
