"""`ports.store.BatchStore` over SQL: rows of batches, for the verbs.

Invariant: of identical creates that run at the same time, and say that they repeat one, at most one
inserts and the others return its batch.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Select, bindparam, case, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide import limits
from lowtide.core.accounts.batch_quota import NO_QUOTA, BatchQuota, BatchQuotaReached
from lowtide.core.batches.batch import Batch, sources_of
from lowtide.core.batches.batch_filter import EVERY_BATCH, BatchFilter
from lowtide.core.batches.plan import ModelTotals
from lowtide.core.history.batch_events import USER
from lowtide.core.idempotency.request_key import RequestKey
from lowtide.core.webhooks.endpoint import BatchWebhook
from lowtide.ports.store import QueueDepth
from lowtide.store.connection.database import Transactional
from lowtide.store.connection.dialect import lock_name
from lowtide.store.connection.notify import announce
from lowtide.store.schema.rows import batch_of, batch_values
from lowtide.store.schema.tables import LEASED, batch_models, batches, chunks, files
from lowtide.store.statements.batch_filters import conditions
from lowtide.store.statements.batch_notes import note
from lowtide.store.statements.idempotency import one_batch, take_key
from lowtide.store.statements.many_keys import rows_of
from lowtide.store.statements.owners import owner_of
from lowtide.store.statements.paging import page
from lowtide.store.statements.transitions import drop_unleased, take
from lowtide.store.statements.webhook_events import name_webhook

_RUNS = (batches.c.status == "in_progress") & batches.c.holds.is_(None)
# Made once, as making it costs more than running it: every poll of a batch asks it.
_OWN: Final = select(batches).where(
    batches.c.id == bindparam("of_batch"),
    batches.c.project_id == bindparam("of_project"),
    batches.c.deleted_at.is_(None),
)


class SqlBatches(Transactional):
    """Rows of batches, for the verbs."""

    async def add(
        self,
        batch: Batch,
        *,
        digest: str,
        repeat: bool,
        since: datetime,
        quota: BatchQuota = NO_QUOTA,
        webhook: BatchWebhook | None = None,
        key: RequestKey | None = None,
    ) -> Batch:
        async with self._db.write() as conn:
            if repeat:
                await lock_name(conn, f"create {batch.project_id}")
                meant = _repeated(batch.project_id, digest, since, batch.created_at)
                row = (await conn.execute(meant)).one_or_none()
                if row is not None:
                    await _doubt_answer(conn, row)
                    return batch_of(row)
            if key is not None:
                earlier = await take_key(conn, key, batch.id, batch.created_at)
                if earlier is not None:
                    return batch_of(await one_batch(conn, earlier))
            await check_batch_quota(conn, batch, quota)
            await insert_batch(conn, batch, digest, await lock_input(conn, batch.input_file_id))
            if webhook is not None:
                await name_webhook(conn, batch.id, webhook)
            await announce(conn, "validate")
        return batch

    async def repeated(
        self, project_id: str, digest: str, *, since: datetime, now: datetime
    ) -> Batch | None:
        async with self._db.read() as conn:
            meant = _repeated(project_id, digest, since, now)
            row = (await conn.execute(meant)).one_or_none()
        if row is None:
            return None
        if row.answered_at is not None:
            async with self._db.write() as conn:
                await _doubt_answer(conn, row)
        return batch_of(row)

    async def mark_answered(self, batch_id: str, now: datetime) -> None:
        async with self._db.write() as conn:
            await conn.execute(
                update(batches).where(batches.c.id == batch_id).values(answered_at=now)
            )

    async def get(self, project_id: str, batch_id: str) -> Batch | None:
        async with self._db.read() as conn:
            row = (await conn.execute(_OWN, _key(project_id, batch_id))).one_or_none()
        return None if row is None else batch_of(row)

    async def get_many(self, project_id: str, batch_ids: Collection[str]) -> dict[str, Batch]:
        mine = select(batches).where(
            batches.c.project_id == project_id, batches.c.deleted_at.is_(None)
        )
        async with self._db.read() as conn:
            rows = rows_of(conn, mine, batches.c.id, batch_ids)
            return {row.id: batch_of(row) async for row in rows}

    async def page(
        self,
        project_id: str,
        *,
        after: str | None,
        limit: int,
        which: BatchFilter = EVERY_BATCH,
    ) -> list[Batch]:
        listed = select(batches).where(batches.c.flex.is_(None), batches.c.deleted_at.is_(None))
        async with self._db.read() as conn:
            rows = await page(
                conn,
                batches,
                listed.where(*conditions(which)),
                project_id=project_id,
                after=after,
                limit=limit,
                order="desc",
            )
        return [batch_of(row) for row in rows]

    async def cancel(
        self, project_id: str, batch_id: str, now: datetime, actor: str = USER
    ) -> Batch | None:
        async with self._db.write() as conn:
            mine, key = _OWN.with_for_update(key_share=True), _key(project_id, batch_id)
            row = (await conn.execute(mine, key)).one_or_none()
            if row is None:
                return None
            if row.status in sources_of("cancel"):
                await take(conn, row, "cancel", now)
                await note(conn, [row], "cancel_asked", now, actor=actor)
                await drop_unleased(conn, batch_id)
                await announce(conn, "commit", "assemble")
                row = (await conn.execute(_OWN, key)).one()
        return batch_of(row)

    async def models(self, batch_id: str) -> Mapping[str, ModelTotals]:
        planned = select(batch_models).where(batch_models.c.batch_id == batch_id)
        async with self._db.read() as conn:
            rows = (await conn.execute(planned.order_by(batch_models.c.model))).all()
        return {row.model: ModelTotals(row.requests, row.planned_tokens) for row in rows}

    async def queue(self, model: str | None = None) -> QueueDepth:
        async with self._db.read() as conn:
            unsettled, waiting_batches = await _unsettled(conn, model)
            leased, leased_running = await _leased(conn, model)
        return QueueDepth(
            waiting_requests=unsettled - leased_running,
            leased_requests=leased,
            batches=waiting_batches,
        )


async def check_batch_quota(conn: AsyncConnection, batch: Batch, quota: BatchQuota) -> None:
    """Checks that the batch may be added. Raises BatchQuotaReached. Creates of one organization run
    one after another, so that those at one instant see each other.
    """
    if quota == NO_QUOTA:
        return
    organization_id = await owner_of(conn, batch.project_id) or ""
    await lock_name(conn, f"batches {organization_id}")
    if quota.per_hour is not None:
        since = batch.created_at - timedelta(seconds=limits.RATE_WINDOW_S)
        if await batches_created_since(conn, organization_id, since) >= quota.per_hour:
            raise BatchQuotaReached("hour")
    if quota.unfinished is not None:
        count = await unfinished_batches(conn, organization_id, quota.unfinished)
        if count >= quota.unfinished:
            raise BatchQuotaReached("unfinished")


async def unfinished_batches(conn: AsyncConnection, organization_id: str, most: int) -> int:
    """Batches and background responses of an organization that have not ended, counted up to
    `most`; those of calls whose callers wait are not counted."""
    some = (
        select(batches.c.id)
        .where(
            batches.c.organization_id == organization_id,
            batches.c.ended_at.is_(None),
            batches.c.flex.is_(None) | (batches.c.flex == "background"),
        )
        .limit(most)
    )
    return int(await conn.scalar(select(func.count()).select_from(some.subquery())) or 0)


async def batches_created_since(
    conn: AsyncConnection, organization_id: str, since: datetime
) -> int:
    """Batches of an organization from that instant on; those of single calls are not counted."""
    statement = select(func.count()).where(
        batches.c.organization_id == organization_id,
        batches.c.created_at >= since,
        batches.c.flex.is_(None),
    )
    return int(await conn.scalar(statement) or 0)


async def lock_input(conn: AsyncConnection, file_id: str) -> str:
    """The blob of the file. Locked: who deletes the file meanwhile waits, and then sees that a
    batch reads it."""
    its = select(files.c.blob_key).where(files.c.id == file_id).with_for_update(read=True)
    return await conn.scalar(its) or ""


async def insert_batch(
    conn: AsyncConnection, batch: Batch, digest: str, input_key: str, **more: Any
) -> None:
    """The row of a new batch, with its project's organization, and `more` columns as they say."""
    organization_id = await owner_of(conn, batch.project_id)
    values = batch_values(batch) | _fresh(digest, input_key) | {"organization_id": organization_id}
    await conn.execute(insert(batches), values | more)


