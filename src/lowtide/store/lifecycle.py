"""`ports.store.LifecycleStore` over SQL: validation, assembly, expiry.

Called by the loops of those names. Invariant: what a task lease's holder writes is guarded by the
lease's token and by the state it was taken in, in the transaction that writes. Tasks are claimed
by organizations in turns, as far as this process has claimed them: a batch waits behind at most one
unit of another organization's work in each process.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide import limits
from lowtide.core.accounts.token_queue import PlanQueued, TokenLimitReached, decide, lack_of
from lowtide.core.batches.batch import ASSEMBLING, BatchError, sources_of, with_hold
from lowtide.core.batches.plan import ChunkSpec, ModelTotals
from lowtide.core.scheduling.task_turns import TaskTurns, Waiting
from lowtide.ports.retries import BatchEnd
from lowtide.ports.store import OutputInfo
from lowtide.ports.work import TaskLease
from lowtide.store.connection.database import Database, Transactional
from lowtide.store.connection.notify import announce
from lowtide.store.schema.rows import batch_of
from lowtide.store.schema.tables import LEASED, batch_models, batches, chunks
from lowtide.store.statements.batch_notes import note
from lowtide.store.statements.deletion import delete_input
from lowtide.store.statements.enqueued import enqueued_tokens
from lowtide.store.statements.failures import covered_of, keep_end
from lowtide.store.statements.garbage import lock_garbage
from lowtide.store.statements.holds import SPEND_CAP, hold_values
from lowtide.store.statements.plan_rows import insert_plan
from lowtide.store.statements.result_files import finish_files
from lowtide.store.statements.spending import lock_organizations
from lowtide.store.statements.token_queue import IS_QUEUED, enter, with_newcomer
from lowtide.store.statements.transitions import drop_unleased, lock_batches, take

_NOT_LEASED = batches.c.task_expires_at.is_(None)


class SqlLifecycle(Transactional):
    """Validation, assembly, expiry: what moves a batch between its states."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._validations = TaskTurns()
        self._assemblies = TaskTurns()

    async def claim_validation(
        self, worker_id: str, now: datetime, ttl_s: float, *, bytes_max: int | None = None
    ) -> TaskLease | None:
        ready = (batches.c.status == "validating") & ~IS_QUEUED
        until = now + timedelta(seconds=ttl_s)
        lease = await self._claim(ready, bytes_max, self._validations, worker_id, until)
        if lease is None or lease.batch.retry_of is None:
            return lease
        async with self._db.read() as conn:
            return msgspec.structs.replace(lease, covered=await covered_of(conn, lease.batch.id))

    async def claim_assembly(
        self, worker_id: str, now: datetime, ttl_s: float, *, bytes_max: int | None = None
    ) -> TaskLease | None:
        running = exists().where(chunks.c.batch_id == batches.c.id, chunks.c.state == LEASED)
        ready = batches.c.status.in_(sorted(ASSEMBLING)) & ~running
        until = now + timedelta(seconds=ttl_s)
        return await self._claim(ready, bytes_max, self._assemblies, worker_id, until)

    async def renew_task(self, lease: TaskLease, now: datetime, ttl_s: float) -> bool:
        expires_at = now + timedelta(seconds=ttl_s)
        async with self._db.write() as conn:
            renewed = await conn.execute(
                update(batches).where(*_held(lease)).values(task_expires_at=expires_at)
            )
        return renewed.rowcount == 1

    async def release_task(self, lease: TaskLease) -> None:
        async with self._db.write() as conn:
            await conn.execute(
                update(batches).where(*_held(lease)).values(task_owner=None, task_expires_at=None)
            )
            await announce(conn, "validate" if lease.batch.status == "validating" else "assemble")

    async def commit_plan(
        self,
        lease: TaskLease,
        *,
        plan_key: str,
        chunks: Sequence[ChunkSpec],
        models: Mapping[str, ModelTotals],
        enqueued_tokens_max: int,
        now: datetime,
        warnings: Sequence[BatchError] = (),
        queues: bool = False,
    ) -> TokenLimitReached | PlanQueued | bool:
        total = _planned_total(chunks, models)
        async with self._db.write() as conn:
            owners = await lock_organizations(conn, [lease.batch.id], now)
            row = await _lock_held(conn, lease)
            if row is None:
                return False
            owner = owners[0]
            asked = {model: share.input_tokens for model, share in models.items()}
            enqueued = await enqueued_tokens(conn, owner.id)
            reached = lack_of(asked, {} if queues else enqueued, enqueued_tokens_max)
            if reached is not None:
                return reached
            values = {
                "plan_key": plan_key,
                "total": total,
                "warnings": tuple(warnings),
                "model": next(iter(models)) if len(models) == 1 else None,
            }
            if queues:
                queue = await with_newcomer(conn, row, asked)
                if row.id not in decide(queue, enqueued, enqueued_tokens_max).let_in:
                    await enter(conn, row, now, **values)
                    await insert_plan(conn, row, chunks, models, is_paused=True)
                    return PlanQueued()
            holds = row.holds if owner.paused_at is None else with_hold(row.holds, SPEND_CAP)
            values |= hold_values(row, holds, row.abort_holds, now)
            await take(conn, row, "planned", now, **values)
            await insert_plan(conn, row, chunks, models, is_paused=bool(holds))
            await announce(conn, "dispatch")
        return True

    async def reject(
        self, lease: TaskLease, errors: Sequence[BatchError], errors_total: int, now: datetime
    ) -> bool:
        async with self._db.write() as conn:
            row = await _lock_to_end(conn, lease)
            if row is None:
                return False
            await take(conn, row, "rejected", now, errors=tuple(errors), errors_total=errors_total)
            await delete_input(conn, row, now)
        return True

    async def finish(
        self,
        lease: TaskLease,
        *,
        output: OutputInfo | None,
        errors: OutputInfo | None,
        now: datetime,
        end: BatchEnd | None = None,
    ) -> bool:
        completed, failed = _lines(output), _lines(errors)
        async with self._db.write() as conn:
            row = await _lock_to_end(conn, lease)
            if row is None:
                return False
            if (completed, completed + failed) != (row.completed, row.total):
                raise ValueError(
                    f"{row.id}: {completed} + {failed} result lines assembled for a batch with"
                    f" {row.completed} successes and {row.total} requests"
                )
            ids = await finish_files(conn, batch_of(row), output, errors, now)
            await take(conn, row, "assembled", now, failed=failed, **ids)
            await _settle_models(conn, row.id)
            if end is not None:
                await keep_end(conn, row.id, end)
            await delete_input(conn, row, now)
        return True

    async def lose_input(self, batch_id: str, reason: BatchError, now: datetime) -> bool:
        async with self._db.write() as conn:
            row = (await lock_batches(conn, [batch_id])).get(batch_id)
            if row is None or row.status not in sources_of("input_lost"):
                return False
            errors, total = (*row.errors, reason), row.errors_total + 1
            await take(conn, row, "input_lost", now, errors=errors, errors_total=total)
            await note(conn, [row], "input_lost", now)
            await drop_unleased(conn, batch_id)
            await announce(conn, "commit", "assemble")
        return True

    async def expire_due(self, now: datetime) -> list[str]:
        due = select(batches.c.id).where(_can_expire(), batches.c.expires_at <= now)
        async with self._db.write() as conn:
            rows = await lock_batches(conn, (await conn.scalars(due)).all())
            expired = [row for row in rows.values() if row.status in sources_of("expire")]
            for row in expired:
                await take(conn, row, "expire", now)
                await drop_unleased(conn, row.id)
            if expired:
                await announce(conn, "commit", "assemble")
        return [row.id for row in expired]

    async def next_expiry(self) -> datetime | None:
        async with self._db.read() as conn:
            earliest: datetime | None = await conn.scalar(
                select(func.min(batches.c.expires_at)).where(_can_expire())
            )
        return earliest

    async def _claim(
        self,
        ready: ColumnElement[bool],
        bytes_max: int | None,
        turns: TaskTurns,
        worker_id: str,
        until: datetime,
    ) -> TaskLease | None:
        """The oldest batch of the organization whose turn it is, of those that are not leased."""
        free = ready & _NOT_LEASED
        if bytes_max is not None:
            free &= batches.c.input_bytes <= bytes_max
        waiting = (
            select(batches.c.organization_id, func.min(batches.c.created_at))
            .where(free)
            .group_by(batches.c.organization_id)
        )
        async with self._db.write() as conn:
            queue = [Waiting(row[0], row[1]) for row in await conn.execute(waiting)]
            if not queue and bytes_max is None:
                turns.rest()
            for organization_id in turns.order(queue):
                row = await _oldest(conn, free & (batches.c.organization_id == organization_id))
                if row is not None:  # else other processes have them all
                    break
            else:
                return None
            token = row.task_token + 1
            await conn.execute(
                update(batches)
                .where(batches.c.id == row.id)
                .values(task_owner=worker_id, task_token=token, task_expires_at=until)
            )
        turns.charge(row.organization_id, row.input_bytes + limits.TASK_BYTES)
        return TaskLease(batch=batch_of(row), token=token, input_key=row.input_key)


