"""Idempotency keys, taken in the transaction that creates what a request asks for.

Called by batches.py, files.py and uploads.py. Invariant: a key is there if and only if what it made
was committed, so a crash at any moment leaves both or neither; and of requests with one key at one
instant one creates, and the others wait for it and find what it made.
"""

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import ColumnElement, Row, Select, delete, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide import limits
from lowtide.core.idempotency.request_key import KeyTaken, Made, RequestKey
from lowtide.store.connection.dialect import lock_name
from lowtide.store.schema.idempotency_tables import idempotency_keys
from lowtide.store.schema.tables import batches, files
from lowtide.store.schema.upload_tables import uploads


async def take_key(
    conn: AsyncConnection, key: RequestKey, made_id: str, now: datetime
) -> str | None:
    """Takes the key for what is about to be created as `made_id`; the id of what an earlier request
    with it made, where there is one: then nothing is to be created. Raises KeyTaken.
    """
    await lock_name(conn, f"key {key.organization_id} {key.key}")
    if (earlier := await made_by(conn, key, now)) is not None:
        return earlier
    await conn.execute(delete(idempotency_keys).where(_is(key)))
    await _forget_some(conn, now)
    values = asdict(key) | {"made_id": made_id, "made_at": now}
    await conn.execute(insert(idempotency_keys), values)
    return None


async def one_batch(conn: AsyncConnection, batch_id: str) -> Row[Any]:
    """The row of the batch that a key made."""
    return (await conn.execute(select(batches).where(batches.c.id == batch_id))).one()


async def has_made(conn: AsyncConnection, organization_id: str, key: str, now: datetime) -> bool:
    """Whether an earlier request with that key, whatever it was, made what is there still."""
    mine = (idempotency_keys.c.organization_id == organization_id) & (idempotency_keys.c.key == key)
    result = await conn.execute(
        select(idempotency_keys).where(mine, idempotency_keys.c.made_at > _horizon(now))
    )
    row = result.one_or_none()
    return row is not None and await conn.scalar(_there(row.kind, row.made_id)) is not None


async def made_by(conn: AsyncConnection, key: RequestKey, now: datetime) -> str | None:
    """The id of what the key made and that is there still; None for a key that is free. Raises
    KeyTaken.
    """
    result = await conn.execute(
        select(idempotency_keys).where(_is(key), idempotency_keys.c.made_at > _horizon(now))
    )
    row = result.one_or_none()
    if row is None:
        return None
    if (row.kind, row.digest) != (key.kind, key.digest):
        raise KeyTaken
    made_id: str | None = await conn.scalar(_there(row.kind, row.made_id))
    return made_id


def _there(kind: Made, made_id: str) -> Select[tuple[str]]:
    """Finds what was made, while it is there."""
    if kind == "file":
        return select(files.c.id).where(files.c.id == made_id, files.c.deleted_at.is_(None))
    if kind == "upload":
        is_open = uploads.c.status.in_(("pending", "completed"))
        return select(uploads.c.id).where(uploads.c.id == made_id, is_open)
    return select(batches.c.id).where(batches.c.id == made_id, batches.c.deleted_at.is_(None))


def _is(key: RequestKey) -> ColumnElement[bool]:
    return (idempotency_keys.c.organization_id == key.organization_id) & (
        idempotency_keys.c.key == key.key
    )


def _horizon(now: datetime) -> datetime:
    """Keys from before stand for nothing any more."""
    return now - timedelta(seconds=limits.IDEMPOTENCY_KEY_KEEP_S)


async def _forget_some(conn: AsyncConnection, now: datetime) -> None:
    """Deletes a few old keys with each new one, so that there are never many more than of a day."""
    ids = (idempotency_keys.c.organization_id, idempotency_keys.c.key)
    old = (
        select(*ids)
        .where(idempotency_keys.c.made_at <= _horizon(now))
        .order_by(idempotency_keys.c.made_at)
        .limit(limits.IDEMPOTENCY_FORGET_ROWS)
    )
    if gone := [tuple(row) for row in await conn.execute(old)]:
        await conn.execute(delete(idempotency_keys).where(tuple_(*ids).in_(gone)))