def _key(project_id: str, batch_id: str) -> dict[str, str]:
    """What `_OWN` is given."""
    return {"of_project": project_id, "of_batch": batch_id}


def _repeated(project_id: str, digest: str, since: datetime, now: datetime) -> Select[Any]:
    """The newest batch that a repeated create with this digest may mean.

    One that was answered and is over has been seen to its end, and one that was cancelled is not
    wanted: a create that looks like theirs is a new request.
    """
    doubted = now - timedelta(seconds=limits.ANSWER_DOUBTED_S)
    unheard = batches.c.answered_at.is_(None) & batches.c.status.not_in(("cancelling", "cancelled"))
    perhaps_unheard = (batches.c.answered_at >= doubted) & batches.c.status.in_(
        ("validating", "in_progress", "finalizing")
    )
    return (
        select(batches)
        .where(
            batches.c.project_id == project_id,
            batches.c.digest == digest,
            batches.c.created_at >= since,
            batches.c.deleted_at.is_(None),
            unheard | perhaps_unheard,
        )
        .order_by(batches.c.created_at.desc(), batches.c.id.desc())
        .limit(1)
    )


async def _doubt_answer(conn: AsyncConnection, row: Any) -> None:
    """Records that the client did not receive the answer: it would not have asked once more."""
    if row.answered_at is not None:
        await conn.execute(update(batches).where(batches.c.id == row.id).values(answered_at=None))


def _fresh(digest: str, input_key: str) -> dict[str, Any]:
    """The values of a new batch that are kept besides its record."""
    return {
        "digest": digest,
        "input_key": input_key,
        "results_seq": 0,
        "task_token": 0,
    }


async def _unsettled(conn: AsyncConnection, model: str | None) -> tuple[int, int]:
    """(requests, batches) not settled in batches that run; read from counters, not chunks."""
    left = batch_models.c.requests - batch_models.c.completed - batch_models.c.failed
    statement = (
        select(func.coalesce(func.sum(left), 0), func.count(batches.c.id.distinct()))
        .join(batches, batches.c.id == batch_models.c.batch_id)
        .where(_RUNS, left > 0)
    )
    if model is not None:
        statement = statement.where(batch_models.c.model == model)
    requests, count = (await conn.execute(statement)).one()
    return int(requests), int(count)


async def _leased(conn: AsyncConnection, model: str | None) -> tuple[int, int]:
    """Requests not settled in leased chunks: (of all batches, of batches that run)."""
    left = chunks.c.count - chunks.c.settled
    running = func.sum(case((_RUNS, left), else_=0))
    statement = (
        select(func.coalesce(func.sum(left), 0), func.coalesce(running, 0))
        .join(batches, batches.c.id == chunks.c.batch_id)
        .where(chunks.c.state == LEASED)
    )
    if model is not None:
        statement = statement.where(chunks.c.model == model)
    of_all, of_running = (await conn.execute(statement)).one()
    return int(of_all), int(of_running)
