"""Usage reports: sums over the ledger, for one project, one organization, or all.

Called by the usage route and the command line; who may see whose is the HTTP API's to check.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from lowtide import limits
from lowtide.core.accounts.ledger import Cost, UsageRow, total
from lowtide.core.errors import LowtideError
from lowtide.ports.accounts import GroupBy, LedgerStore
from lowtide.ports.clock import Clock
from lowtide.service.accounts.quotas import month_of


class UsageReport(msgspec.Struct, frozen=True):
    """Entries of `since <= at < until`, summed by `group_by`."""

    since: datetime
    until: datetime
    group_by: tuple[GroupBy, ...]
    rows: tuple[UsageRow, ...]
    total: Cost


class UsageService:
    """Reads the ledger; writes nothing."""

    def __init__(self, ledger: LedgerStore, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def report(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        group_by: Sequence[GroupBy] = ("day", "model"),
        organization_id: str | None = None,
        project_id: str | None = None,
    ) -> UsageReport:
        """The usage of a span: by default from the month's first day until now.
        Raises LowtideError.
        """
        until = until or self._clock.now()
        since = since or month_of(until)
        if since > until:
            raise LowtideError("invalid_request", "since is later than until.", "since")
        if until - since > timedelta(days=limits.USAGE_SPAN_DAYS_MAX):
            raise LowtideError(
                "invalid_request",
                f"A report spans at most {limits.USAGE_SPAN_DAYS_MAX} days.",
                "since",
            )
        rows = await self._ledger.usage(
            since=since,
            until=until,
            group_by=group_by,
            organization_id=organization_id,
            project_id=project_id,
        )
        return UsageReport(since, until, tuple(group_by), tuple(rows), total(rows))
