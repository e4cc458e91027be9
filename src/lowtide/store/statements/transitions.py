"""How a batch changes state: the guarded update that every event goes through.

Called by batches.py, lifecycle.py, group_commit.py and spending.py, inside their transactions.
Invariants: the state comes from `core.batches.batch.step` alone; leaving a state ends the task
lease that was taken in it, and the holds; a batch that leaves `in_progress` takes its waiting and
paused chunks out of the queue in the same transaction; a terminal state brings its webhook event
along (webhook_events.py). Rows are locked organization first, then
batch, then its chunks, everywhere: so no two transactions wait for each other.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, String, case, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.batches.batch import INSTANT_OF, TERMINAL, Event, Status, step
from lowtide.store.schema.tables import PAUSED, WAITING, batches, chunks
from lowtide.store.statements.webhook_events import record_end


async def lock_batches(conn: AsyncConnection, ids: Collection[str]) -> dict[str, Row[Any]]:
    """The rows of those batches that exist, held until the transaction ends."""
    if not ids:
        return {}  # as in most ticks of most loops
    result = await conn.execute(
        select(batches)
        .where(batches.c.id.in_(sorted(ids)))
        .order_by(batches.c.id)
        .with_for_update(key_share=True)
    )
    return {row.id: row for row in result}


def event_values(status: Status, event: Event, now: datetime) -> dict[str, Any]:
    """The columns that taking `event` sets. Raises IllegalTransition."""
    after = step(status, event)
    values: dict[str, Any] = {"status": after, INSTANT_OF[after]: now}
    if after in TERMINAL:
        values["ended_at"] = now
    left = {"task_owner": None, "task_expires_at": None, "queued_at": None}
    return values | left | {"holds": (), "abort_holds": (), "in_flight": None}


async def take(
    conn: AsyncConnection, row: Row[Any], event: Event, now: datetime, **values: Any
) -> None:
    """Lets the locked batch `row` take `event`, setting `values` along. Raises
    IllegalTransition.
    """
    after = event_values(row.status, event, now)
    await conn.execute(
        update(batches)
        .where(batches.c.id == row.id, batches.c.status == row.status)
        .values(after | values)
    )
    if after["status"] in TERMINAL:
        await record_end(conn, row, after["status"], now)


async def drop_unleased(conn: AsyncConnection, batch_id: str) -> None:
    """Takes the batch's waiting and paused chunks out of the queue, for good."""
    unleased = (chunks.c.state == WAITING) | (chunks.c.state == PAUSED)
    await conn.execute(
        update(chunks).where(chunks.c.batch_id == batch_id, unleased).values(state="dropped")
    )


def freed_state_of_batch() -> ColumnElement[str]:
    """`core.batches.chunk.freed_state` in SQL, for a row of chunks."""
    running = batches.c.status == "in_progress"
    may_wait = select(batches.c.id).where(running, batches.c.holds.is_(None))
    may_hold = select(batches.c.id).where(running)
    return case(
        (chunks.c.batch_id.in_(may_wait), literal("waiting", String)),
        (chunks.c.batch_id.in_(may_hold), literal("paused", String)),
        else_="dropped",
    )
