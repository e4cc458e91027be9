"""Single calls at the batch price: the loops of a process with an HTTP API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lowtide.config import Settings
from lowtide.loops.listen import ListenLoop
from lowtide.loops.live.flex_results import FlexResultsLoop
from lowtide.loops.runner import Loop, Loops
from lowtide.ports.clock import Clock
from lowtide.ports.store import Store
from lowtide.service.live.flex import FlexService
from lowtide.wiring.database import is_single_machine
from lowtide.wiring.worker import Worker


@asynccontextmanager
async def flex_results(
    settings: Settings,
    flex: FlexService,
    store: Store,
    clock: Clock,
    worker: Worker,
    *,
    alone: bool,
) -> AsyncIterator[None]:
    """Hand results to waiting callers while the context lasts.

    To be entered before the worker runs: what callers of a killed process waited for is not begun
    again. `alone`: no worker's loops run in this process, so it listens for itself.
    """
    if is_single_machine(settings):
        await flex.forget_lost()  # the lock says: that process is gone, and its callers with it
    parts: list[Loop] = [FlexResultsLoop(flex.look)]
    if alone:
        parts.append(ListenLoop(store.wakeups, lambda _: flex.wake()))
    loops = Loops(parts, clock)
    flex.wake = lambda: loops.wake("flex-results")
    worker.on_wake = lambda name: flex.wake() if name == "assemble" else None
    async with loops:
        try:
            yield
        finally:
            await flex.aclose()
