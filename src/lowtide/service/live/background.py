"""Background responses: a Responses call that is answered at once and retrieved later.

Called by api/live/responses.py. Each is a batch of one request, so that it can be cancelled and
deleted alone. Invariant: a response is there as long as its input file is, which is deleted with it
and expires when the results of a batch do.
"""

from collections.abc import Mapping
from datetime import timedelta

import msgspec

from lowtide import limits
from lowtide.core.batches.batch import TERMINAL, Batch
from lowtide.core.errors import LowtideError
from lowtide.core.faults.outcome import error_message
from lowtide.core.files.file import File
from lowtide.core.live.background import (
    ResponseStatus,
    answered,
    batch_id_of,
    failed,
    status_of,
    unfinished,
)
from lowtide.core.live.flex import FlexCall, failure, read_result
from lowtide.core.live.live import answer_of
from lowtide.ports.blobs import BlobNotFound, Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import Store
from lowtide.service.live.flex_queue import FlexQueue, FlexSubmission

_NO_FIELDS: Mapping[str, msgspec.Raw] = {}


class BackgroundService:
    """Responses of all projects; another project's id is an unknown one."""

    def __init__(self, queue: FlexQueue, store: Store, blobs: Blobs, clock: Clock) -> None:
        self._queue = queue
        self._store = store
        self._blobs = blobs
        self._clock = clock

    async def create(
        self, project_id: str, user_id: str, call: FlexCall, *, repeat: bool = False
    ) -> tuple[str, bytes]:
        """Queues the call. Returns the id of its batch, and the response as it is now.

        `repeat`: the client says that it asks once more, and means the response that it was not
        told of, if there is one. Raises LowtideError, StoreError, BlobError.
        """
        await self._queue.check(project_id, call)
        order = FlexSubmission(
            project_id=project_id,
            user_id=user_id,
            endpoint=call.endpoint,
            flex="background",
            calls=[call],
            window_s=self._queue.window_s,
            keep_s=limits.FILE_TTL_S,
        )
        batch = await self._unanswered(order) if repeat else None
        if batch is None:
            batch = await self._queue.submit(order)
        return batch.id, unfinished(batch, "queued", call.fields)

    async def mark_answered(self, batch_id: str) -> None:
        """Records that the client received the answer."""
        await self._store.batches.mark_answered(batch_id, self._clock.now())

    async def get(self, project_id: str, response_id: str) -> bytes:
        """The response. Raises LowtideError `response_not_found`."""
        batch, source = await self._find(project_id, response_id)
        leased = await self._store.flex.is_leased(batch.id)
        return await self._shown(batch, source, status_of(batch, is_leased=leased))

    async def cancel(self, project_id: str, response_id: str) -> bytes:
        """Stops it; a cancelled one stays as it is.

        Raises LowtideError `response_not_found`, or `invalid_request` when it has ended otherwise.
        """
        batch, source = await self._find(project_id, response_id)
        stopped = await self._store.batches.cancel(project_id, batch.id, self._clock.now())
        status = status_of(stopped or batch)
        if status != "cancelled":
            message = f"Response '{response_id}' is {status} and cannot be cancelled."
            raise LowtideError("invalid_request", message)
        self._queue.cancelled()
        return await self._shown(stopped or batch, source, status)

    async def delete(self, project_id: str, response_id: str) -> None:
        """Forgets it and what it said. Raises LowtideError `response_not_found`."""
        batch, source = await self._find(project_id, response_id)
        if batch.status not in TERMINAL:
            await self._queue.cancel(batch)
        for file_id in (source.id, batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                await self._store.files.delete(project_id, file_id, self._clock.now())

    async def _find(self, project_id: str, response_id: str) -> tuple[Batch, File]:
        batch_id = batch_id_of(response_id)
        batch = await self._store.batches.get(project_id, batch_id) if batch_id else None
        if batch is not None and batch.flex == "background":
            source = await self._store.files.get(project_id, batch.input_file_id)
            if source is not None and not _is_past(source, self._clock):
                return batch, source
        raise LowtideError("response_not_found", f"No response found with id '{response_id}'.")

    async def _unanswered(self, order: FlexSubmission) -> Batch | None:
        since = self._clock.now() - timedelta(seconds=limits.REPEATED_POST_WINDOW_S)
        return await self._store.flex.unanswered(order.project_id, order.digest, since)

    async def _shown(self, batch: Batch, source: File, status: ResponseStatus) -> bytes:
        pending = unfinished(batch, status, await self._asked(source))
        if batch.status != "completed":
            return pending
        line = await self._line(batch)
        if line is None:
            return failed(pending, "server_error", "Its result is gone.")
        result = read_result(line)
        if result.reply is None:
            return failed(pending, "server_error", failure(result).message)
        answer = answer_of(result.reply)
        if answer.status < 300:
            return answered(batch, answer.body)
        code = "server_error" if answer.status >= 500 else "invalid_prompt"
        message = error_message(answer.body) or f"The engine answered {answer.status}."
        return failed(pending, code, message)

    async def _line(self, batch: Batch) -> bytes | None:
        """The one result line of the response."""
        file_id = batch.output_file_id or batch.error_file_id
        file = await self._store.files.get(batch.project_id, file_id) if file_id else None
        if file is None or file.status != "uploaded":
            return None
        try:
            return await self._blobs.read(file.blob_key)
        except BlobNotFound:
            return None

    async def _asked(self, source: File) -> Mapping[str, msgspec.Raw]:
        """The fields of its request, while they are kept."""
        try:
            line = await self._blobs.read(source.blob_key)
        except BlobNotFound:
            return _NO_FIELDS
        return msgspec.json.decode(line, type=_Line).body


class _Line(msgspec.Struct):
    body: dict[str, msgspec.Raw]


def _is_past(file: File, clock: Clock) -> bool:
    return file.expires_at is not None and file.expires_at <= clock.now()
