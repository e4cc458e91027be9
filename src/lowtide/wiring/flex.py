"""Single calls at the batch price: their verbs, and the loops of a process with a door."""

from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager

from lowtide.config import Settings
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.loops.listen import ListenLoop
from lowtide.loops.live.flex_results import FlexResultsLoop
from lowtide.loops.runner import Loop, Loops
from lowtide.ports.blobs import Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import Store
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.batches.forecasts import Forecasts
from lowtide.service.files.files import FileService
from lowtide.service.live.background import BackgroundService
from lowtide.service.live.flex import FlexService
from lowtide.service.live.flex_queue import FlexQueue
from lowtide.system import new_id
from lowtide.wiring.database import is_single_machine
from lowtide.wiring.worker import Worker


def flex_services(
    settings: Settings,
    store: Store,
    blobs: Blobs,
    clock: Clock,
    catalogue: Catalogue,
    worker: Worker,
    files: FileService,
    allowance: Quotas,
) -> tuple[FlexService, BackgroundService]:
    """For calls whose callers wait, and for those that are retrieved."""
    is_single = is_single_machine(settings)

    def served_models() -> Set[str] | None:
        # Among many, a process that lists no replica cannot say what the workers have.
        return worker.served_models() if worker.knows_replicas or is_single else None

    queue = FlexQueue(
        store,
        blobs,
        catalogue,
        worker.planner,
        clock,
        new_id,
        files,
        allowance,
        worker.wake,
        owner=worker.id,
        served_models=served_models,
        prospects=Forecasts(
            store.capacity,
            blobs,
            catalogue,
            clock,
            worker.planner,
        ),
    )
    return FlexService(queue, store, blobs), BackgroundService(queue, store, blobs, clock)


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
