"""What a commit comes to: the decision between group_commit.py's reads and its writes, without a
database.

Rows as read under lock go in, values to write come out. Invariants: a slice is stored whole or
not at all, and only while its chunk is leased under the slice's token; a bit is set once; slices
of a batch are numbered without gaps, each with the sums of all before it; sums only grow.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import Row

from lowtide.core.accounts.ledger import LedgerEntry
from lowtide.core.batches.chunk import ChunkKey, done_count, mark_done
from lowtide.core.batches.segment import Slice
from lowtide.core.files.file import File
from lowtide.core.usage import NO_USAGE, Usage
from lowtide.ports.work import CommitReceipt, GroupCommit
from lowtide.store.schema.rows import USAGE_FIELDS, batch_of, usage_of_row, usage_values
from lowtide.store.statements.charging import cost_of, ledger_entry
from lowtide.store.statements.result_files import growing_errors, growing_output
from lowtide.store.statements.transitions import event_values, freed_state

MODEL_SUMS: Final = ("settled_tokens", "completed", "failed", *USAGE_FIELDS)


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """Values to write, by table, and the receipt. `batches` maps an id to the columns to set."""

    chunks: list[dict[str, Any]]
    slices: list[dict[str, Any]]
    models: list[dict[str, Any]]
    batches: dict[str, dict[str, Any]]
    files: list[File]
    ledger: list[LedgerEntry]
    receipt: CommitReceipt


class _Chunk(msgspec.Struct):
    """An owned chunk as the commit changes it."""

    row: Row[Any]
    done: bytes
    refused: bool = False

    @property
    def count(self) -> int:
        return int(self.row._mapping["count"])  # a Row has a method of that name

    @property
    def settled(self) -> int:
        return done_count(self.done)

    def settled_tokens(self) -> int:
        """The part of the chunk's estimate that this commit settles; over all commits, the
        estimate."""
        tokens = self.row.input_tokens
        return int(tokens * self.settled // self.count - tokens * self.row.settled // self.count)


class _Sum(msgspec.Struct):
    """What a commit adds to a batch, or to a model of a batch."""

    completed: int = 0
    failed: int = 0
    usage: Usage = NO_USAGE

    def add(self, piece: Slice) -> None:
        self.completed += piece.completed
        self.failed += piece.failed
        self.usage = self.usage + piece.usage


def keys_of(commit: GroupCommit) -> frozenset[ChunkKey]:
    """All chunks that the commit names."""
    return frozenset(key for key, _ in _claims(commit))


def settle(
    commit: GroupCommit,
    chunk_rows: Mapping[ChunkKey, Row[Any]],
    batch_rows: Mapping[str, Row[Any]],
    stored: frozenset[ChunkKey],
) -> Settlement:
    """Decide the commit. `stored` are chunks that have slices of this commit's segment already."""
    owned = _owned(commit, chunk_rows)
    by_batch: dict[str, _Sum] = defaultdict(_Sum)
    by_model: dict[tuple[str, str], _Sum] = defaultdict(_Sum)
    slice_rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for piece in commit.slices:
        chunk = owned.get(piece.key)
        if chunk is None or piece.key in stored or not _accept(chunk, piece):
            continue
        batch_id = piece.key.batch_id
        total = by_batch[batch_id]
        place = batch_rows[batch_id].results_seq + len(slice_rows[batch_id])
        slice_rows[batch_id].append(
            _slice_values(commit, piece, batch_rows[batch_id], total, place)
        )
        total.add(piece)
        by_model[batch_id, chunk.row.model].add(piece)
    ledger = [
        ledger_entry(
            batch_rows[batch_id], model, total.completed, total.usage, commit.prices, commit.now
        )
        for (batch_id, model), total in by_model.items()
        if total.completed
    ]
    changes = {
        batch_id: _batch_values(batch_rows[batch_id], total, len(slice_rows[batch_id]), commit)
        | _cost_values(batch_rows[batch_id], ledger)
        for batch_id, total in by_batch.items()
    }
    return Settlement(
        chunks=[
            _chunk_values(commit, key, chunk, batch_rows[key.batch_id])
            for key, chunk in owned.items()
        ],
        slices=[row for rows in slice_rows.values() for row in rows],
        models=_model_values(by_model, owned),
        batches=changes,
        files=[
            file
            for batch_id in by_batch
            for file in _new_files(batch_rows[batch_id], changes, commit)
        ],
        ledger=ledger,
        receipt=_receipt(commit, owned, batch_rows, changes, stored),
    )


def _claims(commit: GroupCommit) -> list[tuple[ChunkKey, int]]:
    return [*((piece.key, piece.token) for piece in commit.slices), *commit.held, *commit.released]


def _owned(commit: GroupCommit, rows: Mapping[ChunkKey, Row[Any]]) -> dict[ChunkKey, _Chunk]:
    """The fence: leased, to this worker, under a token that the commit shows."""
    return {
        key: _Chunk(row, row.done)
        for key, token in _claims(commit)
        if (row := rows.get(key)) is not None
        and (row.state, row.worker_id, row.token) == ("leased", commit.worker_id, token)
    }


