"""Pages of rows that have `project_id`, `created_at` and `id`.

Called by files.py and batches.py. Invariant: the order is total (ties of `created_at` go by id),
and a page begins behind its anchor even when the anchor was deleted a moment ago, so that a
client that deletes what it lists reaches the end. An anchor that never was ends in an error: a
walk over a wrong cursor would look complete.
"""

from typing import Any

from sqlalchemy import Row, Select, Table, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.ports.files import Order
from lowtide.ports.store import UnknownCursor


async def page(
    conn: AsyncConnection,
    table: Table,
    where: Select[Any],
    *,
    project_id: str,
    after: str | None,
    limit: int,
    order: Order,
) -> list[Row[Any]]:
    """Up to `limit` rows of `where`. Raises UnknownCursor."""
    place = tuple_(table.c.created_at, table.c.id)
    statement = where.where(table.c.project_id == project_id).limit(limit)
    if after is not None:
        known = select(table.c.created_at, table.c.id).where(
            table.c.id == after, table.c.project_id == project_id
        )
        anchor = (await conn.execute(known)).one_or_none()
        if anchor is None:
            raise UnknownCursor(after)
        behind = tuple_(*anchor, types=[table.c.created_at.type, table.c.id.type])
        statement = statement.where(place < behind if order == "desc" else place > behind)
    keys = (table.c.created_at, table.c.id)
    statement = statement.order_by(*(k.desc() if order == "desc" else k.asc() for k in keys))
    return list((await conn.execute(statement)).all())
