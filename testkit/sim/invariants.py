"""Checks after every commit: what a reader of the database may see at any moment.

Told of each commit by the database itself, it looks through a connection of its own. States move
along the table; counts, usage and bitmaps only grow; slices are numbered without gaps, lie on the
disk, and were committed under the token that their chunk had; and bitmap, slices, counters and
ledger say the same. The first violation ends the run.
"""

import asyncio
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from datetime import datetime
from typing import Any, Final, cast

import msgspec

from lowtide.core.batches.batch import TERMINAL, TRANSITIONS, Status
from lowtide.core.batches.chunk import ChunkKey, ChunkLease
from lowtide.core.execution.records import CommitReceipt, GroupCommit
from lowtide.ports.work import WorkStore
from lowtide.store.sql_store import SqlStore
from lowtide.store.work import SqlWork
from testkit.sim.fault_kinds import FaultKind
from testkit.sim.faults import PortFaults
from testkit.sim.memory_blobs import BlobDisk

_BATCH: Final = (
    "SELECT id, status, total, completed, failed, input_tokens, cached_tokens, output_tokens,"
    " results_seq, swept_at FROM batches"
)
_CHUNKS: Final = "SELECT seq, state, token, count, settled, done FROM chunks WHERE batch_id = ?"
_NEW_SLICES: Final = (
    "SELECT seq, chunk_seq, segment_key, completed, failed, completed_before, failed_before"
    " FROM slices WHERE batch_id = ? AND seq >= ? ORDER BY seq"
)
_EVENTS: Final = "SELECT count(*) FROM webhook_deliveries WHERE batch_id = ?"
_LEDGER: Final = (
    "SELECT coalesce(sum(requests), 0), coalesce(sum(input_tokens), 0),"
    " coalesce(sum(cached_tokens), 0), coalesce(sum(output_tokens), 0) FROM ledger"
    " WHERE batch_id = ?"
)


class Violation(AssertionError):
    """Raised when a promise was broken."""


class _Chunk(msgspec.Struct):
    state: str
    token: int
    count: int
    settled: int
    done: int


class _Seen(msgspec.Struct):
    """What was seen of a batch; the next look may not take any of it back."""

    row: tuple[Any, ...]
    chunks: dict[int, _Chunk] = {}
    slices: int = 0
    completed: int = 0
    failed: int = 0


