"""What becomes garbage, and when: the only statements that write the table of blobs to delete.

Called by files.py (a file is deleted), uploads.py (parts are replaced or no longer needed) and
results.py (the sweep), inside their transactions.
Invariant: a blob key enters the garbage in the same transaction in which the last row that needs
the blob lets go of it, so no blob is both needed and garbage, and none is forgotten. For that,
disposals come one after another: each sees which rows the ones before it took.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    delete,
    exists,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.store.connection.dialect import lock_name
from lowtide.store.schema.retry_tables import failure_groups
from lowtide.store.schema.tables import batches, chunks, files, garbage, slices
from lowtide.store.schema.upload_tables import upload_parts
from lowtide.store.statements.transitions import lock_batches

_UNFINISHED = batches.c.ended_at.is_(None)


async def lock_garbage(conn: AsyncConnection) -> None:
    """Locks the garbage: the first statement of a transaction that lets go of blobs."""
    await lock_name(conn, "disposal")


async def hide_files(conn: AsyncConnection, ids: Sequence[str], now: datetime) -> int:
    """Hides files and lets go of what only they needed; how many keys became garbage.

    With the result file of an ended batch go the batch's slices: readers come through the file.
    With the error file go the groups of its failures.
    """
    if not ids:
        return 0
    these = files.c.id.in_(ids)
    made_by = select(files.c.batch_id).where(these, files.c.batch_id.is_not(None))
    rows = await lock_batches(conn, frozenset((await conn.scalars(made_by)).all()))
    await conn.execute(update(files).where(these).values(deleted_at=now))
    added = await discard_blobs_of_files(conn, these, now)
    tell = [row.id for row in rows.values() if row.error_file_id in ids]
    await conn.execute(delete(failure_groups).where(failure_groups.c.batch_id.in_(tell)))
    for row in rows.values():
        if row.ended_at is not None and row.swept_at is None:
            added += await discard_slices(conn, row.id, now)
    return added


async def discard_blobs_of_files(
    conn: AsyncConnection, which: ColumnElement[bool], now: datetime
) -> int:
    """Blobs of those hidden files that no unfinished batch reads or still writes."""
    needed = exists().where(
        (batches.c.input_file_id == files.c.id) | (batches.c.id == files.c.batch_id), _UNFINISHED
    )
    free = and_(which, files.c.deleted_at.is_not(None), files.c.blob_key != "", ~needed)
    added = await _add(conn, select(files.c.blob_key.label("key")).where(free), now)
    await conn.execute(update(files).where(free).values(blob_key=""))
    return added


async def discard_slices(conn: AsyncConnection, batch_id: str, now: datetime) -> int:
    """All that an ended batch had to run: its slices, chunks and plan.

    With the slices goes each segment that holds no other batch's.
    """
    other = slices.alias("other")
    shared = exists().where(
        other.c.segment_key == slices.c.segment_key, other.c.batch_id != batch_id
    )
    only_here = select(slices.c.segment_key.label("key")).where(
        slices.c.batch_id == batch_id, ~shared
    )
    added = await _add(conn, only_here, now) + await discard_plans(conn, [batch_id], now)
    await conn.execute(delete(slices).where(slices.c.batch_id == batch_id))
    await conn.execute(delete(chunks).where(chunks.c.batch_id == batch_id))
    await conn.execute(update(batches).where(batches.c.id == batch_id).values(swept_at=now))
    return added


async def discard_plans(conn: AsyncConnection, ids: Sequence[str], now: datetime) -> int:
    """The plans of those batches."""
    if not ids:
        return 0
    these = and_(batches.c.id.in_(ids), batches.c.plan_key.is_not(None))
    added = await _add(conn, select(batches.c.plan_key.label("key")).where(these), now)
    await conn.execute(update(batches).where(these).values(plan_key=None))
    return added


async def discard_parts(conn: AsyncConnection, which: ColumnElement[bool], now: datetime) -> int:
    """Parts of uploads, rows and blobs."""
    added = await _add(conn, select(upload_parts.c.blob_key.label("key")).where(which), now)
    await conn.execute(delete(upload_parts).where(which))
    return added


async def _add(conn: AsyncConnection, keys: Select[Any], now: datetime) -> int:
    found = keys.distinct().subquery("found")
    fresh = select(found.c.key, literal(now, garbage.c.added_at.type)).where(
        ~exists().where(garbage.c.blob_key == found.c.key)
    )
    added = await conn.execute(
        insert(garbage).from_select([garbage.c.blob_key, garbage.c.added_at], fresh)
    )
    return added.rowcount
