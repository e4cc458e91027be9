"""The verbs on batches: create, get, page, cancel, and the progress of what they return.

Called by the API's batch routes, the command line and the dashboard. Guards two promises:
whatever can be known to be wrong when a batch is created is refused there, with the parameter at
fault; and a client that repeats a create because it got no answer has one batch, not two. What is
in the lines is none of its business: that is found by validation, and fails the batch, not the
call (protocol.md section 8).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, Literal

import msgspec

from lowtide import limits
from lowtide.config import Settings, parse_window
from lowtide.config_sources import ConfigError
from lowtide.core.batch import Batch
from lowtide.core.catalogue import Catalogue
from lowtide.core.errors import LowtideError, file_lost
from lowtide.core.file import PURPOSES, File
from lowtide.core.ledger import Cost
from lowtide.core.line import ENDPOINTS
from lowtide.core.progress import NO_QUEUE, Progress, Queue, progress_of
from lowtide.ports.clock import Clock, NewId
from lowtide.ports.store import Store
from lowtide.service.limits import LimitService

NOTHING_SPENT: Final = Cost()

Loop = Literal["validate", "dispatch", "assemble"]
"""What `wake` may be asked to nudge, so that nothing waits for the next poll."""

ReplicaStatus = Callable[[], Mapping[str, str | None] | None]
"""Models that a replica serves -> None, or why not at this moment; None: not known here."""


class OutputExpiry(msgspec.Struct, frozen=True):
    """How long result files are kept (protocol.md section 3.3)."""

    anchor: str
    seconds: int


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A create request as sent; fields of other vendors are passed over. None: not given."""

    input_file_id: str | None = None
    endpoint: str | None = None
    completion_window: str | None = None
    metadata: Mapping[str, str] | None = None
    output_expires_after: OutputExpiry | None = None
    priority: int | None = None
    model_id: str | None = None
    dry_run: bool | None = None


class Draft(msgspec.Struct, frozen=True):
    """A create request whose values make sense."""

    file: File
    endpoint: str
    window_s: int


class Created(msgspec.Struct, frozen=True):
    """The batch, and a sentence for the user where something asked for will not happen."""

    batch: Batch
    warning: str | None = None


class Page(msgspec.Struct, frozen=True):
    """Batches, newest first; `more` when older ones follow."""

    batches: Sequence[Batch]
    more: bool


