"""Receives the announcements of other processes and wakes this one's loops.

A tick lasts as long as the connection it listens on. When the database was away, the loop runner's
back-off spaces the attempts to listen again, and the other loops poll meanwhile.
"""

from datetime import datetime

from lowtide.loops.batches.task_lease import Wake
from lowtide.ports.wakeups import Wakeups


class ListenLoop:
    """Turns announcements into wake-ups."""

    name = "listen"

    def __init__(self, wakeups: Wakeups, wake: Wake) -> None:
        self._wakeups = wakeups
        self._wake = wake

    async def tick(self, now: datetime) -> datetime | None:
        return now if await self._wakeups.listen(self._wake) else None
