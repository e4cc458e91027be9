"""History for readers: rates up to this moment, everything that happened to a batch, and replicas.

Called by the routes of the HTTP API and the console. Invariant: what a batch has done since the
last reading is added from its own counters, so rates add up to its counts at any time.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from lowtide import limits
from lowtide.core.batches.batch import Batch
from lowtide.core.history.batch_events import BatchEvent, events_of
from lowtide.core.history.batch_history import BatchHistory, BatchTotals, RateSpan, advanced, spans
from lowtide.core.history.batch_parts import BatchPart
from lowtide.core.history.replica_history import (
    ReplicaPart,
    ReplicaSpan,
    bucket_begin,
    spans_of,
    stretches,
    sum_of,
)
from lowtide.core.reporting.worker_report import WorkerReport
from lowtide.ports.clock import Clock
from lowtide.ports.history import HistoryStore
from lowtide.ports.store import BatchStore
from lowtide.service.history.replica_memory import ReplicaMemory


class HistoryService:
    """Reads history. The caller has made sure that the batch is the reader's."""

    def __init__(self, store: HistoryStore, batches: BatchStore, clock: Clock) -> None:
        self._store = store
        self._memory = ReplicaMemory(store)
        self._batches = batches
        self._clock = clock

    async def rates(self, batch: Batch) -> list[RateSpan]:
        """What was done when, the first first; nothing for a batch that has not begun."""
        if batch.in_progress_at is None:
            return []
        kept = await self._store.of_batch(batch.id)
        history = kept or BatchHistory.begin(batch.in_progress_at)
        until = batch.finalizing_at or batch.ended_at or self._clock.now()
        history = advanced(history, _totals(batch, history.seen), until)
        return spans(history, max(until, history.seen_at))

    async def parts(self, batch: Batch) -> Sequence[BatchPart]:
        """Which parts of the batch have run, in the order in which its requests run."""
        return await self._store.parts(batch.id, limits.BATCH_PARTS_MAX)

    async def events(self, batch: Batch) -> Sequence[BatchEvent]:
        """What happened to the batch, the first first."""
        return events_of(batch, await self._store.notes(batch.id))

    async def replicas(
        self, names: Collection[str], hours: float
    ) -> Mapping[str, Sequence[ReplicaSpan]]:
        """What each of these replicas did in so many hours until now, in at most
        `REPLICA_SPANS_MAX` stretches of time."""
        until = self._clock.now()
        since = bucket_begin(until - timedelta(hours=hours))
        parts_of = await self._memory.parts(names, since, until)
        most = limits.REPLICA_SPANS_MAX
        return {name: spans_of(parts_of[name], since, until, most) for name in names}

    async def replica_sums(self, names: Collection[str], hours: float) -> Mapping[str, ReplicaPart]:
        """What each of these replicas did in so many hours until now."""
        until = self._clock.now()
        parts_of = await self._memory.parts(
            names, bucket_begin(until - timedelta(hours=hours)), until
        )
        return {name: sum_of(parts_of[name].values()) for name in names}

    async def together(self, names: Collection[str]) -> tuple[float, ReplicaPart]:
        """What these replicas did together in about the last minute, and how long that is in
        seconds.
        """
        until = self._clock.now()
        since = bucket_begin(until - timedelta(seconds=limits.REPLICAS_TOGETHER_S))
        rows = await self._store.of_replicas(names, since) if names else {}
        parts = (row.part for found in rows.values() for row in found)
        return (until - since).total_seconds(), sum_of(parts)

    async def gave_way(
        self, batch: Batch, reports: Iterable[WorkerReport]
    ) -> Sequence[tuple[datetime, datetime]]:
        """When replicas that serve its models, as workers report them now, gave live calls the room
        while its requests ran; as far back as that is kept."""
        since, models = batch.in_progress_at, await self._batches.models(batch.id)
        if since is None:
            return ()
        until = batch.finalizing_at or batch.ended_at or self._clock.now()
        replicas = (replica for report in reports for replica in report.replicas)
        names = {each.name for each in replicas if models.keys() & set(each.models)}
        marked = await self._store.gave_way(names, bucket_begin(since)) if names else ()
        return [
            (max(begin, since), min(end, until))
            for begin, end in stretches(marked)
            if begin < until
        ]


def _totals(batch: Batch, seen: BatchTotals) -> BatchTotals:
    """The batch's counters. Once it expired or was cancelled it counts what never ran as failed;
    then the failures are those that were seen before."""
    counts, usage = batch.counts, batch.usage
    ran_all = batch.status not in ("expired", "cancelled")
    failed = counts.failed if ran_all else min(seen.failed, counts.failed)
    return BatchTotals(counts.completed, failed, usage.input_tokens, usage.output_tokens)
