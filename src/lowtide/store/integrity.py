"""`ports.integrity.IntegrityStore` over SQL: what rows need of the object store, and how
a loss is taken.

Called by service/integrity/checker.py, from `lowtide doctor`, beside running workers. Invariants:
every change locks as the others do (organization, batch, chunks) and is guarded by the batch's
state; what is taken back leaves bitmap, slices, counters, usage and ledger saying the same again.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.accounts.ledger import LedgerEntry
from lowtide.core.batches.batch import ASSEMBLING, BatchError
from lowtide.core.batches.plan import RECORD_BYTES
from lowtide.core.batches.segment import INDEX_RECORD_BYTES
from lowtide.core.integrity.consistency import BlobRole, ChunkRow, Reference
from lowtide.ports.integrity import BatchContents, RevertedResults
from lowtide.store.connection.database import Transactional
from lowtide.store.connection.notify import announce
from lowtide.store.schema.rows import batch_of, entry_of, entry_values
from lowtide.store.schema.tables import batches, chunks, files, ledger, slices
from lowtide.store.statements.batch_notes import note
from lowtide.store.statements.failures import covered_of
from lowtide.store.statements.group_commit import UPDATE_MODEL
from lowtide.store.statements.loss import Loss, revert_results
from lowtide.store.statements.spending import charge, lock_organizations
from lowtide.store.statements.transitions import lock_batches

_UNFINISHED: Final = batches.c.ended_at.is_(None)
_SLICE_END: Final = (
    slices.c.offset
    + slices.c.ok_bytes
    + slices.c.failed_bytes
    + INDEX_RECORD_BYTES * (slices.c.completed + slices.c.failed)
)
_COMPLETE: Final = (files.c.status == "uploaded") & files.c.deleted_at.is_(None)
_CHUNK: Final = tuple(chunks.c[field] for field in ChunkRow.__struct_fields__)


class SqlIntegrity(Transactional):
    """What `lowtide doctor` asks and tells the store."""

    async def references(self, need: BlobRole, *, after: str, limit: int) -> list[Reference]:
        statement = _needed(need).where(_KEY[need] > after).order_by(_KEY[need]).limit(limit)
        async with self._db.read() as conn:
            return [Reference(need=need, **row._mapping) for row in await conn.execute(statement)]

    async def is_needed(self, reference: Reference) -> bool:
        statement = _needed(reference.need).where(_KEY[reference.need] == reference.key)
        async with self._db.read() as conn:
            return (await conn.execute(statement.limit(1))).first() is not None

    async def readers(self, input_key: str) -> list[str]:
        running = (batches.c.status == "in_progress") & (batches.c.input_key == input_key)
        async with self._db.read() as conn:
            ids = await conn.scalars(select(batches.c.id).where(running).order_by(batches.c.id))
            return list(ids.all())

    async def holders(self, segment_key: str) -> list[str]:
        here = select(slices.c.batch_id).where(slices.c.segment_key == segment_key)
        unfinished = select(batches.c.id).where(batches.c.id.in_(here), _UNFINISHED)
        async with self._db.read() as conn:
            return list((await conn.scalars(unfinished.order_by(batches.c.id))).all())

    async def batch(self, batch_id: str) -> BatchContents | None:
        mine = select(*_CHUNK).where(chunks.c.batch_id == batch_id).order_by(chunks.c.seq)
        async with self._db.read() as conn:
            result = await conn.execute(select(batches).where(batches.c.id == batch_id))
            row = result.one_or_none()
            if row is None:
                return None
            rows = [ChunkRow(**chunk._mapping) for chunk in await conn.execute(mine)]
            covered = None if row.retry_of is None else await covered_of(conn, batch_id)
        return BatchContents(
            batch=batch_of(row), input_key=row.input_key, chunks=tuple(rows), covered=covered
        )

    async def lose_results(
        self,
        batch_id: str,
        segments: Collection[str],
        bits: Mapping[int, bytes] | None,
        now: datetime,
        reason: BatchError | None = None,
    ) -> RevertedResults | None:
        async with self._db.write() as conn:
            owners = await lock_organizations(conn, [batch_id], now)
            row = (await lock_batches(conn, [batch_id])).get(batch_id)
            if row is None or row.ended_at is not None:
                return None
            lost = await _slices_in(conn, batch_id, segments)
            chunk_rows = await _lock_chunks(conn, batch_id, lost)
            entries = await _entries_of(conn, lost)
            loss = revert_results(row, owners[0], chunk_rows, lost, entries, bits, now, reason)
            if loss is None:
                return None
            await _write(conn, row, loss)
            lost_words = f"{loss.taken_back.requests} results"
            await note(conn, [row], "results_lost", now, detail=lost_words)
            await charge(conn, owners, loss.ledger, now)
            await announce(conn, "dispatch", "commit", "assemble")
        return loss.taken_back

    async def move_file(self, file_id: str, before: str, after: str) -> bool:
        this = (files.c.id == file_id) & (files.c.blob_key == before) & _COMPLETE
        async with self._db.write() as conn:
            moved = await conn.execute(update(files).where(this).values(blob_key=after))
        return moved.rowcount == 1

    async def lose_file(self, file_id: str, blob_key: str, reason: BatchError) -> bool:
        this = (files.c.id == file_id) & (files.c.blob_key == blob_key) & _COMPLETE
        async with self._db.write() as conn:
            made_by = await conn.scalars(select(files.c.batch_id).where(this))
            rows = await lock_batches(conn, frozenset(filter(None, made_by.all())))
            marked = await conn.execute(update(files).where(this).values(status="lost"))
            for row in rows.values():
                values = {"errors": (*row.errors, reason), "errors_total": row.errors_total + 1}
                await conn.execute(update(batches).where(batches.c.id == row.id).values(values))
        return marked.rowcount == 1


def _inputs() -> Select[Any]:
    key = batches.c.input_key
    return (
        select(key.label("key"), func.max(batches.c.input_bytes).label("bytes"))
        .where(batches.c.status == "in_progress")
        .group_by(key)
    )


def _plans() -> Select[Any]:
    """The plans that are needed, also those of stopped batches, for the list of what never ran."""
    stopped = batches.c.status.in_(sorted(ASSEMBLING))
    unsettled = batches.c.completed + batches.c.failed < batches.c.total
    return select(
        batches.c.plan_key.label("key"),
        batches.c.id.label("owner"),
        (batches.c.total * RECORD_BYTES).label("bytes"),
    ).where(
        batches.c.plan_key.is_not(None),
        (batches.c.status == "in_progress") | (stopped & unsettled),
    )


def _segments() -> Select[Any]:
    return (
        select(slices.c.segment_key.label("key"), func.max(_SLICE_END).label("bytes"))
        .join(batches, batches.c.id == slices.c.batch_id)
        .where(_UNFINISHED)
        .group_by(slices.c.segment_key)
    )


def _files(*which: ColumnElement[bool]) -> Select[Any]:
    return select(
        files.c.blob_key.label("key"),
        files.c.id.label("owner"),
        files.c.bytes,
        files.c.sha256,
        files.c.lines,
    ).where(_COMPLETE, files.c.blob_key != "", *which)


_KEY: Final[Mapping[BlobRole, Any]] = {
    "input": batches.c.input_key,
    "plan": batches.c.plan_key,
    "segment": slices.c.segment_key,
    "upload": files.c.blob_key,
    "result": files.c.blob_key,
}


def _needed(need: BlobRole) -> Select[Any]:
    match need:
        case "input":
            return _inputs()
        case "plan":
            return _plans()
        case "segment":
            return _segments()
        case "upload":
            return _files(files.c.batch_id.is_(None))
        case "result":
            return _files(files.c.batch_id.is_not(None))


async def _slices_in(
    conn: AsyncConnection, batch_id: str, segments: Collection[str]
) -> list[Row[Any]]:
    """The slices in those segments, in the order of `seq`. All are read and filtered here: the
    segments may be many.
    """
    mine = select(slices).where(slices.c.batch_id == batch_id).order_by(slices.c.seq)
    return [row for row in await conn.execute(mine) if row.segment_key in segments]


async def _lock_chunks(
    conn: AsyncConnection, batch_id: str, lost: Sequence[Row[Any]]
) -> list[Row[Any]]:
    seqs = sorted({row.chunk_seq for row in lost})
    these = select(chunks).where(chunks.c.batch_id == batch_id, chunks.c.seq.in_(seqs))
    return list(await conn.execute(these.order_by(chunks.c.seq).with_for_update(key_share=True)))


async def _entries_of(conn: AsyncConnection, lost: Sequence[Row[Any]]) -> list[LedgerEntry]:
    """What those slices were charged: an entry bears the number of its commit's first slice."""
    first: dict[str, int] = {}
    for row in lost:
        first.setdefault(row.segment_key, row.seq)
    if not lost:
        return []
    mine = select(ledger).where(ledger.c.batch_id == lost[0].batch_id)
    result = await conn.execute(mine.order_by(ledger.c.seq, ledger.c.model))
    heartbeats = frozenset(first.values())
    return [entry_of(row) for row in result if row.seq in heartbeats]


