"""The measured paces of batches, read for those whose progress is told.

Called by service/batches/progress.py. Invariant: one statement, however many the batches.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from lowtide.core.batches.batch import Batch
from lowtide.core.history.measured_pace import NOTHING_RECORDED, MeasuredPace, measured_pace
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
    records = await store.paces(running)
    return {
        batch_id: measured_pace(batch, records.get(batch_id, NOTHING_RECORDED), now)
        for batch_id, batch in running.items()
    }
