"""The backlog and what was learnt, read once for all who ask in a process.

The reading grows with the batches in progress, and four parts of a process want it every few
seconds: which batches are urgent (loops/scheduling/urgency.py), what all batches come to
(loops/batches/overview.py), when they will be done (service/batches/forecasts.py) and how many
replicas they need (service/scale.py). Invariant: between two readings that any of them causes lie
`limits.BACKLOG_AGE_S` seconds, and no part is given an older one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lowtide import limits
from lowtide.core.scheduling.feasibility import Backlog, pools
from lowtide.ports.capacity import Capacity, CapacityStore
from lowtide.ports.clock import Clock


@dataclass(frozen=True, slots=True)
class BacklogReading:
    """What the store told at one instant. `by_model`: its backlog, by model."""

    at: datetime
    capacity: Capacity
    by_model: Mapping[str, Sequence[Backlog]]


class BacklogReadings:
    """One per process."""

    def __init__(self, store: CapacityStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._latest: tuple[float, BacklogReading] | None = None
        self._reading = asyncio.Lock()

    async def latest(self) -> BacklogReading:
        """A reading that is at most `limits.BACKLOG_AGE_S` seconds old. Raises StoreError."""
        async with self._reading:
            now_s = self._clock.monotonic()
            if self._latest is None or now_s - self._latest[0] >= limits.BACKLOG_AGE_S:
                at = self._clock.now()
                capacity = await self._store.capacity()
                found = BacklogReading(at, capacity, pools(capacity.backlog))
                self._latest = now_s, found
            return self._latest[1]

    async def mark_urgent(self, model: str, batch_ids: Sequence[str]) -> None:
        """Marks these batches of the model as urgent, and all others as not; the next reading has
        them. Raises StoreError.
        """
        await self._store.mark_urgent(model, batch_ids)
        self._latest = None
