"""Expiry, reaping and sweeping: what time alone makes due.

`ExpireLoop` ends windows and takes back leases that ran out. `SweepLoop` deletes blobs that nothing
needs any more, first marked in the store and then deleted, so that a crash in between leaves work
for the next sweep and never a reference to a missing blob; and blobs that a crash left
unreferenced.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog

from lowtide import limits
from lowtide.core.batches.result_index import SUFFIX
from lowtide.loops.batches.task_lease import Wake
from lowtide.ports.blobs import FOLDERS, Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import LifecycleStore, ResultStore
from lowtide.ports.work import WorkStore

log = structlog.get_logger(__name__)

_KEYS_PER_LOOKUP = 500


class ExpireLoop:
    """Ends batches past their window, and leases past their end.

    A process that stood still, or whose clock was set forward, finds its own leases past their end.
    So after a gap its commit goes first, which renews them: nothing of its work is run again.
    """

    name = "expire"

    def __init__(self, lifecycle: LifecycleStore, work: WorkStore, wake: Wake) -> None:
        self._lifecycle = lifecycle
        self._work = work
        self._wake = wake
        self._checked_at: datetime | None = None

    async def tick(self, now: datetime) -> datetime | None:
        checked_at, self._checked_at = self._checked_at, now
        expired = await self._lifecycle.expire_due(now)
        if expired:
            log.info("batches.expired", batches=expired)
            self._wake("commit")
            self._wake("assemble")
        if checked_at is not None and now - checked_at > timedelta(seconds=limits.REAP_GAP_S):
            log.warning("leases.not_reaped", gap_s=(now - checked_at).total_seconds())
            self._wake("commit")
        elif reaped := await self._work.reap(now):
            log.warning("leases.reaped", leases=reaped)
            self._wake("dispatch")
            self._wake("assemble")
        soon = now + timedelta(seconds=limits.REAP_POLL_S)
        next_expiry = await self._lifecycle.next_expiry()
        return soon if next_expiry is None else max(now, min(soon, next_expiry))


class SweepLoop:
    """Deletes what nothing needs any more."""

    name = "sweep"

    def __init__(self, results: ResultStore, blobs: Blobs, clock: Clock) -> None:
        self._results = results
        self._blobs = blobs
        self._clock = clock
        self._due_at_s = float("-inf")
        self._doubtful: dict[str, float] = {}
        """Old blobs that no row knew, with the monotonic second since when."""

    async def tick(self, now: datetime) -> datetime | None:
        await self._results.sweep(now, segments_keep_s=limits.SEGMENTS_KEEP_S)
        swept = 0
        while keys := await self._results.garbage():
            for key in keys:
                await self._delete(key)
            await self._results.forget(keys)
            swept += len(keys)
        now_s = self._clock.monotonic()
        if now_s >= self._due_at_s:
            swept += await self._sweep_orphans(now, now_s)
            again_s = limits.ORPHAN_DOUBT_S if self._doubtful else limits.ORPHAN_AGE_S
            self._due_at_s = now_s + again_s
        if swept:
            log.info("blobs.swept", blobs=swept)
        return now + timedelta(seconds=limits.SWEEP_S)

    async def _delete(self, key: str) -> None:
        """Deletes a blob, and the index that lies beside a result file."""
        await self._blobs.delete(key)
        if key.startswith("results/"):
            await self._blobs.delete(key + SUFFIX)

    async def _sweep_orphans(self, now: datetime, now_s: float) -> int:
        """Deletes blobs older than an hour that no row knows, if that stays so: a crash left them.

        Age alone proves nothing: by a clock that is an hour fast, a segment is old between being
        put and being committed. So a blob goes only when no row has known it for `ORPHAN_DOUBT_S`,
        which no wrong clock can shorten.
        """
        before = now - timedelta(seconds=limits.ORPHAN_AGE_S)
        swept = await self._blobs.clean_up(before)
        earlier, self._doubtful = self._doubtful, {}
        for folder in FOLDERS:
            old: list[str] = []
            async for info in self._blobs.list(folder):
                if info.modified_at < before:
                    old.append(info.key)
                if len(old) >= _KEYS_PER_LOOKUP:
                    swept += await self._delete_unknown(old, earlier, now_s)
                    old = []
            swept += await self._delete_unknown(old, earlier, now_s)
        return swept

    async def _delete_unknown(
        self, keys: list[str], earlier: Mapping[str, float], now_s: float
    ) -> int:
        """Deletes those that were unknown long enough and remembers the others.
        Returns how many went.
        """
        if not keys:
            return 0
        swept = 0
        for key in sorted(set(keys) - await self._results.known(keys)):
            since_s = earlier.get(key, now_s)
            if now_s - since_s >= limits.ORPHAN_DOUBT_S:
                await self._blobs.delete(key)
                swept += 1
            elif len(self._doubtful) < limits.ORPHANS_DOUBTED_MAX:
                self._doubtful[key] = since_s
        return swept
