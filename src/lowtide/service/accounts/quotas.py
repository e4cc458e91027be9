"""What an organization may do: the configured defaults with its overrides, and what it used so far.

The HTTP API asks before it takes a file or a batch, validation before it plans one. Limits are
looked up by project and remembered for `TENANT_CACHE_S`; what was used is read afresh each time.
What is looked up here refuses early; bytes and batches are counted once more in the transaction
that adds them, so that calls at one instant do not pass the last place together.
"""

from collections import OrderedDict
from datetime import datetime, timedelta
from math import ceil

import msgspec

from lowtide import limits
from lowtide.config import LimitSettings
from lowtide.core.accounts.batch_quota import BatchLack, BatchQuota
from lowtide.core.accounts.call_rate import CallRateLimiter
from lowtide.core.accounts.money import dollars_text
from lowtide.core.accounts.rate_limit import Allowance, LimitStatus
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION, Organization, OrganizationLimits
from lowtide.core.errors import LowtideError
from lowtide.core.files.storage_quota import StorageUse
from lowtide.ports.accounts import LedgerStore, TenantStore
from lowtide.ports.clock import Clock
from lowtide.service.single_flight import SingleFlight


class EffectiveLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one organization. None: no bound. `spend_cap_pico`: pico-dollars
    a calendar month.
    """

    organization_id: str
    requests_per_batch: int
    file_bytes: int
    enqueued_tokens_per_model: int
    queues_over_limit: bool = False
    """A batch above that waits until there is room; else it fails."""
    batches_per_hour: int | None = None
    unfinished_batches: int = limits.UNFINISHED_BATCHES
    stored_bytes: int | None = None
    requests_in_flight: int | None = None
    live: Allowance = Allowance()
    control_calls_per_minute: int = limits.CONTROL_CALLS_PER_MINUTE
    spend_cap_pico: int | None = None

    @property
    def batch_quota(self) -> BatchQuota:
        return BatchQuota(per_hour=self.batches_per_hour, unfinished=self.unfinished_batches)


class Budget(msgspec.Struct, frozen=True):
    """The cap and what is spent, in pico-dollars of this calendar month (UTC)."""

    cap_pico: int
    spent_pico: int

    @property
    def is_spent(self) -> bool:
        return self.spent_pico >= self.cap_pico

    def covers(self, cost_pico: int) -> bool:
        """Whether work that costs so much at most fits under the cap."""
        return self.spent_pico + cost_pico <= self.cap_pico


class Quotas:
    """The limits of every project's organization, and the checks against them."""

    def __init__(
        self, tenants: TenantStore, ledger: LedgerStore, clock: Clock, defaults: LimitSettings
    ) -> None:
        self._tenants = tenants
        self._ledger = ledger
        self._clock = clock
        self.defaults = defaults
        self._known: OrderedDict[str, tuple[float, EffectiveLimits]] = OrderedDict()
        self._flights: SingleFlight[EffectiveLimits] = SingleFlight()
        self._calls = CallRateLimiter()

    async def of(self, project_id: str) -> EffectiveLimits:
        """Effective limits of the project's organization, cached for `TENANT_CACHE_S` seconds."""
        now_s = self._clock.monotonic()
        known = self._known.get(project_id)
        if known is not None and now_s - known[0] < limits.TENANT_CACHE_S:
            return known[1]
        return await self._flights.get(project_id, lambda: self._look_up(project_id, now_s))

    def reload(self, defaults: LimitSettings) -> None:
        """Takes over the defaults of settings that were read again, from the next call on."""
        self.defaults = defaults
        self.forget()

    def forget(self) -> None:
        """Looks all limits up afresh, because an organization changed."""
        self._known = OrderedDict()  # another one: a look-up under way keeps what it finds there
        self._flights.forget()

    async def check_batches_per_hour(self, project_id: str) -> None:
        """Checks that one more batch may be created. Raises LowtideError `rate_limit_exceeded`."""
        bounds = await self.of(project_id)
        if (limit := bounds.batches_per_hour) is None:
            return
        wait_s = await self._wait_for_a_place(bounds.organization_id, limit)
        if wait_s is not None:
            raise too_many_batches(bounds, "hour", wait_s)

    async def check_unfinished_batches(self, project_id: str) -> None:
        """Checks that one more batch may be unfinished. Raises LowtideError
        `rate_limit_exceeded`.
        """
        bounds = await self.of(project_id)
        most = bounds.unfinished_batches
        if await self._tenants.unfinished_batches(bounds.organization_id, most) >= most:
            raise too_many_batches(bounds, "unfinished")

    async def check_control_call(self, project_id: str) -> None:
        """Counts a call that is not interactive. Raises LowtideError `rate_limit_exceeded`."""
        bounds = await self.of(project_id)
        per_minute = bounds.control_calls_per_minute
        wait_s = self._calls.take(bounds.organization_id, per_minute, self._clock.monotonic())
        if wait_s:
            raise too_many_calls(bounds, ceil(wait_s))

    def control_calls(self, bounds: EffectiveLimits) -> LimitStatus:
        """What is left of such calls, in this process."""
        per_minute = bounds.control_calls_per_minute
        return self._calls.status(bounds.organization_id, per_minute, self._clock.monotonic())

    def note_rows(self, organization_id: str, rows: int) -> None:
        """Counts the rows that such a call listed."""
        if more := rows // limits.CONTROL_ROWS_PER_CALL:
            self._calls.owe(organization_id, more, self._clock.monotonic())

    async def storage_use(self, organization_id: str) -> StorageUse:
        """What the organization keeps."""
        return await self._tenants.storage_use(organization_id)

    async def budget(self, project_id: str) -> Budget | None:
        """What this month's cap leaves; None without a cap."""
        bounds = await self.of(project_id)
        if bounds.spend_cap_pico is None:
            return None
        since = month_of(self._clock.now())
        spent = await self._ledger.spent_pico(bounds.organization_id, since)
        return Budget(bounds.spend_cap_pico, spent)

    async def passed_budget(self, project_id: str, cost_pico: int) -> Budget | None:
        """The budget that work which costs so much would pass; None where it would not."""
        budget = await self.budget(project_id)
        return None if budget is None or budget.covers(cost_pico) else budget

    async def check_spend(self, project_id: str) -> None:
        """Checks that some of the cap is left. Raises LowtideError `spend_cap_exceeded`."""
        budget = await self.budget(project_id)
        if budget is not None and budget.is_spent:
            raise LowtideError("spend_cap_exceeded", spend_cap_message(budget))

    async def _look_up(self, project_id: str, now_s: float) -> EffectiveLimits:
        known = self._known
        project = await self._tenants.project(project_id)
        organization = project and await self._tenants.organization(project.organization_id)
        effective = effective_limits(self.defaults, organization or None)
        known[project_id] = (now_s, effective)
        known.move_to_end(project_id)
        while len(known) > limits.TENANT_CACHE_ENTRIES:
            known.popitem(last=False)
        return effective

    async def _wait_for_a_place(self, organization_id: str, limit: int) -> int | None:
        """Seconds until fewer than `limit` batches lie within the last hour; None: they do now.

        At most RETRY_AFTER_S_ADVISED, which is how long the SDKs wait by themselves.
        """
        since = self._clock.now() - timedelta(seconds=limits.RATE_WINDOW_S)
        created_since = self._tenants.batches_created_since
        if await created_since(organization_id, since) < limit:
            return None
        low, high = 0, limits.RETRY_AFTER_S_ADVISED
        while high - low > 1:
            middle = (low + high) // 2
            later = since + timedelta(seconds=middle)
            if await created_since(organization_id, later) < limit:
                high = middle
            else:
                low = middle
        return high


