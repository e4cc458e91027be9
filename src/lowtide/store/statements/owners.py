"""Which organization a project belongs to, for statements that count or lock by organization.

Called by batches.py and storage_use.py inside their transactions.
"""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.store.schema.tables import projects


async def owner_of(conn: AsyncConnection, project_id: str) -> str | None:
    """The id of the project's organization; None for a project that is not there."""
    organization_id: str | None = await conn.scalar(
        select(projects.c.organization_id).where(projects.c.id == project_id)
    )
    return organization_id
