"""What goes when a batch is deleted, and what goes with its end.

Called by steering.py and lifecycle.py, in transactions that hold the lock of garbage. Invariant: of
a deleted batch nothing that its submitter sent or an engine said is left: what stays are its bill
and the numbers of its lines, so that no retry of its tree runs or charges one twice.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.store.schema.history_tables import batch_history, batch_notes
from lowtide.store.schema.retry_tables import failure_groups
from lowtide.store.schema.tables import batches
from lowtide.store.schema.webhook_tables import batch_webhooks
from lowtide.store.statements.garbage import discard_slices, hide_files


async def delete_ended(conn: AsyncConnection, row: Row[Any], now: datetime) -> None:
    """Hides an ended batch, which is locked, and lets go of its results."""
    results = [each for each in (row.output_file_id, row.error_file_id) if each is not None]
    await hide_files(conn, results, now)
    if row.swept_at is None and not results:
        await discard_slices(conn, row.id, now)
    for table in (failure_groups, batch_webhooks, batch_history, batch_notes):
        await conn.execute(delete(table).where(table.c.batch_id == row.id))
    await conn.execute(
        update(batches)
        .where(batches.c.id == row.id)
        .values(deleted_at=now, metadata={}, errors=(), warnings=(), webhook=None)
    )


async def delete_input(conn: AsyncConnection, row: Row[Any], now: datetime) -> None:
    """Hides the input of a batch that has just ended, if it was created to do so."""
    if row.deletes_input:
        await hide_files(conn, [row.input_file_id], now)