def effective_limits(defaults: LimitSettings, organization: Organization | None) -> EffectiveLimits:
    """The defaults, where the organization has nothing of its own."""
    own = organization.limits if organization else OrganizationLimits()

    def chosen(name: str) -> int | None:
        value: int | None = getattr(own, name)
        return getattr(defaults, name) if value is None else value

    return EffectiveLimits(
        organization_id=organization.id if organization else DEFAULT_ORGANIZATION,
        requests_per_batch=chosen("requests_per_batch") or 0,
        file_bytes=chosen("file_bytes") or 0,
        enqueued_tokens_per_model=chosen("enqueued_tokens_per_model") or 0,
        queues_over_limit=defaults.over_limit == "queue",
        batches_per_hour=chosen("batches_per_hour"),
        unfinished_batches=chosen("unfinished_batches") or 0,
        stored_bytes=chosen("stored_bytes"),
        requests_in_flight=chosen("requests_in_flight"),
        live=Allowance(chosen("live_requests_per_minute"), chosen("live_tokens_per_minute")),
        control_calls_per_minute=chosen("control_calls_per_minute") or 0,
        spend_cap_pico=organization.spend_cap_pico if organization else None,
    )


def too_many_batches(
    bounds: EffectiveLimits, lack: BatchLack, wait_s: int = limits.RETRY_AFTER_S_ADVISED
) -> LowtideError:
    """The refusal of one more batch; `wait_s`: seconds until one may fit."""
    if lack == "hour":
        message = (
            f"Rate limit reached for batches created by organization {bounds.organization_id}:"
            f" {bounds.batches_per_hour} in any 60 minutes. Put more requests into each batch, or"
            " try again later."
        )
    else:
        message = (
            f"Organization {bounds.organization_id} has {bounds.unfinished_batches} batches and"
            " background responses that have not ended, which is as many as it may"
            " (limits.unfinished_batches). Wait until some have ended, cancel those that are not"
            " needed, or put more requests into each batch."
        )
    return LowtideError("rate_limit_exceeded", message, retry_after_s=wait_s)


def too_many_calls(bounds: EffectiveLimits, wait_s: int) -> LowtideError:
    """The refusal of a call above `control_calls_per_minute`."""
    retry_after_s = min(wait_s, limits.RETRY_AFTER_S_ADVISED)
    return LowtideError(
        "rate_limit_exceeded",
        f"Rate limit reached for calls of organization {bounds.organization_id} other than"
        f" interactive ones: {bounds.control_calls_per_minute} per minute"
        " (limits.control_calls_per_minute), of which a list takes one more for each"
        f" {limits.CONTROL_ROWS_PER_CALL} rows. Try again in {retry_after_s} s; ask less often, or"
        " for shorter lists.",
        retry_after_s=retry_after_s,
    )


def month_of(now: datetime) -> datetime:
    """The first instant of the calendar month of `now`, which is UTC."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def spend_cap_message(budget: Budget, estimate_pico: int | None = None) -> str:
    """The message with cap, spent and, where there is one, the estimate of the batch."""
    figures = (
        f"Spend cap reached. Cap: ${dollars_text(budget.cap_pico)} a month;"
        f" ${dollars_text(budget.spent_pico)} is spent"
    )
    if estimate_pico is not None:
        figures += f" and this batch is estimated at ${dollars_text(estimate_pico)}"
    return f"{figures}. Raise the organization's spend cap, or wait for the next month."
