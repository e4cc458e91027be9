"""Holds of a batch: why it starts no further requests, and what moves when the first comes or the
last goes.

Called by spending.py for the spend cap and by steering.py for users and operators, inside their
transactions. Invariant: a chunk of a batch in progress is paused exactly while the batch has a
hold, unless it is leased.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.batches.batch import Hold, InFlight, with_hold, without_hold
from lowtide.store.connection.notify import announce
from lowtide.store.schema.tables import PAUSED, WAITING, batches, chunks
from lowtide.store.statements.fair_share import lift as lift_turns


async def add_hold(
    conn: AsyncConnection, rows: Iterable[Row[Any]], hold: Hold, in_flight: InFlight
) -> None:
    """Hold those locked batches, which are validated or run."""
    for row in rows:
        how = "abort" if "abort" in (in_flight, row.in_flight) else in_flight
        await conn.execute(
            update(batches)
            .where(batches.c.id == row.id)
            .values(holds=with_hold(row.holds, hold), in_flight=how)
        )
        if row.status == "in_progress" and not row.holds:
            await move_chunks(conn, row.id, WAITING, PAUSED)
    await announce(conn, "commit")  # workers learn of it by their next commit


async def lift_hold(conn: AsyncConnection, rows: Iterable[Row[Any]], hold: Hold) -> list[str]:
    """Take the hold from those locked batches; the ids of those that may go on. What workers still
    hold of them ends as any lease does. Their organizations' rows are locked.
    """
    going_on: list[str] = []
    for row in rows:
        left = without_hold(row.holds, hold)
        values = {"holds": left} | ({} if left else {"in_flight": None})
        await conn.execute(update(batches).where(batches.c.id == row.id).values(values))
        if not left and row.holds and row.status == "in_progress":
            going_on.append(row.id)
            await _requeue(conn, row)
    if going_on:
        await announce(conn, "dispatch")
    return going_on


async def _requeue(conn: AsyncConnection, row: Row[Any]) -> None:
    """Let the chunks wait again; their organization gains no credit by the time without work."""
    held = select(chunks.c.model).where(chunks.c.batch_id == row.id, chunks.c.state == PAUSED)
    models = (await conn.scalars(held.distinct())).all()
    await lift_turns(conn, row.organization_id, models)
    await move_chunks(conn, row.id, PAUSED, WAITING)


async def move_chunks(
    conn: AsyncConnection, batch_id: str, before: ColumnElement[str], after: Any
) -> None:
    """Moves all chunks of a batch from one state to another."""
    await conn.execute(
        update(chunks)
        .where(chunks.c.batch_id == batch_id, chunks.c.state == before)
        .values(state=after)
    )
