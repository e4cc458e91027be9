"""The backlog and what was learnt, read once for all who ask in a process.

The reading grows with the batches in progress, and four parts of a process want it every few
seconds: which batches are urgent (loops/scheduling/urgency.py), what all batches come to
(loops/batches/overview.py), when they will be done (service/batches/forecasts.py) and how many
replicas they need (service/scale.py). While a page watches, `refresh`
(loops/scheduling/backlog.py) makes the next reading before the last is too old, so that no request
waits for one. Invariant: no part is given a reading that was begun more than
`limits.BACKLOG_AGE_S` seconds ago, or twice that while the next one is made.
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
        self._is_watched = False
        """Whether the latest reading was given to others than the one that caused it."""

    async def latest(self) -> BacklogReading:
        """The latest reading, or a new one where it is too old. Raises StoreError."""
        age_max_s = limits.BACKLOG_AGE_S * (2 if self._reading.locked() else 1)
        if (known := self._known(age_max_s)) is not None:
            return known
        async with self._reading:
            return self._known(limits.BACKLOG_AGE_S) or await self._read()

    async def refresh(self) -> None:
        """Makes a new reading if the latest was wanted more than once. Raises StoreError."""
        if self._is_watched and not self._reading.locked():
            async with self._reading:
                await self._read()

    def _known(self, age_max_s: float) -> BacklogReading | None:
        if self._latest is None or self._clock.monotonic() - self._latest[0] >= age_max_s:
            return None
        self._is_watched = True
        return self._latest[1]

    async def _read(self) -> BacklogReading:
        begun_s, at = self._clock.monotonic(), self._clock.now()
        capacity = await self._store.capacity()
        reading = BacklogReading(at, capacity, pools(capacity.backlog))
        self._latest, self._is_watched = (begun_s, reading), False
        return reading

    async def mark_urgent(self, model: str, batch_ids: Sequence[str]) -> None:
        """Marks these batches of the model as urgent, and all others as not; the next reading has
        them. Raises StoreError.
        """
        await self._store.mark_urgent(model, batch_ids)
        self._latest = None
