"""`ports.retries.RetryStore` over SQL.

Invariant: who adds a retry holds its tree's lock from the reading of the tree to the end of the
transaction, so two retries of one tree never both find it at rest.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.accounts.batch_quota import NO_QUOTA, BatchQuota
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.failures import FailureGroup
from lowtide.core.batches.line import UNEXECUTED_MESSAGES
from lowtide.core.idempotency.request_key import RequestKey
from lowtide.ports.retries import LineSetKind, RetryConflict
from lowtide.store.batches import check_batch_quota, insert_batch, lock_input
from lowtide.store.connection.database import Transactional
from lowtide.store.connection.dialect import lock_name
from lowtide.store.connection.notify import announce
from lowtide.store.schema.retry_tables import failure_groups, line_sets
from lowtide.store.schema.rows import batch_of
from lowtide.store.schema.tables import batches
from lowtide.store.statements.failures import failures_of
from lowtide.store.statements.idempotency import one_batch, take_key
from lowtide.store.statements.many_keys import in_steps
from lowtide.store.statements.webhook_events import name_same_webhook


class SqlRetries(Transactional):
    """Trees of retries."""

    async def tree(self, project_id: str, root_id: str) -> list[Batch]:
        async with self._db.read() as conn:
            return [batch_of(row) for row in await _tree(conn, project_id, root_id)]

    async def trees(self, project_id: str, root_ids: Collection[str]) -> dict[str, list[Batch]]:
        trees: dict[str, list[Batch]] = {}
        async with self._db.read() as conn:
            for some in in_steps(root_ids, places=2):
                for batch in map(batch_of, await _trees(conn, project_id, some)):
                    if batch.tree_id in some:  # of a retry's id there is no tree
                        trees.setdefault(batch.tree_id, []).append(batch)
        return trees

    async def add(
        self,
        batch: Batch,
        covered: bytes | None,
        seen: int,
        quota: BatchQuota = NO_QUOTA,
        key: RequestKey | None = None,
    ) -> Batch:
        async with self._db.write() as conn:
            if key is not None:
                earlier = await take_key(conn, key, batch.id, batch.created_at)
                if earlier is not None:
                    return batch_of(await one_batch(conn, earlier))
            await lock_name(conn, f"retry {batch.tree_id}")
            tree = await _tree(conn, batch.project_id, batch.tree_id)
            unfinished = next((row.id for row in tree if row.ended_at is None), None)
            if unfinished is not None or len(tree) != seen:
                raise RetryConflict(unfinished)
            await check_batch_quota(conn, batch, quota)
            await insert_batch(conn, batch, batch.id, await lock_input(conn, batch.input_file_id))
            if batch.retry_of is not None:
                await name_same_webhook(conn, batch.id, batch.retry_of)
            if covered is not None:
                values = {"batch_id": batch.id, "kind": "covered", "data": covered}
                await conn.execute(insert(line_sets).values(values))
            await announce(conn, "validate")
        return batch

    async def line_sets(self, batch_ids: list[str], kind: LineSetKind) -> Mapping[str, bytes]:
        these = select(line_sets).where(
            line_sets.c.batch_id.in_(batch_ids), line_sets.c.kind == kind
        )
        async with self._db.read() as conn:
            return {row.batch_id: row.data for row in await conn.execute(these)}

    async def unexecuted(self, batch_ids: list[str]) -> Mapping[str, int]:
        groups = failure_groups.c
        these = (
            select(groups.batch_id, func.sum(groups.requests).label("requests"))
            .where(groups.batch_id.in_(batch_ids), groups.code.in_(UNEXECUTED_MESSAGES))
            .group_by(groups.batch_id)
        )
        async with self._db.read() as conn:
            return {row.batch_id: int(row.requests) for row in await conn.execute(these)}

    async def failures(self, batch_id: str) -> tuple[FailureGroup, ...]:
        async with self._db.read() as conn:
            return tuple((await failures_of(conn, batch_id)).values())


async def _tree(conn: AsyncConnection, project_id: str, root_id: str) -> list[Row[Any]]:
    return await _trees(conn, project_id, [root_id])


async def _trees(conn: AsyncConnection, project_id: str, root_ids: Sequence[str]) -> list[Row[Any]]:
    """The batches of these trees, in the order in which they were made."""
    mine = batches.c.id.in_(root_ids) | batches.c.root_id.in_(root_ids)
    result = await conn.execute(
        select(batches)
        .where(mine, batches.c.project_id == project_id)
        .order_by(batches.c.created_at, batches.c.id)
    )
    return list(result)