class BatchService:
    """The verbs. `wake` nudges a loop of this process; losing a nudge costs a poll interval."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        clock: Clock,
        new_id: NewId,
        settings: Settings,
        allowance: LimitService,
        wake: Callable[[Loop], None],
        replica_status: ReplicaStatus = lambda: None,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._clock = clock
        self._new_id = new_id
        self._settings = settings
        self._allowance = allowance
        self._wake = wake
        self._replica_status = replica_status

    async def create(
        self, project_id: str, user_id: str, asked: NewBatch, *, repeat: bool = False
    ) -> Created:
        """Record the batch and wake validation. `repeat`: the client says that it asks once more.

        Raises LowtideError with the parameter at fault, or for a limit or cap that is reached.
        """
        draft = await self.check(project_id, asked)
        batch = self._new_batch(project_id, user_id, asked, draft)
        since = batch.created_at - timedelta(seconds=limits.REPEATED_POST_WINDOW_S)
        stored = await self._repeated(batch, since) if repeat else None
        if stored is None:
            await self._allowance.check_batches_per_hour(project_id)
            await self._allowance.check_spend(project_id)
            stored = await self._store.batches.add(
                batch, digest=_digest(batch), repeat=repeat, since=since
            )
        self._wake("validate")
        return Created(stored, self._warning(asked))

    async def check(self, project_id: str, asked: NewBatch) -> Draft:
        """Refuse what can be known to be wrong. Raises LowtideError with the parameter at fault."""
        window_s = self._check_values(asked)
        file = await self._input_file(project_id, asked.input_file_id)
        return Draft(file, _endpoint(asked.endpoint, file), window_s)

    async def mark_answered(self, batch_id: str) -> None:
        """The client is there to hear the answer: an identical create is now a new batch."""
        await self._store.batches.mark_answered(batch_id)

    async def get(self, project_id: str, batch_id: str) -> Batch:
        """Raises LowtideError `batch_not_found`."""
        batch = await self._store.batches.get(project_id, batch_id)
        if batch is None:
            raise _not_found(batch_id)
        return batch

    async def page(self, project_id: str, *, after: str | None = None, limit: int) -> Page:
        """Up to `limit` batches, newest first, beginning behind the id `after`.

        Raises LowtideError when `after` is no batch: an endless walk over a wrong cursor is worse.
        """
        if after is not None and await self._store.batches.get(project_id, after) is None:
            raise LowtideError("invalid_request", f"No batch found with id '{after}'.", "after")
        found = await self._store.batches.page(project_id, after=after, limit=limit + 1)
        return Page(found[:limit], more=len(found) > limit)

    async def cancel(self, project_id: str, batch_id: str) -> Batch:
        """Stop the batch; what finished is kept. One that is past cancelling comes back unchanged.

        Raises LowtideError `batch_not_found`, or `invalid_request` when it ended otherwise.
        """
        batch = await self._store.batches.cancel(project_id, batch_id, self._clock.now())
        if batch is None:
            raise _not_found(batch_id)
        if batch.status in ("completed", "failed", "expired"):
            raise LowtideError(
                "invalid_request", f"Batch '{batch_id}' is {batch.status} and cannot be cancelled."
            )
        self._wake("dispatch")
        self._wake("assemble")
        return batch

    async def progress(self, batches: Sequence[Batch]) -> list[Progress]:
        """Stage, estimate and reason of each. Queries grow with the models, not the batches."""
        now, replicas = self._clock.now(), self._replica_status()
        queues: dict[str, Queue] = {}
        found = []
        for batch in batches:
            models = await self._models_of(batch, alone=len(batches) == 1)
            queue = NO_QUEUE
            if batch.status == "in_progress" and not batch.counts.settled:
                queue = await self._queue(models, queues)
            bounds = await self._allowance.of(batch.project_id)
            found.append(
                progress_of(
                    batch,
                    now,
                    models=models,
                    replicas=replicas,
                    queue=queue,
                    in_flight_max=bounds.requests_in_flight,
                )
            )
        return found

    async def costs(self, batches: Sequence[Batch]) -> list[Cost]:
        """What each was charged so far."""
        known = await self._store.ledger.cost([batch.id for batch in batches])
        return [known.get(batch.id, NOTHING_SPENT) for batch in batches]

    def _new_batch(self, project_id: str, user_id: str, asked: NewBatch, draft: Draft) -> Batch:
        now, expiry = self._clock.now(), asked.output_expires_after
        return Batch(
            id=self._new_id("batch_"),
            project_id=project_id,
            user_id=user_id,
            dialect=draft.file.dialect,
            input_file_id=draft.file.id,
            input_bytes=draft.file.bytes,
            endpoint=draft.endpoint,
            completion_window_s=draft.window_s,
            metadata=dict(asked.metadata or {}),
            priority=asked.priority or 0,
            output_expires_after_s=expiry.seconds if expiry else None,
            created_at=now,
            expires_at=now + timedelta(seconds=draft.window_s),
        )

    async def _repeated(self, batch: Batch, since: datetime) -> Batch | None:
        """The batch that this create repeats, among the newest: no limit may refuse it again."""
        newest = await self._store.batches.page(
            batch.project_id, after=None, limit=limits.PAGE_SIZE_DEFAULT
        )
        wish = _digest(batch)
        return next((b for b in newest if b.created_at >= since and _digest(b) == wish), None)

    async def _models_of(self, batch: Batch, *, alone: bool) -> tuple[str, ...]:
        """Those of a mixed batch cost a query, which a list of batches does without."""
        if batch.status != "in_progress":
            return ()
        if batch.model is not None:
            return (batch.model,)
        return tuple(await self._store.batches.models(batch.id)) if alone else ()

    async def _queue(self, models: Sequence[str], known: dict[str, Queue]) -> Queue:
        for model in models:
            if model not in known:
                depth = await self._store.batches.queue(model)
                known[model] = Queue(depth.waiting_requests, depth.leased_requests)
        parts = [known[model] for model in models]
        return Queue(sum(part.waiting for part in parts), sum(part.leased for part in parts))

    def _check_values(self, asked: NewBatch) -> int:
        """The completion window in seconds. Raises LowtideError for values that make no sense."""
        if not asked.input_file_id:
            raise _missing("input_file_id")
        _check_metadata(asked.metadata or {})
        _check_output_expiry(asked.output_expires_after)
        if asked.priority is not None and abs(asked.priority) > limits.PRIORITY_MAX:
            raise LowtideError(
                "invalid_request",
                f"priority must be from -{limits.PRIORITY_MAX} to {limits.PRIORITY_MAX}.",
                "priority",
            )
        if asked.completion_window is None:
            return self._settings.limits.completion_window_s
        try:
            return parse_window(asked.completion_window)
        except ConfigError as error:
            raise LowtideError("invalid_request", str(error), "completion_window") from None

    async def _input_file(self, project_id: str, file_id: str | None) -> File:
        file = await self._store.files.get(project_id, file_id or "")
        if file is None:
            raise LowtideError("file_not_found", f"No such File object: {file_id}", "input_file_id")
        if file.purpose not in PURPOSES:
            raise LowtideError(
                "invalid_purpose",
                f"File '{file.id}' has the purpose '{file.purpose}'; the input of a batch needs"
                " 'batch' or 'batch-api'.",
                "input_file_id",
            )
        if file.status == "lost":
            raise file_lost(file.id, "input_file_id")
        if file.status != "uploaded":
            raise LowtideError(
                "file_not_ready",
                f"The content of file '{file.id}' has not been uploaded yet.",
                "input_file_id",
            )
        return file

    def _warning(self, asked: NewBatch) -> str | None:
        warnings = []
        if asked.model_id is not None:
            warnings.append("model_id is not used: each line names its own model.")
        if not self._catalogue.entries:
            warnings.append("No replica is configured: validation will find no model to run on.")
        return " ".join(warnings) or None


def _endpoint(endpoint: str | None, file: File) -> str:
    """As asked, if we have it. Together's launch example leaves it out and means chat."""
    if not endpoint:
        if file.dialect == "together":
            return "/v1/chat/completions"
        raise _missing("endpoint")
    if endpoint not in ENDPOINTS:
        raise LowtideError(
            "unsupported_endpoint",
            f"The endpoint '{endpoint[: limits.VALUE_CHARS_QUOTED]}' is not supported in a batch."
            f" Use one of: {', '.join(sorted(ENDPOINTS))}.",
            "endpoint",
        )
    return endpoint


