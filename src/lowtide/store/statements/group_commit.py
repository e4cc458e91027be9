"""A worker's group commit: one transaction, the same handful of statements however much finished.

Called by work.py. Read what the commit touches, under lock; decide, in plain values
(`core.execution.settlement`); write. Invariant: bitmap, slices, counters, usage, files, charges and
state move together, and only for chunks that are leased under the commit's token.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import asdict
from sqlalchemy import Row, Select, and_, bindparam, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.batches.chunk import ChunkKey
from lowtide.core.execution.records import (
    BatchRecord,
    ChunkRecord,
    CommitReceipt,
    GroupCommit,
    SettledBatch,
    SettledChunk,
    SettledModel,
    Settlement,
)
from lowtide.core.execution.settled_work import corrections, settled_work
from lowtide.core.execution.settlement import settle
from lowtide.store.connection.notify import announce
from lowtide.store.schema.rows import USAGE_FIELDS, batch_of, entry_values
from lowtide.store.schema.tables import batch_models, batches, chunks, files, ledger, slices
from lowtide.store.statements import fair_share
from lowtide.store.statements.failures import count_failures
from lowtide.store.statements.spending import charge, lock_organizations
from lowtide.store.statements.throughput import record_throughput
from lowtide.store.statements.transitions import event_values, lock_batches

_CHUNK: Final = tuple(chunks.c[field] for field in ChunkRecord.__struct_fields__)
_BATCH: Final = tuple(
    field for field in SettledBatch.__struct_fields__ if field not in ("usage", "ends")
)
_UPDATE_CHUNK: Final = (
    update(chunks)
    .where(chunks.c.batch_id == bindparam("of_batch"), chunks.c.seq == bindparam("of_seq"))
    .values({name: bindparam(name) for name in ("state", "done", "settled", "worker_id")})
    .values(lease_expires_at=bindparam("lease_expires_at"))
)
_UPDATE_BATCH: Final = (
    update(batches)
    .where(batches.c.id == bindparam("of_batch"))
    .values({name: bindparam(name) for name in (*_BATCH, *USAGE_FIELDS)})
)
_MODEL_SUMS: Final = ("settled_tokens", "completed", "failed", *USAGE_FIELDS)
UPDATE_MODEL: Final = (
    update(batch_models)
    .where(batch_models.c.batch_id == bindparam("of_batch"))
    .where(batch_models.c.model == bindparam("of_model"))
    .values({name: batch_models.c[name] + bindparam(f"more_{name}") for name in _MODEL_SUMS})
)


async def commit(conn: AsyncConnection, group: GroupCommit) -> CommitReceipt:
    """Stores the commit's outcomes, exactly once; see the port."""
    keys = frozenset(key for key, _ in group.claims)
    owners = await lock_organizations(
        conn, {piece.key.batch_id for piece in group.slices}, group.now
    )
    batch_rows = await lock_batches(conn, {key.batch_id for key in keys})
    chunk_records = await _lock_chunks(conn, keys)
    stored = await _stored(conn, group)
    records = {batch_id: _batch_record(row) for batch_id, row in batch_rows.items()}
    settlement = settle(group, chunk_records, records, stored)
    await _write(conn, settlement, group)
    paused = await charge(conn, owners, settlement.ledger, group.now)
    await _account(conn, settlement, group.now)
    if settlement.receipt.settled or group.released:
        await announce(conn, "assemble")
    if group.released:
        await announce(conn, "dispatch")
    return _stopping(settlement.receipt, group, records, paused)


async def _account(conn: AsyncConnection, settlement: Settlement, now: datetime) -> None:
    """Charges the outcomes to their organizations' virtual times and to the pools' throughputs."""
    work = settled_work(settlement)
    await record_throughput(conn, settlement, work, now)
    await fair_share.charge(conn, corrections(settlement, work))


def _stopping(
    receipt: CommitReceipt,
    group: GroupCommit,
    records: Mapping[str, BatchRecord],
    paused: Collection[str],
) -> CommitReceipt:
    """The receipt, which also stops the held batches of organizations that this commit paused."""
    held = {key.batch_id for key, _ in group.held if key not in receipt.lost}
    more = {batch_id for batch_id in held if records[batch_id].organization_id in paused}
    return msgspec.structs.replace(receipt, stopped=receipt.stopped | more)