async def _write(conn: AsyncConnection, row: Row[Any], loss: Loss) -> None:
    await conn.execute(update(batches).where(batches.c.id == row.id).values(loss.batch))
    for values in loss.chunks:
        seq = values["seq"]
        this = (chunks.c.batch_id == row.id) & (chunks.c.seq == seq)
        await conn.execute(update(chunks).where(this).values(values))
    if loss.drops:
        unleased = chunks.c.state.in_(("waiting", "paused"))
        await conn.execute(
            update(chunks).where(chunks.c.batch_id == row.id, unleased).values(state="dropped")
        )
    for values in loss.models:
        await conn.execute(UPDATE_MODEL, values)
    await _remove_slices(conn, row.id, loss.removed)
    if loss.ledger:
        await conn.execute(insert(ledger), [entry_values(entry) for entry in loss.ledger])
    await conn.execute(delete(files).where(files.c.id.in_(loss.emptied)))


async def _remove_slices(
    conn: AsyncConnection, batch_id: str, removed: Sequence[tuple[int, int, int]]
) -> None:
    """Deletes the slices and lowers `completed_before`/`failed_before` of all later ones."""
    mine = slices.c.batch_id == batch_id
    for seq, _, _ in removed:
        await conn.execute(delete(slices).where(mine, slices.c.seq == seq))
    last = await conn.scalar(select(func.max(slices.c.seq)).where(mine))
    for seq, completed, failed in removed:
        if last is not None and seq < last:
            await conn.execute(
                update(slices)
                .where(mine, slices.c.seq > seq)
                .values(
                    completed_before=slices.c.completed_before - completed,
                    failed_before=slices.c.failed_before - failed,
                )
            )
