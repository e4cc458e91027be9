"""History for readers: rates up to this moment, and everything that happened to a batch.

Called by the routes of the HTTP API and the console. Invariant: what a batch has done since the
last look is added from its own counters, so rates add up to its counts at any time.
"""

from collections.abc import Sequence

from lowtide.core.batches.batch import Batch
from lowtide.core.history.batch_events import BatchEvent, events_of
from lowtide.core.history.batch_history import BatchHistory, BatchTotals, RateSpan, advanced, spans
from lowtide.ports.clock import Clock
from lowtide.ports.history import HistoryStore


class HistoryService:
    """Reads history. The caller has made sure that the batch is the reader's."""

    def __init__(self, store: HistoryStore, clock: Clock) -> None:
        self._store = store
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

    async def events(self, batch: Batch) -> Sequence[BatchEvent]:
        """What happened to the batch, the first first."""
        return events_of(batch, await self._store.notes(batch.id))


def _totals(batch: Batch, seen: BatchTotals) -> BatchTotals:
    """The batch's counters. Once it expired or was cancelled it counts what never ran as failed;
    then the failures are those that were seen before."""
    counts, usage = batch.counts, batch.usage
    ran_all = batch.status not in ("expired", "cancelled")
    failed = counts.failed if ran_all else min(seen.failed, counts.failed)
    return BatchTotals(counts.completed, failed, usage.input_tokens, usage.output_tokens)
