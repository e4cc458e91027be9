"""Notes of what happened to batches, written in the transaction in which it happens.

Called by steering.py, batches.py, lifecycle.py, leases.py, spending.py and token_queue.py.
Invariant: a batch has at most `BATCH_NOTES_MAX` notes, the newest; batches of single calls have
none, because no page shows them.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide import limits
from lowtide.core.history.batch_events import SERVER, Kind
from lowtide.store.connection.dialect import insert_missing
from lowtide.store.schema.history_tables import batch_notes


async def note(
    conn: AsyncConnection,
    rows: Iterable[Row[Any]],
    kind: Kind,
    now: datetime,
    *,
    actor: str = SERVER,
    detail: str = "",
) -> None:
    """Notes it of these locked batches."""
    values = [
        {"batch_id": row.id, "at": now, "kind": kind, "actor": actor, "detail": detail}
        for row in rows
        if row.flex is None
    ]
    if not values:
        return
    await insert_missing(conn, batch_notes, values)
    other = batch_notes.alias()
    oldest_kept = (
        select(other.c.at)
        .where(other.c.batch_id == batch_notes.c.batch_id)
        .order_by(other.c.at.desc())
        .offset(limits.BATCH_NOTES_MAX - 1)
        .limit(1)
        .scalar_subquery()
    )
    ids = [each["batch_id"] for each in values]
    await conn.execute(
        delete(batch_notes).where(batch_notes.c.batch_id.in_(ids), batch_notes.c.at < oldest_kept)
    )
