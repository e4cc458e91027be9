"""`ports.calibration.CalibrationStore` over SQL: a row of bytes per model.

Called by the calibrate loop. Invariant: a model has one row, whichever worker saves it first.
"""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select

from lowtide.store.connection.database import Transactional
from lowtide.store.connection.dialect import insert_or_replace
from lowtide.store.schema.tables import token_models


class SqlCalibrations(Transactional):
    """What was learnt about tokenizers."""

    async def load(self) -> Mapping[str, bytes]:
        async with self._db.read() as conn:
            rows = await conn.execute(select(token_models.c.model, token_models.c.data))
            return {row.model: row.data for row in rows}

    async def save(self, model: str, data: bytes, now: datetime) -> None:
        row = {"model": model, "data": data, "saved_at": now}
        async with self._db.write() as conn:
            await insert_or_replace(conn, token_models, [row])
