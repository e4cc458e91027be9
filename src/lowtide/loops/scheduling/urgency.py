"""Finds the batches that must go first, or deadlines are missed.

Every few seconds it takes the process's reading of the backlog and asks
`core.scheduling.fair_queue.urgent` with each pool's outlook; the answer lies in the store, where
every worker's claims see it. Invariant: a pool of which nothing is known has no urgent batch: a
latest start needs a rate.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Literal

import structlog

from lowtide import limits
from lowtide.core.scheduling.fair_queue import urgent
from lowtide.core.scheduling.feasibility import Backlog
from lowtide.core.scheduling.forecast import capacity_forecast
from lowtide.ports.capacity import Capacity
from lowtide.service.scheduling.backlog_reading import BacklogReadings

log = structlog.get_logger(__name__)


class UrgencyLoop:
    """One per worker; they find the same, and write it only when it is news."""

    name = "urgency"

    def __init__(
        self, readings: BacklogReadings, wake: Callable[[Literal["dispatch"]], None]
    ) -> None:
        self._readings = readings
        self._wake = wake

    async def tick(self, now: datetime) -> datetime | None:
        reading = await self._readings.latest()
        capacity, by_model = reading.capacity, reading.by_model
        for model in sorted(by_model.keys() | capacity.urgent.keys()):
            ids = urgent_of(model, by_model.get(model, ()), capacity, now)
            if ids != list(capacity.urgent.get(model, ())):
                await self._readings.mark_urgent(model, ids)
                log.info("batches.urgent", model=model, batches=len(ids))
                self._wake("dispatch")
        return now + timedelta(seconds=limits.URGENCY_S)


def urgent_of(
    model: str, backlog: Iterable[Backlog], capacity: Capacity, now: datetime
) -> list[str]:
    """The urgent batches of one pool, the earliest deadline first."""
    view = capacity_forecast(now, capacity.paces.get(model), capacity.cells.get(model, {}))
    if view is None:
        return []
    entries = [part.entry() for part in backlog if not part.paused]
    return [entry.batch_id for entry in urgent(entries, view.by)]
