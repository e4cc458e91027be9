"""Holds of a batch: why it starts no further requests, and what moves when the first comes or the
last goes.

Called by spending.py for the spend cap and by steering.py for users and operators, inside their
transactions; token_queue.py lets a batch begin as if its last hold went. Invariants: a chunk of a
batch in progress is paused exactly while the batch has a hold, unless it is leased; calls are
aborted exactly while one of the holds asks for it.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.batches.batch import Hold, InFlight, with_hold, without_hold
from lowtide.store.connection.notify import announce
from lowtide.store.schema.tables import PAUSED, WAITING, batches, chunks
from lowtide.store.statements.fair_share import lift as lift_turns

SPEND_CAP: Final[Hold] = "spend_cap"


async def add_hold(
    conn: AsyncConnection,
    rows: Iterable[Row[Any]],
    hold: Hold,
    in_flight: InFlight,
    now: datetime,
) -> None:
    """Holds those locked batches, which are validated or run."""
    change = with_hold if in_flight == "abort" else without_hold
    for row in rows:
        values = hold_values(row, with_hold(row.holds, hold), change(row.abort_holds, hold), now)
        await conn.execute(update(batches).where(batches.c.id == row.id).values(values))
        if row.status == "in_progress" and not row.holds:
            await move_chunks(conn, row.id, WAITING, PAUSED)
    await announce(conn, "commit")  # workers learn of it by their next commit


async def lift_hold(
    conn: AsyncConnection, rows: Iterable[Row[Any]], hold: Hold, now: datetime
) -> list[str]:
    """Takes the hold from those locked batches; the ids of those that may go on. What workers still
    hold of them ends as any lease does. Their organizations' rows are locked.
    """
    going_on: list[str] = []
    for row in rows:
        left = without_hold(row.holds, hold)
        values = hold_values(row, left, without_hold(row.abort_holds, hold), now)
        await conn.execute(update(batches).where(batches.c.id == row.id).values(values))
        if not left and row.holds and row.status == "in_progress":
            going_on.append(row.id)
            await requeue(conn, row)
    if going_on:
        await announce(conn, "dispatch")
    return going_on


def hold_values(
    row: Row[Any], holds: tuple[Hold, ...], aborting: tuple[Hold, ...], now: datetime
) -> dict[str, Any]:
    """The columns of the locked batch once it has these holds, of which those `aborting` and the
    spend cap abort its calls. It is held since the first of them that came while it had none.
    """
    if SPEND_CAP in holds:  # versions before that column do not say so
        aborting = with_hold(aborting, SPEND_CAP)
    in_flight = ("abort" if aborting else "finish") if holds else None
    since = (row.held_at if row.holds else now) if holds else None
    return {"holds": holds, "abort_holds": aborting, "in_flight": in_flight, "held_at": since}


async def requeue(conn: AsyncConnection, row: Row[Any]) -> None:
    """Lets the chunks wait again; their organization gains no credit by the time without work."""
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
