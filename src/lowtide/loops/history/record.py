"""Every few seconds: moves the histories of the batches on that this worker has worked on.

What moved is known from commits (core/reporting/batch_watch.py), what was done from the counters
that the store keeps of each batch; so this loop is beside the work, and a reading that fails is
made up for by the next. Two statements, however many batches; none where nothing was committed.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from lowtide import limits
from lowtide.ports.clock import Clock
from lowtide.ports.history import HistoryStore

MovedSince = Callable[[float], Sequence[str]]
"""Batches with outcomes committed at that monotonic second or later."""


class HistoryLoop:
    """Writes history for one worker, and deletes what is too old."""

    name = "history"

    def __init__(self, store: HistoryStore, clock: Clock, moved_since: MovedSince) -> None:
        self._store = store
        self._clock = clock
        self._moved_since = moved_since
        self._advanced_at_s = float("-inf")
        self._forget_at_s = float("-inf")

    async def tick(self, now: datetime) -> datetime | None:
        now_s = self._clock.monotonic()
        await self._store.advance(self._moved_since(self._advanced_at_s), now)
        self._advanced_at_s = now_s
        if now_s >= self._forget_at_s:
            before = now - timedelta(seconds=limits.HISTORY_KEEP_S)
            gone = await self._store.forget(before, limits.HISTORY_FORGET_ROWS)
            if gone < limits.HISTORY_FORGET_ROWS:  # else the next tick goes on
                self._forget_at_s = now_s + limits.HISTORY_FORGET_EVERY_S
        return now + timedelta(seconds=limits.HISTORY_S)
