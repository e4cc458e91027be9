"""`ports.idempotency.IdempotencyStore` over SQL."""

from datetime import datetime

from lowtide.core.idempotency.request_key import RequestKey
from lowtide.store.connection.database import Database, transactional
from lowtide.store.statements.idempotency import has_made, made_by


@transactional
class SqlIdempotency:
    """Keys of organizations."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def made_by(self, key: RequestKey, now: datetime) -> str | None:
        async with self._db.read() as conn:
            return await made_by(conn, key, now)

    async def has_made(self, organization_id: str, key: str, now: datetime) -> bool:
        async with self._db.read() as conn:
            return await has_made(conn, organization_id, key, now)
