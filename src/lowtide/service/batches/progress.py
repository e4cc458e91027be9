"""Where batches stand: their stages, estimates and reasons.

Called by the API's batch routes and the console for the batches that they show, and by the loop
that logs what waits. Invariant: queries grow with the models of the batches, not with these.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from lowtide.core.accounts.token_queue import TokenWait, wait_of
from lowtide.core.batches.batch import Batch
from lowtide.core.history.measured_pace import NOTHING_MEASURED
from lowtide.core.reporting.progress import NOTHING_FORESEEN, Progress, progress_of
from lowtide.core.reporting.standing import NOTHING_KNOWN, Asleep, Standing
from lowtide.core.reporting.waiting import NO_QUEUE, Queue, is_queued
from lowtide.ports.clock import Clock
from lowtide.ports.store import Store
from lowtide.ports.token_queue import TokenQueue
from lowtide.service.accounts.quotas import EffectiveLimits, Quotas
from lowtide.service.batches.forecasts import Forecasts
from lowtide.service.batches.measured_paces import measured_paces
from lowtide.service.batches.unexecuted import with_unexecuted

ReadStanding = Callable[[], Awaitable[Standing]]
"""What the workers say of themselves now; see service/standings.py."""


async def nothing_asleep() -> Mapping[str, Asleep]:
    """The models at zero replicas for a process that does not know how many are wanted."""
    return {}


async def nothing_known() -> Standing:
    """The standing for a process that reads no workers' reports."""
    return NOTHING_KNOWN


class ProgressService:
    """Tells the progress of batches."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        allowance: Quotas,
        standing: ReadStanding = nothing_known,
        prospects: Forecasts | None = None,
        asleep: Callable[[], Awaitable[Mapping[str, Asleep]]] = nothing_asleep,
    ) -> None:
        """`asleep` (models at zero replicas) is asked for batches whose models no replica serves;
        `prospects` None: nothing is foreseen.
        """
        self._store = store
        self._clock = clock
        self._allowance = allowance
        self._standing = standing
        self._prospects = prospects
        self._asleep = asleep

    async def of(self, batches: Sequence[Batch]) -> list[Progress]:
        """Stage, estimate and reason of each, in their order."""
        standing, now = await self._standing(), self._clock.now()
        foreseen = await self._prospects.of(batches) if self._prospects else {}
        paces = await measured_paces(self._store.history, batches, now)
        queues: dict[str, Queue] = {}
        token_queues: dict[str, TokenQueue] = {}
        asleep: Mapping[str, Asleep] | None = None
        reported = []
        for batch in batches:
            models = await self._models_of(batch, alone=len(batches) == 1)
            if asleep is None and standing.is_known and any(map(standing.is_away, models)):
                asleep = await self._asleep()
                standing = msgspec.structs.replace(standing, asleep=asleep)
            queue = NO_QUEUE
            if batch.status == "in_progress" and is_queued(batch, standing):
                queue = await self._queue(models, queues)
            bounds = await self._allowance.of(batch.project_id)
            if batch.queued_at is not None:
                queue = Queue(tokens=await self._token_wait(batch, bounds, token_queues))
            reported.append(
                progress_of(
                    batch,
                    now,
                    models=models,
                    standing=standing,
                    queue=queue,
                    in_flight_max=bounds.requests_in_flight,
                    prospect=foreseen.get(batch.id, NOTHING_FORESEEN),
                    pace=paces.get(batch.id, NOTHING_MEASURED),
                )
            )
        return await with_unexecuted(self._store.retries, batches, reported)

    async def waiting(self) -> int:
        """Requests of batches that run, of all projects, which no worker has taken yet."""
        return (await self._store.batches.queue()).waiting_requests

    async def _models_of(self, batch: Batch, *, alone: bool) -> tuple[str, ...]:
        """The models of the batch. Those of a mixed one cost a query, which a list of
        batches does without.
        """
        if batch.status != "in_progress":
            return ()
        if batch.model is not None:
            return (batch.model,)
        return tuple(await self._store.batches.models(batch.id)) if alone else ()

    async def _queue(self, models: Sequence[str], known: dict[str, Queue]) -> Queue:
        for model in models:
            if model not in known:
                depth = await self._store.batches.queue(model)
                known[model] = Queue(depth.waiting_requests, depth.leased_requests)
        parts = [known[model] for model in models]
        return Queue(sum(part.waiting for part in parts), sum(part.leased for part in parts))

    async def _token_wait(
        self, batch: Batch, bounds: EffectiveLimits, known: dict[str, TokenQueue]
    ) -> TokenWait | None:
        owner = bounds.organization_id
        if owner not in known:
            known[owner] = await self._store.token_queue.queue(owner)
        queue, most = known[owner], bounds.enqueued_tokens_per_model
        return wait_of(batch.id, queue.batches, queue.enqueued, most)
