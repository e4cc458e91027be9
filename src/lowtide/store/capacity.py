"""`ports.capacity.CapacityStore` over SQL: the backlog, what was learnt, and what is urgent.

Invariant: the urgent batches of a model are replaced as a whole, so claims never see half a list.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Select, delete, func, insert, select

from lowtide import limits
from lowtide.core.batches.batch import TERMINAL, TRANSITIONS
from lowtide.core.scheduling.feasibility import Backlog
from lowtide.core.usage import NO_USAGE, Usage
from lowtide.ports.capacity import Capacity, Unfinished
from lowtide.store.connection.database import Transactional
from lowtide.store.connection.dialect import lock_name
from lowtide.store.schema.rows import USAGE_FIELDS, batch_of
from lowtide.store.schema.schedule_tables import urgent_batches
from lowtide.store.schema.tables import batch_models, batches, organizations
from lowtide.store.statements.throughput import all_cells, all_throughputs

_UNFINISHED: Final = tuple(sorted(TRANSITIONS.keys() - TERMINAL))


class SqlCapacity(Transactional):
    """What pools have to do, and what they get done."""

    async def capacity(self) -> Capacity:
        async with self._db.read() as conn:
            backlog: list[Backlog] = []
            for rows in (await conn.execute(unsettled())).partitions(limits.ROWS_AT_ONCE):
                backlog += [_backlog_of(row) for row in rows]
                await asyncio.sleep(0)  # others are served between two parts
            urgent: dict[str, list[str]] = {}
            for row in await conn.execute(
                select(urgent_batches).order_by(urgent_batches.c.position)
            ):
                urgent.setdefault(row.model, []).append(row.batch_id)
            return Capacity(
                backlog,
                await all_throughputs(conn),
                await all_cells(conn),
                urgent,
            )

    async def unfinished(self, limit: int) -> Unfinished:
        is_open = batches.c.status.in_(_UNFINISHED)
        async with self._db.read() as conn:
            counted = await conn.execute(
                select(batches.c.status, func.count(), func.min(batches.c.created_at))
                .where(is_open)
                .group_by(batches.c.status)
            )
            states = {status: (number, oldest) for status, number, oldest in counted}
            rows = await conn.execute(
                select(batches)
                .where(is_open, batches.c.flex.is_(None))
                .order_by(batches.c.expires_at, batches.c.id)
                .limit(limit)
            )
            return Unfinished(states, [batch_of(row) for row in rows])

    async def mark_urgent(self, model: str, batch_ids: Sequence[str]) -> None:
        rows = [
            {"model": model, "batch_id": batch_id, "position": position}
            for position, batch_id in enumerate(batch_ids)
        ]
        async with self._db.write() as conn:
            await lock_name(conn, f"urgent {model}")
            await conn.execute(delete(urgent_batches).where(urgent_batches.c.model == model))
            if rows:
                await conn.execute(insert(urgent_batches), rows)


def unsettled() -> Select[Any]:
    """Shares of batches in progress that are not settled: found by the index `batches_status`."""
    return (
        select(
            batch_models.c.batch_id,
            batch_models.c.model,
            batches.c.organization_id,
            func.coalesce(organizations.c.weight, 1),
            batches.c.priority,
            batches.c.expires_at,
            batches.c.created_at,
            batches.c.holds.is_not(None),
            batch_models.c.requests,
            batch_models.c.completed + batch_models.c.failed,
            batch_models.c.planned_tokens,
            batch_models.c.settled_tokens,
            batch_models.c.planned_cost,
            *(batch_models.c[field] for field in USAGE_FIELDS),
        )
        .join(batches, batches.c.id == batch_models.c.batch_id)
        .join(organizations, organizations.c.id == batches.c.organization_id)
        .where(
            batches.c.status == "in_progress",
            batch_models.c.completed + batch_models.c.failed < batch_models.c.requests,
        )
    )


def _backlog_of(row: Sequence[Any]) -> Backlog:
    """Reads a row by place: ten thousand every few seconds cost twice that by name."""
    (
        batch_id, model, organization_id, weight, priority, deadline_at, created_at, paused,
        requests, settled, planned_tokens, settled_tokens, planned_cost, *usage,
    ) = row  # fmt: skip
    return Backlog(
        batch_id=batch_id,
        model=model,
        organization_id=organization_id,
        weight=float(weight),
        priority=priority,
        deadline_at=deadline_at,
        created_at=created_at,
        paused=bool(paused),
        requests=requests,
        settled=settled,
        planned_tokens=planned_tokens,
        settled_tokens=settled_tokens,
        planned_cost=planned_cost,
        usage=Usage(*usage) if any(usage) else NO_USAGE,
    )
