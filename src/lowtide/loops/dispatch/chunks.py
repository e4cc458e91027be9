"""Chunks from the store: claimed for one worker, and read.

Called by loops/dispatch/leasing.py, which decides how many and when. Invariant: a lease whose lines
were not read is either given back or left to run out, never forgotten.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime

from lowtide.core.batches.batch import INPUT_LOST, BatchError
from lowtide.core.batches.chunk import ChunkKey, ChunkLease, missing
from lowtide.core.batches.plan import RECORD_BYTES, unpack_entries
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.ports.blobs import BlobError, BlobNotFound, Blobs
from lowtide.ports.store import StoreError
from lowtide.ports.work import WorkStore

LoseInput = Callable[[str, BatchError, datetime], Awaitable[object]]
"""`LifecycleStore.lose_input`."""


class ChunkClaims:
    """Leases chunks for one worker. `in_flight_max` is asked at each claim, for settings change at
    run time.
    """

    def __init__(
        self,
        worker_id: str,
        store: WorkStore,
        lease_ttl_s: float,
        in_flight_max: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._worker_id = worker_id
        self._store = store
        self._lease_ttl_s = lease_ttl_s
        self._in_flight_max = in_flight_max

    async def claim(
        self,
        models: Sequence[str],
        chunks: int,
        now: datetime,
        without: Collection[tuple[str, str]],
        supplied: Collection[str],
    ) -> Sequence[ChunkLease]:
        """See `WorkStore.claim_chunks`. Raises StoreError."""
        return await self._store.claim_chunks(
            self._worker_id,
            models,
            chunks,
            now,
            self._lease_ttl_s,
            self._in_flight_max(),
            without,
            supplied,
        )


class ChunkReader:
    """Reads the missing lines of leased chunks into the core. Without `lose_input`, a chunk without
    its input waits for its lease to run out.
    """

    def __init__(self, core: Dispatch, blobs: Blobs, lose_input: LoseInput | None = None) -> None:
        self.core = core
        self._blobs = blobs
        self._lose_input = lose_input
        self._unread: list[tuple[ChunkKey, int]] = []

    async def read(self, leases: Sequence[ChunkLease], now: datetime) -> None:
        """Reads all of them, in order. Raises BlobError, StoreError."""
        for place, lease in enumerate(leases):
            try:
                if not await self._read(lease, now):
                    self._unread.append((lease.key, lease.token))  # it is nobody's next one
            except (BlobError, StoreError):
                # Its own lease is left to run out: given back, it would be the next one claimed,
                # and nobody would ever get past it.
                self._unread += [(left.key, left.token) for left in leases[place + 1 :]]
                raise
            except asyncio.CancelledError:
                self._unread += [(left.key, left.token) for left in leases[place:]]
                raise

    async def _read(self, lease: ChunkLease, now: datetime) -> bool:
        """Reads the chunk's missing lines and adds them to the core.

        Returns False when the input is gone and its batch was ended for that. The plan was read
        from the same store a moment before, so this is not a bucket or a folder that is away.
        """
        plan = unpack_entries(
            await self._blobs.read(
                lease.plan_key, lease.first * RECORD_BYTES, lease.count * RECORD_BYTES
            )
        )
        wanted = [(index, plan[index]) for index in missing(lease.done, lease.count)]
        ranges = [(entry.offset, entry.length) for _, entry in wanted]
        try:
            lines = await self._blobs.read_ranges(lease.input_key, ranges)
        except BlobNotFound:
            if self._lose_input is None:
                raise
            await self._lose_input(lease.key.batch_id, INPUT_LOST, now)
            return False
        self.core.add(
            lease,
            [(index, entry.line, line) for (index, entry), line in zip(wanted, lines, strict=True)],
            [entry.input_tokens for _, entry in wanted],
        )
        return True

    def pop_unread_leases(self) -> list[tuple[ChunkKey, int]]:
        """Removes and returns the leases of chunks that a failed claim did not read:
        to be given back.
        """
        unread, self._unread = self._unread, []
        return unread
