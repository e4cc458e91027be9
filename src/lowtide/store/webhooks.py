"""`ports.webhooks.WebhookStore` over SQL: endpoints, and the secrets that sign for them.

Invariant: an endpoint that is disabled has no pending delivery, and one that is gone has none.
"""

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Row, Select, Update, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide import limits
from lowtide.core.webhooks.endpoint import WebhookEndpoint
from lowtide.ports.webhooks import EndpointChange, TooManyEndpoints
from lowtide.store.connection.database import Transactional
from lowtide.store.connection.dialect import lock_name
from lowtide.store.schema.rows import struct_of, struct_or_none, structs_of
from lowtide.store.schema.webhook_tables import (
    PENDING_DELIVERY,
    webhook_deliveries,
    webhook_endpoints,
    webhook_secrets,
)
from lowtide.store.statements.webhook_events import DISABLED

BY_ITS_OWNER = "It was disabled by its owner."


class SqlWebhooks(Transactional):
    """Endpoints of projects."""

    async def add(self, endpoint: WebhookEndpoint, secret: str, *, most: int) -> None:
        of_project = webhook_endpoints.c.project_id == endpoint.project_id
        values = asdict(endpoint)
        async with self._db.write() as conn:
            await lock_name(conn, f"webhooks {endpoint.project_id}")
            if (await conn.scalar(select(func.count()).where(of_project)) or 0) >= most:
                raise TooManyEndpoints
            await conn.execute(insert(webhook_endpoints), values)
            await _add_secret(conn, endpoint.id, secret, endpoint.created_at)

    async def get(self, project_id: str, endpoint_id: str) -> WebhookEndpoint | None:
        async with self._db.read() as conn:
            row = (await conn.execute(_own(project_id, endpoint_id))).one_or_none()
        return struct_or_none(WebhookEndpoint, row)

    async def all_of(self, project_id: str) -> list[WebhookEndpoint]:
        newest_first = (webhook_endpoints.c.created_at.desc(), webhook_endpoints.c.id.desc())
        query = select(webhook_endpoints).where(webhook_endpoints.c.project_id == project_id)
        async with self._db.read() as conn:
            return structs_of(WebhookEndpoint, await conn.execute(query.order_by(*newest_first)))

    async def change(
        self, project_id: str, endpoint_id: str, change: EndpointChange, now: datetime
    ) -> WebhookEndpoint | None:
        own = _own(project_id, endpoint_id)
        async with self._db.write() as conn:
            row = (await conn.execute(own.with_for_update())).one_or_none()
            if row is None:
                return None
            if values := _changed(change, row, now):
                this = webhook_endpoints.c.id == endpoint_id
                await conn.execute(
                    update(webhook_endpoints).where(this).values(values | {"updated_at": now})
                )
            if change.enabled is False:
                await conn.execute(fail_pending(endpoint_id))
            row = (await conn.execute(own)).one()
        return struct_of(WebhookEndpoint, row)

    async def delete(self, project_id: str, endpoint_id: str) -> bool:
        async with self._db.write() as conn:
            gone = await conn.execute(
                delete(webhook_endpoints).where(
                    webhook_endpoints.c.id == endpoint_id,
                    webhook_endpoints.c.project_id == project_id,
                )
            )
            if not gone.rowcount:
                return False
            await conn.execute(
                delete(webhook_secrets).where(webhook_secrets.c.owner_id == endpoint_id)
            )
            await conn.execute(
                delete(webhook_deliveries).where(
                    webhook_deliveries.c.project_id == project_id,
                    webhook_deliveries.c.endpoint_id == endpoint_id,
                )
            )
        return True

    async def rotate(self, owner_id: str, secret: str, now: datetime, *, overlap_s: float) -> None:
        mine = webhook_secrets.c.owner_id == owner_id
        ends_at = now + timedelta(seconds=overlap_s)
        async with self._db.write() as conn:
            await lock_name(conn, f"webhook secrets {owner_id}")
            await conn.execute(
                update(webhook_secrets)
                .where(mine, webhook_secrets.c.ends_at.is_(None))
                .values(ends_at=ends_at)
            )
            kept = (await conn.scalars(_valid(owner_id, now))).all()
            kept = kept[: limits.WEBHOOK_SECRETS_MAX - 1]
            await conn.execute(
                delete(webhook_secrets).where(mine, webhook_secrets.c.secret.not_in(kept))
            )
            await _add_secret(conn, owner_id, secret, now)
            await conn.execute(
                update(webhook_endpoints)
                .where(webhook_endpoints.c.id == owner_id)
                .values(updated_at=now)
            )

    async def secrets(self, owner_id: str, now: datetime) -> tuple[str, ...]:
        async with self._db.read() as conn:
            return await valid_secrets(conn, owner_id, now)


async def valid_secrets(conn: AsyncConnection, owner_id: str, now: datetime) -> tuple[str, ...]:
    """The secrets that sign for the owner at that instant, the newest first."""
    return tuple((await conn.scalars(_valid(owner_id, now))).all())


def fail_pending(endpoint_id: str) -> Update:
    """Gives up what is on its way to an endpoint that is called no more."""
    return (
        update(webhook_deliveries)
        .where(
            webhook_deliveries.c.endpoint_id == endpoint_id,
            webhook_deliveries.c.state == PENDING_DELIVERY,
        )
        .values(state="failed", next_at=None, lease_expires_at=None, worker_id=None, error=DISABLED)
    )


def _own(project_id: str, endpoint_id: str) -> Select[Any]:
    return select(webhook_endpoints).where(
        webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.project_id == project_id
    )


def _valid(owner_id: str, now: datetime) -> Select[Any]:
    ends_at = webhook_secrets.c.ends_at
    return (
        select(webhook_secrets.c.secret)
        .where(webhook_secrets.c.owner_id == owner_id, ends_at.is_(None) | (ends_at > now))
        .order_by(webhook_secrets.c.made_at.desc(), webhook_secrets.c.secret)
    )


async def _add_secret(conn: AsyncConnection, owner_id: str, secret: str, now: datetime) -> None:
    values = {"owner_id": owner_id, "secret": secret, "made_at": now, "ends_at": None}
    await conn.execute(insert(webhook_secrets), values)


def _changed(change: EndpointChange, row: Row[Any], now: datetime) -> dict[str, Any]:
    """The columns that the change sets; empty where it changes nothing."""
    values: dict[str, Any] = {
        name: value
        for name in ("url", "name", "events")
        if (value := getattr(change, name)) is not None and value != getattr(row, name)
    }
    if change.enabled is True and row.disabled_at is not None:
        values |= {"disabled_at": None, "disabled_reason": None, "failing_since": None}
    if change.enabled is False and row.disabled_at is None:
        values |= {"disabled_at": now, "disabled_reason": BY_ITS_OWNER}
    return values