def _accept(chunk: _Chunk, piece: Slice) -> bool:
    """Set the slice's bits. A slice that repeats a bit cannot be, and is refused with its chunk."""
    if piece.token != chunk.row.token:
        return False  # outcomes of an earlier lease of the same worker
    fits = not piece.indices or (min(piece.indices) >= 0 and max(piece.indices) < chunk.count)
    if chunk.refused or not fits:
        chunk.refused = True
        return False
    done = mark_done(chunk.done, piece.indices)
    if done_count(done) != chunk.settled + piece.count:  # some bit was set before, or twice
        chunk.refused = True
        return False
    chunk.done = done
    return True


def _chunk_values(
    commit: GroupCommit, key: ChunkKey, chunk: _Chunk, batch: Row[Any]
) -> dict[str, Any]:
    values = {
        "of_batch": key.batch_id,
        "of_seq": key.seq,
        "done": chunk.done,
        "settled": chunk.settled,
        "state": "leased",
        "worker_id": commit.worker_id,
        "lease_expires_at": chunk.row.lease_expires_at,
    }
    token = chunk.row.token
    ends = chunk.settled == chunk.count or (key, token) in commit.released
    if ends:
        freed = freed_state(batch.status, batch.paused_reason)
        values["state"] = "done" if chunk.settled == chunk.count else freed
        values |= {"worker_id": None, "lease_expires_at": None}
    elif (key, token) in commit.held and not chunk.refused:
        values["lease_expires_at"] = commit.now + timedelta(seconds=commit.lease_ttl_s)
    return values


def _slice_values(
    commit: GroupCommit, piece: Slice, batch: Row[Any], before: _Sum, seq: int
) -> dict[str, Any]:
    return {
        "batch_id": piece.key.batch_id,
        "seq": seq,
        "chunk_seq": piece.key.seq,
        "segment_key": commit.segment_key,
        "offset": piece.offset,
        "ok_bytes": piece.ok_bytes,
        "failed_bytes": piece.failed_bytes,
        "completed": piece.completed,
        "failed": piece.failed,
        "completed_before": batch.completed + before.completed,
        "failed_before": batch.failed + before.failed,
    }


def _batch_values(
    batch: Row[Any], more: _Sum, slice_count: int, commit: GroupCommit
) -> dict[str, Any]:
    completed, failed = batch.completed + more.completed, batch.failed + more.failed
    values: dict[str, Any] = {
        "completed": completed,
        "failed": failed,
        "results_seq": batch.results_seq + slice_count,
        "first_settled_at": batch.first_settled_at or commit.now,
        "output_file_id": growing_output(batch_of(batch), commit.now).id if completed else None,
        "error_file_id": growing_errors(batch_of(batch), commit.now).id if failed else None,
    }
    values |= usage_values(usage_of_row(batch._mapping) + more.usage)
    if batch.status == "in_progress" and completed + failed == batch.total:
        values |= event_values(batch.status, "settled", commit.now)
    return values


def _cost_values(batch: Row[Any], ledger: Sequence[LedgerEntry]) -> dict[str, Any]:
    return {"cost": cost_of((e for e in ledger if e.batch_id == batch.id), batch.cost)}


def _model_values(
    by_model: Mapping[tuple[str, str], _Sum], owned: Mapping[ChunkKey, _Chunk]
) -> list[dict[str, Any]]:
    tokens: dict[tuple[str, str], int] = defaultdict(int)
    for key, chunk in owned.items():
        tokens[key.batch_id, chunk.row.model] += chunk.settled_tokens()
    return [
        {
            "of_batch": batch_id,
            "of_model": model,
            "more_settled_tokens": tokens[batch_id, model],
            "more_completed": total.completed,
            "more_failed": total.failed,
        }
        | {f"more_{field}": value for field, value in usage_values(total.usage).items()}
        for (batch_id, model), total in by_model.items()
    ]


def _new_files(
    batch: Row[Any], changes: Mapping[str, Mapping[str, Any]], commit: GroupCommit
) -> list[File]:
    """Result files that this commit gives their first line."""
    after, record = changes[batch.id], batch_of(batch)
    fresh: list[File] = []
    if after["output_file_id"] and batch.output_file_id is None:
        fresh.append(growing_output(record, commit.now))
    if after["error_file_id"] and batch.error_file_id is None:
        fresh.append(growing_errors(record, commit.now))
    return fresh


def _receipt(
    commit: GroupCommit,
    owned: Mapping[ChunkKey, _Chunk],
    batch_rows: Mapping[str, Row[Any]],
    changes: Mapping[str, Mapping[str, Any]],
    stored: frozenset[ChunkKey],
) -> CommitReceipt:
    held = frozenset(key for key, _ in commit.held)
    # A repeated commit's slices are not lost because the first one ended their chunk's lease.
    lost = {
        key for key in keys_of(commit) if key not in owned and (key in held or key not in stored)
    }
    lost |= {key for key, chunk in owned.items() if chunk.refused}
    return CommitReceipt(
        lost=frozenset(lost),
        stopped=frozenset(
            key.batch_id
            for key in held & owned.keys()
            if batch_rows[key.batch_id].status != "in_progress"
            or batch_rows[key.batch_id].paused_reason is not None
        ),
        settled=frozenset(batch_id for batch_id, values in changes.items() if "status" in values),
    )
