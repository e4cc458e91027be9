"""Once a second: sees what this process's replicas did, and writes it down every few seconds.

Runs in every process that calls engines: a worker knows of batch calls and windows, an API process
of live calls. Invariant: a store that is away loses nothing for `REPLICA_PENDING_BUCKETS` buckets,
and holds up no call.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from lowtide import limits
from lowtide.core.history.replica_history import ReplicaRecorder, ReplicaTotals
from lowtide.ports.history import HistoryStore

ReadTotals = Callable[[], Mapping[str, ReplicaTotals]]
"""Gives the totals of each replica by its name."""


class ReplicaHistoryLoop:
    """Records replicas for one process, which writes as `writer`."""

    name = "replica-history"

    def __init__(self, store: HistoryStore, writer: str, read_totals: ReadTotals) -> None:
        self._store = store
        self._writer = writer
        self._read_totals = read_totals
        self._recorder = ReplicaRecorder()
        self._write_at: datetime | None = None
        self._forget_at: datetime | None = None

    async def tick(self, now: datetime) -> datetime | None:
        self._recorder.see(self._read_totals(), now)
        if self._write_at is None or now >= self._write_at:
            self._write_at = now + timedelta(seconds=limits.HISTORY_S)
            rows = self._recorder.changed()
            await self._store.write_replicas(self._writer, rows)
            self._recorder.written(rows)
            await self._forget(now)
        return now + timedelta(seconds=limits.REPLICA_SAMPLE_S)

    async def _forget(self, now: datetime) -> None:
        if self._forget_at is not None and now < self._forget_at:
            return
        before = now - timedelta(seconds=limits.REPLICA_HISTORY_KEEP_S)
        gone = await self._store.forget_replicas(before, limits.HISTORY_FORGET_ROWS)
        if gone < limits.HISTORY_FORGET_ROWS:  # else the next write goes on
            self._forget_at = now + timedelta(seconds=limits.HISTORY_FORGET_EVERY_S)
