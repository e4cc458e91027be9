"""The verbs on files: announce, receive, look up, list, read, delete.

Called by the Files API and the command line. Guards: a row says `uploaded` only when its bytes are
durable in the object store, and a file gets its bytes once.
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.errors import LowtideError, file_lost, missing_parameter
from lowtide.core.files.file import PURPOSES, File, FileStatus, dialect_of_purpose
from lowtide.core.idempotency.request_key import KeyTaken, RequestKey
from lowtide.ports.blobs import Blobs
from lowtide.ports.clock import Clock, NewId
from lowtide.ports.files import FileStore, Order
from lowtide.ports.store import UnknownCursor
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.files.storage import Storage
from lowtide.service.files.upload_keys import UploadKeys, refused_keys
from lowtide.service.files.upload_writer import (
    Content,
    UploadWriter,
    measuring_writer,
    open_upload,
    too_large,
)
from lowtide.service.idempotency.idempotency import reused

BLOB_FOLDER: Final = "files"
"""Uploads lie under `files/{file id}/{random}`, so that two PUTs to one address never meet."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


class FilePage(msgspec.Struct, frozen=True):
    """A page of a list; `has_more` says that another one follows."""

    files: list[File]
    has_more: bool


class FileService:
    """Files of all projects. Methods that take `project_id` see that project's files alone."""

    def __init__(
        self,
        files: FileStore,
        blobs: Blobs,
        clock: Clock,
        new_id: NewId,
        allowance: Quotas,
        keys: UploadKeys,
    ) -> None:
        self.keys = keys
        self._files = files
        self._blobs = blobs
        self._clock = clock
        self._new_id = new_id
        self._allowance = allowance
        self.storage = Storage(allowance, blobs)
        self._receiving: set[str] = set()

    def now(self) -> datetime:
        return self._clock.now()

    async def announce(
        self,
        project_id: str,
        *,
        filename: str,
        purpose: str,
        expires_after_s: int | None = None,
        key: RequestKey | None = None,
    ) -> File:
        """A file whose bytes will come later, to a signed address (Together's step 1), unless `key`
        made one: that one, which may have its bytes.

        Raises LowtideError `storage_limit_exceeded`, `idempotency_key_reused`.
        """
        if (earlier_id := await self.keys.made_by(key)) is not None:
            return await self.get(project_id, earlier_id)
        await self.check_room(project_id, 0)
        file = self._file(project_id, self._new_id("file-"), filename, purpose, expires_after_s)
        async with self.storage.adding(project_id) as quota:
            with refused_keys(key):
                earlier_id = await self._files.add(file, quota, key)
        return file if earlier_id is None else await self.get(project_id, earlier_id)

    def new_file_id(self) -> str:
        return self._new_id("file-")

    async def file_bytes_max(self, project_id: str) -> int:
        """How large one file of the project may be."""
        return (await self._allowance.of(project_id)).file_bytes

    async def check_room(self, project_id: str, bytes: int) -> None:
        """Checks that a file of (at least) so many bytes may be added.

        Raises LowtideError `file_too_large`, `storage_limit_exceeded`.
        """
        bytes_max = await self.file_bytes_max(project_id)
        if bytes > bytes_max:
            raise too_large(bytes_max)
        await self.storage.check(project_id, bytes)

    @asynccontextmanager
    async def receive(
        self, project_id: str, file_id: str, declared: int
    ) -> AsyncIterator[UploadWriter]:
        """Takes bytes for a file, `declared` of them if that is known, else 0. Nothing is kept when
        the context is left by an exception.

        One body at a time for one file. Raises LowtideError `file_too_large`,
        `storage_limit_exceeded`, `upload_busy`.
        """
        bytes_max = await self.file_bytes_max(project_id)
        if declared > bytes_max:
            raise too_large(bytes_max)
        key = f"{BLOB_FOLDER}/{file_id}/{self._new_id('')}"
        with one_body_at_a_time(self._receiving, file_id):
            async with (
                self.storage.reserved(project_id, declared) as reservation,
                open_upload(self._blobs, key, bytes_max, reservation.arrived) as intake,
            ):
                yield intake

    async def measure(self, project_id: str) -> UploadWriter:
        """Takes bytes that are here already, for their digest alone."""
        return measuring_writer(await self.file_bytes_max(project_id))

    async def repeated(self, project_id: str, key: RequestKey | None) -> File:
        """The file that an earlier upload with the key made. Raises LowtideError
        `idempotency_key_reused`; `upload_busy` where it was deleted a moment ago.
        """
        earlier_id = await self.keys.made_by(key)
        if earlier_id is None:
            message = "The file that an earlier upload with this key made has just been deleted."
            raise LowtideError("upload_busy", f"{message} Send this one again.", retry_after_s=1)
        return await self.get(project_id, earlier_id)

    async def keep(
        self,
        project_id: str,
        file_id: str,
        content: Content,
        *,
        filename: str,
        purpose: str,
        expires_after_s: int | None = None,
        key: RequestKey | None = None,
    ) -> File:
        """Records a file whose bytes have arrived. A failure leaves the blob to the sweeper.

        It is not deleted here: a failed answer does not prove that the row was not written. Raises
        LowtideError `storage_limit_exceeded`, when others took the room meanwhile. `key`: the
        client's own for this upload; a file that was made with it is returned instead. Raises
        `idempotency_key_reused`.
        """
        file = self._file(
            project_id, file_id, filename, purpose, expires_after_s, content, "uploaded"
        )
        async with self.storage.adding(project_id, content.blob_key) as quota:
            try:
                earlier_id = await self._files.add(file, quota, key)
            except KeyTaken:
                assert key is not None
                await self._blobs.delete(content.blob_key)  # it has no row
                raise reused(key) from None
        if earlier_id is None:
            return file
        await self._blobs.delete(content.blob_key)
        return await self.get(project_id, earlier_id)

    async def awaiting(self, file_id: str) -> File:
        """The announced file that waits for its bytes, or has them: the same may be sent again,
        where no answer came. Raises LowtideError `upload_invalid`.
        """
        file = await self._files.by_id(file_id)
        if file is None or file.status not in ("pending", "uploaded"):
            raise _address_used()
        return file

    def check_same(self, file: File, content: Content) -> None:
        """Checks that bytes which were sent again are those of the file. Raises LowtideError
        `upload_invalid`.
        """
        if content.sha256 != file.sha256:
            raise _address_used()

    async def fill(self, project_id: str, file_id: str, content: Content) -> None:
        """Gives an announced file its bytes, once.

        Raises LowtideError `upload_invalid`, `storage_limit_exceeded`.
        """
        async with self.storage.adding(project_id, content.blob_key) as quota:
            filled = await self._files.mark_uploaded(
                file_id,
                bytes=content.bytes,
                lines=content.lines,
                sha256=content.sha256,
                blob_key=content.blob_key,
                quota=quota,
            )
        if not filled:
            await self._blobs.delete(content.blob_key)  # another PUT was first; ours has no row
            raise _address_used()

    async def get(self, project_id: str, file_id: str) -> File:
        """Raises LowtideError `file_not_found`, also for files past their expiry."""
        file = await self._files.get(project_id, file_id)
        if file is None or (file.expires_at is not None and file.expires_at <= self.now()):
            raise LowtideError("file_not_found", f"No such File object: {file_id}", "id")
        return file

    async def get_ready(self, project_id: str, file_id: str) -> File:
        """A file with bytes. LowtideError: `file_not_found`, `file_not_ready`, `file_lost`."""
        file = await self.get(project_id, file_id)
        if file.status == "lost":
            raise file_lost(file_id, "id")
        if file.status == "pending":
            raise LowtideError(
                "file_not_ready",
                f"The bytes of {file_id} were never uploaded: the upload was announced and then"
                " stopped. Upload the file again.",
                "id",
            )
        return file

    async def page(
        self,
        project_id: str,
        *,
        after: str | None = None,
        limit: int = limits.PAGE_SIZE_DEFAULT_FILES,
        order: Order = "desc",
        purpose: str | None = None,
    ) -> FilePage:
        """Files by creation, beginning behind the id `after`. Raises LowtideError, also when
        `after` is no file of the project. In steps: others are served between them.
        """
        if not 1 <= limit <= limits.PAGE_SIZE_MAX_FILES:
            raise LowtideError(
                "invalid_request", f"limit must be 1 to {limits.PAGE_SIZE_MAX_FILES}.", "limit"
            )
        files: list[File] = []
        while len(files) <= limit:
            step = min(limit + 1 - len(files), limits.ROWS_AT_ONCE)
            try:
                more = await self._files.page(
                    project_id, after=after, limit=step, order=order, purpose=purpose
                )
            except UnknownCursor:
                message = f"No file found with id '{after}'."
                raise LowtideError("invalid_request", message, "after") from None
            files += more
            if len(more) < step:
                break
            after = files[-1].id
        return FilePage(files[:limit], len(files) > limit)

    async def names(self, project_id: str, file_ids: Sequence[str]) -> Mapping[str, str]:
        """File names by id, without files that are unknown or deleted."""
        return await self._files.names(project_id, file_ids)

    async def delete(self, project_id: str, file_id: str) -> None:
        """Hides the file; a batch that still reads it goes on. Raises LowtideError."""
        file = await self.get(project_id, file_id)
        if file.status == "growing":
            raise LowtideError(
                "invalid_request",
                f"{file_id} holds results of {file.batch_id}, which still runs. Cancel the batch"
                " first, or wait for its end.",
                "id",
            )
        await self._files.delete(project_id, file_id, self.now())

    def stream(
        self, file: File, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Bytes of an uploaded file, in blocks. Raises BlobNotFound at the start."""
        return self._blobs.stream(file.blob_key, offset, length)

    def _file(
        self,
        project_id: str,
        file_id: str,
        filename: str,
        purpose: str,
        expires_after_s: int | None,
        content: Content | None = None,
        status: FileStatus = "pending",
    ) -> File:
        now = self.now()
        ttl_s = limits.FILE_TTL_S if expires_after_s is None else expires_after_s
        return File(
            id=file_id,
            project_id=project_id,
            purpose=purpose,
            filename=filename,
            status=status,
            dialect=dialect_of_purpose(purpose),
            created_at=now,
            expires_at=now + timedelta(seconds=ttl_s),
            bytes=content.bytes if content else 0,
            lines=content.lines if content else 0,
            sha256=content.sha256 if content else "",
            blob_key=content.blob_key if content else "",
        )


@contextmanager
def one_body_at_a_time(under_way: set[str], subject: str) -> Iterator[None]:
    """Refuses a second body for the same file or part while one is under way in this process: a
    signed address could else be used to send any number at once. Raises LowtideError `upload_busy`.
    """
    if subject in under_way:
        raise LowtideError(
            "upload_busy",
            "Bytes for this address are under way already. Send them again only after that request"
            " has ended.",
            retry_after_s=limits.UPLOAD_BUSY_RETRY_AFTER_S,
        )
    under_way.add(subject)
    try:
        yield
    finally:
        under_way.discard(subject)


def checked_purpose(purpose: str | None) -> str:
    """Raises LowtideError `missing_required_parameter`, `invalid_purpose`."""
    if not purpose:
        raise missing_parameter("purpose")
    if purpose not in PURPOSES:
        raise LowtideError(
            "invalid_purpose",
            f"{purpose!r} is not a purpose of this server, which runs batches: use 'batch'"
            " (OpenAI clients) or 'batch-api' (Together clients).",
            "purpose",
        )
    return purpose


def checked_filename(name: str | None) -> str:
    """The last step of a path as any system writes it, bounded, without control characters."""
    last = re.split(r"[/\\]", name or "")[-1]
    return _CONTROLS.sub("", last)[: limits.FILENAME_CHARS_MAX] or "upload"


def checked_expiry(anchor: str | None, seconds: str | None) -> int | None:
    """`expires_after` of OpenAI in seconds; None when it was not given. Raises LowtideError."""
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise LowtideError(
            "invalid_request",
            "expires_after[anchor] must be 'created_at'.",
            "expires_after[anchor]",
        )
    low, high = limits.FILE_TTL_S_MIN, limits.FILE_TTL_S_MAX
    value = int(seconds) if seconds and re.fullmatch(r"[0-9]{1,9}", seconds) else 0
    if not low <= value <= high:
        raise LowtideError(
            "invalid_request",
            f"expires_after[seconds] must be {low} to {high}.",
            "expires_after[seconds]",
        )
    return value


def checked_checksum(checksum: str | None) -> str:
    """A SHA-256 in hex, lower case; "" when none was given. Raises LowtideError."""
    text = (checksum or "").strip().lower()
    if text and not _SHA256.fullmatch(text):
        raise LowtideError(
            "invalid_request", "checksum must be a SHA-256 in hex (64 digits).", "checksum"
        )
    return text


def _address_used() -> LowtideError:
    return LowtideError(
        "upload_invalid",
        "This upload address was used already, or its file was deleted."
        " Upload again to get a new one.",
    )
