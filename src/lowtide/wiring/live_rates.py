"""Rate limits of live calls: each process's own, or, over PostgreSQL, those of all together."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lowtide.config import Settings
from lowtide.core.accounts.rate_limit import RateLimiter
from lowtide.core.accounts.shared_rates import SharedRateLimiter
from lowtide.loops.live.shared_rates import SharedRatesLoop
from lowtide.loops.runner import Loops
from lowtide.ports.clock import Clock
from lowtide.ports.live_rates import LiveRateStore
from lowtide.ports.store import StoreError
from lowtide.system import new_id
from lowtide.wiring.database import is_single_machine


def rates_of(settings: Settings) -> RateLimiter:
    """The limiter of a process; a single machine has one process, which shares with none."""
    return RateLimiter() if is_single_machine(settings) else SharedRateLimiter()


@asynccontextmanager
async def sharing_rates(
    rates: RateLimiter, store: LiveRateStore, clock: Clock
) -> AsyncIterator[None]:
    """Exchanges with the other processes while the context lasts; to be entered before the first
    call. A limiter that shares with none has nothing to do.
    """
    if not isinstance(rates, SharedRateLimiter):
        yield
        return
    loop = SharedRatesLoop(new_id("api-"), rates, store, clock)
    with contextlib.suppress(StoreError):  # the loop tries again, and says so
        await loop.tick(clock.now())
    async with Loops([loop], clock):
        yield
    with contextlib.suppress(StoreError):
        await loop.leave()
