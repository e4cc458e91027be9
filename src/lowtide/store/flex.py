"""`ports.flex.FlexStore` over SQL.

Invariant: a batch of single calls and its input file appear together, marked both, so that no list
ever shows one of them; and the batch is leased from the start, so that no loop validates what its
maker is about to plan.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import asdict
from sqlalchemy import insert, select

from lowtide.core.accounts.batch_quota import NO_QUOTA, BatchQuota
from lowtide.core.batches.batch import Batch
from lowtide.core.files.file import File
from lowtide.ports.flex import FlexStatus
from lowtide.ports.work import TaskLease
from lowtide.store.batches import check_batch_quota, insert_batch
from lowtide.store.connection.database import Transactional
from lowtide.store.schema.rows import batch_of
from lowtide.store.schema.tables import AWAITED, LEASED, batches, chunks, files
from lowtide.store.statements.many_keys import rows_of

_FIRST_TOKEN = 1
_STANDING: Final = select(batches.c.id, batches.c.status, batches.c.holds, batches.c.results_seq)


class SqlFlex(Transactional):
    """Batches of single calls."""

    async def add(
        self,
        file: File,
        batch: Batch,
        *,
        digest: str,
        owner: str,
        ttl_s: float,
        quota: BatchQuota = NO_QUOTA,
    ) -> TaskLease:
        leased = {
            "task_owner": owner,
            "task_token": _FIRST_TOKEN,
            "task_expires_at": batch.created_at + timedelta(seconds=ttl_s),
        }
        async with self._db.write() as conn:
            await check_batch_quota(conn, batch, quota)
            await conn.execute(insert(files), asdict(file))
            await insert_batch(conn, batch, digest, file.blob_key, **leased)
        return TaskLease(batch=batch, token=_FIRST_TOKEN, input_key=file.blob_key)

    async def unanswered(self, project_id: str, digest: str, since: datetime) -> Batch | None:
        newest = (
            select(batches)
            .where(
                batches.c.project_id == project_id,
                batches.c.digest == digest,
                batches.c.created_at >= since,
                batches.c.answered_at.is_(None),
            )
            .order_by(batches.c.created_at.desc(), batches.c.id.desc())
            .limit(1)
        )
        async with self._db.read() as conn:
            row = (await conn.execute(newest)).one_or_none()
        return None if row is None else batch_of(row)

    async def standing(self, batch_ids: Sequence[str]) -> Mapping[str, FlexStatus]:
        async with self._db.read() as conn:
            rows = rows_of(conn, _STANDING, batches.c.id, batch_ids)
            return {
                row.id: FlexStatus(row.status, row.holds, row.results_seq) async for row in rows
            }

    async def is_leased(self, batch_id: str) -> bool:
        leased = select(chunks.c.seq).where(chunks.c.batch_id == batch_id, chunks.c.state == LEASED)
        async with self._db.read() as conn:
            return await conn.scalar(leased.limit(1)) is not None

    async def awaited(self) -> list[Batch]:
        waiting = select(batches).where(batches.c.flex == AWAITED, batches.c.ended_at.is_(None))
        async with self._db.read() as conn:
            rows = (await conn.execute(waiting.order_by(batches.c.id))).all()
        return [batch_of(row) for row in rows]
