"""Enqueued tokens of an organization, by model.

Called by lifecycle.py, inside the transaction that plans a batch, and by limit_use.py for who asks.
Invariant: both count the same.
"""

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.store.schema.tables import batch_models, batches


async def enqueued_tokens(conn: AsyncConnection, organization_id: str) -> Mapping[str, int]:
    """Only batches in progress have requests still to run: what was cancelled is not enqueued."""
    unsettled = func.sum(batch_models.c.planned_tokens - batch_models.c.settled_tokens)
    result = await conn.execute(
        select(batch_models.c.model, unsettled)
        .join(batches, batches.c.id == batch_models.c.batch_id)
        .where(batches.c.organization_id == organization_id, batches.c.status == "in_progress")
        .group_by(batch_models.c.model)
    )
    return {row[0]: int(row[1]) for row in result}
