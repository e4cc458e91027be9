"""`ports.webhooks.OutboxStore` over SQL: events on their way to endpoints.

Invariants: a claim leases a delivery under a token that grows, and only the holder of the current
one records what came of it; claims of all processes are made one after another, so that no
organization has more under way than it may.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.webhooks.endpoint import PROJECT, Delivery
from lowtide.core.webhooks.schedule import Attempt, after_attempt, reason_to_disable
from lowtide.core.webhooks.turns import DueDeliveries, places_of
from lowtide.ports.store import UnknownCursor
from lowtide.ports.webhooks import ClaimedDelivery, Recorded
from lowtide.store.connection.database import Transactional
from lowtide.store.connection.dialect import lock_name
from lowtide.store.schema.rows import struct_of, structs_of, values_of
from lowtide.store.schema.webhook_tables import (
    PENDING_DELIVERY,
    webhook_deliveries,
    webhook_endpoints,
)
from lowtide.store.webhooks import fail_pending, valid_secrets

_FIELDS = Delivery.__struct_fields__
_PENDING = webhook_deliveries.c.state == PENDING_DELIVERY
_NOT_LEASED: dict[str, Any] = {"worker_id": None, "lease_expires_at": None}
_ANEW = {"state": "pending", "attempts": 0, "error": None} | _NOT_LEASED


class SqlOutbox(Transactional):
    """Deliveries."""

    async def page(
        self,
        project_id: str,
        endpoint_id: str,
        *,
        after: str | None,
        limit: int,
        state: str | None = None,
    ) -> list[Delivery]:
        mine = _of_endpoint(project_id, endpoint_id)
        order = (webhook_deliveries.c.created_at.desc(), webhook_deliveries.c.event_id.desc())
        query = select(webhook_deliveries).where(mine).order_by(*order).limit(limit)
        if state is not None:
            query = query.where(webhook_deliveries.c.state == state)
        async with self._db.read() as conn:
            if after is not None:
                this = webhook_deliveries.c.event_id == after
                result = await conn.execute(select(webhook_deliveries).where(mine, this))
                if (row := result.one_or_none()) is None:
                    raise UnknownCursor(after)
                query = query.where(_before(row))
            return structs_of(Delivery, await conn.execute(query))

    async def replay(
        self, project_id: str, endpoint_id: str, event_id: str | None, now: datetime, *, most: int
    ) -> int:
        chosen = select(webhook_deliveries.c.event_id).where(_of_endpoint(project_id, endpoint_id))
        if event_id is not None:
            chosen = chosen.where(webhook_deliveries.c.event_id == event_id)
        else:
            chosen = chosen.where(webhook_deliveries.c.state == "failed")
        chosen = chosen.order_by(webhook_deliveries.c.created_at).limit(most)
        async with self._db.write() as conn:
            ids = (await conn.scalars(chosen.with_for_update())).all()
            replayed = await conn.execute(
                update(webhook_deliveries)
                .where(
                    _of_endpoint(project_id, endpoint_id), webhook_deliveries.c.event_id.in_(ids)
                )
                .values(_ANEW | {"next_at": now})
            )
        return replayed.rowcount

    async def claim(
        self, worker_id: str, now: datetime, ttl_s: float, *, free: int, most: int
    ) -> list[ClaimedDelivery]:
        async with self._db.read() as conn:
            if not await _due(conn, now):  # as nearly always; it costs no lock
                return []
        until = now + timedelta(seconds=ttl_s)
        claimed: list[ClaimedDelivery] = []
        async with self._db.write() as conn:
            await lock_name(conn, "webhook claims")
            places = places_of(await _due(conn, now), await _under_way(conn, now), free, most)
            for organization_id, count in places.items():
                for row in await _oldest(conn, organization_id, count, now):
                    leased = await _lease(conn, row, worker_id, now, until)
                    claimed += [] if leased is None else [leased]
        return claimed

    async def record(
        self, claimed: ClaimedDelivery, attempt: Attempt, now: datetime
    ) -> Recorded | None:
        delivery = claimed.delivery
        key = _key(delivery.event_id, delivery.endpoint_id)
        async with self._db.write() as conn:
            # The endpoint first, as everywhere: who disables it gives up its deliveries.
            reason = await _note_endpoint(conn, claimed, attempt, now)
            after = after_attempt(attempt, delivery.attempts + 1, now)
            values = {
                "state": after.state,
                "next_at": after.next_at,
                "attempts": delivery.attempts + 1,
                "attempted_at": now,
                "status_code": attempt.status_code,
                "error": attempt.failure,
                "url": delivery.url,
            }
            held = (_PENDING, webhook_deliveries.c.token == claimed.token)
            leased = webhook_deliveries.c.lease_expires_at.is_not(None)
            done = await conn.execute(
                update(webhook_deliveries).where(key, *held, leased).values(values | _NOT_LEASED)
            )
            if reason is not None:
                await conn.execute(fail_pending(delivery.endpoint_id))
            row = (await conn.execute(select(webhook_deliveries).where(key))).one_or_none()
        if row is None or not done.rowcount:
            return None
        return Recorded(struct_of(Delivery, row), reason)

    async def release(self, worker_id: str) -> int:
        async with self._db.write() as conn:
            freed = await conn.execute(
                update(webhook_deliveries)
                .where(_PENDING, webhook_deliveries.c.worker_id == worker_id)
                .values(_NOT_LEASED)
            )
        return freed.rowcount

    async def forget(self, before: datetime, *, most: int) -> int:
        table = webhook_deliveries
        ids = tuple_(table.c.event_id, table.c.endpoint_id)
        old = (
            select(table.c.event_id, table.c.endpoint_id)
            .where(table.c.created_at < before, table.c.state != PENDING_DELIVERY)
            .order_by(table.c.created_at)
            .limit(most)
        )
        async with self._db.write() as conn:
            gone = [tuple(row) for row in await conn.execute(old)]
            if gone:
                await conn.execute(delete(table).where(ids.in_(gone)))
        return len(gone)


def _key(event_id: str, endpoint_id: str) -> ColumnElement[bool]:
    return (webhook_deliveries.c.event_id == event_id) & (
        webhook_deliveries.c.endpoint_id == endpoint_id
    )


def _of_endpoint(project_id: str, endpoint_id: str) -> ColumnElement[bool]:
    return (webhook_deliveries.c.project_id == project_id) & (
        webhook_deliveries.c.endpoint_id == endpoint_id
    )


def _before(row: Row[Any]) -> ColumnElement[bool]:
    """The deliveries behind that one, where the newest come first."""
    keys = (webhook_deliveries.c.created_at, webhook_deliveries.c.event_id)
    behind = tuple_(row.created_at, row.event_id, types=[key.type for key in keys])
    return tuple_(*keys) < behind


def _free_at(now: datetime) -> ColumnElement[bool]:
    """The deliveries that are due and not leased."""
    lease = webhook_deliveries.c.lease_expires_at
    return _PENDING & (webhook_deliveries.c.next_at <= now) & (lease.is_(None) | (lease <= now))


async def _due(conn: AsyncConnection, now: datetime) -> list[DueDeliveries]:
    organization = webhook_deliveries.c.organization_id
    result = await conn.execute(
        select(organization, func.count(), func.min(webhook_deliveries.c.next_at))
        .where(_free_at(now))
        .group_by(organization)
    )
    return [DueDeliveries(row[0], int(row[1]), row[2]) for row in result]


async def _under_way(conn: AsyncConnection, now: datetime) -> Mapping[str, int]:
    organization = webhook_deliveries.c.organization_id
    result = await conn.execute(
        select(organization, func.count())
        .where(_PENDING, webhook_deliveries.c.lease_expires_at > now)
        .group_by(organization)
    )
    return {row[0]: int(row[1]) for row in result}


async def _oldest(
    conn: AsyncConnection, organization_id: str, count: int, now: datetime
) -> list[Row[Any]]:
    result = await conn.execute(
        select(webhook_deliveries)
        .where(webhook_deliveries.c.organization_id == organization_id, _free_at(now))
        .order_by(webhook_deliveries.c.next_at, webhook_deliveries.c.event_id)
        .limit(count)
        .with_for_update(skip_locked=True)
    )
    return list(result)


async def _lease(
    conn: AsyncConnection, row: Row[Any], worker_id: str, now: datetime, until: datetime
) -> ClaimedDelivery | None:
    """None where its endpoint was disabled or deleted while the event was written."""
    its = values_of(row)
    values = {field: its[field] for field in _FIELDS}
    owner_id = row.project_id
    if row.endpoint_id != PROJECT:
        owner_id = row.endpoint_id
        endpoint = await _endpoint(conn, owner_id)
        if endpoint is None:
            await conn.execute(delete(webhook_deliveries).where(_key(row.event_id, owner_id)))
            return None
        if endpoint.disabled_at is not None:
            await conn.execute(fail_pending(owner_id))
            return None
        values["url"] = endpoint.url  # where it is now
    token = row.token + 1
    await conn.execute(
        update(webhook_deliveries)
        .where(_key(row.event_id, row.endpoint_id))
        .values(token=token, worker_id=worker_id, lease_expires_at=until)
    )
    secrets = await valid_secrets(conn, owner_id, now)
    return ClaimedDelivery(Delivery(**values), token, secrets)


async def _endpoint(conn: AsyncConnection, endpoint_id: str) -> Row[Any] | None:
    this = webhook_endpoints.c.id == endpoint_id
    return (await conn.execute(select(webhook_endpoints).where(this))).one_or_none()


async def _note_endpoint(
    conn: AsyncConnection, claimed: ClaimedDelivery, attempt: Attempt, now: datetime
) -> str | None:
    """What the attempt says of its endpoint; why it is disabled from now on, if it is."""
    this = webhook_endpoints.c.id == claimed.delivery.endpoint_id
    row = (
        await conn.execute(select(webhook_endpoints).where(this).with_for_update())
    ).one_or_none()
    if row is None or row.disabled_at is not None:
        return None
    values: dict[str, Any] = {"last_success_at": now, "failing_since": None}
    reason = None
    if not attempt.succeeded:
        failing_since = row.failing_since or now
        reason = reason_to_disable(attempt, failing_since, now)
        values = {"failing_since": failing_since}
        if reason is not None:
            values |= {"disabled_at": now, "disabled_reason": reason}
    await conn.execute(update(webhook_endpoints).where(this).values(values))
    return reason
