"""Each limit of an organization: how much is used, what is left, and when it frees.

Called by the routes of limits and of who the caller is. It only tells: what refuses is elsewhere,
in quotas.py and in the transactions that add. Invariant: a limit that an organization does not have
is not in the report.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from lowtide import limits
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.accounts.money import dollars_text
from lowtide.core.accounts.rate_limit import LimitStatus, RateLimiter
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
    over_limit: Literal["fail", "queue"] | None = None
    """What becomes of a batch that would pass it; None: it is not made."""


class LimitReport:
    """Reports on limits; `of` is the report."""

    def __init__(
        self,
        quotas: Quotas,
        tenants: TenantStore,
        use: LimitUseStore,
        clock: Clock,
        rates: RateLimiter,
        catalogue: Catalogue,
    ) -> None:
        """`rates` counts the interactive calls."""
        self._quotas = quotas
        self._tenants = tenants
        self._use = use
        self._clock = clock
        self._rates = rates
        self._catalogue = catalogue

    async def of(self, project_id: str, key_id: str) -> list[LimitLine]:
        """All limits of the project's organization, and the rates of that key, as far as this
        process knows them."""
        bounds = await self._quotas.of(project_id)
        return [
            *_of_one_thing(bounds),
            *[line async for line in self._enqueued(bounds)],
            *[line async for line in self._batches(bounds)],
            *[line async for line in self._held(bounds)],
            self._rate("control_calls", "calls", self._quotas.control_calls(bounds)),
            *self._live(bounds, key_id),
            *[line async for line in self._money(project_id)],
        ]

    async def _enqueued(self, bounds: EffectiveLimits) -> AsyncIterator[LimitLine]:
        by_model = await self._use.enqueued_tokens(bounds.organization_id)
        none: list[tuple[str | None, int]] = [(None, 0)]
        for model, used in [*sorted(by_model.items())] or none:
            line = _counted(
                "enqueued_tokens_per_model",
                "tokens",
                bounds.enqueued_tokens_per_model,
                used,
                _AS_REQUESTS_FINISH,
                model=model,
            )
            over = "queue" if bounds.queues_over_limit else "fail"
            yield msgspec.structs.replace(line, over_limit=over)

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

    def _live(self, bounds: EffectiveLimits, key_id: str) -> Iterator[LimitLine]:
        """A line for each model that the key called lately, or one for all if there is none."""
        allowance, models = bounds.live, self._catalogue.entries
        used = self._rates.use(key_id, models, allowance, self._clock.monotonic())
        for name, unit, limit, of_model in (
            (
                "live_requests",
                "requests",
                allowance.requests_per_minute,
                {model: each.requests for model, each in used.items()},
            ),
            (
                "live_tokens",
                "tokens",
                allowance.tokens_per_minute,
                {model: each.tokens for model, each in used.items()},
            ),
        ):
            if limit is None:
                continue
            unused: Mapping[str | None, LimitStatus | None] = {None: LimitStatus(limit, limit, 0.0)}
            for model, status in (of_model or unused).items():
                if status is not None:
                    yield self._rate(name, unit, status, model)

    def _rate(
        self, name: str, unit: str, status: LimitStatus, model: str | None = None
    ) -> LimitLine:
        """What is left now; `frees_at`: when all of it is back."""
        back = self._clock.now() + timedelta(seconds=status.reset_s)
        return LimitLine(
            name=f"{name}_per_minute",
            unit=unit,
            limit=status.limit,
            used=status.limit - status.remaining,
            left=status.remaining,
            model=model,
            frees_at=back if status.reset_s else None,
            frees=_BY_THE_MINUTE,
        )

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
