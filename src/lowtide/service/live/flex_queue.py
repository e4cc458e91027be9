"""Batches made of single calls: checked, priced and planned like all others, in one go.

Called by service/live/flex.py for calls whose callers wait, and service/live/background.py for
those that do not. A batch of at most a chunk needs no loop to validate it: the process that creates
it plans it, under the lease that it is created with, so no call waits behind a large file.
Invariant: when `submit` fails, nothing of the batch runs that could still be stopped.
"""

import asyncio
from collections.abc import Callable, Sequence, Set
from datetime import timedelta
from hashlib import sha256

import msgspec
import structlog

from lowtide import limits
from lowtide.core.accounts.batch_quota import BatchQuota, BatchQuotaReached
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.accounts.token_queue import TokenLimitReached
from lowtide.core.batches.batch import Batch, BatchError, Flex
from lowtide.core.batches.plan import Plan
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File
from lowtide.core.live.flex import FlexCall
from lowtide.core.validation.planner import Planner
from lowtide.ports.blobs import Blobs
from lowtide.ports.clock import Clock, NewId
from lowtide.ports.store import Store, StoreError
from lowtide.ports.work import TaskLease
from lowtide.service.accounts.quotas import Quotas, spend_cap_message, too_many_batches
from lowtide.service.batches.batches import Loop
from lowtide.service.batches.forecasts import Forecasts
from lowtide.service.files.files import FileService
from lowtide.service.off_loop import off_loop

log = structlog.get_logger(__name__)


class FlexSubmission(msgspec.Struct, frozen=True, kw_only=True):
    """Calls to make one batch of: of one project, key and endpoint."""

    project_id: str
    user_id: str
    endpoint: str
    flex: Flex
    calls: Sequence[FlexCall]
    window_s: int
    keep_s: int

    @property
    def content(self) -> bytes:
        """The content of the input file."""
        return content_of(self.calls)

    @property
    def digest(self) -> str:
        """Names what was asked, so that a repetition can be told from another request."""
        asked = f"{self.project_id} {self.flex}\n".encode() + self.content
        return sha256(asked).hexdigest()


def content_of(calls: Sequence[FlexCall]) -> bytes:
    """The lines of these calls."""
    return b"".join(call.line(number) for number, call in enumerate(calls, 1))


ServedModels = Callable[[], Set[str] | None]
"""Models that some replica serves; None: not known here."""


