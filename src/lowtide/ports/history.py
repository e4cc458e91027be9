"""The port to history: how fast batches went, and what happened to them.

Same contract as ports/store.py: each method one transaction, foreign exceptions mapped. Nothing is
decided by these records; a process that dies loses the looks that it had not written. Rows are kept
for `HISTORY_KEEP_S` after the last look.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from lowtide.core.history.batch_events import BatchEvent
from lowtide.core.history.batch_history import BatchHistory


class HistoryStore(Protocol):
    """What was done when. Readers have made sure that the batch is the caller's."""

    async def look(self, batch_ids: Collection[str], now: datetime) -> int:
        """Moves the histories of these batches on to their counters as they are; how many changed.

        Batches of single calls have none. Several workers may look at one batch: what its counters
        grew by is counted once. The statements do not grow with the batches.
        """
        ...

    async def of_batch(self, batch_id: str) -> BatchHistory | None:
        """The history up to the last look; None: there was none yet."""
        ...

    async def of_batches(self, batch_ids: Collection[str]) -> dict[str, BatchHistory]:
        """The histories by id, of those that have one."""
        ...

    async def notes(self, batch_id: str) -> Sequence[BatchEvent]:
        """What was noted of the batch, the first first: the newest `BATCH_NOTES_MAX`."""
        ...

    async def forget(self, before: datetime, limit: int) -> int:
        """Deletes up to `limit` rows of a kind that were last written before then; how many."""
        ...
