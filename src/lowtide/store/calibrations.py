"""`ports.calibration.CalibrationStore` over SQL: a row of bytes per model.

Called by the calibrate loop. Invariant: a model has one row, whichever worker saves it first.
"""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import insert, select, update

from lowtide.store.connection.database import Database, transactional
from lowtide.store.connection.dialect import lock_name
from lowtide.store.schema.tables import token_models


@transactional
class SqlCalibrations:
    """What was learnt about tokenizers."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def load(self) -> Mapping[str, bytes]:
        async with self._db.read() as conn:
            rows = await conn.execute(select(token_models.c.model, token_models.c.data))
            return {row.model: row.data for row in rows}

    async def save(self, model: str, data: bytes, now: datetime) -> None:
        values = {"data": data, "saved_at": now}
        async with self._db.write() as conn:
            await lock_name(conn, "token models")  # two workers may both find no row to update
            result = await conn.execute(
                update(token_models).where(token_models.c.model == model).values(values)
            )
            if not result.rowcount:
                await conn.execute(insert(token_models).values(model=model, **values))
