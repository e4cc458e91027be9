"""`ports.token_queue.TokenQueueStore` over SQL."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import func, select

from lowtide.core.accounts.token_queue import TokenDecision, decide
from lowtide.ports.token_queue import TokenQueue
from lowtide.store.connection.database import Transactional
from lowtide.store.connection.notify import announce
from lowtide.store.schema.tables import batches
from lowtide.store.statements.enqueued import enqueued_tokens
from lowtide.store.statements.spending import lock_organization
from lowtide.store.statements.token_queue import IS_QUEUED, begin, queue_of, send_back
from lowtide.store.statements.transitions import lock_batches


class SqlTokenQueue(Transactional):
    """Queues of organizations."""

    async def owners(self) -> Mapping[str, str]:
        waiting = (
            select(batches.c.organization_id, func.min(batches.c.project_id))
            .where(IS_QUEUED)
            .group_by(batches.c.organization_id)
        )
        async with self._db.read() as conn:
            return {row[0]: row[1] for row in await conn.execute(waiting)}

    async def queue(self, organization_id: str) -> TokenQueue:
        async with self._db.read() as conn:
            return TokenQueue(
                await queue_of(conn, organization_id), await enqueued_tokens(conn, organization_id)
            )

    async def let_in(
        self, organization_id: str, enqueued_tokens_max: int, now: datetime
    ) -> TokenDecision:
        async with self._db.write() as conn:
            owner = await lock_organization(conn, organization_id, now)
            queue = await queue_of(conn, organization_id)
            enqueued = await enqueued_tokens(conn, organization_id)
            decided = decide(queue, enqueued, enqueued_tokens_max)
            rows = await lock_batches(conn, (*decided.let_in, *decided.too_large))
            waiting = {key: row for key, row in rows.items() if row.queued_at is not None}
            done = TokenDecision(*(tuple(i for i in ids if i in waiting) for ids in decided))
            for batch_id in done.let_in:
                is_paused = owner.paused_at is not None
                await begin(conn, waiting[batch_id], now, is_paused=is_paused)
            for batch_id in done.too_large:
                await send_back(conn, waiting[batch_id])
            if done.let_in:
                await announce(conn, "dispatch")
            if done.too_large:
                await announce(conn, "validate")
        return done
