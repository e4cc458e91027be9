"""`ports.limit_use.LimitUseStore` over SQL."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import func, select

from lowtide.store.connection.database import Transactional
from lowtide.store.schema.tables import LEASED, batches, chunks
from lowtide.store.statements.enqueued import enqueued_tokens


class SqlLimitUse(Transactional):
    """Counts over the unfinished work of one organization."""

    async def enqueued_tokens(self, organization_id: str) -> Mapping[str, int]:
        async with self._db.read() as conn:
            found = await enqueued_tokens(conn, organization_id)
        return {model: tokens for model, tokens in found.items() if tokens}

    async def requests_in_flight(self, organization_id: str) -> int:
        left = func.sum(chunks.c.count - chunks.c.settled)
        leased = select(left).where(
            chunks.c.organization_id == organization_id, chunks.c.state == LEASED
        )
        async with self._db.read() as conn:
            return int(await conn.scalar(leased) or 0)

    async def first_batch_since(self, organization_id: str, since: datetime) -> datetime | None:
        first = select(func.min(batches.c.created_at)).where(
            batches.c.organization_id == organization_id,
            batches.c.created_at >= since,
            batches.c.flex.is_(None),
        )
        async with self._db.read() as conn:
            value: datetime | None = await conn.scalar(first)
        return value
