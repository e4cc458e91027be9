"""Validation: one streaming pass over a new batch's file, then its plan, or the list of bad lines.

The rules are those of `core.validation.planner`; this loop reads, stores the plan and commits the
result under the task's lease. Nothing is dispatched, and nothing spent, before the whole file has
passed.
"""

from datetime import datetime

import structlog

from lowtide import limits
from lowtide.core.accounts.token_queue import PlanQueued, TokenLimitReached
from lowtide.core.batches.batch import BatchError
from lowtide.core.batches.line_sets import unpack_lines
from lowtide.core.batches.plan import Plan
from lowtide.core.validation.planner import Planner
from lowtide.core.validation.validator import ValidationFailure
from lowtide.loops.batches.task_lease import TaskRenewal, TaskRunner, Wake
from lowtide.ports.blobs import BlobNotFound, Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import LifecycleStore
from lowtide.ports.work import TaskLease
from lowtide.service.accounts.quotas import Quotas, spend_cap_message
from lowtide.service.batches.plan_file import plan_file

log = structlog.get_logger(__name__)


class ValidateLoop:
    """Takes one batch at a time, by organizations in turns as the store's claim has it."""

    def __init__(
        self,
        worker_id: str,
        store: LifecycleStore,
        blobs: Blobs,
        clock: Clock,
        planner: Planner,
        allowance: Quotas,
        wake: Wake,
        *,
        lease_ttl_s: float = limits.LEASE_TTL_S,
        name: str = "validate",
        bytes_max: int | None = None,
    ) -> None:
        """`allowance` knows what the batch's organization may do. `bytes_max`: it takes no batch
        with a larger input; None takes all.
        """
        self._worker_id = worker_id
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._planner = planner
        self._allowance = allowance
        self._wake = wake
        self._lease_ttl_s = lease_ttl_s
        self.name = name
        self._bytes_max = bytes_max
        self.validating: tuple[str, datetime] | None = None
        """The batch whose file is being read, and since when."""
        self._tasks = TaskRunner(store, clock)

    @property
    def error(self) -> str | None:
        """Why the last file could not be read, nor judged; None when it was."""
        return self._tasks.error

    async def tick(self, now: datetime) -> datetime | None:
        claimed = self._store.claim_validation(
            self._worker_id, now, self._lease_ttl_s, bytes_max=self._bytes_max
        )
        return await self._tasks.run(claimed, self._validate, now)

    async def _validate(self, lease: TaskLease) -> None:
        self.validating = (lease.batch.id, self._clock.now())
        try:
            await self._judge(lease)
        finally:
            self.validating = None

    async def _judge(self, lease: TaskLease) -> None:
        try:
            result = await self._read(lease)
        except BlobNotFound:
            gone = BatchError(
                "file_not_found", "The input file's content is gone. Upload it again."
            )
            await self._store.reject(lease, [gone], 1, self._clock.now())
            return
        match result:
            case None:
                log.info("validation.given_up", batch=lease.batch.id)
            case ValidationFailure():
                await self._reject(lease, result)
            case Plan():
                await self._plan(lease, result)

    async def _read(self, lease: TaskLease) -> Plan | ValidationFailure | None:
        """The plan of the file, or its errors; None when the lease was lost or the batch
        cancelled meanwhile.
        """
        batch = lease.batch
        bounds = await self._allowance.of(batch.project_id)
        validator = self._planner.begin(
            batch.endpoint,
            batch.dialect,
            bounds.requests_per_batch,
            model_override=batch.model_override,
            wanted=None if lease.covered is None else unpack_lines(lease.covered),
        )
        renewal = TaskRenewal(self._store, lease, self._clock, self._lease_ttl_s)
        return await plan_file(
            validator, self._blobs, lease.input_key, bounds.organization_id, renewal.renew_if_due
        )

    async def _plan(self, lease: TaskLease, plan: Plan) -> None:
        project_id = lease.batch.project_id
        cost_pico = self._planner.price(plan).batch_pico
        if (passed := await self._allowance.passed_budget(project_id, cost_pico)) is not None:
            message = spend_cap_message(passed, cost_pico)
            await self._refuse(lease, BatchError("spend_cap_exceeded", message))
            return
        bounds = await self._allowance.of(project_id)
        plan_key = f"plans/{lease.batch.id}-{lease.token}"
        await self._blobs.put(plan_key, plan.data)
        done = await self._store.commit_plan(
            lease,
            plan_key=plan_key,
            chunks=plan.chunks,
            models=plan.models,
            enqueued_tokens_max=bounds.enqueued_tokens_per_model,
            now=self._clock.now(),
            warnings=plan.warnings,
            queues=bounds.queues_over_limit,
        )
        if isinstance(done, PlanQueued):
            log.info("batch.queued", batch=lease.batch.id, requests=plan.requests)
        elif isinstance(done, TokenLimitReached):
            await self._blobs.delete(plan_key)
            error = BatchError("token_limit_exceeded", _token_limit_message(done))
            await self._refuse(lease, error)
        elif done:
            log.info("batch.planned", batch=lease.batch.id, requests=plan.requests)
            self._wake("dispatch")

    async def _refuse(self, lease: TaskLease, error: BatchError) -> None:
        """Rejects a batch whose lines are good because of a limit of its organization."""
        await self._store.reject(lease, [error], 1, self._clock.now())
        log.info("batch.failed", batch=lease.batch.id, code=error.code)

    async def _reject(self, lease: TaskLease, failure: ValidationFailure) -> None:
        now = self._clock.now()
        await self._store.reject(lease, failure.errors, failure.total_errors, now)
        log.info("batch.failed", batch=lease.batch.id, errors=failure.total_errors)


def _token_limit_message(reached: TokenLimitReached) -> str:
    """Begins as the message that clients know (protocol.md section 8), then says the figures."""
    if reached.asked > reached.limit:
        remedy = "Split the file: this batch alone asks for more than may be enqueued."
    else:
        remedy = (
            "Please try again once some in_progress batches have been completed, or send fewer"
            " requests."
        )
    return (
        f"Enqueued token limit reached for {reached.model}. Limit: {reached.limit:,} enqueued"
        f" tokens; {reached.enqueued:,} are enqueued and this batch asks for about"
        f" {reached.asked:,} more. {remedy}"
    )
