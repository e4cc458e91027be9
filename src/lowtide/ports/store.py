"""The port to the state: batches, chunks, leases; files are in ports/files.py. It guards "nothing
lost, nothing doubled".

Contract, held by every adapter and checked by tests/contract/test_store_*.py:
- Every method is one transaction: all of it happens or none of it.
- When a method that writes has returned, what it wrote survives a crash of process and machine.
- A batch changes state only along `core.batches.batch.TRANSITIONS`, guarded by the state it is in.
- **Fencing.** A lease is `(worker, token, expires_at)`. The holder of the current token may commit,
  even a little past `expires_at`; once a chunk was reaped or leased again, the old token commits
  nothing.
- **Exactly once.** `commit_group` stores a request's outcome only while its chunk is leased under
  the commit's token; bitmap, counters, usage and slices move in that same transaction. So results,
  counts and charges are exactly once, although inference is at least once.
- Counters never fall (but by what is taken back as lost: ports/integrity.py), and a batch's slices
  become visible in the order of their `seq`, without gaps.
- Another project's id behaves as an unknown id.
- Foreign exceptions never pass: StoreFull (no space), StoreUnavailable (locked, gone, refusing).

"Now" is an argument everywhere: stores read no clock. Instants are aware UTC.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from lowtide.core.accounts.batch_quota import NO_QUOTA, BatchQuota
from lowtide.core.accounts.token_queue import PlanQueued, TokenLimitReached
from lowtide.core.batches.batch import Batch, BatchError
from lowtide.core.batches.batch_filter import EVERY_BATCH, BatchFilter
from lowtide.core.batches.plan import ChunkSpec, ModelTotals
from lowtide.core.execution.records import StoredSlice
from lowtide.core.history.batch_events import USER
from lowtide.core.idempotency.request_key import RequestKey
from lowtide.core.webhooks.endpoint import BatchWebhook
from lowtide.ports.accounts import LedgerStore, TenantStore
from lowtide.ports.calibration import CalibrationStore
from lowtide.ports.capacity import CapacityStore
from lowtide.ports.files import FileStore
from lowtide.ports.flex import FlexStore
from lowtide.ports.history import HistoryStore
from lowtide.ports.idempotency import IdempotencyStore
from lowtide.ports.integrity import IntegrityStore
from lowtide.ports.limit_use import LimitUseStore
from lowtide.ports.live_rates import LiveRateStore
from lowtide.ports.ownership import OwnershipStore
from lowtide.ports.retries import BatchEnd, RetryStore
from lowtide.ports.steering import SteeringStore
from lowtide.ports.token_queue import TokenQueueStore
from lowtide.ports.uploads import UploadStore
from lowtide.ports.wakeups import Wakeups
from lowtide.ports.webhooks import OutboxStore, WebhookStore
from lowtide.ports.work import TaskLease, WorkStore
from lowtide.ports.worker_reports import WorkerReportStore


class StoreError(Exception):
    """Base of what this port raises."""


class StoreFull(StoreError):
    """No space left for the database."""


class StoreValueError(StoreError):
    """A value that this database cannot hold, such as text with NUL in PostgreSQL."""


class StoreUnavailable(StoreError):
    """The database cannot be reached, is locked or refuses access; try again later."""


class StoreReadOnly(StoreUnavailable):
    """The database answers and takes no writes."""


class UnknownCursor(LookupError):
    """The id behind which a page should begin names nothing of that project."""


class BatchStore(Protocol):
    """Rows of batches, for the verbs."""

    async def add(
        self,
        batch: Batch,
        *,
        digest: str,
        repeat: bool,
        since: datetime,
        quota: BatchQuota = NO_QUOTA,
        webhook: BatchWebhook | None = None,
        key: RequestKey | None = None,
    ) -> Batch:
        """Inserts, unless `repeat` (the client says that it asks once more) and `repeated` finds
        the batch that was made for it, or an earlier create with `key` made one: that is returned.

        `webhook`: where the event of its end goes, beside the endpoints that ask for all. Of
        repetitions at one moment one inserts, and the others find its batch. Raises KeyTaken, and
        BatchQuotaReached, however many add at the same instant.
        """

    async def repeated(
        self, project_id: str, digest: str, *, since: datetime, now: datetime
    ) -> Batch | None:
        """The batch that a repeated create means: the newest of the project and digest, created at
        or after `since`, whose client may not know of it.

        That is one that was never marked as answered and was not cancelled; or one that
        still runs and was marked less than ANSWER_DOUBTED_S before `now`. A client that
        repeats did not receive it, so it counts as not answered until it is marked again.
        `digest` names what was asked.
        """

    async def mark_answered(self, batch_id: str, now: datetime) -> None:
        """The answer to the creating client was sent at `now`."""

    async def get(self, project_id: str, batch_id: str) -> Batch | None: ...

    async def get_many(self, project_id: str, batch_ids: Collection[str]) -> dict[str, Batch]:
        """The same of many at once, by id; one that `get` would not find is missing."""

    async def page(
        self, project_id: str, *, after: str | None, limit: int, which: BatchFilter = EVERY_BATCH
    ) -> list[Batch]:
        """The batches, newest first, beginning behind the id `after`. Raises UnknownCursor."""

    async def cancel(
        self, project_id: str, batch_id: str, now: datetime, actor: str = USER
    ) -> Batch | None:
        """Takes the event `cancel` where the state allows it; the batch as it then is.

        Chunks that wait or are held are dropped in the same transaction; leased ones end with
        their next commit. Noted among the batch's events as asked for by `actor`.
        """

    async def models(self, batch_id: str) -> Mapping[str, ModelTotals]:
        """Requests and estimated input tokens by model, as planned."""

    async def queue(self, model: str | None = None) -> "QueueDepth":
        """What waits and what runs, over all projects (for `reason`, ETA and metrics). What a
        paused batch has not leased does not wait."""


class QueueDepth(msgspec.Struct, frozen=True):
    """Requests not yet settled in chunks that wait or are leased."""

    waiting_requests: int
    leased_requests: int
    batches: int


class OutputInfo(msgspec.Struct, frozen=True):
    """A result file as assembled."""

    bytes: int
    lines: int
    sha256: str
    blob_key: str


class LifecycleStore(Protocol):
    """Validation, assembly, expiry: what moves a batch between its states."""

    async def claim_validation(
        self, worker_id: str, now: datetime, ttl_s: float, *, bytes_max: int | None = None
    ) -> TaskLease | None:
        """A batch that is `validating` and neither leased nor planned, whose input has at most
        `bytes_max`.

        By organizations in turns: of the one that was given the least input lately, the oldest.
        """

    async def claim_assembly(
        self, worker_id: str, now: datetime, ttl_s: float, *, bytes_max: int | None = None
    ) -> TaskLease | None:
        """A batch in a state of `core.batches.batch.ASSEMBLING`, no lease, no leased chunk; in
        turns."""

    async def renew_task(self, lease: TaskLease, now: datetime, ttl_s: float) -> bool:
        """False when the lease was lost or the batch has left the state it was claimed in."""

    async def release_task(self, lease: TaskLease) -> None:
        """Gives the lease back at once, for the next claim."""

    async def commit_plan(
        self,
        lease: TaskLease,
        *,
        plan_key: str,
        chunks: Sequence[ChunkSpec],
        models: Mapping[str, ModelTotals],
        enqueued_tokens_max: int,
        now: datetime,
        warnings: Sequence[BatchError] = (),
        queues: bool = False,
    ) -> TokenLimitReached | PlanQueued | bool:
        """Event `planned`: insert the chunks, set total and warnings. True when done, False when
        the lease is lost.

        Over all unfinished batches of the organization, the unsettled estimated input tokens of
        each model stay within `enqueued_tokens_max`; else nothing changes and TokenLimitReached is
        returned. With `queues` only where the batch alone passes the bound; else it waits as
        ports/token_queue.py says (PlanQueued). The chunks of a paused organization are held.
        """

    async def reject(
        self, lease: TaskLease, errors: Sequence[BatchError], errors_total: int, now: datetime
    ) -> bool:
        """Event `rejected`. False when the lease is lost."""

    async def finish(
        self,
        lease: TaskLease,
        *,
        output: OutputInfo | None,
        errors: OutputInfo | None,
        now: datetime,
        end: BatchEnd | None = None,
    ) -> bool:
        """Event `assembled`: the result files become `uploaded`, counts reach the total, and `end`
        is kept, for retries. None: nothing is, as of single calls.

        `counts.failed` becomes the lines of the error file, so that output and error file
        together hold each request once. A file that is None has no row. False when the lease is
        lost.
        """

    async def lose_input(self, batch_id: str, reason: BatchError, now: datetime) -> bool:
        """Event `input_lost`: the batch ends with what it has, and `reason` among its errors.

        Chunks that wait or are held are dropped. False when it is not in progress any more.
        """

    async def expire_due(self, now: datetime) -> list[str]:
        """Event `expire` for every batch whose window is over; their ids. Chunks that wait or are
        held are dropped.
        """

    async def next_expiry(self) -> datetime | None:
        """The earliest end of a window among batches that can expire."""


class ResultStore(Protocol):
    """Committed slices, for readers and the assembler; and what may be swept."""

    async def slices(
        self, batch_id: str, *, after_seq: int = -1, limit: int = 1000
    ) -> list[StoredSlice]:
        """The slices in the order of `seq`."""

    async def sweep(self, now: datetime, *, segments_keep_s: float, limit: int = 1000) -> int:
        """Moves to garbage what nothing needs any more; how many keys were added.

        Slices of batches that ended longer than `segments_keep_s` ago, with their segments once no
        other batch has slices in them; plans of ended batches; files past `expires_at`; inputs of
        deleted files that no unfinished batch reads; parts of uploads past their time, which expire
        (ports/uploads.py).
        """

    async def garbage(self, limit: int = 1000) -> list[str]:
        """Blob keys to delete."""

    async def forget(self, keys: Sequence[str]) -> None:
        """Forgets those keys: their blobs are deleted."""

    async def known(self, keys: Sequence[str]) -> frozenset[str]:
        """Which of these blob keys any row refers to; the others are orphans of a crash. An index
        (core/batches/result_index.py) is known by the key of its file."""


class Store(Protocol):
    """All of the state, over one database."""

    files: FileStore
    batches: BatchStore
    lifecycle: LifecycleStore
    work: WorkStore
    results: ResultStore
    retries: RetryStore
    steering: SteeringStore
    token_queue: TokenQueueStore
    tenants: TenantStore
    ledger: LedgerStore
    calibrations: CalibrationStore
    ownership: OwnershipStore
    uploads: UploadStore
    care: IntegrityStore
    capacity: CapacityStore
    flex: FlexStore
    wakeups: Wakeups
    worker_reports: WorkerReportStore
    webhooks: WebhookStore
    outbox: OutboxStore
    limit_use: LimitUseStore
    idempotency: IdempotencyStore
    history: HistoryStore
    live_rates: LiveRateStore

    async def open(self) -> None:
        """Connects and brings the schema to head. Raises StoreError with what to do."""

    async def check_writable(self) -> None:
        """Raises StoreReadOnly where a write would be refused; StoreError as all methods."""

    async def aclose(self) -> None: ...
