"""`ports.idempotency.IdempotencyStore` over SQL."""

from datetime import datetime

from lowtide.core.idempotency.request_key import RequestKey
from lowtide.store.connection.database import Transactional
from lowtide.store.statements.idempotency import has_made, made_by


class SqlIdempotency(Transactional):
    """Keys of organizations."""

    async def made_by(self, key: RequestKey, now: datetime) -> str | None:
        async with self._db.read() as conn:
            return await made_by(conn, key, now)

    async def has_made(self, organization_id: str, key: str, now: datetime) -> bool:
        async with self._db.read() as conn:
            return await has_made(conn, organization_id, key, now)
