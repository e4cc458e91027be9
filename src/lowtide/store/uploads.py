"""`ports.uploads.UploadStore` over SQL.

Invariants: an upload leaves `pending` once, by `core.files.upload.step`; the rows of its parts go
in that same transaction, and their blobs to the garbage; a part is added only to an upload that is
pending, in time and not held.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.files.file import File
from lowtide.core.files.storage_quota import StorageQuota
from lowtide.core.files.upload import Upload, UploadEvent, UploadPart, step
from lowtide.core.idempotency.request_key import RequestKey
from lowtide.limits import UPLOAD_PARTS_MAX
from lowtide.ports.uploads import PartAnswer
from lowtide.store.connection.database import Transactional
from lowtide.store.schema.rows import struct_of, struct_or_none, structs_of
from lowtide.store.schema.tables import files
from lowtide.store.schema.upload_tables import upload_parts, uploads
from lowtide.store.statements.garbage import discard_parts, lock_garbage
from lowtide.store.statements.idempotency import take_key
from lowtide.store.statements.storage_use import check_quota

_PENDING = uploads.c.ended_at.is_(None)


class SqlUploads(Transactional):
    """Rows of uploads and of their parts."""

    async def add(
        self, upload: Upload, quota: StorageQuota | None = None, key: RequestKey | None = None
    ) -> str | None:
        values = asdict(upload)
        async with self._db.write() as conn:
            if key is not None:
                earlier = await take_key(conn, key, upload.id, upload.created_at)
                if earlier is not None:
                    return earlier
            await check_quota(conn, upload.project_id, quota, bytes=upload.bytes, unfinished=1)
            await conn.execute(insert(uploads), values | {"token": 0})
        return None

    async def get(self, project_id: str, upload_id: str) -> Upload | None:
        upload = await self.by_id(upload_id)
        return upload if upload is not None and upload.project_id == project_id else None

    async def by_id(self, upload_id: str) -> Upload | None:
        async with self._db.read() as conn:
            row = (
                await conn.execute(select(uploads).where(uploads.c.id == upload_id))
            ).one_or_none()
        return struct_or_none(Upload, row)

    async def add_part(
        self, part: UploadPart, now: datetime, quota: StorageQuota | None = None
    ) -> PartAnswer:
        async with self._db.write() as conn:
            await lock_garbage(conn)
            row = await _locked(conn, part.upload_id)
            upload = struct_or_none(Upload, row)
            if upload is None or not _takes_parts(upload, now):
                return "closed"
            of_upload = upload_parts.c.upload_id == part.upload_id
            replaced = of_upload & (upload_parts.c.number == part.number)
            kept = of_upload if part.number is None else of_upload & ~replaced
            count, held = (
                await conn.execute(select(func.count(), func.sum(upload_parts.c.bytes)).where(kept))
            ).one()
            before, after = int(held or 0), int(held or 0) + part.bytes
            if count >= UPLOAD_PARTS_MAX or after > upload.room:
                return "full"
            beyond = max(0, after - max(before, upload.bytes))  # of what was announced
            await check_quota(conn, upload.project_id, quota, bytes=beyond)
            if part.number is not None:
                await discard_parts(conn, replaced, now)
            values = asdict(part)
            await conn.execute(insert(upload_parts), values)
        return "kept"

    async def parts(self, upload_id: str) -> list[UploadPart]:
        of_upload = select(upload_parts).where(upload_parts.c.upload_id == upload_id)
        async with self._db.read() as conn:
            rows = await conn.execute(
                of_upload.order_by(upload_parts.c.created_at, upload_parts.c.id)
            )
            return structs_of(UploadPart, rows)

    async def hold(self, upload_id: str, now: datetime, ttl_s: float) -> int | None:
        free = uploads.c.completion_expires_at.is_(None) | (uploads.c.completion_expires_at <= now)
        async with self._db.write() as conn:
            held = await conn.execute(
                update(uploads)
                .where(uploads.c.id == upload_id, _PENDING, uploads.c.expires_at > now, free)
                .values(
                    token=uploads.c.token + 1, completion_expires_at=now + timedelta(seconds=ttl_s)
                )
                .returning(uploads.c.token)
            )
            token: int | None = held.scalar_one_or_none()
        return token

    async def keep_hold(self, upload_id: str, token: int, now: datetime, ttl_s: float) -> bool:
        async with self._db.write() as conn:
            kept = await conn.execute(
                update(uploads)
                .where(uploads.c.id == upload_id, uploads.c.token == token, _PENDING)
                .values(completion_expires_at=now + timedelta(seconds=ttl_s))
            )
        return kept.rowcount == 1

    async def let_go(self, upload_id: str, token: int) -> None:
        async with self._db.write() as conn:
            await conn.execute(
                update(uploads)
                .where(uploads.c.id == upload_id, uploads.c.token == token, _PENDING)
                .values(completion_expires_at=None)
            )

    async def let_all_go(self) -> int:
        held = uploads.c.completion_expires_at.is_not(None)
        async with self._db.write() as conn:
            freed = await conn.execute(
                update(uploads).where(held).values(completion_expires_at=None)
            )
        return freed.rowcount

    async def complete(
        self, upload_id: str, token: int, file: File, choice_digest: str, now: datetime
    ) -> bool:
        async with self._db.write() as conn:
            await lock_garbage(conn)
            row = await _locked(conn, upload_id)
            if row is None or row.token != token or row.ended_at is not None:
                return False
            await conn.execute(insert(files), asdict(file))
            await _take(conn, [row], "complete", now, choice_digest=choice_digest)
        return True

    async def cancel(self, project_id: str, upload_id: str, now: datetime) -> Upload | None:
        async with self._db.write() as conn:
            await lock_garbage(conn)
            row = await _locked(conn, upload_id)
            if row is None or row.project_id != project_id:
                return None
            if row.ended_at is None:
                await _take(conn, [row], "cancel", now)
                row = await _locked(conn, upload_id)
                assert row is not None, "it is ours"
            return struct_of(Upload, row)


async def sweep_uploads(
    conn: AsyncConnection, now: datetime, keep_since: datetime, limit: int
) -> int:
    """Uploads past their time expire; ended ones are forgotten. How many keys became garbage.

    Called by results.py inside the transaction of its sweep, which disposes alone.
    """
    free = uploads.c.completion_expires_at.is_(None) | (uploads.c.completion_expires_at <= now)
    due = (
        select(uploads)
        .where(_PENDING, uploads.c.expires_at <= now, free)
        .order_by(uploads.c.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    added = await _take(conn, (await conn.execute(due)).all(), "expire", now)
    await conn.execute(delete(uploads).where(uploads.c.ended_at <= keep_since))
    return added


async def _locked(conn: AsyncConnection, upload_id: str) -> Row[Any] | None:
    result = await conn.execute(select(uploads).where(uploads.c.id == upload_id).with_for_update())
    return result.one_or_none()


async def _take(
    conn: AsyncConnection, rows: Sequence[Row[Any]], event: UploadEvent, now: datetime, **more: Any
) -> int:
    """Lets locked uploads take `event` and lets go of their parts. Raises
    IllegalUploadTransition.
    """
    if not rows:
        return 0
    ids = [row.id for row in rows]
    (after,) = {step(row.status, event) for row in rows}
    ended = {"status": after, "ended_at": now, "completion_expires_at": None}
    await conn.execute(update(uploads).where(uploads.c.id.in_(ids)).values(ended | more))
    return await discard_parts(conn, upload_parts.c.upload_id.in_(ids), now)


def _takes_parts(upload: Upload, now: datetime) -> bool:
    return upload.status == "pending" and now < upload.expires_at and not upload.is_completing(now)
