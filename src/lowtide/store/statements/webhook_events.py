"""The outbox of terminal events: written by the transition that ends a batch.

Called by transitions.py, inside its transaction. Invariant: each endpoint that asked for the event,
and the one that the batch named, has one delivery of it; batches of single calls have no events,
because no list shows them.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.batches.batch import Status
from lowtide.core.webhooks.endpoint import EVENT_OF, BatchWebhook, event_id_of
from lowtide.store.connection.dialect import insert_missing
from lowtide.store.schema.webhook_tables import (
    batch_webhooks,
    webhook_deliveries,
    webhook_endpoints,
)

DISABLED = "the endpoint was disabled; replay it once the endpoint is enabled"


async def name_webhook(conn: AsyncConnection, batch_id: str, webhook: BatchWebhook) -> None:
    """Writes down what a batch that is being created asks for."""
    values = {"batch_id": batch_id, "endpoint_id": webhook.endpoint_id, "url": webhook.url}
    await conn.execute(insert(batch_webhooks), values)


async def name_same_webhook(conn: AsyncConnection, batch_id: str, earlier: str) -> None:
    """Lets the end of a retry be told where that of the batch `earlier` was."""
    named = select(literal(batch_id), batch_webhooks.c.endpoint_id, batch_webhooks.c.url)
    columns = ["batch_id", "endpoint_id", "url"]
    same = named.where(batch_webhooks.c.batch_id == earlier)
    await conn.execute(insert(batch_webhooks).from_select(columns, same))


async def record_end(conn: AsyncConnection, row: Row[Any], status: Status, now: datetime) -> None:
    """Writes down who is to hear that the batch of the locked `row` ends as `status`."""
    if row.flex is not None:
        return
    named = (
        await conn.execute(select(batch_webhooks).where(batch_webhooks.c.batch_id == row.id))
    ).one_or_none()
    endpoints = await conn.execute(
        select(webhook_endpoints).where(webhook_endpoints.c.project_id == row.project_id)
    )
    event = {
        "event_id": event_id_of(row.id),
        "organization_id": row.organization_id,
        "project_id": row.project_id,
        "type": EVENT_OF[status],
        "batch_id": row.id,
        "created_at": now,
        "attempts": 0,
        "token": 0,
    }
    deliveries = [
        event | _to(endpoint.id, endpoint.url, now, is_enabled=endpoint.disabled_at is None)
        for endpoint in endpoints
        if event["type"] in endpoint.events or (named and named.endpoint_id == endpoint.id)
    ]
    if named is not None and named.url is not None:
        deliveries.append(event | _to(named.endpoint_id, named.url, now))
    await insert_missing(conn, webhook_deliveries, deliveries)


def _to(endpoint_id: str, url: str, now: datetime, *, is_enabled: bool = True) -> dict[str, Any]:
    return {
        "endpoint_id": endpoint_id,
        "url": url,
        "state": "pending" if is_enabled else "failed",
        "next_at": now if is_enabled else None,
        "error": None if is_enabled else DISABLED,
    }