class InvariantCheck:
    """Looks at one database."""

    def __init__(self, path: str, disk: BlobDisk) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._disk = disk
        self._seen: dict[str, _Seen] = {}
        self._beats: dict[str, dict[ChunkKey, int]] = {}
        self._handed_out: set[tuple[ChunkKey, int]] = set()
        self.commits = 0
        self._moved_at_s: dict[str, float] = {}
        self.started_at_s = 0.0
        """When a process was last started."""
        self.begun_at_s: dict[str, float] = {}
        self.ended_at_s: dict[str, float] = {}
        """Virtual second at which a batch was first seen, and came to its end, by id."""
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def close(self) -> None:
        self._db.close()

    @property
    def settled(self) -> int:
        """The number of lines that have an end, over all batches."""
        return sum(seen.row[3] + seen.row[4] for seen in self._seen.values())

    def stands_for_s(self, batch_id: str) -> float:
        """Seconds since its row last changed, or a process started, which knows
        nothing of before.
        """
        now_s = asyncio.get_running_loop().time()
        return now_s - max(self._moved_at_s.get(batch_id, now_s), self.started_at_s)

    def beat(self, beat: GroupCommit) -> None:
        """Records a commit that may be about to happen."""
        if beat.segment_key is not None:
            tokens = {piece.key: piece.token for piece in beat.slices}
            self._beats.setdefault(beat.segment_key, {}).update(tokens)

    def leased(self, leases: Sequence[ChunkLease]) -> None:
        """Records chunks that were leased to a worker."""
        for lease in leases:
            self._require((lease.key, lease.token) not in self._handed_out, f"{lease} twice")
            self._handed_out.add((lease.key, lease.token))

    def committed(self) -> None:
        """Looks at the database, which has changed."""
        self.commits += 1
        try:
            for row in self._db.execute(_BATCH):
                self._check(row)
        except Violation as violation:
            self.fail(violation)

    def fail(self, violation: Violation) -> None:
        """Ends the run."""
        if not self.broken.done():
            self.broken.set_exception(violation)

    def _check(self, row: tuple[Any, ...]) -> None:
        batch_id, status, swept_at = row[0], row[1], row[9]
        self.begun_at_s.setdefault(batch_id, asyncio.get_running_loop().time())
        seen = self._seen.setdefault(batch_id, _Seen((batch_id, "validating", *row[2:])))
        if swept_at is not None or (seen.row == row and status in TERMINAL):
            return
        if seen.row != row:
            self._check_batch(seen.row, row)
        self._check_slices(batch_id, seen)
        self._check_chunks(batch_id, seen)
        if seen.row != row:
            self._sums_agree(row, seen)
            self._moved_at_s[batch_id] = asyncio.get_running_loop().time()
            if status in TERMINAL:
                self.ended_at_s.setdefault(batch_id, self._moved_at_s[batch_id])
                (events,) = self._db.execute(_EVENTS, (batch_id,)).fetchone()
                self._require(events > 0, f"{batch_id} ended without an event")
        seen.row = row

    def _check_batch(self, before: tuple[Any, ...], row: tuple[Any, ...]) -> None:
        old, new = before[1], row[1]
        steps: Mapping[Any, Status] = TRANSITIONS[old]
        self._require(new == old or new in steps.values(), f"{row[0]} went {old} -> {new}")
        fell = [pair for pair in zip(before[2:9], row[2:9], strict=True) if pair[1] < pair[0]]
        self._require(not fell, f"{row[0]}: counts fell: {before} -> {row}")

    def _check_slices(self, batch_id: str, seen: _Seen) -> None:
        for seq, chunk_seq, segment, completed, failed, ok_before, bad_before in self._db.execute(
            _NEW_SLICES, (batch_id, seen.slices)
        ):
            place = f"{batch_id} slice {seq} of {segment}"
            self._require(seq == seen.slices, f"{place}: {seen.slices} was next")
            sums = (seen.completed, seen.failed)
            self._require((ok_before, bad_before) == sums, f"{place}: {sums} lines came before")
            self._require(segment in self._disk.blobs, f"{place}: the segment is not on the disk")
            sent = self._beats.get(segment, {}).get(ChunkKey(batch_id, chunk_seq))
            (token,) = self._db.execute(
                "SELECT token FROM chunks WHERE batch_id = ? AND seq = ?", (batch_id, chunk_seq)
            ).fetchone()
            self._require(sent == token, f"{place}: under token {sent}, the chunk has {token}")
            seen.slices += 1
            seen.completed += completed
            seen.failed += failed

    def _check_chunks(self, batch_id: str, seen: _Seen) -> None:
        settled = 0
        for seq, state, token, count, chunk_settled, done in self._db.execute(_CHUNKS, (batch_id,)):
            bits = int.from_bytes(done, "little")
            now = _Chunk(state, token, count, chunk_settled, bits)
            settled += chunk_settled
            before = seen.chunks.get(seq)
            if before == now:
                continue
            place = f"{batch_id} chunk {seq}: {now}"
            self._require(bits.bit_count() == chunk_settled <= count, f"{place} miscounts")
            self._require((state == "done") == (chunk_settled == count), f"{place} in that state")
            if before is not None:
                grown = before.done & ~bits == 0 and before.token <= token
                self._require(grown, f"{place} fell behind {before}")
            seen.chunks[seq] = now
        if seen.chunks:
            lines = seen.completed + seen.failed
            self._require(settled == lines, f"{batch_id}: {settled} bits, {lines} lines in slices")

    def _sums_agree(self, row: tuple[Any, ...], seen: _Seen) -> None:
        batch_id, status, total, completed, failed = row[:5]
        self._require(completed == seen.completed, f"{row}: {seen.completed} successes in slices")
        if status in TERMINAL and status != "failed":
            self._require(completed + failed == total, f"{row}: ended with requests left")
        else:
            self._require(failed == seen.failed, f"{row}: {seen.failed} failures in slices")
        charged = self._db.execute(_LEDGER, (batch_id,)).fetchone()
        self._require(charged == (completed, *row[5:8]), f"{row}: the ledger says {charged}")

    def _require(self, fact: bool, otherwise: str) -> None:
        if not fact:
            raise Violation(otherwise)


def watched(store: SqlStore, watch: InvariantCheck, faults: PortFaults) -> SqlStore:
    """The same store for a worker, whose commits and claims are seen; and some commits come
    twice."""
    twin = copy(store)
    twin.work = cast("SqlWork", _WatchedWork(store.work, watch, faults))
    return twin


class _WatchedWork:
    def __init__(self, work: WorkStore, watch: InvariantCheck, faults: PortFaults) -> None:
        self._work = work
        self._watch = watch
        self._faults = faults
        self._earlier: GroupCommit | None = None

    async def claim_chunks(
        self,
        worker_id: str,
        models: Sequence[str],
        limit: int,
        now: datetime,
        ttl_s: float,
        in_flight_max: int | None = None,
        without: Collection[tuple[str, str]] = (),
        supplied: Collection[str] = (),
    ) -> list[ChunkLease]:
        leases = await self._work.claim_chunks(
            worker_id, models, limit, now, ttl_s, in_flight_max, without, supplied
        )
        self._watch.leased(leases)
        return leases

    async def commit_group(self, beat: GroupCommit) -> CommitReceipt:
        """Commits once, or twice, as when a proxy repeats it; or commits an old one
        again, long after.
        """
        self._watch.beat(beat)
        if self._faults.happens(self._faults.rates.beat_doubled):
            await self._work.commit_group(beat)
            self._faults.tell(FaultKind.BEAT_DOUBLED)
        if self._earlier and self._faults.happens(self._faults.rates.beat_doubled):
            await self._work.commit_group(self._earlier)
            self._faults.tell(FaultKind.BEAT_REPEATED_LATE)
        self._earlier = beat
        receipt = await self._work.commit_group(beat)
        if receipt.lost & {piece.key for piece in beat.slices}:
            self._faults.tell(FaultKind.LEASE_LOST)
        return receipt

    async def reap(self, now: datetime) -> int:
        return await self._work.reap(now)

    async def release_worker(self, worker_id: str, now: datetime | None = None) -> int:
        return await self._work.release_worker(worker_id, now)

    async def named_models(self, limit: int) -> frozenset[str]:
        return await self._work.named_models(limit)
