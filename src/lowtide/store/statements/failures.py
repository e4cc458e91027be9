"""Groups of a batch's failures: counted with each commit, and anew when the batch is assembled.

Called by group_commit.py and lifecycle.py, which hold the batch's row. Invariant: a batch has at
most `FAILURE_SHAPES_MAX` groups and one for all others; a commit without a failure touches none.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.batches.failures import FailureGroup, add_to
from lowtide.ports.retries import BatchEnd
from lowtide.store.schema.retry_tables import failure_groups, line_sets

Groups = dict[tuple[str, str], FailureGroup]


async def failures_of(conn: AsyncConnection, batch_id: str) -> Groups:
    """Returns the groups of a batch by code and shape."""
    mine = select(failure_groups).where(failure_groups.c.batch_id == batch_id)
    result = await conn.execute(mine.order_by(failure_groups.c.code, failure_groups.c.shape))
    groups = (FailureGroup(row.code, row.shape, row.requests, row.examples) for row in result)
    return {group.key: group for group in groups}


async def count_failures(conn: AsyncConnection, more: Mapping[str, Iterable[FailureGroup]]) -> None:
    """Adds the failures of a commit, by batch."""
    for batch_id, groups in more.items():
        known = await failures_of(conn, batch_id)
        before = known.keys() | set()
        changed = {add_to(known, group) for group in groups}
        for key in sorted(changed & before):
            await conn.execute(_this(batch_id, known[key]))
        fresh = [_values(batch_id, known[key]) for key in sorted(changed - before)]
        if fresh:
            await conn.execute(insert(failure_groups), fresh)


async def keep_end(conn: AsyncConnection, batch_id: str, end: BatchEnd) -> None:
    """What the assembler found of the lines, instead of what commits counted."""
    await conn.execute(delete(failure_groups).where(failure_groups.c.batch_id == batch_id))
    if end.failures:
        await conn.execute(
            insert(failure_groups), [_values(batch_id, group) for group in end.failures]
        )
    sets = {"failed": end.failed, "succeeded": end.succeeded}
    rows = [
        {"batch_id": batch_id, "kind": kind, "data": data}
        for kind, data in sets.items()
        if data is not None
    ]
    await conn.execute(insert(line_sets), rows)


async def covered_of(conn: AsyncConnection, batch_id: str) -> bytes | None:
    """The lines that a retry was made for; None of a batch that runs its whole file."""
    value: bytes | None = await conn.scalar(
        select(line_sets.c.data).where(
            line_sets.c.batch_id == batch_id, line_sets.c.kind == "covered"
        )
    )
    return value


def _this(batch_id: str, group: FailureGroup) -> Any:
    return (
        update(failure_groups)
        .where(
            failure_groups.c.batch_id == batch_id,
            failure_groups.c.code == group.code,
            failure_groups.c.shape == group.shape,
        )
        .values(requests=group.requests, examples=group.examples)
    )


def _values(batch_id: str, group: FailureGroup) -> dict[str, Any]:
    return {
        "batch_id": batch_id,
        "code": group.code,
        "shape": group.shape,
        "requests": group.requests,
        "examples": group.examples,
    }
