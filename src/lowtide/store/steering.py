"""`ports.steering.SteeringStore` over SQL.

Invariant: rows are locked as everywhere, the organization, then the batch, then its chunks; a batch
and the copies on its chunks change in one transaction.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.batches.batch import STEERABLE, Batch, Hold, InFlight
from lowtide.core.batches.completion_window import window_words
from lowtide.core.history.batch_events import USER
from lowtide.ports.steering import BatchChange
from lowtide.store.connection.database import Transactional
from lowtide.store.schema.rows import batch_of
from lowtide.store.schema.tables import LEASED, PAUSED, WAITING, batches, chunks
from lowtide.store.statements.batch_notes import note
from lowtide.store.statements.deletion import delete_ended
from lowtide.store.statements.garbage import lock_garbage
from lowtide.store.statements.holds import add_hold, lift_hold
from lowtide.store.statements.spending import lock_organizations


class SqlSteering(Transactional):
    """Holds and changes of batches."""

    async def hold(
        self,
        project_id: str | None,
        batch_id: str,
        hold: Hold,
        in_flight: InFlight,
        now: datetime,
        actor: str = USER,
    ) -> Batch | None:
        async with self._db.write() as conn:
            row = await _lock(conn, project_id, batch_id)
            if row is None:
                return None
            if row.status in STEERABLE:
                await add_hold(conn, [row], hold, in_flight, now)
                if hold not in row.holds:
                    await note(conn, [row], "paused", now, actor=actor)
            return await _seen(conn, batch_id)

    async def lift(
        self,
        project_id: str | None,
        batch_id: str,
        hold: Hold,
        now: datetime,
        actor: str = USER,
    ) -> Batch | None:
        async with self._db.write() as conn:
            await lock_organizations(conn, [batch_id], now)
            row = await _lock(conn, project_id, batch_id)
            if row is None:
                return None
            if hold in row.holds:
                await lift_hold(conn, [row], hold, now)
                await note(conn, [row], "resumed", now, actor=actor)
            return await _seen(conn, batch_id)

    async def change(
        self,
        project_id: str,
        batch_id: str,
        change: BatchChange,
        now: datetime,
        actor: str = USER,
    ) -> Batch | None:
        async with self._db.write() as conn:
            row = await _lock(conn, project_id, batch_id)
            if row is None:
                return None
            if row.status in STEERABLE:
                await _change(conn, row, change)
                if changes := _change_words(row, change):
                    await note(conn, [row], "changed", now, actor=actor, detail=changes)
            return await _seen(conn, batch_id)

    async def delete(self, project_id: str, batch_id: str, now: datetime) -> Batch | None:
        async with self._db.write() as conn:
            await lock_garbage(conn)
            row = await _lock(conn, project_id, batch_id)
            if row is None:
                return None
            if row.ended_at is not None:
                await delete_ended(conn, row, now)
            return await _seen(conn, batch_id)


async def _change(conn: AsyncConnection, row: Row[Any], change: BatchChange) -> None:
    of_batch: dict[str, Any] = {}
    of_chunks: dict[str, Any] = {}
    if change.metadata is not None:
        of_batch["metadata"] = dict(change.metadata)
    if change.priority is not None:
        of_batch["priority"] = of_chunks["priority"] = change.priority
    if change.completion_window_s is not None:
        expires_at = row.created_at + timedelta(seconds=change.completion_window_s)
        of_batch |= {"completion_window_s": change.completion_window_s, "expires_at": expires_at}
        of_chunks["deadline_at"] = expires_at
    if of_batch:
        await conn.execute(update(batches).where(batches.c.id == row.id).values(of_batch))
    if of_chunks:
        open_states = (
            (chunks.c.state == WAITING) | (chunks.c.state == PAUSED) | (chunks.c.state == LEASED)
        )
        await conn.execute(
            update(chunks).where(chunks.c.batch_id == row.id, open_states).values(of_chunks)
        )


def _change_words(row: Row[Any], change: BatchChange) -> str:
    """What changes, as `priority 0 to 5`; empty where nothing does."""
    changes: list[str] = []
    if change.priority is not None and change.priority != row.priority:
        changes.append(f"priority {row.priority} to {change.priority}")
    window_s, before_s = change.completion_window_s, row.completion_window_s
    if window_s is not None and window_s != before_s:
        changes.append(f"completion window {window_words(before_s)} to {window_words(window_s)}")
    if change.metadata is not None and dict(change.metadata) != row.metadata:
        changes.append("new metadata")
    return ", ".join(changes)


async def _lock(conn: AsyncConnection, project_id: str | None, batch_id: str) -> Row[Any] | None:
    which: ColumnElement[bool] = (batches.c.id == batch_id) & batches.c.deleted_at.is_(None)
    if project_id is not None:
        which &= batches.c.project_id == project_id
    result = await conn.execute(select(batches).where(which).with_for_update(key_share=True))
    return result.one_or_none()


async def _seen(conn: AsyncConnection, batch_id: str) -> Batch:
    result = await conn.execute(select(batches).where(batches.c.id == batch_id))
    return batch_of(result.one())
