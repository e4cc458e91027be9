"""Validation: one streaming pass over a new batch's file, then its plan, or the list of bad lines.

The rules are `core.validation.validator`; this loop reads, feeds, stores the plan and commits the
result under the task's lease. Nothing is dispatched, and nothing spent, before the whole file has
passed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

import structlog

from lowtide import limits
from lowtide.config import LimitSettings
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.accounts.estimate import estimate
from lowtide.core.batches.batch import BatchError
from lowtide.core.batches.plan import Plan
from lowtide.core.bodies.media_urls import media_rule
from lowtide.core.tokens.token_model import TokenModel
from lowtide.core.validation.validator import (
    LineError,
    ValidationFailure,
    ValidationRules,
    Validator,
)
from lowtide.loops.batches.task_lease import TaskRenewal, TaskTrouble, Wake, end_task_lease
from lowtide.ports.blobs import BlobNotFound, Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import LifecycleStore, TokenLimitReached
from lowtide.ports.work import TaskLease
from lowtide.service.accounts.quotas import (
    EffectiveLimits,
    Quotas,
    effective_limits,
    spend_cap_message,
)
from lowtide.service.off_loop import off_loop

log = structlog.get_logger(__name__)


class ValidateLoop:
    """Takes one batch at a time, by organizations in turns as the store's claim has it."""

    def __init__(
        self,
        worker_id: str,
        store: LifecycleStore,
        blobs: Blobs,
        clock: Clock,
        catalogue: Catalogue,
        bounds: LimitSettings,
        wake: Wake,
        *,
        token_models: Mapping[str, TokenModel] = MappingProxyType({}),
        allowance: Quotas | None = None,
        lease_ttl_s: float = limits.LEASE_TTL_S,
        name: str = "validate",
        bytes_max: int | None = None,
    ) -> None:
        """`token_models` may change between ticks: estimates are made with what is there then.
        `allowance` knows what the batch's organization may do; None: `bounds` hold for all.
        `bytes_max`: it takes no batch with a larger input; None takes all.
        """
        self._worker_id = worker_id
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._catalogue = catalogue
        self._bounds = bounds
        self._wake = wake
        self._token_models = token_models
        self._allowance = allowance
        self._lease_ttl_s = lease_ttl_s
        self.name = name
        self._bytes_max = bytes_max
        self.validating: tuple[str, datetime] | None = None
        """The batch whose file is being read, and since when."""
        self._trouble = TaskTrouble()

    @property
    def trouble(self) -> str | None:
        """Why the last file could not be read, nor judged; None when it was."""
        return self._trouble.text

    async def tick(self, now: datetime) -> datetime | None:
        lease = await self._store.claim_validation(
            self._worker_id, now, self._lease_ttl_s, bytes_max=self._bytes_max
        )
        if lease is None:
            self._trouble.found_nothing(now)
            return now + timedelta(seconds=limits.IDLE_POLL_S)
        self.validating = (lease.batch.id, now)
        try:
            await self._validate(lease)
        except BaseException as error:
            self._trouble.failed(error, now)
            await asyncio.shield(end_task_lease(self._store, lease, self._clock, error))
            raise
        finally:
            self.validating = None
        self._trouble.succeeded()
        return now

    async def _validate(self, lease: TaskLease) -> None:
        try:
            result, warnings = await self._read(lease)
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
                await self._plan(lease, result, warnings)

    async def _read(
        self, lease: TaskLease
    ) -> tuple[Plan | ValidationFailure | None, Sequence[BatchError]]:
        """Feed the whole file; the result, None when the lease was lost or the batch cancelled
        meanwhile, and the warnings.
        """
        batch = lease.batch
        bounds = await self._bounds_of(batch.project_id)
        validator = Validator(
            ValidationRules(
                endpoint=batch.endpoint,
                dialect=batch.dialect,
                models=self._catalogue.accepted,
                requests_max=bounds.requests_per_batch,
                line_bytes_max=self._defaults.line_bytes,
                contexts=self._catalogue.contexts,
                media=media_rule(self._defaults.media_urls),
            ),
            self._token_models,
        )
        owner = bounds.organization_id
        renewal = TaskRenewal(self._store, lease, self._clock, self._lease_ttl_s)
        async for block in self._blobs.stream(lease.input_key):
            await off_loop(owner, validator.line_bytes + len(block), validator.feed, block)
            if not await renewal.renew_if_due():
                return None, ()
            if validator.is_decided:
                break
        result = await off_loop(owner, validator.line_bytes, validator.finish)
        return result, _as_stored(validator.warnings)

    @property
    def _defaults(self) -> LimitSettings:
        return self._bounds if self._allowance is None else self._allowance.defaults

    async def _bounds_of(self, project_id: str) -> EffectiveLimits:
        if self._allowance is None:
            return effective_limits(self._bounds, None)
        return await self._allowance.of(project_id)

    async def _over_budget(self, project_id: str, plan: Plan) -> BatchError | None:
        """What the batch may cost at most, as far as its lines say, must fit under the cap."""
        budget = await self._allowance.budget(project_id) if self._allowance else None
        if budget is None:
            return None
        asked_pico = estimate(plan.models, self._catalogue.prices).batch_pico
        if budget.spent_pico + asked_pico <= budget.cap_pico:
            return None
        return BatchError("spend_cap_exceeded", spend_cap_message(budget, asked_pico))

    async def _plan(self, lease: TaskLease, plan: Plan, warnings: Sequence[BatchError]) -> None:
        project_id = lease.batch.project_id
        if (refusal := await self._over_budget(project_id, plan)) is not None:
            await self._refuse(lease, refusal)
            return
        bounds = await self._bounds_of(project_id)
        plan_key = f"plans/{lease.batch.id}-{lease.token}"
        await self._blobs.put(plan_key, plan.data)
        done = await self._store.commit_plan(
            lease,
            plan_key=plan_key,
            chunks=plan.chunks,
            models=plan.models,
            enqueued_tokens_max=bounds.enqueued_tokens_per_model,
            now=self._clock.now(),
            warnings=warnings,
        )
        if isinstance(done, TokenLimitReached):
            await self._blobs.delete(plan_key)
            error = BatchError("token_limit_exceeded", _token_limit_message(done))
            await self._refuse(lease, error)
        elif done:
            log.info("batch.planned", batch=lease.batch.id, requests=plan.requests)
            self._wake("dispatch")

    async def _refuse(self, lease: TaskLease, error: BatchError) -> None:
        """The lines are good; a limit of the organization is in the way."""
        await self._store.reject(lease, [error], 1, self._clock.now())
        log.info("batch.failed", batch=lease.batch.id, code=error.code)

    async def _reject(self, lease: TaskLease, failure: ValidationFailure) -> None:
        errors = _as_stored(failure.errors)
        await self._store.reject(lease, errors, failure.total_errors, self._clock.now())
        log.info("batch.failed", batch=lease.batch.id, errors=failure.total_errors)


def _as_stored(found: Sequence[LineError]) -> list[BatchError]:
    return [BatchError(e.code, e.message, e.line, e.param) for e in found]


def _token_limit_message(reached: TokenLimitReached) -> str:
    """Begins as the message that clients know (protocol.md section 8), then says the figures."""
    return (
        f"Enqueued token limit reached for {reached.model}. Limit: {reached.limit:,} enqueued"
        f" tokens; {reached.enqueued:,} are enqueued and this batch asks for about"
        f" {reached.asked:,} more. Please try again once some in_progress batches have been"
        " completed, or send fewer requests."
    )
