"""`ports.accounts.TenantStore` over SQL: organizations, projects and keys.

Called by the verbs that administer them and by the HTTP API's check of a key. Invariant: a project
has an organization and a key a project, always; nothing here is ever deleted, so what a ledger
entry names stays known.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Row, Select, Table, bindparam, func, insert, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.accounts.tenancy import (
    ApiKey,
    KeyOwner,
    Organization,
    OrganizationLimits,
    Project,
)
from lowtide.core.files.storage_quota import StorageUse
from lowtide.store.batches import batches_created_since, unfinished_batches
from lowtide.store.connection.database import Transactional
from lowtide.store.schema.rows import organization_values, struct_of, struct_or_none, structs_of
from lowtide.store.schema.tables import api_keys, organizations, projects
from lowtide.store.statements.spending import resume_below_cap
from lowtide.store.statements.storage_use import storage_use

_TOUCH = (
    update(api_keys)
    .where(api_keys.c.id == bindparam("of_key"))
    .where(or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < bindparam("used_at")))
    .values(last_used_at=bindparam("used_at"))
)


class SqlTenants(Transactional):
    """Organizations, projects and keys."""

    async def add_organization(self, organization: Organization) -> None:
        async with self._db.write() as conn:
            await conn.execute(insert(organizations), organization_values(organization))

    async def organizations(self) -> list[Organization]:
        return [
            struct_of(Organization, row) for row in await self._all(_oldest_first(organizations))
        ]

    async def organization(self, organization_id: str) -> Organization | None:
        return struct_or_none(Organization, await self._one(_by_id(organizations, organization_id)))

    async def change_organization(
        self,
        organization_id: str,
        *,
        limits: OrganizationLimits,
        spend_cap_pico: int | None,
        now: datetime,
    ) -> bool:
        values = {
            "limits": limits,
            "requests_in_flight": limits.requests_in_flight,
            "weight": limits.weight,
            "spend_cap_pico": spend_cap_pico,
        }
        this = organizations.c.id == organization_id
        async with self._db.write() as conn:
            changed = await conn.execute(update(organizations).where(this).values(values))
            await resume_below_cap(conn, now, this)
        return changed.rowcount == 1

    async def add_project(self, project: Project) -> bool:
        return await self._add(projects, asdict(project), organizations, project.organization_id)

    async def projects(self, organization_id: str | None = None) -> list[Project]:
        statement = _oldest_first(projects)
        if organization_id is not None:
            statement = statement.where(projects.c.organization_id == organization_id)
        return structs_of(Project, await self._all(statement))

    async def project(self, project_id: str) -> Project | None:
        return struct_or_none(Project, await self._one(_by_id(projects, project_id)))

    async def add_key(self, key: ApiKey) -> bool:
        return await self._add(api_keys, asdict(key), projects, key.project_id)

    async def keys(self, project_id: str | None = None) -> list[ApiKey]:
        newest = select(api_keys).order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
        if project_id is not None:
            newest = newest.where(api_keys.c.project_id == project_id)
        return structs_of(ApiKey, await self._all(newest))

    async def key_owner(self, key_id: str) -> KeyOwner | None:
        async with self._db.read() as conn:
            key = await _row(conn, _by_id(api_keys, key_id))
            if key is None:
                return None
            project = (await conn.execute(_by_id(projects, key.project_id))).one()
            owner = (await conn.execute(_by_id(organizations, project.organization_id))).one()
        return KeyOwner(
            struct_of(ApiKey, key), struct_of(Project, project), struct_of(Organization, owner)
        )

    async def revoke_key(self, key_id: str, now: datetime) -> bool:
        first = func.coalesce(api_keys.c.revoked_at, literal(now, api_keys.c.revoked_at.type))
        async with self._db.write() as conn:
            revoked = await conn.execute(
                update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=first)
            )
        return revoked.rowcount == 1

    async def touch_keys(self, used_at: Mapping[str, datetime]) -> None:
        if used_at:
            async with self._db.write() as conn:
                touched = [{"of_key": key, "used_at": at} for key, at in sorted(used_at.items())]
                await conn.execute(_TOUCH, touched)

    async def batches_created_since(self, organization_id: str, since: datetime) -> int:
        async with self._db.read() as conn:
            return await batches_created_since(conn, organization_id, since)

    async def unfinished_batches(self, organization_id: str, most: int) -> int:
        async with self._db.read() as conn:
            return await unfinished_batches(conn, organization_id, most)

    async def storage_use(self, organization_id: str) -> StorageUse:
        async with self._db.read() as conn:
            return await storage_use(conn, organization_id)

    async def _add(
        self, table: Table, values: Mapping[str, Any], owners: Table, owner_id: str
    ) -> bool:
        """Inserts, unless the owner is unknown."""
        async with self._db.write() as conn:
            known = await conn.scalar(select(owners.c.id).where(owners.c.id == owner_id))
            if known is not None:
                await conn.execute(insert(table), dict(values))
        return known is not None

    async def _all(self, statement: Select[Any]) -> Sequence[Row[Any]]:
        async with self._db.read() as conn:
            rows: Sequence[Row[Any]] = (await conn.execute(statement)).all()
        return rows

    async def _one(self, statement: Select[Any]) -> Row[Any] | None:
        async with self._db.read() as conn:
            return await _row(conn, statement)


async def _row(conn: AsyncConnection, statement: Select[Any]) -> Row[Any] | None:
    row: Row[Any] | None = (await conn.execute(statement)).one_or_none()
    return row


def _by_id(table: Table, id: str) -> Select[Any]:
    return select(table).where(table.c.id == id)


def _oldest_first(table: Table) -> Select[Any]:
    return select(table).order_by(table.c.created_at, table.c.id)
