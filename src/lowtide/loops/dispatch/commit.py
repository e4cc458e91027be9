"""The commit: about once a second, one segment and one transaction.

Outcomes gather in memory; a tick packs them into a segment, stores it, and commits its slices, the
finished chunks, counters, usage and lease renewals in one transaction that is fenced by the lease
tokens (ports/store.py `commit_group`). So a crash costs at most the calls in flight plus one
commit, and database writes do not grow with the request rate.

Invariant: an outcome leaves memory only after its transaction has returned, or when the store said
that this worker has lost the chunk. When the bytes cannot be stored (disk full, bucket away),
outcomes stay here, the same commit is tried again, and dispatch stops above
`UNCOMMITTED_BYTES_MAX`.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
import structlog

from lowtide import limits
from lowtide.core.accounts.money import ModelPrices
from lowtide.core.batches.chunk import ChunkKey
from lowtide.core.batches.segment import Slice, encode_segment
from lowtide.core.execution.records import CommitReceipt, GroupCommit
from lowtide.loops.dispatch.outcomes import Outcomes
from lowtide.ports.blobs import BlobError, BlobExists, Blobs
from lowtide.ports.clock import NewId
from lowtide.ports.store import StoreError
from lowtide.ports.work import WorkStore

log = structlog.get_logger(__name__)

Leases = tuple[tuple[ChunkKey, int], ...]
"""Chunks with the token that each is leased under."""


class LeaseHolder(Protocol):
    """What the committer needs of the dispatcher."""

    def held(self) -> Leases:
        """Leases of all chunks at work, finished but uncommitted ones included."""

    def take_released(self) -> Leases:
        """Removes and returns the leases to give back with this commit."""

    def committed(self, receipt: CommitReceipt, slices: tuple[Slice, ...], shown: Leases) -> None:
        """Acts on a durable commit. `shown` are the leases that it was about: one that began while
        it was under way is none of them.
        """


class _Packed(msgspec.Struct, frozen=True):
    """A segment on its way: kept until its transaction has returned."""

    key: str
    data: bytes
    slices: tuple[Slice, ...]


class Committer:
    """Gathers outcomes and commits them, one commit at a time."""

    name = "commit"

    def __init__(
        self,
        worker_id: str,
        store: WorkStore,
        blobs: Blobs,
        new_id: NewId,
        outcomes: Outcomes,
        holder: LeaseHolder,
        *,
        commit_interval_s: float = limits.COMMIT_INTERVAL_S,
        lease_ttl_s: float = limits.LEASE_TTL_S,
        on_settled: Callable[[], None] = lambda: None,
        on_commit: Callable[[float], None] = lambda _: None,
        prices: Callable[[], Mapping[str, ModelPrices]] = dict,
        monotonic: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`on_settled` is called when a commit completed or stopped a batch: assembly may begin.
        `on_commit` takes the seconds of each commit. `prices` gives what each model costs at the
        moment of a commit; `monotonic` a clock's seconds, to tell how long commits take.
        """
        self._worker_id = worker_id
        self._store = store
        self._blobs = blobs
        self._new_id = new_id
        self._interval_s = commit_interval_s
        self._lease_ttl_s = lease_ttl_s
        self._on_settled = on_settled
        self._prices = prices
        self._monotonic = monotonic
        self._outcomes = outcomes
        self._holder = holder
        self._on_commit = on_commit
        self._packed: _Packed | None = None
        self._released: Leases = ()
        self._committing = asyncio.Lock()
        self.failures = 0
        self.error: str | None = None
        """Why results cannot be written at present; None when they can."""

    @property
    def uncommitted_bytes(self) -> int:
        return self._outcomes.uncommitted_bytes

    async def tick(self, now: datetime) -> datetime | None:
        """Makes one commit. Raises what the ports raise; everything is kept for the next try."""
        async with self._committing:
            begun_s = self._monotonic()
            try:
                did_commit = await self._commit_gathered(now)
            except (StoreError, BlobError) as error:
                self.error = str(error)
                self.failures += 1
                raise
            if did_commit:
                self._on_commit(self._monotonic() - begun_s)
            self.error = None
        return now + timedelta(seconds=self._interval_s)

    async def finish(self, now: datetime) -> None:
        """Makes the last commits of a process, after its dispatcher has drained.

        Two where one was interrupted or had failed: its remainder, then all that came since. What
        cannot be stored is given up, and its requests run again elsewhere.
        """
        try:
            for _ in range(1 if self._packed is None else 2):
                await self.tick(now)
        except (StoreError, BlobError) as error:
            log.error("commit.given_up", bytes=self.uncommitted_bytes, error=str(error))

    async def _commit_gathered(self, now: datetime) -> bool:
        """Commits what gathered. Returns False where there was nothing to commit."""
        if self._packed is None:
            # What is released must not overtake its own outcomes, so it waits for a failed commit.
            self._packed = self._pack()
            self._released += self._holder.take_released()
        packed, held = self._packed, self._holder.held()
        if packed is None and not held and not self._released:
            return False
        if packed is not None:
            await self._put(packed, now)
        receipt = await self._commit(packed, held, self._released, now)
        released, self._released, self._packed = self._released, (), None
        if packed is not None:
            self._outcomes.stored()
        slices = packed.slices if packed else ()
        shown = (*held, *((piece.key, piece.token) for piece in slices))
        self._holder.committed(receipt, slices, shown)
        if receipt.lost:
            log.warning("commit.lost_chunks", chunks=len(receipt.lost))
        if receipt.settled or receipt.stopped or released:
            self._on_settled()
        return True

    async def _commit(
        self, packed: _Packed | None, held: Leases, released: Leases, now: datetime
    ) -> CommitReceipt:
        return await self._store.commit_group(
            GroupCommit(
                worker_id=self._worker_id,
                segment_key=packed.key if packed else None,
                slices=packed.slices if packed else (),
                held=held,
                released=released,
                now=now,
                lease_ttl_s=self._lease_ttl_s,
                prices=self._prices(),
            )
        )

    async def _put(self, packed: _Packed, now: datetime) -> None:
        try:
            await self._blobs.put(packed.key, packed.data)
        except BlobExists:
            pass  # an earlier try stored it; the key is ours alone
        except BlobError:
            await self._renew(packed, now)
            raise

    async def _renew(self, packed: _Packed, now: datetime) -> None:
        """Renews the leases of outcomes that cannot be stored yet: a lease that runs out
        would drop them.
        """
        unstored = ((piece.key, piece.token) for piece in packed.slices)
        held = (*self._holder.held(), *self._released, *unstored, *self._outcomes.leases)
        receipt = await self._commit(None, tuple(dict.fromkeys(held)), (), now)
        self._holder.committed(receipt, (), held)

    def _pack(self) -> _Packed | None:
        """Packs all outcomes that gathered since the last commit."""
        gathered = self._outcomes.take()
        if not gathered:
            return None
        data, slices = encode_segment(
            (key, token, finished) for (key, token), finished in gathered.items()
        )
        self._outcomes.packed(len(data))
        return _Packed(f"segments/{self._new_id('seg_')}", data, tuple(slices))
