"""`ports.history.HistoryStore` over SQL.

Invariant: a history moves on under one lock, so two workers that look at a batch at once count its
growth once.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Row,
    Select,
    case,
    cast,
    delete,
    func,
    null,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.history.batch_events import BatchEvent
from lowtide.core.history.batch_history import BatchHistory, BatchTotals, advanced
from lowtide.core.history.batch_parts import BatchPart
from lowtide.core.history.measured_pace import PaceRecord
from lowtide.core.history.replica_history import ReplicaRow
from lowtide.store.connection.database import Transactional
from lowtide.store.connection.dialect import insert_or_replace, lock_name
from lowtide.store.schema.history_tables import batch_history, batch_notes, replica_history
from lowtide.store.schema.tables import batches, chunks, slices
from lowtide.store.statements.many_keys import in_steps

_LOCK = "history"
_TOTALS = tuple(batches.c[field] for field in BatchTotals.__struct_fields__)


class SqlHistory(Transactional):
    """Rates and notes of batches, and what replicas did."""

    async def advance(self, batch_ids: Collection[str], now: datetime) -> int:
        if not batch_ids:
            return 0
        async with self._db.write() as conn:
            await lock_name(conn, _LOCK)
            result = (await conn.execute(_counters(batch_ids))).all()
            moved = [row for row in map(_moved, result, [now] * len(result)) if row is not None]
            await insert_or_replace(conn, batch_history, moved)
        return len(moved)

    async def of_batch(self, batch_id: str) -> BatchHistory | None:
        its = select(batch_history.c.history).where(batch_history.c.batch_id == batch_id)
        async with self._db.read() as conn:
            found: BatchHistory | None = await conn.scalar(its)
        return found

    async def notes(self, batch_id: str) -> Sequence[BatchEvent]:
        of_batch = select(batch_notes).where(batch_notes.c.batch_id == batch_id)
        async with self._db.read() as conn:
            rows = await conn.execute(of_batch.order_by(batch_notes.c.at, batch_notes.c.kind))
            return list(map(_event_of, rows))

    async def paces(self, batch_ids: Collection[str]) -> dict[str, PaceRecord]:
        histories: dict[str, BatchHistory] = {}
        pauses: dict[str, list[BatchEvent]] = {}
        async with self._db.read() as conn:
            for some in in_steps(batch_ids, places=2):
                for row in await conn.execute(_histories_and_pauses(some)):
                    if row.history is not None:
                        histories[row.batch_id] = row.history
                    else:
                        pauses.setdefault(row.batch_id, []).append(_event_of(row))
        return {
            each: PaceRecord(histories.get(each), sorted(pauses.get(each, ()), key=_instant_of))
            for each in histories.keys() | pauses.keys()
        }

    async def parts(self, batch_id: str, parts_max: int) -> list[BatchPart]:
        async with self._db.read() as conn:
            last = select(func.max(chunks.c.seq)).where(chunks.c.batch_id == batch_id)
            all_chunks = (await conn.scalar(last) or 0) + 1
            few = min(parts_max, all_chunks)
            failed = {
                row.part: row.failed
                for row in await conn.execute(_failed_by_part(batch_id, few, all_chunks))
            }
            return [
                BatchPart(
                    first=row.first,
                    count=row.requests,
                    settled=row.settled,
                    failed=failed.get(row.part, 0),
                    leased=row.leased,
                    waiting=row.waiting,
                    paused=row.paused,
                    dropped=row.dropped,
                )
                for row in await conn.execute(_chunks_by_part(batch_id, few, all_chunks))
            ]

    async def forget(self, before: datetime, limit: int) -> int:
        async with self._db.write() as conn:
            histories = (
                select(batch_history.c.batch_id)
                .where(batch_history.c.looked_at < before)
                .order_by(batch_history.c.looked_at)
                .limit(limit)
            )
            gone = await conn.execute(
                delete(batch_history).where(batch_history.c.batch_id.in_(histories))
            )
            return gone.rowcount + await _forget_notes(conn, before, limit)

    async def write_replicas(self, writer: str, rows: Sequence[ReplicaRow]) -> None:
        values = [
            {
                "replica": row.replica,
                "at": row.at,
                "writer": writer,
                "gave_way": row.part.gave_way,
                "part": row.part,
            }
            for row in rows
        ]
        if values:
            async with self._db.write() as conn:
                await insert_or_replace(conn, replica_history, values)

    async def of_replicas(
        self, replicas: Collection[str], since: datetime
    ) -> dict[str, list[ReplicaRow]]:
        these = replica_history.c.replica.in_(sorted(replicas)), replica_history.c.at >= since
        rows_of: dict[str, list[ReplicaRow]] = {}
        async with self._db.read() as conn:
            for row in await conn.execute(select(replica_history).where(*these)):
                rows_of.setdefault(row.replica, []).append(
                    ReplicaRow(row.replica, row.at, row.part)
                )
        return rows_of

    async def gave_way(self, replicas: Collection[str], since: datetime) -> list[datetime]:
        table = replica_history.c
        marked = select(table.at).where(
            table.replica.in_(sorted(replicas)), table.at >= since, table.gave_way
        )
        async with self._db.read() as conn:
            return list(await conn.scalars(marked.distinct().order_by(table.at)))

    async def forget_replicas(self, before: datetime, limit: int) -> int:
        keys = replica_history.c.replica, replica_history.c.at, replica_history.c.writer
        old = select(*keys).where(replica_history.c.at < before)
        async with self._db.write() as conn:
            oldest = old.order_by(replica_history.c.at).limit(limit)
            gone = await conn.execute(delete(replica_history).where(tuple_(*keys).in_(oldest)))
            return gone.rowcount


def _histories_and_pauses(batch_ids: Sequence[str]) -> CompoundSelect[Any]:
    """A row for each history, and one for each note of a pause or its end."""
    history, note = batch_history.c, batch_notes.c
    of_note = note.at, note.kind, note.actor, note.detail
    return union_all(
        select(
            history.batch_id,
            history.history,
            *(cast(null(), each.type).label(each.name) for each in of_note),
        ).where(history.batch_id.in_(batch_ids)),
        select(note.batch_id, cast(null(), history.history.type), *of_note).where(
            note.batch_id.in_(batch_ids), note.kind.in_(("paused", "resumed"))
        ),
    )


def _instant_of(event: BatchEvent) -> datetime:
    return event.at


def _event_of(row: Row[Any]) -> BatchEvent:
    return BatchEvent(at=row.at, kind=row.kind, actor=row.actor, detail=row.detail)


def _counters(batch_ids: Collection[str]) -> Select[Any]:
    """The counters of those batches that have begun, and their histories so far."""
    return (
        select(batches.c.id, batches.c.in_progress_at, *_TOTALS, batch_history.c.history)
        .outerjoin(batch_history, batch_history.c.batch_id == batches.c.id)
        .where(
            batches.c.id.in_(sorted(batch_ids)),
            batches.c.in_progress_at.is_not(None),
            batches.c.ended_at.is_(None),
            batches.c.flex.is_(None),
        )
    )


def _moved(row: Row[Any], now: datetime) -> dict[str, Any] | None:
    """The row of a history that has moved on; None: its counters stand where they were."""
    totals = BatchTotals(*(getattr(row, field) for field in BatchTotals.__struct_fields__))
    before = row.history or BatchHistory.begin(row.in_progress_at)
    if totals == before.seen:
        return None
    history = advanced(before, totals, now)
    return {"batch_id": row.id, "looked_at": now, "history": history}


def _chunks_by_part(batch_id: str, parts: int, all_chunks: int) -> Select[Any]:
    """The chunks of each part, added up."""
    part = (chunks.c.seq * parts // all_chunks).label("part")

    def number(state: str) -> ColumnElement[int]:
        return func.sum(case((chunks.c.state == state, 1), else_=0)).label(state)

    return (
        select(
            part,
            func.min(chunks.c.first).label("first"),
            func.sum(chunks.c.count).label("requests"),
            func.sum(chunks.c.settled).label("settled"),
            *map(number, ("leased", "waiting", "paused", "dropped")),
        )
        .where(chunks.c.batch_id == batch_id)
        .group_by(part)
        .order_by(part)
    )


def _failed_by_part(batch_id: str, parts: int, all_chunks: int) -> Select[Any]:
    """The failures of each part that has some."""
    part = (slices.c.chunk_seq * parts // all_chunks).label("part")
    return (
        select(part, func.sum(slices.c.failed).label("failed"))
        .where(slices.c.batch_id == batch_id, slices.c.failed > 0)
        .group_by(part)
    )


async def _forget_notes(conn: AsyncConnection, before: datetime, limit: int) -> int:
    """Notes go batch by batch, those of the oldest first."""
    old = (
        select(batch_notes.c.batch_id)
        .where(batch_notes.c.at < before)
        .order_by(batch_notes.c.at)
        .limit(limit)
    )
    gone = await conn.execute(
        delete(batch_notes).where(batch_notes.c.batch_id.in_(old), batch_notes.c.at < before)
    )
    return gone.rowcount
