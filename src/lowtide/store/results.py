"""`ports.store.ResultStore` over SQL: committed slices, and what may be swept.

Called by the readers of results, the assembler and the sweep loop. Invariant: a sweep takes
nothing that an unfinished batch needs; what it takes, it takes whole batches and whole files at a
time.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.batches.result_index import SUFFIX
from lowtide.core.execution.records import StoredSlice
from lowtide.store.connection.database import Transactional
from lowtide.store.schema.tables import batches, files, garbage, slices
from lowtide.store.schema.upload_tables import upload_parts
from lowtide.store.statements.garbage import (
    discard_blobs_of_files,
    discard_plans,
    discard_slices,
    hide_files,
    lock_garbage,
)
from lowtide.store.statements.many_keys import in_steps
from lowtide.store.uploads import sweep_uploads

_SLICE = tuple(slices.c[field] for field in StoredSlice.__struct_fields__)
KEEPS_BLOB = (
    files.c.blob_key,
    upload_parts.c.blob_key,
    batches.c.plan_key,
    slices.c.segment_key,
    garbage.c.blob_key,
)
"""Every column that names a blob."""


class SqlResults(Transactional):
    """Committed slices, for readers and the assembler; and what may be swept."""

    async def slices(
        self, batch_id: str, *, after_seq: int = -1, limit: int = 1000
    ) -> list[StoredSlice]:
        statement = (
            select(*_SLICE)
            .where(slices.c.batch_id == batch_id, slices.c.seq > after_seq)
            .order_by(slices.c.seq)
            .limit(limit)
        )
        async with self._db.read() as conn:
            return [StoredSlice(**row._mapping) for row in await conn.execute(statement)]

    async def sweep(self, now: datetime, *, segments_keep_s: float, limit: int = 1000) -> int:
        keep_since = now - timedelta(seconds=segments_keep_s)
        async with self._db.write() as conn:
            await lock_garbage(conn)
            # Files first: they wait for the batches they lock. What comes after passes over those
            # that others hold, so that nobody waits for us who makes us wait.
            added = await _sweep_files(conn, now, keep_since, limit)
            added += await sweep_uploads(conn, now, keep_since, limit)
            added += await _sweep_plans(conn, now, limit)
            added += await _sweep_slices(conn, now, keep_since, limit)
        return added

    async def garbage(self, limit: int = 1000) -> list[str]:
        oldest = select(garbage.c.blob_key).order_by(garbage.c.added_at, garbage.c.blob_key)
        async with self._db.read() as conn:
            return list((await conn.scalars(oldest.limit(limit))).all())

    async def forget(self, keys: Sequence[str]) -> None:
        async with self._db.write() as conn:
            for part in in_steps(keys):
                await conn.execute(delete(garbage).where(garbage.c.blob_key.in_(part)))

    async def known(self, keys: Sequence[str]) -> frozenset[str]:
        known_keys: set[str] = set()
        async with self._db.read() as conn:
            for part in in_steps({key.removesuffix(SUFFIX) for key in keys}):
                for column in KEEPS_BLOB:
                    known_keys.update(await conn.scalars(select(column).where(column.in_(part))))
        return frozenset(key for key in keys if key.removesuffix(SUFFIX) in known_keys)


async def _sweep_plans(conn: AsyncConnection, now: datetime, limit: int) -> int:
    planned = (
        select(batches.c.id)
        .where(
            batches.c.plan_key.is_not(None), batches.c.swept_at.is_(None), batches.c.ended_at <= now
        )
        .order_by(batches.c.ended_at)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    )
    ids = (await conn.scalars(planned)).all()
    return await discard_plans(conn, ids, now)


async def _sweep_files(
    conn: AsyncConnection, now: datetime, keep_since: datetime, limit: int
) -> int:
    """Files past their life are deleted; of deleted ones the blobs go, and later the rows."""
    expired = select(files.c.id).where(files.c.expires_at <= now, files.c.deleted_at.is_(None))
    ids = (await conn.scalars(expired.order_by(files.c.expires_at).limit(limit))).all()
    added = await hide_files(conn, ids, now)
    added += await discard_blobs_of_files(conn, files.c.deleted_at <= now, now)
    writing = exists().where(batches.c.id == files.c.batch_id, batches.c.ended_at.is_(None))
    await conn.execute(
        delete(files).where(files.c.deleted_at <= keep_since, files.c.blob_key == "", ~writing)
    )
    return added


async def _sweep_slices(
    conn: AsyncConnection, now: datetime, keep_since: datetime, limit: int
) -> int:
    """Batch by batch until about `limit` keys were added: a batch's slices go together."""
    ended = (
        select(batches.c.id)
        .where(batches.c.swept_at.is_(None), batches.c.ended_at <= keep_since)
        .order_by(batches.c.ended_at)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    )
    added = 0
    for batch_id in (await conn.scalars(ended)).all():
        added += await discard_slices(conn, batch_id, now)
        if added >= limit:
            break
    return added