async def _lock_chunks(
    conn: AsyncConnection, keys: Collection[ChunkKey]
) -> dict[ChunkKey, ChunkRecord]:
    if not keys:
        return {}
    result = await conn.execute(chunks_by_key(keys).with_for_update(key_share=True))
    return {ChunkKey(row[0], row[1]): ChunkRecord(*row) for row in result}


def _batch_record(row: Row[Any]) -> BatchRecord:
    return BatchRecord(batch_of(row), row.organization_id, row.results_seq, row.cost)


def chunks_by_key(keys: Collection[ChunkKey]) -> Select[Any]:
    """Selects those chunks, as ChunkRecord has them, in the order in which every
    transaction locks them.

    SQLite scans the table for `(batch_id, seq) IN (VALUES ...)`, and a condition for each batch
    takes 0.1 ms to write: 40 ms of the event loop beside 400 flex calls, each a batch of one
    chunk. So batches whose chunks have the same numbers share a condition.
    """
    seqs: dict[str, list[int]] = defaultdict(list)
    for key in sorted(keys):
        seqs[key.batch_id].append(key.seq)
    alike: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for batch_id, of_batch in seqs.items():
        alike[tuple(of_batch)].append(batch_id)
    these = (
        and_(chunks.c.batch_id.in_(batch_ids), chunks.c.seq.in_(numbers))
        for numbers, batch_ids in alike.items()
    )
    return select(*_CHUNK).where(or_(*these)).order_by(chunks.c.batch_id, chunks.c.seq)


async def _stored(conn: AsyncConnection, group: GroupCommit) -> frozenset[ChunkKey]:
    """Chunks whose slices of this very segment are stored already: the commit is a repetition."""
    if group.segment_key is None:
        return frozenset()
    result = await conn.execute(
        select(slices.c.batch_id, slices.c.chunk_seq).where(
            slices.c.segment_key == group.segment_key
        )
    )
    return frozenset(ChunkKey(row.batch_id, row.chunk_seq) for row in result)


async def _write(conn: AsyncConnection, settlement: Settlement, group: GroupCommit) -> None:
    await _many(conn, _UPDATE_CHUNK, [_chunk_values(each) for each in settlement.chunks])
    await _many(conn, insert(slices), [asdict(each) for each in settlement.slices])
    await _many(conn, UPDATE_MODEL, [_model_values(*item) for item in settlement.models.items()])
    await _many(conn, insert(files), [asdict(file) for file in settlement.files])
    await _many(conn, insert(ledger), [entry_values(entry) for entry in settlement.ledger])
    await count_failures(conn, settlement.failures)
    going = [_batch_values(*item) for item in settlement.batches.items() if not item[1].ends]
    ended = [_batch_values(*item) for item in settlement.batches.items() if item[1].ends]
    await _many(conn, _UPDATE_BATCH, going)
    settled = event_values("in_progress", "settled", group.now)
    await _many(conn, _UPDATE_BATCH.values(settled), ended)


def _chunk_values(chunk: SettledChunk) -> dict[str, Any]:
    return {
        "of_batch": chunk.before.batch_id,
        "of_seq": chunk.before.seq,
        "state": chunk.state,
        "done": chunk.done,
        "settled": chunk.settled,
        "worker_id": chunk.before.worker_id if chunk.state == "leased" else None,
        "lease_expires_at": chunk.lease_expires_at,
    }


def _model_values(key: tuple[str, str], settled: SettledModel) -> dict[str, Any]:
    return {
        "of_batch": key[0],
        "of_model": key[1],
        "more_settled_tokens": settled.settled_tokens,
        "more_completed": settled.completed,
        "more_failed": settled.failed,
    } | {f"more_{field}": value for field, value in asdict(settled.usage).items()}


def _batch_values(batch_id: str, after: SettledBatch) -> dict[str, Any]:
    values = {field: getattr(after, field) for field in _BATCH}
    return {"of_batch": batch_id} | values | asdict(after.usage)


async def _many(conn: AsyncConnection, statement: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        await conn.execute(statement, rows)
