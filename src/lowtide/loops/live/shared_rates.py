"""Reports to the database what live calls used of their rate pools, and takes more for those to
come.

Runs in each process with an HTTP API, where several may share a database. A call waits for none of
it: between two reports it is let through by what its process holds. While the database cannot be
reached, each process goes on with its equal part of what fills.
"""

from datetime import datetime, timedelta
from typing import Final

from lowtide import limits
from lowtide.core.accounts.shared_pool import nothing_asked
from lowtide.core.accounts.shared_rates import SharedRateLimiter
from lowtide.ports.clock import Clock
from lowtide.ports.live_rates import LiveRateStore
from lowtide.ports.store import StoreError

_EVERY: Final = timedelta(seconds=limits.LIVE_SHARE_S)
_HEARTBEAT: Final = timedelta(seconds=limits.LIVE_SHARE_HEARTBEAT_S)
# What was dated by a clock that is behind, and committed late, is seen in a later look.
_OVERLAP: Final = _EVERY + timedelta(seconds=limits.CLOCKS_AGREE_S)


class SharedRatesLoop:
    """The exchange between this process's rate limits and those of the others."""

    name = "live-rates"

    def __init__(
        self, process_id: str, rates: SharedRateLimiter, store: LiveRateStore, clock: Clock
    ) -> None:
        self._process_id = process_id
        self._rates = rates
        self._store = store
        self._clock = clock
        self._since: datetime | None = None
        self._next_report_at: datetime | None = None

    async def tick(self, now: datetime) -> datetime:
        """Raises StoreError."""
        now_s = self._clock.monotonic()
        reports = self._rates.reports(now_s)
        since = (self._since or now - timedelta(seconds=limits.LIVE_POOL_KEEP_S)) - _OVERLAP
        if reports or self._next_report_at is None or now >= self._next_report_at:
            try:
                exchanged = await self._store.exchange(
                    self._process_id, reports, since=since, now=now
                )
            except StoreError:
                self._rates.are_unsure()
                raise
            self._next_report_at = now + _HEARTBEAT
        else:
            exchanged = await self._store.read(since=since, now=now)
        self._since = now
        self._rates.settle(exchanged, now, now_s, self._clock.monotonic())
        return now + _EVERY

    async def leave(self) -> None:
        """Gives back what this process holds. Raises StoreError."""
        reports = [nothing_asked(each) for each in self._rates.reports(self._clock.monotonic())]
        await self._store.leave(self._process_id, reports, self._clock.now())