async def _oldest(conn: AsyncConnection, wanted: ColumnElement[bool]) -> Row[Any] | None:
    """The oldest such batch, locked; None when other transactions hold all of them."""
    first = select(batches).where(wanted).order_by(batches.c.created_at, batches.c.id).limit(1)
    result = await conn.execute(first.with_for_update(key_share=True, skip_locked=True))
    return result.one_or_none()


def _held(lease: TaskLease) -> tuple[ColumnElement[bool], ...]:
    """Whether the lease holds: the token is current, the lease was not taken back, the
    state is the same.
    """
    return (
        batches.c.id == lease.batch.id,
        batches.c.task_token == lease.token,
        batches.c.task_expires_at.is_not(None),
        batches.c.status == lease.batch.status,
    )


async def _lock_to_end(conn: AsyncConnection, lease: TaskLease) -> Row[Any] | None:
    """The same, of a batch that will end: letting go of a blob takes a lock, which comes first."""
    if lease.batch.deletes_input:
        await lock_garbage(conn)
    return await _lock_held(conn, lease)


async def _lock_held(conn: AsyncConnection, lease: TaskLease) -> Row[Any] | None:
    result = await conn.execute(
        select(batches).where(*_held(lease)).with_for_update(key_share=True)
    )
    return result.one_or_none()


def _can_expire() -> ColumnElement[bool]:
    return batches.c.status.in_(sources_of("expire"))


def _planned_total(specs: Sequence[ChunkSpec], models: Mapping[str, ModelTotals]) -> int:
    """Raises ValueError for a plan without requests: it could never settle."""
    total = sum(spec.count for spec in specs)
    if total == 0 or total != sum(share.requests for share in models.values()):
        raise ValueError(f"{total} requests in the chunks do not match the models' shares")
    return total


def _lines(info: OutputInfo | None) -> int:
    return 0 if info is None else info.lines


async def _settle_models(conn: AsyncConnection, batch_id: str) -> None:
    """Counts what never ran as failed, by model too, so that the models' counts
    sum to the batch's.
    """
    await conn.execute(
        update(batch_models)
        .where(batch_models.c.batch_id == batch_id)
        .values(
            failed=batch_models.c.requests - batch_models.c.completed,
            settled_tokens=batch_models.c.planned_tokens,
        )
    )
