"""Makes the next reading of the backlog before the last one is too old, while a page watches.

With ten thousand batches in progress a reading takes a good part of a second, which otherwise one
request in each `limits.BACKLOG_AGE_S` waits for. One per process with the HTTP API. Invariant:
where no part asks, nothing is read.
"""

from datetime import datetime, timedelta

from lowtide import limits
from lowtide.service.scheduling.backlog_reading import BacklogReadings


class BacklogLoop:
    """Refreshes the process's readings."""

    name = "backlog"

    def __init__(self, readings: BacklogReadings) -> None:
        self._readings = readings

    async def tick(self, now: datetime) -> datetime | None:
        await self._readings.refresh()
        return now + timedelta(seconds=limits.BACKLOG_AGE_S / 2)
