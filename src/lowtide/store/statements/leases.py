"""Ending leases of chunks and of tasks that their holders have not ended themselves.

Called by the work store, for leases that ran out and for a worker that is known to be dead, and by
the ownership store, which finds out that one is. Invariant: what is taken back waits again while
its batch runs, is held while that is paused, and is dropped once it has left `in_progress`.
"""

from datetime import datetime

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.store.connection.notify import announce
from lowtide.store.schema.tables import LEASED, batches, chunks
from lowtide.store.statements.batch_notes import note
from lowtide.store.statements.fair_share import charge, charges
from lowtide.store.statements.transitions import freed_state_of_batch, lock_batches


def worker_leases(worker_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Which leases of chunks and of tasks are that worker's, for `take_back`."""
    return chunks.c.worker_id == worker_id, batches.c.task_owner == worker_id


async def take_back(
    conn: AsyncConnection,
    chunk_where: ColumnElement[bool],
    task_where: ColumnElement[bool],
    now: datetime | None,
) -> int:
    """Ends those leases; how many. A token that is not current any more commits nothing. `now`:
    when it is noted among the batches' events; None: it is not.
    """
    mine = chunk_where & (chunks.c.state == LEASED)
    tasks = task_where & batches.c.task_expires_at.is_not(None)
    owners = select(chunks.c.batch_id).where(mine).union(select(batches.c.id).where(tasks))
    rows = await lock_batches(conn, (await conn.scalars(owners)).all())
    locked = sorted(rows)
    if not locked:
        return 0
    if now is not None:
        await note(conn, rows.values(), "worker_lost", now)
    held = select(chunks).where(mine, chunks.c.batch_id.in_(locked)).with_for_update(key_share=True)
    refunds = charges((await conn.execute(held)).all())
    free = {"state": freed_state_of_batch(), "worker_id": None, "lease_expires_at": None}
    freed = await conn.execute(
        update(chunks).where(mine, chunks.c.batch_id.in_(locked)).values(free)
    )
    ended = await conn.execute(
        update(batches)
        .where(tasks, batches.c.id.in_(locked))
        .values(task_owner=None, task_expires_at=None)
    )
    await charge(conn, {key: -cost for key, cost in refunds.items()})
    await announce(conn, "validate", "dispatch", "assemble")
    return freed.rowcount + ended.rowcount
