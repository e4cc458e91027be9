"""What an organization keeps, measured and compared with its quota inside a transaction.

Called by files.py and uploads.py before they insert, and by tenants.py to answer queries.
Invariant: additions to one organization that are held against a quota come one after another, so
that each sees those before it.
"""

from typing import Any

from sqlalchemy import Select, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.files.storage_quota import QuotaReached, StorageQuota, StorageUse, lacks
from lowtide.store.connection.dialect import lock_name
from lowtide.store.schema.tables import NO_BLOB, PENDING, files, projects
from lowtide.store.schema.upload_tables import upload_parts, uploads
from lowtide.store.statements.owners import owner_of

_PENDING = uploads.c.ended_at.is_(None)


async def check_quota(
    conn: AsyncConnection,
    project_id: str,
    quota: StorageQuota | None,
    *,
    bytes: int = 0,
    unfinished: int = 0,
) -> None:
    """Checks that so much more may be added to the project. Raises QuotaReached;
    `quota` None: no bound.
    """
    if quota is None or not (unfinished or (bytes and quota.bytes is not None)):
        return
    organization_id = await owner_of(conn, project_id) or ""
    await lock_name(conn, f"storage {organization_id}")
    use = await storage_use(conn, organization_id, measured=quota.bytes is not None)
    lack = lacks(use, quota, bytes, unfinished)
    if lack is not None:
        raise QuotaReached(lack, use)


async def storage_use(
    conn: AsyncConnection, organization_id: str, *, measured: bool = True
) -> StorageUse:
    """The organization's storage; without `measured` only its unfinished uploads,
    the cheaper half.
    """
    own = select(projects.c.id).where(projects.c.organization_id == organization_id)
    announced = select(func.count()).where(
        files.c.project_id.in_(own), files.c.status == PENDING, files.c.deleted_at.is_(None)
    )
    under_way = select(func.count()).where(uploads.c.project_id.in_(own), _PENDING)
    unfinished = await _number(conn, announced) + await _number(conn, under_way)
    if not measured:
        return StorageUse(unfinished=unfinished)
    stored = select(func.sum(files.c.bytes)).where(
        files.c.project_id.in_(own), files.c.deleted_at.is_(None)
    )
    pinned = select(func.sum(files.c.bytes)).where(
        files.c.project_id.in_(own), files.c.deleted_at.is_not(None), files.c.blob_key != NO_BLOB
    )
    arrived = (
        select(func.coalesce(func.sum(upload_parts.c.bytes), 0))
        .where(upload_parts.c.upload_id == uploads.c.id)
        .scalar_subquery()
    )
    larger = case((arrived > uploads.c.bytes, arrived), else_=uploads.c.bytes)
    coming = select(func.sum(larger)).where(uploads.c.project_id.in_(own), _PENDING)
    parts = [await _number(conn, each) for each in (stored, pinned, coming)]
    return StorageUse(bytes=sum(parts), unfinished=unfinished)


async def _number(conn: AsyncConnection, statement: Select[Any]) -> int:
    return int(await conn.scalar(statement) or 0)
