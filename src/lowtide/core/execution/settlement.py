"""What a commit comes to: the decision between the store's reads and its writes.

Records as read under lock go in, what to write comes out. Pure. Invariants: a slice is stored whole
or not at all, and only while its chunk is leased under the slice's token; a bit is set once; slices
of a batch are numbered without gaps, each with the sums of all before it; sums only grow.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta

import msgspec

from lowtide.core.accounts.ledger import LedgerEntry
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.chunk import ChunkKey, done_count, freed_state, mark_done
from lowtide.core.batches.failures import FailureGroup
from lowtide.core.batches.segment import Slice
from lowtide.core.execution.charging import cost_of, ledger_entry
from lowtide.core.execution.records import (
    BatchRecord,
    ChunkRecord,
    CommitReceipt,
    GroupCommit,
    SettledBatch,
    SettledChunk,
    SettledModel,
    Settlement,
    StoredSlice,
)
from lowtide.core.execution.result_files import growing_errors, growing_output
from lowtide.core.files.file import File


class _Chunk(msgspec.Struct):
    """An owned chunk as the commit changes it."""

    record: ChunkRecord
    done: bytes
    settled: int
    refused: bool = False

    def settled_tokens(self) -> int:
        """The part of the chunk's estimate that this commit settles; over all commits, the
        estimate."""
        tokens, count = self.record.input_tokens, self.record.count
        return tokens * self.settled // count - tokens * self.record.settled // count


def settle(
    commit: GroupCommit,
    chunks: Mapping[ChunkKey, ChunkRecord],
    batches: Mapping[str, BatchRecord],
    stored: frozenset[ChunkKey],
) -> Settlement:
    """Decides the commit. `chunks` are those it names, as far as they exist, `batches` theirs;
    `stored` are chunks that have slices of this commit's segment already.
    """
    owned = _owned(commit, chunks)
    by_batch: dict[str, SettledModel] = defaultdict(SettledModel)
    models: dict[tuple[str, str], SettledModel] = defaultdict(SettledModel)
    slices: dict[str, list[StoredSlice]] = defaultdict(list)
    failures: dict[str, list[FailureGroup]] = {}
    for piece in commit.slices:
        chunk = owned.get(piece.key)
        if chunk is None or piece.key in stored or not _accept(chunk, piece):
            continue
        batch_id = piece.key.batch_id
        total = by_batch[batch_id]
        place = len(slices[batch_id])
        slices[batch_id].append(_slice(commit, piece, batches[batch_id], total, place))
        total.add(piece)
        models[batch_id, chunk.record.model].add(piece)
        if piece.failures:
            failures.setdefault(batch_id, []).extend(piece.failures)
    for key, chunk in owned.items():
        if (model := models.get((key.batch_id, chunk.record.model))) is not None:
            model.settled_tokens += chunk.settled_tokens()
    ledger = [
        ledger_entry(batches[batch_id], model, settled, commit.prices, commit.now)
        for (batch_id, model), settled in models.items()
        if settled.completed
    ]
    after = {
        batch_id: _batch(batches[batch_id], total, len(slices[batch_id]), ledger, commit)
        for batch_id, total in by_batch.items()
    }
    return Settlement(
        chunks=[
            _settled_chunk(commit, key, chunk, batches[key.batch_id])
            for key, chunk in owned.items()
        ],
        slices=[each for of_batch in slices.values() for each in of_batch],
        models=dict(models),
        batches=after,
        files=[
            file
            for batch_id in after
            for file in _new_files(batches[batch_id], after[batch_id], commit)
        ],
        ledger=ledger,
        failures=failures,
        receipt=_receipt(commit, owned, batches, after, stored),
    )


def _owned(commit: GroupCommit, chunks: Mapping[ChunkKey, ChunkRecord]) -> dict[ChunkKey, _Chunk]:
    """Whether the commit owns the chunk: leased, to this worker, under a
    token that the commit shows.
    """
    return {
        key: _Chunk(record, record.done, done_count(record.done))
        for key, token in commit.claims
        if (record := chunks.get(key)) is not None
        and (record.state, record.worker_id, record.token) == ("leased", commit.worker_id, token)
    }


def _accept(chunk: _Chunk, piece: Slice) -> bool:
    """Sets the slice's bits. A slice that repeats a bit is a fault, and
    is refused with its chunk.
    """
    record = chunk.record
    if piece.token != record.token:
        return False  # outcomes of an earlier lease of the same worker
    fits = not piece.indices or (min(piece.indices) >= 0 and max(piece.indices) < record.count)
    if chunk.refused or not fits:
        chunk.refused = True
        return False
    done = mark_done(chunk.done, piece.indices)
    settled = done_count(done)
    if settled != chunk.settled + piece.count:  # some bit was set before, or twice
        chunk.refused = True
        return False
    chunk.done, chunk.settled = done, settled
    return True


def _settled_chunk(
    commit: GroupCommit, key: ChunkKey, chunk: _Chunk, of: BatchRecord
) -> SettledChunk:
    record = chunk.record
    claim = (key, record.token)
    state, expires_at = record.state, record.lease_expires_at
    if chunk.settled == record.count:
        state, expires_at = "done", None
    elif claim in commit.released:
        state, expires_at = freed_state(of.batch.status, of.batch.holds), None
    elif claim in commit.held and not chunk.refused:
        expires_at = commit.now + timedelta(seconds=commit.lease_ttl_s)
    return SettledChunk(
        before=record,
        state=state,
        lease_expires_at=expires_at,
        done=chunk.done,
        settled=chunk.settled,
    )


def _slice(
    commit: GroupCommit, piece: Slice, of: BatchRecord, before: SettledModel, place: int
) -> StoredSlice:
    assert commit.segment_key is not None
    counts = of.batch.counts
    return StoredSlice(
        batch_id=piece.key.batch_id,
        seq=of.results_seq + place,
        chunk_seq=piece.key.seq,
        segment_key=commit.segment_key,
        offset=piece.offset,
        ok_bytes=piece.ok_bytes,
        failed_bytes=piece.failed_bytes,
        completed=piece.completed,
        failed=piece.failed,
        completed_before=counts.completed + before.completed,
        failed_before=counts.failed + before.failed,
    )


def _batch(
    of: BatchRecord,
    more: SettledModel,
    slice_count: int,
    ledger: list[LedgerEntry],
    commit: GroupCommit,
) -> SettledBatch:
    batch = of.batch
    completed = batch.counts.completed + more.completed
    failed = batch.counts.failed + more.failed
    return SettledBatch(
        completed=completed,
        failed=failed,
        results_seq=of.results_seq + slice_count,
        first_settled_at=batch.first_settled_at or commit.now,
        last_settled_at=commit.now,
        output_file_id=growing_output(batch, commit.now).id if completed else None,
        error_file_id=growing_errors(batch, commit.now).id if failed else None,
        usage=batch.usage + more.usage,
        cost=cost_of((entry for entry in ledger if entry.batch_id == batch.id), of.cost),
        ends=batch.status == "in_progress" and completed + failed == batch.counts.total,
    )


def _new_files(of: BatchRecord, after: SettledBatch, commit: GroupCommit) -> list[File]:
    """Result files that this commit gives their first line."""
    batch = of.batch
    fresh: list[File] = []
    if after.output_file_id and batch.output_file_id is None:
        fresh.append(growing_output(batch, commit.now))
    if after.error_file_id and batch.error_file_id is None:
        fresh.append(growing_errors(batch, commit.now))
    return fresh


def _receipt(
    commit: GroupCommit,
    owned: Mapping[ChunkKey, _Chunk],
    batches: Mapping[str, BatchRecord],
    after: Mapping[str, SettledBatch],
    stored: frozenset[ChunkKey],
) -> CommitReceipt:
    held = frozenset(key for key, _ in commit.held)
    # A repeated commit's slices are not lost because the first one ended their chunk's lease.
    lost = {
        key for key, _ in commit.claims if key not in owned and (key in held or key not in stored)
    }
    lost |= {key for key, chunk in owned.items() if chunk.refused}
    at_work = {key.batch_id for key in held & owned.keys()}
    return CommitReceipt(
        lost=frozenset(lost),
        stopped=frozenset(each for each in at_work if batches[each].batch.aborts_calls),
        paused=frozenset(each for each in at_work if _finishes_calls(batches[each].batch)),
        settled=frozenset(batch_id for batch_id, batch in after.items() if batch.ends),
    )


def _finishes_calls(batch: Batch) -> bool:
    """Whether a batch that runs is held, and its calls under way go on to their end."""
    return bool(batch.holds) and not batch.aborts_calls
