"""Batches that waited for money go on: a cap was raised, or a new month began.

The store pauses a batch in the transaction of the commit that reached its organization's cap; this
loop asks it now and then which of them may run again.
"""

from datetime import datetime, timedelta

import structlog

from lowtide import limits
from lowtide.loops.batches.task_lease import Wake
from lowtide.ports.accounts import LedgerStore

log = structlog.get_logger(__name__)


class UnpauseLoop:
    """Lets batches go on whose organization is below its cap again."""

    name = "budget"

    def __init__(self, ledger: LedgerStore, wake: Wake) -> None:
        self._ledger = ledger
        self._wake = wake

    async def tick(self, now: datetime) -> datetime | None:
        if going_on := await self._ledger.unpause(now):
            log.info("batches.unpaused", batches=going_on)
            self._wake("dispatch")
        return now + timedelta(seconds=limits.BUDGET_POLL_S)