def _check_metadata(metadata: Mapping[str, str]) -> None:
    pairs, key_chars, value_chars = (
        limits.METADATA_PAIRS_MAX,
        limits.METADATA_KEY_CHARS_MAX,
        limits.METADATA_VALUE_CHARS_MAX,
    )
    if len(metadata) > pairs:
        raise LowtideError("invalid_request", f"metadata has more than {pairs} pairs.", "metadata")
    for key, value in metadata.items():
        if len(key) > key_chars:
            message = (
                f"A metadata key has more than {key_chars} characters: '{key[:key_chars]}...'."
            )
            raise LowtideError("invalid_request", message, "metadata")
        if len(value) > value_chars:
            message = f"The metadata value of '{key}' has more than {value_chars} characters."
            raise LowtideError("invalid_request", message, "metadata")


def _check_output_expiry(expiry: OutputExpiry | None) -> None:
    if expiry is None:
        return
    if expiry.anchor != "created_at":
        raise LowtideError(
            "invalid_request",
            "output_expires_after.anchor must be 'created_at'.",
            "output_expires_after",
        )
    low, high = limits.OUTPUT_EXPIRES_AFTER_S_MIN, limits.FILE_TTL_S
    if not low <= expiry.seconds <= high:
        raise LowtideError(
            "invalid_request",
            f"output_expires_after.seconds must be from {low} to {high}.",
            "output_expires_after",
        )


def _digest(batch: Batch) -> str:
    """Names what was asked, so that a repetition can be told from another wish."""
    wish = (
        batch.project_id,
        batch.input_file_id,
        batch.endpoint,
        batch.completion_window_s,
        sorted(batch.metadata.items()),
        batch.priority,
        batch.output_expires_after_s,
    )
    return sha256(msgspec.json.encode(wish)).hexdigest()


def _missing(param: str) -> LowtideError:
    return LowtideError(
        "missing_required_parameter", f"Missing required parameter: '{param}'.", param
    )


def _not_found(batch_id: str) -> LowtideError:
    return LowtideError("batch_not_found", f"No batch found with id '{batch_id}'.")
