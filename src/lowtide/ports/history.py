"""The port to history: how fast batches went, what happened to them, and what replicas did.

Same contract as ports/store.py: each method one transaction, foreign exceptions mapped. Nothing is
decided by these records; a process that dies loses the readings that it had not written. Rows are
kept for `HISTORY_KEEP_S` after the last reading, those of replicas for `REPLICA_HISTORY_KEEP_S`.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from lowtide.core.history.batch_events import BatchEvent
from lowtide.core.history.batch_history import BatchHistory
from lowtide.core.history.batch_parts import BatchPart
from lowtide.core.history.measured_pace import PaceRecord
from lowtide.core.history.replica_history import ReplicaRow


class HistoryStore(Protocol):
    """What was done when. Readers have made sure that the batch is the caller's."""

    async def advance(self, batch_ids: Collection[str], now: datetime) -> int:
        """Moves the histories of these batches on to their counters as they are; how many changed.

        Batches of single calls have none. Several workers may look at one batch: what its counters
        grew by is counted once. The statements do not grow with the batches.
        """

    async def of_batch(self, batch_id: str) -> BatchHistory | None:
        """The history up to the last reading; None: there was none yet."""

    async def notes(self, batch_id: str) -> Sequence[BatchEvent]:
        """What was noted of the batch, the first first: the newest `BATCH_NOTES_MAX`."""

    async def paces(self, batch_ids: Collection[str]) -> dict[str, PaceRecord]:
        """The histories, and the pauses that were noted with their ends, by id, of those that have
        any. Asked at each look at a batch that runs, so it is one statement.
        """

    async def parts(self, batch_id: str, parts_max: int) -> list[BatchPart]:
        """The batch in at most so many parts, in the order in which its requests run; none before
        it is planned, and once its results are swept."""

    async def forget(self, before: datetime, limit: int) -> int:
        """Deletes up to `limit` rows of a kind that were last written before then; how many."""

    async def write_replicas(self, writer: str, rows: Sequence[ReplicaRow]) -> None:
        """Writes what one process recorded of replicas; a row that is there is replaced."""

    async def of_replicas(
        self, replicas: Collection[str], since: datetime
    ) -> dict[str, list[ReplicaRow]]:
        """The rows of all processes by the replica's name, from the bucket at `since` on."""

    async def gave_way(self, replicas: Collection[str], since: datetime) -> list[datetime]:
        """The buckets in which one of them gave live calls the room, in order, each once."""

    async def forget_replicas(self, before: datetime, limit: int) -> int:
        """Deletes up to `limit` rows of replicas that begin before then; how many."""
