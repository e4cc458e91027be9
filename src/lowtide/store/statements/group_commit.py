"""A worker's group commit: one transaction, the same handful of statements however much finished.

Called by work.py. Read what the commit touches, under lock; decide, in plain values
(`settlement.py`); write. Invariant: bitmap, slices, counters, usage, files, charges and state move
together, and only for chunks that are leased under the commit's token.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Row, Select, and_, bindparam, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.batches.chunk import ChunkKey
from lowtide.ports.work import CommitReceipt, GroupCommit
from lowtide.store.connection.notify import announce
from lowtide.store.schema.rows import entry_values, file_values
from lowtide.store.schema.tables import batch_models, batches, chunks, files, ledger, slices
from lowtide.store.statements import fair_share
from lowtide.store.statements.settlement import MODEL_SUMS, Settlement, keys_of, settle
from lowtide.store.statements.spending import charge, lock_organizations
from lowtide.store.statements.throughput import record_throughput
from lowtide.store.statements.transitions import lock_batches

_UPDATE_CHUNK: Final = (
    update(chunks)
    .where(chunks.c.batch_id == bindparam("of_batch"), chunks.c.seq == bindparam("of_seq"))
    .values({name: bindparam(name) for name in ("state", "done", "settled", "worker_id")})
    .values(lease_expires_at=bindparam("lease_expires_at"))
)
UPDATE_MODEL: Final = (
    update(batch_models)
    .where(batch_models.c.batch_id == bindparam("of_batch"))
    .where(batch_models.c.model == bindparam("of_model"))
    .values({name: batch_models.c[name] + bindparam(f"more_{name}") for name in MODEL_SUMS})
)


async def commit(conn: AsyncConnection, group: GroupCommit) -> CommitReceipt:
    """Store the commit's outcomes, exactly once; see the port."""
    keys = keys_of(group)
    owners = await lock_organizations(
        conn, {piece.key.batch_id for piece in group.slices}, group.now
    )
    batch_rows = await lock_batches(conn, {key.batch_id for key in keys})
    chunk_rows = await _lock_chunks(conn, keys)
    stored = await _stored(conn, group)
    settlement = settle(group, chunk_rows, batch_rows, stored)
    await _write(conn, settlement)
    paused = await charge(conn, owners, settlement.ledger, group.now)
    await _account(conn, settlement, chunk_rows, group.now)
    if settlement.receipt.settled or group.released:
        await announce(conn, "assemble")
    if group.released:
        await announce(conn, "dispatch")
    return _stopping(settlement.receipt, group, batch_rows, paused)


async def _account(
    conn: AsyncConnection,
    settlement: Settlement,
    chunk_rows: Mapping[ChunkKey, Row[Any]],
    now: datetime,
) -> None:
    """What the outcomes cost: for the turns of their organizations, and the pace of the pools."""
    found = fair_share.outcomes(settlement, chunk_rows)
    await record_throughput(conn, settlement, found, now)
    await fair_share.charge(conn, fair_share.corrections(settlement, chunk_rows, found))


def _stopping(
    receipt: CommitReceipt,
    group: GroupCommit,
    batch_rows: Mapping[str, Row[Any]],
    paused: Collection[str],
) -> CommitReceipt:
    """The receipt, which also stops the held batches of organizations that this commit paused."""
    held = {key.batch_id for key, _ in group.held if key not in receipt.lost}
    more = {batch_id for batch_id in held if batch_rows[batch_id].organization_id in paused}
    return msgspec.structs.replace(receipt, stopped=receipt.stopped | more)


async def _lock_chunks(
    conn: AsyncConnection, keys: Collection[ChunkKey]
) -> dict[ChunkKey, Row[Any]]:
    if not keys:
        return {}
    found = await conn.execute(chunks_by_key(keys).with_for_update(key_share=True))
    return {ChunkKey(row.batch_id, row.seq): row for row in found}


def chunks_by_key(keys: Collection[ChunkKey]) -> Select[Any]:
    """Those chunks, in the order in which every transaction locks them.

    Batch by batch, because SQLite scans the table for `(batch_id, seq) IN (VALUES ...)`.
    """
    seqs: dict[str, list[int]] = defaultdict(list)
    for key in sorted(keys):
        seqs[key.batch_id].append(key.seq)
    these = (
        and_(chunks.c.batch_id == batch_id, chunks.c.seq.in_(of_batch))
        for batch_id, of_batch in seqs.items()
    )
    return select(chunks).where(or_(*these)).order_by(chunks.c.batch_id, chunks.c.seq)


async def _stored(conn: AsyncConnection, group: GroupCommit) -> frozenset[ChunkKey]:
    """Chunks whose slices of this very segment are stored already: the commit is a repetition."""
    if group.segment_key is None:
        return frozenset()
    found = await conn.execute(
        select(slices.c.batch_id, slices.c.chunk_seq).where(
            slices.c.segment_key == group.segment_key
        )
    )
    return frozenset(ChunkKey(row.batch_id, row.chunk_seq) for row in found)


async def _write(conn: AsyncConnection, settlement: Settlement) -> None:
    await _many(conn, _UPDATE_CHUNK, settlement.chunks)
    await _many(conn, insert(slices), settlement.slices)
    await _many(conn, UPDATE_MODEL, settlement.models)
    await _many(conn, insert(files), [file_values(file) for file in settlement.files])
    await _many(conn, insert(ledger), [entry_values(entry) for entry in settlement.ledger])
    for batch_id, values in settlement.batches.items():
        await conn.execute(update(batches).where(batches.c.id == batch_id).values(values))


async def _many(conn: AsyncConnection, statement: Any, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    if rows:
        await conn.execute(statement, rows)
