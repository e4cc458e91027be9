"""Each limit of an organization: how much is used, what is left, and when it frees.

Called by the routes of limits and of who the caller is. It only tells: what refuses is elsewhere,
in quotas.py and in the transactions that add. Invariant: a limit that an organization does not have
is not in the report.
"""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.accounts.money import dollars_text
from lowtide.ports.accounts import TenantStore
from lowtide.ports.clock import Clock
from lowtide.ports.limit_use import LimitUseStore
from lowtide.service.accounts.quotas import EffectiveLimits, Quotas, month_of

_AS_BATCHES_END: Final = "as batches end"
_AS_REQUESTS_FINISH: Final = "as requests of its batches finish"
_BY_THE_MINUTE: Final = "a minute's worth each minute"


class LimitLine(msgspec.Struct, frozen=True, kw_only=True):
    """One limit. `used` None: it bounds one thing at a time, or is counted elsewhere. Amounts of
    dollars are decimal text, all others whole numbers. `frees`: when more of it comes, in words.
    """

    name: str
    unit: str
    limit: int | str
    used: int | str | None = None
    left: int | str | None = None
    model: str | None = None
    frees_at: datetime | None = None
    frees: str | None = None


class LimitReport:
    """Reports on limits; `of` is the report."""

    def __init__(
        self, quotas: Quotas, tenants: TenantStore, use: LimitUseStore, clock: Clock
    ) -> None:
        self._quotas = quotas
        self._tenants = tenants
        self._use = use
        self._clock = clock

    async def of(self, project_id: str) -> list[LimitLine]:
        """All limits of the project's organization."""
        bounds = await self._quotas.of(project_id)
        return [
            *_of_one_thing(bounds),
            *[line async for line in self._enqueued(bounds)],
            *[line async for line in self._batches(bounds)],
            *[line async for line in self._held(bounds)],
            *_rates(bounds),
            *[line async for line in self._money(project_id)],
        ]

    async def _enqueued(self, bounds: EffectiveLimits) -> AsyncIterator[LimitLine]:
        by_model = await self._use.enqueued_tokens(bounds.organization_id)
        none: list[tuple[str | None, int]] = [(None, 0)]
        for model, used in [*sorted(by_model.items())] or none:
            yield _counted(
                "enqueued_tokens_per_model",
                "tokens",
                bounds.enqueued_tokens_per_model,
                used,
                _AS_REQUESTS_FINISH,
                model=model,
            )

    async def _batches(self, bounds: EffectiveLimits) -> AsyncIterator[LimitLine]:
        owner, most = bounds.organization_id, bounds.unfinished_batches
        unfinished = await self._tenants.unfinished_batches(owner, most)
        yield _counted("unfinished_batches", "batches", most, unfinished, _AS_BATCHES_END)
        if bounds.batches_per_hour is not None:
            hour = timedelta(seconds=limits.RATE_WINDOW_S)
            since = self._clock.now() - hour
            used = await self._tenants.batches_created_since(owner, since)
            first = await self._use.first_batch_since(owner, since)
            yield _counted(
                "batches_per_hour",
                "batches",
                bounds.batches_per_hour,
                used,
                "an hour after each create",
                frees_at=None if first is None else first + hour,
            )

    async def _held(self, bounds: EffectiveLimits) -> AsyncIterator[LimitLine]:
        owner = bounds.organization_id
        if bounds.stored_bytes is not None:
            used = (await self._quotas.storage_use(owner)).bytes
            frees = "as files are deleted or expire"
            yield _counted("stored_bytes", "bytes", bounds.stored_bytes, used, frees)
        if bounds.requests_in_flight is not None:
            used = await self._use.requests_in_flight(owner)
            most = bounds.requests_in_flight
            yield _counted("requests_in_flight", "requests", most, used, _AS_REQUESTS_FINISH)

    async def _money(self, project_id: str) -> AsyncIterator[LimitLine]:
        budget = await self._quotas.budget(project_id)
        if budget is not None:
            next_month = month_of(month_of(self._clock.now()) + timedelta(days=32))
            left = max(0, budget.cap_pico - budget.spent_pico)
            yield LimitLine(
                name="spend_cap",
                unit="dollars",
                limit=dollars_text(budget.cap_pico),
                used=dollars_text(budget.spent_pico),
                left=dollars_text(left),
                frees_at=next_month,
                frees="with the calendar month (UTC)",
            )


def _of_one_thing(bounds: EffectiveLimits) -> list[LimitLine]:
    return [
        LimitLine(name="requests_per_batch", unit="requests", limit=bounds.requests_per_batch),
        LimitLine(name="file_bytes", unit="bytes", limit=bounds.file_bytes),
    ]


def _rates(bounds: EffectiveLimits) -> list[LimitLine]:
    named = (
        ("control_calls_per_minute", "calls", bounds.control_calls_per_minute),
        ("live_requests_per_minute", "requests", bounds.live.requests_per_minute),
        ("live_tokens_per_minute", "tokens", bounds.live.tokens_per_minute),
    )
    return [
        LimitLine(name=name, unit=unit, limit=limit, frees=_BY_THE_MINUTE)
        for name, unit, limit in named
        if limit is not None
    ]


def _counted(
    name: str,
    unit: str,
    limit: int,
    used: int,
    frees: str,
    *,
    model: str | None = None,
    frees_at: datetime | None = None,
) -> LimitLine:
    left = max(0, limit - used)
    return LimitLine(
        name=name,
        unit=unit,
        limit=limit,
        used=used,
        left=left,
        model=model,
        frees_at=frees_at,
        frees=frees,
    )
