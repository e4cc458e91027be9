"""A clock that stands still until a test moves it (ports/clock.py)."""

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta


class ManualClock:
    """A clock that begins at the same instant in every run. A sleeper wakes when `advance`
    reaches its time.
    """

    def __init__(self) -> None:
        self._now = datetime(2026, 11, 21, 1, 4, 35, tzinfo=UTC)
        self._slept_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._slept_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._slept_s + seconds, next(self._order), woken))
        await woken

    @property
    def next_due_s(self) -> float | None:
        """Seconds until the first sleeper is due; None when there is none."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] - self._slept_s if self._sleepers else None

    def advance(self, seconds: float) -> datetime:
        """Move on, wake who is due; the new instant."""
        self._now += timedelta(seconds=seconds)
        self._slept_s += seconds
        while self._sleepers and self._sleepers[0][0] <= self._slept_s:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)
        return self._now
