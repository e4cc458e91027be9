"""A plan as rows: the chunks of a batch, its models' shares, and what they are estimated to cost.

Called by lifecycle.py, inside the transaction that takes the event `planned`. Invariant: the costs
of a model's chunks sum to the share's `planned_cost`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.batches.chunk import NOTHING_DONE
from lowtide.core.batches.plan import ChunkSpec, ModelTotals
from lowtide.core.scheduling.fair_queue import planned_cost
from lowtide.store.schema.rows import USAGE_FIELDS
from lowtide.store.schema.tables import batch_models, chunks
from lowtide.store.statements.fair_share import lift
from lowtide.store.statements.throughput import output_per_request


async def insert_plan(
    conn: AsyncConnection,
    row: Row[Any],
    specs: Sequence[ChunkSpec],
    models: Mapping[str, ModelTotals],
    *,
    is_paused: bool,
) -> None:
    """Queue the chunks of the locked batch `row`; `is_paused`: its organization is paused."""
    await lift(conn, row.organization_id, models)
    learnt = await output_per_request(conn, models)
    values = [
        _chunk_values(row, spec, is_paused)
        | {"cost": planned_cost(spec, models[spec.model], learnt.get(spec.model), row.endpoint)}
        for spec in specs
    ]
    costs: dict[str, float] = defaultdict(float)
    for chunk in values:
        costs[chunk["model"]] += chunk["cost"]
    shares = [_share_values(row, m, share, costs[m]) for m, share in models.items()]
    await conn.execute(insert(batch_models), shares)
    await conn.execute(insert(chunks), values)


def _share_values(row: Row[Any], model: str, share: ModelTotals, cost: float) -> dict[str, Any]:
    nothing = dict.fromkeys(("settled_tokens", "completed", "failed", *USAGE_FIELDS), 0)
    return nothing | {
        "batch_id": row.id,
        "model": model,
        "requests": share.requests,
        "planned_tokens": share.input_tokens,
        "planned_cost": cost,
    }


def _chunk_values(row: Row[Any], spec: ChunkSpec, is_paused: bool) -> dict[str, Any]:
    return {
        "batch_id": row.id,
        "seq": spec.seq,
        "organization_id": row.organization_id,
        "state": "paused" if is_paused else "waiting",
        "model": spec.model,
        "priority": row.priority,
        "deadline_at": row.expires_at,
        "batch_created_at": row.created_at,
        "first": spec.first,
        "count": spec.count,
        "input_tokens": spec.input_tokens,
        "input_bytes": spec.input_bytes,
        "done": NOTHING_DONE,
        "settled": 0,
        "token": 0,
    }
