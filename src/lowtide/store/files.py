"""`ports.files.FileStore` over SQL.

Invariants: a deleted file is hidden at once, and its blob reaches the garbage once, in the
transaction that finds no unfinished batch reading it (here, or a later sweep); a quota that is
given holds for all transactions together.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from msgspec.structs import asdict
from sqlalchemy import insert, select, update

from lowtide.core.files.file import File
from lowtide.core.files.storage_quota import StorageQuota
from lowtide.core.idempotency.request_key import RequestKey
from lowtide.ports.files import Order
from lowtide.store.connection.database import Transactional
from lowtide.store.schema.rows import struct_of, struct_or_none, structs_of
from lowtide.store.schema.tables import files
from lowtide.store.statements.garbage import hide_files, lock_garbage
from lowtide.store.statements.idempotency import take_key
from lowtide.store.statements.many_keys import rows_of
from lowtide.store.statements.paging import page
from lowtide.store.statements.storage_use import check_quota

_VISIBLE = files.c.deleted_at.is_(None)


class SqlFiles(Transactional):
    """Rows of files."""

    async def add(
        self, file: File, quota: StorageQuota | None = None, key: RequestKey | None = None
    ) -> str | None:
        unfinished = int(file.status == "pending")
        async with self._db.write() as conn:
            if key is not None:
                earlier = await take_key(conn, key, file.id, file.created_at)
                if earlier is not None:
                    return earlier
            await check_quota(conn, file.project_id, quota, bytes=file.bytes, unfinished=unfinished)
            await conn.execute(insert(files), asdict(file))
        return None

    async def get(self, project_id: str, file_id: str) -> File | None:
        file = await self.by_id(file_id)
        return file if file is not None and file.project_id == project_id else None

    async def get_many(self, project_id: str, file_ids: Collection[str]) -> dict[str, File]:
        mine = select(files).where(files.c.project_id == project_id, _VISIBLE)
        async with self._db.read() as conn:
            rows = rows_of(conn, mine, files.c.id, file_ids)
            return {row.id: struct_of(File, row) async for row in rows}

    async def by_id(self, file_id: str) -> File | None:
        async with self._db.read() as conn:
            result = await conn.execute(select(files).where(files.c.id == file_id, _VISIBLE))
            row = result.one_or_none()
        return struct_or_none(File, row)

    async def page(
        self,
        project_id: str,
        *,
        after: str | None,
        limit: int,
        order: Order = "desc",
        purpose: str | None = None,
    ) -> list[File]:
        where = select(files).where(_VISIBLE, files.c.flex.is_(None))
        if purpose is not None:
            where = where.where(files.c.purpose == purpose)
        async with self._db.read() as conn:
            rows = await page(
                conn, files, where, project_id=project_id, after=after, limit=limit, order=order
            )
        return structs_of(File, rows)

    async def names(self, project_id: str, file_ids: Sequence[str]) -> Mapping[str, str]:
        mine = (files.c.project_id == project_id) & files.c.id.in_(set(file_ids)) & _VISIBLE
        async with self._db.read() as conn:
            result = await conn.execute(select(files.c.id, files.c.filename).where(mine))
            return {row.id: row.filename for row in result}

    async def mark_uploaded(
        self,
        file_id: str,
        *,
        bytes: int,
        lines: int,
        sha256: str,
        blob_key: str,
        quota: StorageQuota | None = None,
    ) -> bool:
        pending = (files.c.id == file_id) & (files.c.status == "pending") & _VISIBLE
        async with self._db.write() as conn:
            owner = await conn.scalar(select(files.c.project_id).where(pending))
            if owner is None:
                return False
            await check_quota(conn, owner, quota, bytes=bytes)
            done = await conn.execute(
                update(files)
                .where(pending)
                .values(
                    status="uploaded", bytes=bytes, lines=lines, sha256=sha256, blob_key=blob_key
                )
            )
        return done.rowcount == 1

    async def delete(self, project_id: str, file_id: str, now: datetime) -> bool:
        async with self._db.write() as conn:
            await lock_garbage(conn)
            own = (files.c.id == file_id) & (files.c.project_id == project_id) & _VISIBLE
            if await conn.scalar(select(files.c.id).where(own)) is None:
                return False
            await hide_files(conn, [file_id], now)
        return True
