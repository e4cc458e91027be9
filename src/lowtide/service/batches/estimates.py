"""The estimate before submission: the real validation and the catalogue's prices, nothing created.

Called for `POST /v1/batches` with `dry_run`. Invariant: what is read and how it is judged is what
the validate loop does to the same file, so a clean estimate is a batch that passes validation.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.accounts.estimate import Estimate
from lowtide.core.batches.batch import BatchError
from lowtide.core.batches.plan import ModelTotals
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File
from lowtide.core.validation.planner import Planner
from lowtide.core.validation.validator import ValidationFailure
from lowtide.ports.blobs import Blobs
from lowtide.service.accounts.quotas import EffectiveLimits, Quotas
from lowtide.service.batches.plan_file import plan_file
from lowtide.service.fair_places import FairPlaces


class Exceeded(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that the batch would pass. Spend in pico-dollars; `used` None: not known here."""

    limit: str
    code: str
    allowed: int
    used: int | None
    asked: int
    model: str | None = None


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch over this file would come to, or why it would fail."""

    estimate: Estimate = Estimate()
    errors: tuple[BatchError, ...] = ()
    errors_total: int = 0
    exceeded: tuple[Exceeded, ...] = ()
    warnings: tuple[BatchError, ...] = ()


class EstimateService:
    """Reads whole files, a few at a time."""

    def __init__(
        self,
        blobs: Blobs,
        planner: Planner,
        allowance: Quotas,
    ) -> None:
        self._blobs = blobs
        self._planner = planner
        self._allowance = allowance
        self._turns: Final = FairPlaces(limits.DRY_RUNS_AT_ONCE)

    async def dry_run(
        self, project_id: str, file: File, endpoint: str, model_override: str | None = None
    ) -> DryRun:
        """Validates and prices. Raises BlobNotFound when the file's bytes are gone."""
        bounds = await self._allowance.of(project_id)
        async with self._turns.of(bounds.organization_id):
            validator = self._planner.begin(
                endpoint,
                file.dialect,
                bounds.requests_per_batch,
                model_override=model_override,
            )
            owner = bounds.organization_id
            result = await plan_file(validator, self._blobs, file.blob_key, owner)
        assert result is not None
        if isinstance(result, ValidationFailure):
            return DryRun(errors=result.errors, errors_total=result.total_errors)
        priced = self._planner.price(result)
        exceeded = [
            *_tokens_exceeded(bounds, result.models),
            *await self._spend_exceeded(project_id, priced),
            *await self._rate_exceeded(project_id, bounds),
        ]
        return DryRun(estimate=priced, exceeded=tuple(exceeded), warnings=result.warnings)

    async def _spend_exceeded(self, project_id: str, priced: Estimate) -> list[Exceeded]:
        budget = await self._allowance.passed_budget(project_id, priced.batch_pico)
        if budget is None:
            return []
        return [
            Exceeded(
                limit="spend_cap",
                code="spend_cap_exceeded",
                allowed=budget.cap_pico,
                used=budget.spent_pico,
                asked=priced.batch_pico,
            )
        ]

    async def _rate_exceeded(self, project_id: str, bounds: EffectiveLimits) -> list[Exceeded]:
        exceeded = []
        for name, allowed, check in (
            ("batches_per_hour", bounds.batches_per_hour, self._allowance.check_batches_per_hour),
            (
                "unfinished_batches",
                bounds.unfinished_batches,
                self._allowance.check_unfinished_batches,
            ),
        ):
            try:
                await check(project_id)
            except LowtideError as error:
                used = allowed or 0
                exceeded.append(
                    Exceeded(limit=name, code=error.code, allowed=used, used=used, asked=1)
                )
        return exceeded


def _tokens_exceeded(bounds: EffectiveLimits, models: Mapping[str, ModelTotals]) -> list[Exceeded]:
    """Models that ask for more than may ever be enqueued; what is enqueued now will be gone."""
    return [
        Exceeded(
            limit="enqueued_tokens_per_model",
            code="token_limit_exceeded",
            allowed=bounds.enqueued_tokens_per_model,
            used=None,
            asked=share.input_tokens,
            model=model,
        )
        for model, share in models.items()
        if share.input_tokens > bounds.enqueued_tokens_per_model
    ]
