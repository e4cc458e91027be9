"""`ports.work.WorkStore` over SQL: chunks and commits, for workers.

Invariants: a claim takes a chunk's row lock and raises its token in one transaction, so no two
workers get it; what is taken back waits again while its batch runs, is held while that is paused,
and is dropped once it has left `in_progress`.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, bindparam, func, select
from sqlalchemy import update as sql_update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.batches.chunk import ChunkKey, ChunkLease
from lowtide.core.execution.records import CommitReceipt, GroupCommit
from lowtide.limits import CLAIM_CHUNKS_MAX
from lowtide.store.connection.database import Transactional
from lowtide.store.schema.tables import (
    batch_models,
    batches,
    chunks,
    organizations,
)
from lowtide.store.statements.claims import claimable, claimable_beside
from lowtide.store.statements.group_commit import commit
from lowtide.store.statements.leases import take_back, worker_leases
from lowtide.store.statements.throughput import restart_clock

_LEASE = (
    sql_update(chunks)
    .where(chunks.c.batch_id == bindparam("of_batch"), chunks.c.seq == bindparam("of_seq"))
    .values(state="leased", token=chunks.c.token + 1)
)
_WITH_WEIGHT = (
    select(batches, func.coalesce(organizations.c.weight, 1).label("weight"))
    .outerjoin(organizations, organizations.c.id == batches.c.organization_id)
    .where(batches.c.id.in_(bindparam("of_batches", expanding=True)))
)


class SqlWork(Transactional):
    """Chunks and commits, for workers."""

    async def claim_chunks(
        self,
        worker_id: str,
        models: Sequence[str],
        limit: int,
        now: datetime,
        ttl_s: float,
        in_flight_max: int | None = None,
        without: Collection[tuple[str, str]] = (),
        supplied: Collection[str] = (),
    ) -> list[ChunkLease]:
        limit = min(limit, CLAIM_CHUNKS_MAX)
        expires_at = now + timedelta(seconds=ttl_s)
        async with self._db.write() as conn:
            bounds = (models, limit, in_flight_max, without)
            if supplied:
                first = await claimable_beside(conn, *bounds, supplied)
            else:
                first = await claimable(conn, *bounds)
            if not first:
                return []
            await restart_clock(conn, {row.model for row in first}, now)
            claimed = [
                {"of_batch": row.batch_id, "of_seq": row.seq}
                | {"worker_id": worker_id, "lease_expires_at": expires_at}
                for row in first
            ]
            await conn.execute(_LEASE, claimed)
            return await _leases(conn, first, expires_at)

    async def commit_group(self, group: GroupCommit) -> CommitReceipt:
        async with self._db.write() as conn:
            return await commit(conn, group)

    async def reap(self, now: datetime) -> int:
        async with self._db.write() as conn:
            return await take_back(
                conn, chunks.c.lease_expires_at <= now, batches.c.task_expires_at <= now, now
            )

    async def release_worker(self, worker_id: str, now: datetime | None = None) -> int:
        async with self._db.write() as conn:
            return await take_back(conn, *worker_leases(worker_id), now)

    async def named_models(self, limit: int) -> frozenset[str]:
        async with self._db.read() as conn:
            named = select(batch_models.c.model).distinct().limit(limit)
            return frozenset((await conn.scalars(named)).all())


async def _leases(
    conn: AsyncConnection, claimed: Iterable[Row[Any]], expires_at: datetime
) -> list[ChunkLease]:
    claimed = list(claimed)
    ids = sorted({row.batch_id for row in claimed})
    result = await conn.execute(_WITH_WEIGHT, {"of_batches": ids})
    batch = {row.id: row for row in result}
    return [_lease(row, batch[row.batch_id], expires_at) for row in claimed]


def _lease(chunk: Row[Any], batch: Row[Any], expires_at: datetime) -> ChunkLease:
    return ChunkLease(
        key=ChunkKey(chunk.batch_id, chunk.seq),
        token=chunk.token + 1,
        expires_at=expires_at,
        project_id=batch.project_id,
        organization_id=batch.organization_id,
        weight=float(batch.weight),
        dialect=batch.dialect,
        endpoint=batch.endpoint,
        model=chunk.model,
        first=chunk.first,
        count=chunk._mapping["count"],
        done=chunk.done,
        plan_key=batch.plan_key,
        input_key=batch.input_key,
        deadline_at=chunk.deadline_at,
    )