class FlexQueue:
    """Makes batches of calls. `owner` holds them while they are made."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        catalogue: Catalogue,
        planner: Planner,
        clock: Clock,
        new_id: NewId,
        files: FileService,
        allowance: Quotas,
        wake: Callable[[Loop], None],
        *,
        owner: str,
        served_models: ServedModels = lambda: None,
        prospects: Forecasts | None = None,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._catalogue = catalogue
        self._planner = planner
        self._clock = clock
        self._new_id = new_id
        self._files = files
        self._allowance = allowance
        self._wake = wake
        self._owner = owner
        self._served_models = served_models
        self._prospects = prospects

    @property
    def window_s(self) -> int:
        """How long a call may wait for its turn where its caller does not wait."""
        return self._allowance.defaults.completion_window_s

    async def check(self, project_id: str, call: FlexCall) -> Plan:
        """Refuses what can be known to be wrong with the call; else its plan, were it alone.

        Raises LowtideError `model_not_found`, `invalid_request`, `resource_unavailable`.
        """
        if call.model not in self._catalogue.names:
            raise LowtideError("model_not_found", f"No model named '{call.model}'.", "model")
        plan, _ = await self._plan_beside(project_id, call.endpoint, [call])
        await self._check_money(project_id, plan)
        return plan

    async def check_within(self, call: FlexCall, plan: Plan, wait_s: float) -> None:
        """Raises LowtideError `resource_unavailable` if the call cannot be run within that time,
        by what is known of its model's pool."""
        served = self._served_models()
        if served is not None and not served >= plan.models.keys():
            raise unavailable(f"no replica serves the model '{call.model}'")
        if self._prospects is None:
            return
        deadline_at = self._clock.now() + timedelta(seconds=wait_s)
        verdict = await self._prospects.of_plan(plan.models, call.endpoint, deadline_at)
        if verdict.kept == "infeasible":
            raise unavailable(f"the queue is longer than {wait_s / 60:.0f} minutes")

    async def submit(self, order: FlexSubmission) -> Batch:
        """The batch, in progress. Raises LowtideError, StoreError, BlobError."""
        plan, content = await self._plan_beside(order.project_id, order.endpoint, order.calls)
        await self._check_money(order.project_id, plan)
        await self._files.check_room(order.project_id, len(content))
        if order.flex == "background":
            await self._allowance.check_unfinished_batches(order.project_id)
        file, batch = self._records(order, content)
        plan_key = f"plans/{batch.id}-1"
        await asyncio.gather(
            self._blobs.put(file.blob_key, content), self._blobs.put(plan_key, plan.data)
        )
        lease = await self._add(order, file, batch, plan_key)
        try:
            await self._begin(lease, plan_key, plan)
        except StoreError:
            await self.cancel(batch)
            raise
        self._wake("dispatch")
        return batch

    async def _add(
        self, order: FlexSubmission, file: File, batch: Batch, plan_key: str
    ) -> TaskLease:
        """Calls whose callers wait have places of their own, so no number of batches."""
        bounds = await self._allowance.of(order.project_id)
        most = bounds.unfinished_batches if order.flex == "background" else None
        try:
            return await self._store.flex.add(
                file,
                batch,
                digest=order.digest,
                owner=self._owner,
                ttl_s=limits.LEASE_TTL_S,
                quota=BatchQuota(unfinished=most),
            )
        except BatchQuotaReached as reached:  # others were quicker since it was looked
            await asyncio.gather(self._blobs.delete(file.blob_key), self._blobs.delete(plan_key))
            raise too_many_batches(bounds, reached.lack) from None

    async def cancel(self, batch: Batch) -> None:
        """Cancels the batch as far as possible: an engine that still answers has
        computed for nothing.
        """
        try:
            await self._store.batches.cancel(batch.project_id, batch.id, self._clock.now())
        except StoreError as error:  # its window ends it
            log.warning("flex.not_cancelled", batch=batch.id, error=str(error))
            return
        self.cancelled()

    def cancelled(self) -> None:
        """Wakes the loops of this process after a batch was cancelled."""
        self._wake("dispatch")
        self._wake("assemble")

    async def _begin(self, lease: TaskLease, plan_key: str, plan: Plan) -> None:
        bounds = await self._allowance.of(lease.batch.project_id)
        done = await self._store.lifecycle.commit_plan(
            lease,
            plan_key=plan_key,
            chunks=plan.chunks,
            models=plan.models,
            enqueued_tokens_max=bounds.enqueued_tokens_per_model,
            now=self._clock.now(),
        )
        if isinstance(done, TokenLimitReached):
            error = BatchError("token_limit_exceeded", "Enqueued token limit reached.")
            await self._store.lifecycle.reject(lease, [error], 1, self._clock.now())
            raise unavailable(
                f"{done.enqueued:,} tokens of {done.model} are enqueued, of {done.limit:,} at most"
            )

    def _records(self, order: FlexSubmission, content: bytes) -> tuple[File, Batch]:
        now, file_id = self._clock.now(), self._files.new_file_id()
        file = File(
            id=file_id,
            project_id=order.project_id,
            purpose="batch",
            filename=f"{order.flex}.jsonl",
            status="uploaded",
            dialect="openai",
            created_at=now,
            expires_at=now + timedelta(seconds=order.keep_s),
            bytes=len(content),
            lines=len(order.calls),
            sha256=sha256(content).hexdigest(),
            blob_key=f"files/{file_id}/{self._new_id('')}",
            flex=order.flex,
        )
        batch = Batch(
            id=self._new_id("batch_"),
            project_id=order.project_id,
            user_id=order.user_id,
            dialect="openai",
            input_file_id=file_id,
            input_bytes=len(content),
            endpoint=order.endpoint,
            completion_window_s=order.window_s,
            priority=limits.FLEX_PRIORITY,
            output_expires_after_s=order.keep_s,
            created_at=now,
            expires_at=now + timedelta(seconds=order.window_s),
            flex=order.flex,
        )
        return file, batch

    async def _plan_beside(
        self, project_id: str, endpoint: str, calls: Sequence[FlexCall]
    ) -> tuple[Plan, bytes]:
        """Plans as `_planned` does, in a thread where the calls are large."""
        size = sum(call.size for call in calls)
        if size <= limits.LARGE_BODY_BYTES:
            return self._planned(endpoint, calls)
        owner = (await self._allowance.of(project_id)).organization_id
        return await off_loop(owner, size, self._planned, endpoint, calls)

    def _planned(self, endpoint: str, calls: Sequence[FlexCall]) -> tuple[Plan, bytes]:
        """The plan of these calls, and the file that they make. Raises LowtideError."""
        content = content_of(calls)
        return self._plan(endpoint, content), content

    def _plan(self, endpoint: str, content: bytes) -> Plan:
        """Raises LowtideError for what validation finds."""
        planned = self._planner.plan(content, endpoint, "openai")
        if isinstance(planned, Plan):
            return planned
        raise _refusal(planned.errors[0])

    async def _check_money(self, project_id: str, plan: Plan) -> None:
        """Checks that the most that the calls may cost, as far as they say, fits under the cap."""
        cost_pico = self._planner.price(plan).batch_pico
        budget = await self._allowance.budget(project_id)
        if budget is not None and (budget.is_spent or not budget.covers(cost_pico)):
            raise LowtideError("resource_unavailable", spend_cap_message(budget))


def unavailable(why: str) -> LowtideError:
    """The refusal of a call that the batch queue has no room or no time for."""
    return LowtideError(
        "resource_unavailable",
        f"No batch capacity for this call: {why}. It was not run and costs nothing. Try again"
        " later, or send it without service_tier 'flex', at the live price.",
        retry_after_s=limits.FLEX_RETRY_AFTER_S,
    )


def _refusal(error: BatchError) -> LowtideError:
    """What validation says of a line, said of a call."""
    param = error.param.removeprefix("body.") if error.param else None
    return LowtideError("invalid_request", error.message, param)
