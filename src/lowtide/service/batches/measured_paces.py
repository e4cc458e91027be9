"""The measured paces of batches, read for those whose progress is told.

Called by service/batches/progress.py. Invariant: two statements, however many the batches.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from lowtide.core.batches.batch import Batch
from lowtide.core.history.measured_pace import MeasuredPace, measured_pace
from lowtide.ports.history import HistoryStore


async def measured_paces(
    store: HistoryStore, batches: Iterable[Batch], now: datetime
) -> Mapping[str, MeasuredPace]:
    """The paces, by id, of those that have results and may go on. Raises StoreError."""
    running = {
        batch.id: batch
        for batch in batches
        if batch.status == "in_progress" and batch.first_settled_at and not batch.holds
    }
    if not running:
        return {}
    histories, pauses = await store.of_batches(running), await store.pauses(running)
    return {
        batch_id: measured_pace(batch, histories.get(batch_id), pauses.get(batch_id, ()), now)
        for batch_id, batch in running.items()
    }
