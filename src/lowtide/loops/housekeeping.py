"""Expiry, reaping and sweeping: what time alone makes due.

`ExpireLoop` ends windows and takes back leases that ran out. `SweepLoop` deletes blobs that nothing
needs any more, first marked in the store and then deleted, so that a crash in between leaves work
for the next sweep and never a reference to a missing blob; and blobs that a crash left
unreferenced.
"""

from datetime import datetime, timedelta

import structlog

from lowtide import limits
from lowtide.loops.tasks import Wake
from lowtide.ports.blobs import Blobs
from lowtide.ports.store import LifecycleStore, ResultStore, WorkStore

log = structlog.get_logger(__name__)

_BLOB_FOLDERS = ("files/", "plans/", "segments/", "results/")
_KEYS_PER_LOOKUP = 500


class ExpireLoop:
    """Batches past their window, leases past their end."""

    name = "expire"

    def __init__(self, lifecycle: LifecycleStore, work: WorkStore, wake: Wake) -> None:
        self._lifecycle = lifecycle
        self._work = work
        self._wake = wake

    async def tick(self, now: datetime) -> datetime | None:
        expired = await self._lifecycle.expire_due(now)
        if expired:
            log.info("batches.expired", batches=expired)
            self._wake("commit")
            self._wake("assemble")
        if reaped := await self._work.reap(now):
            log.warning("leases.reaped", leases=reaped)
            self._wake("dispatch")
            self._wake("assemble")
        soon = now + timedelta(seconds=limits.REAP_POLL_S)
        next_expiry = await self._lifecycle.next_expiry()
        return soon if next_expiry is None else max(now, min(soon, next_expiry))


class SweepLoop:
    """What nothing needs any more."""

    name = "sweep"

    def __init__(self, results: ResultStore, blobs: Blobs) -> None:
        self._results = results
        self._blobs = blobs
        self._orphans_at: datetime | None = None

    async def tick(self, now: datetime) -> datetime | None:
        await self._results.sweep(now, segments_keep_s=limits.SEGMENTS_KEEP_S)
        swept = 0
        while keys := await self._results.garbage():
            for key in keys:
                await self._blobs.delete(key)
            await self._results.forget(keys)
            swept += len(keys)
        if self._orphans_at is None or now >= self._orphans_at:
            swept += await self._sweep_orphans(now)
            self._orphans_at = now + timedelta(seconds=limits.ORPHAN_AGE_S)
        if swept:
            log.info("blobs.swept", blobs=swept)
        return now + timedelta(seconds=limits.SWEEP_S)

    async def _sweep_orphans(self, now: datetime) -> int:
        """Blobs older than an hour that no row knows were left by a crash."""
        before = now - timedelta(seconds=limits.ORPHAN_AGE_S)
        swept = await self._blobs.clean_up(before)
        for folder in _BLOB_FOLDERS:
            old: list[str] = []
            async for info in self._blobs.list(folder):
                if info.modified_at < before:
                    old.append(info.key)
                if len(old) >= _KEYS_PER_LOOKUP:
                    swept += await self._delete_unknown(old)
                    old = []
            swept += await self._delete_unknown(old)
        return swept

    async def _delete_unknown(self, keys: list[str]) -> int:
        if not keys:
            return 0
        unknown = set(keys) - await self._results.known(keys)
        for key in unknown:
            await self._blobs.delete(key)
        return len(unknown)
