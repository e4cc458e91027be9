"""The port to the rate pools of live calls that processes share.

Same contract as ports/store.py: each method one transaction, foreign exceptions mapped. Each pool
is settled with one process at a time. No call waits for any of it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from lowtide.core.accounts.shared_pool import Exchange, PoolReport


class LiveRateStore(Protocol):
    """What is left of each pool, and which processes are alive."""

    async def exchange(
        self, process_id: str, reports: Sequence[PoolReport], *, since: datetime, now: datetime
    ) -> Exchange:
        """Settles those pools with the process, which shows by it that it is alive.

        `changed` has pools that changed at `since` or later, and those of the reports.
        """

    async def read(self, *, since: datetime, now: datetime) -> Exchange:
        """The same without a report; nothing is taken."""

    async def leave(self, process_id: str, reports: Sequence[PoolReport], now: datetime) -> None:
        """Gives back what the process holds; it is gone."""
