"""Makes a file from parts: the bytes are put together once, however often clients ask.

A large file takes longer than some clients wait (Together's asks again after 60 seconds, OpenAI's
after 600), so completing is a task of its own: a caller that comes back joins it, and one that
comes to another process waits for it there. Guards: a file appears whole, with the bytes that were
announced and the digests that were asked for; a process that dies over it leaves an upload that can
be completed again as soon as its hold has run out. Bytes pass through in blocks, with the digests
taken in the same pass: a block costs the event loop less than a millisecond.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import structlog

from lowtide import limits
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File, dialect_of_purpose
from lowtide.core.files.upload import Choice, Upload, UploadPart, choose_parts, closed
from lowtide.ports.blobs import BlobNotFound, Blobs
from lowtide.ports.clock import Clock, NewId
from lowtide.ports.files import FileStore
from lowtide.ports.store import StoreError
from lowtide.ports.uploads import UploadStore
from lowtide.service.fair_places import FairPlaces
from lowtide.service.files.files import BLOB_FOLDER
from lowtide.service.files.upload_writer import Content, open_upload
from lowtide.service.files.uploads import not_found
from lowtide.service.files.wrong_digests import Found, WrongDigests, mismatch

log = structlog.get_logger(__name__)


class UploadCompleter:
    """The completions of one process. Leave it with `aclose`."""

    def __init__(
        self, uploads: UploadStore, files: FileStore, blobs: Blobs, clock: Clock, new_id: NewId
    ) -> None:
        self._uploads = uploads
        self._files = files
        self._blobs = blobs
        self._clock = clock
        self._new_id = new_id
        self._turns = FairPlaces(limits.COMPLETIONS_AT_ONCE)
        self._wrong = WrongDigests()
        self._running: dict[tuple[str, str], asyncio.Task[File]] = {}

    async def complete(self, upload: Upload, choice: Choice, owner: str) -> File:
        """The upload's file. The same choice again gives the same file. `owner`: whose turn it is.

        Raises LowtideError: `invalid_request`, `upload_closed`, `upload_expired`; and
        `upload_completing` after `limits.COMPLETION_WAIT_S`, while it goes on.
        """
        key = (upload.id, choice.digest)
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(
                self._complete(upload.id, choice, owner), name=f"put {upload.id}"
            )
            self._running[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        try:
            async with asyncio.timeout(limits.COMPLETION_WAIT_S):
                return await asyncio.shield(task)
        except TimeoutError:
            raise LowtideError(
                "upload_completing",
                f"The parts of {upload.id} are still being put together. Ask again.",
            ) from None
        except asyncio.CancelledError:
            if task.cancelled():
                raise LowtideError(
                    "server_stopping",
                    f"The server stops. {upload.id} is as it was: complete it again.",
                ) from None
            raise  # the caller's own

    async def aclose(self) -> None:
        """Stops what is under way; those uploads stay as they were."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, key: tuple[str, str], task: "asyncio.Task[File]") -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # seen: perhaps nobody waits any more

    async def _complete(self, upload_id: str, choice: Choice, owner: str) -> File:
        while True:
            upload = await self._uploads.by_id(upload_id)
            if upload is None:
                raise not_found(upload_id)
            if upload.status == "completed" and upload.choice_digest == choice.digest:
                return await self._file_of(upload)
            if refusal := closed(upload, self._clock.now()):
                raise refusal
            self._wrong.check(upload, choice)
            async with self._turns.of(owner):
                now = self._clock.now()
                token = await self._uploads.hold(upload_id, now, limits.LEASE_TTL_S)
                if token is not None:
                    async with self._holding(upload, token):
                        self._wrong.check(upload, choice)
                        file = await self._put_together(upload, token, choice)
                        self._wrong.forget(upload_id)
                        return file
            await self._clock.sleep(limits.COMPLETION_POLL_S)  # another process is at it

    async def _put_together(self, upload: Upload, token: int, choice: Choice) -> File:
        began_s = self._clock.monotonic()
        # The upload is held: no part comes or goes any more.
        parts = choose_parts(upload, await self._uploads.parts(upload.id), choice)
        try:
            content = await self._compose(upload, parts, choice)
        except BlobNotFound:
            raise await self._in_vain(upload, _part_lost(upload)) from None
        now = self._clock.now()
        file = _file(upload, content, now)
        if not await self._uploads.complete(upload.id, token, file, choice.digest, now):
            await self._blobs.delete(content.blob_key)  # the store says that no row names it
            raise await self._in_vain(upload, _elsewhere(upload))
        log.info(
            "upload.completed",
            upload=upload.id,
            file=file.id,
            bytes=file.bytes,
            parts=len(parts),
            seconds=round(self._clock.monotonic() - began_s, 1),
        )
        return file

    async def _compose(
        self, upload: Upload, parts: Sequence[UploadPart], choice: Choice
    ) -> Content:
        """The bytes of the parts, one after another, as one blob."""
        key = f"{BLOB_FOLDER}/{upload.file_id}/{self._new_id('')}"
        md5 = hashlib.md5(usedforsecurity=False)
        async with open_upload(self._blobs, key, upload.bytes) as intake:
            for part in parts:
                async for block in self._blobs.stream(part.blob_key):
                    await intake.write(block)
                    if choice.md5:
                        md5.update(block)
            # Refusals must come before the context is left: leaving it in peace keeps the bytes.
            content = intake.content
            digests = Found(content.sha256, md5.hexdigest() if choice.md5 else "")
            if (refusal := mismatch(upload, choice, digests)) is not None:
                if self._wrong.note(upload, choice, digests) >= limits.COMPLETION_FAILURES_MAX:
                    await self._end(upload)
                raise refusal
        return content

    async def _end(self, upload: Upload) -> None:
        """Ends an upload whose digests were wrong too often: it is not read over and over."""
        await self._uploads.cancel(upload.project_id, upload.id, self._clock.now())
        self._wrong.forget(upload.id)
        log.info("upload.cancelled", upload=upload.id, reason="wrong digests")

    @asynccontextmanager
    async def _holding(self, upload: Upload, token: int) -> AsyncIterator[None]:
        """Renews the hold while the context lasts, and gives it up at its end."""
        renewing = asyncio.create_task(self._renew(upload, token), name=f"hold {upload.id}")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            with suppress(StoreError):  # then it runs out by itself
                await self._uploads.let_go(upload.id, token)

    async def _renew(self, upload: Upload, token: int) -> None:
        """A store that fails is asked again: what counts is whether it is held at the end."""
        while True:
            await self._clock.sleep(limits.LEASE_TTL_S / 3)
            with suppress(StoreError):
                now = self._clock.now()
                await self._uploads.keep_hold(upload.id, token, now, limits.LEASE_TTL_S)

    async def _in_vain(self, upload: Upload, otherwise: LowtideError) -> LowtideError:
        """Why a completion failed: the upload was cancelled meanwhile, or `otherwise`."""
        seen = await self._uploads.by_id(upload.id)
        if seen is None:
            return not_found(upload.id)
        return closed(seen, self._clock.now()) or otherwise

    async def _file_of(self, upload: Upload) -> File:
        file = await self._files.get(upload.project_id, upload.file_id)
        if file is None:
            raise LowtideError("file_not_found", f"No such File object: {upload.file_id}", "id")
        return file


def _file(upload: Upload, content: Content, now: datetime) -> File:
    return File(
        id=upload.file_id,
        project_id=upload.project_id,
        purpose=upload.purpose,
        filename=upload.filename,
        status="uploaded",
        dialect=dialect_of_purpose(upload.purpose),
        created_at=now,
        expires_at=now + timedelta(seconds=upload.file_ttl_s),
        bytes=content.bytes,
        lines=content.lines,
        sha256=content.sha256,
        blob_key=content.blob_key,
    )


def _part_lost(upload: Upload) -> LowtideError:
    return LowtideError(
        "file_lost", f"The bytes of a part of {upload.id} were lost. Begin a new upload.", "parts"
    )


def _elsewhere(upload: Upload) -> LowtideError:
    return LowtideError(
        "upload_completing", f"Another server puts {upload.id} together. Ask again."
    )
