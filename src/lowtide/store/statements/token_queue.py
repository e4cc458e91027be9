"""Batches that wait, planned, for enqueued tokens of their organization.

Called by lifecycle.py, when a plan is stored, and by token_queue.py of the store, inside their
transactions, which hold the organization's row. Invariant: a batch with `queued_at` is
`validating`, has its plan, and all its chunks are paused.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.accounts.token_queue import QueuedBatch
from lowtide.core.batches.batch import with_hold
from lowtide.store.schema.tables import batch_models, batches, chunks
from lowtide.store.statements.batch_notes import note
from lowtide.store.statements.holds import SPEND_CAP, hold_values, requeue
from lowtide.store.statements.transitions import take

IS_QUEUED: Final[ColumnElement[bool]] = batches.c.queued_at.is_not(None)


async def queue_of(conn: AsyncConnection, organization_id: str) -> list[QueuedBatch]:
    """The queue of that organization, in order."""
    result = await conn.execute(
        select(batches.c.id, batch_models.c.model, batch_models.c.planned_tokens)
        .join(batch_models, batch_models.c.batch_id == batches.c.id)
        .where(batches.c.organization_id == organization_id, IS_QUEUED)
        .order_by(*_ORDER)
    )
    tokens: dict[str, dict[str, int]] = {}
    for batch_id, model, planned in result:
        tokens.setdefault(batch_id, {})[model] = int(planned)
    return [QueuedBatch(batch_id, by_model) for batch_id, by_model in tokens.items()]


async def with_newcomer(
    conn: AsyncConnection, row: Row[Any], tokens: Mapping[str, int]
) -> Sequence[QueuedBatch]:
    """The queue as it is once the batch of `row` is in it."""
    queue = await queue_of(conn, row.organization_id)
    ahead = batches.c.priority > row.priority
    level = batches.c.priority == row.priority
    earlier = (batches.c.created_at < row.created_at) | (
        (batches.c.created_at == row.created_at) & (batches.c.id < row.id)
    )
    before = await conn.scalars(
        select(batches.c.id).where(
            batches.c.organization_id == row.organization_id, IS_QUEUED, ahead | (level & earlier)
        )
    )
    at = len(before.all())
    return [*queue[:at], QueuedBatch(row.id, tokens), *queue[at:]]


async def enter(conn: AsyncConnection, row: Row[Any], now: datetime, **values: Any) -> None:
    """Lets the locked batch wait from now on; `values` are those of its plan.

    No worker validates it again meanwhile, also none of a version that does not know of queues: its
    task stays leased, without an owner, as long as it may wait.
    """
    parked = {"task_owner": None, "task_token": row.task_token + 1}
    await conn.execute(
        update(batches)
        .where(batches.c.id == row.id)
        .values(values | parked | {"queued_at": now, "task_expires_at": row.expires_at})
    )
    await note(conn, [row], "queued", now)


async def begin(conn: AsyncConnection, row: Row[Any], now: datetime, *, is_paused: bool) -> None:
    """Event `planned` for a locked batch that waits; `is_paused`: its organization is."""
    holds = with_hold(row.holds, SPEND_CAP) if is_paused else row.holds
    await take(conn, row, "planned", now, **hold_values(row, holds, row.abort_holds, now))
    if not holds:
        await requeue(conn, row)


async def send_back(conn: AsyncConnection, row: Row[Any]) -> None:
    """Lets a locked batch that waits be validated again, as if it had not been."""
    await conn.execute(delete(chunks).where(chunks.c.batch_id == row.id))
    await conn.execute(delete(batch_models).where(batch_models.c.batch_id == row.id))
    fresh = {"plan_key": None, "total": 0, "model": None, "warnings": ()}
    await conn.execute(
        update(batches)
        .where(batches.c.id == row.id)
        .values(fresh | {"queued_at": None, "task_expires_at": None})
    )


_ORDER: Final = (
    batches.c.priority.desc(),
    batches.c.created_at,
    batches.c.id,
    batch_models.c.model,
)
