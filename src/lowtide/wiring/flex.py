"""Single calls at the batch price: the loops of a process with an HTTP API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lowtide.config import Settings
from lowtide.loops.listen import ListenLoop
from lowtide.loops.live.flex_results import FlexResultsLoop
from lowtide.loops.local_wakeups import LocalWakeups
from lowtide.loops.runner import Loop, Loops
from lowtide.ports.clock import Clock
from lowtide.ports.store import Store
from lowtide.service.live.flex import FlexService
from lowtide.wiring.database import is_single_machine


@asynccontextmanager
async def flex_results(
    settings: Settings,
    flex: FlexService,
    store: Store,
    clock: Clock,
    wakeups: LocalWakeups,
    *,
    alone: bool,
) -> AsyncIterator[None]:
    """Hands results to waiting callers while the context lasts.

    To be entered before the worker runs: what callers of a killed process waited for is not begun
    again. `alone`: no worker's loops run in this process, so it listens for itself.
    """
    if is_single_machine(settings):
        await flex.forget_lost()  # the lock says: that process is gone, and its callers with it
    parts: list[Loop] = [FlexResultsLoop(flex.deliver_results)]
    if alone:
        parts.append(ListenLoop(store.wakeups, lambda _: wakeups.wake("flex-results")))
    loops = Loops(parts, clock)
    wakeups.listen(lambda name: loops.wake("flex-results" if name == "assemble" else name))
    async with loops:
        try:
            yield
        finally:
            await flex.aclose()
