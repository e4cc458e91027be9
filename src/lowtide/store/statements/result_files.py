"""The rows of a batch's two result files, from their first line to the assembled whole.

Called by lifecycle.py when a file is finished; that it starts to grow is decided with the commit.
Invariant: a batch has at most one output and one error file, under ids known from the start, and
neither without a line.
"""

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import delete, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.core.batches.batch import Batch, error_file_id, output_file_id
from lowtide.core.execution.result_files import growing_errors, growing_output
from lowtide.core.files.file import File
from lowtide.limits import FILE_TTL_S
from lowtide.ports.store import OutputInfo
from lowtide.store.schema.tables import files


async def finish_files(
    conn: AsyncConnection,
    batch: Batch,
    output: OutputInfo | None,
    errors: OutputInfo | None,
    now: datetime,
) -> dict[str, str | None]:
    """Completes both files; the batch's columns that name them."""
    known = frozenset((batch.output_file_id, batch.error_file_id))
    for growing, info in (
        (growing_output(batch, now), output),
        (growing_errors(batch, now), errors),
    ):
        await _finish(conn, batch, growing, info, now, exists=growing.id in known)
    return {
        "output_file_id": None if output is None else output_file_id(batch.id),
        "error_file_id": None if errors is None else error_file_id(batch.id),
    }


async def _finish(
    conn: AsyncConnection,
    batch: Batch,
    growing: File,
    info: OutputInfo | None,
    now: datetime,
    *,
    exists: bool,
) -> None:
    this = files.c.id == growing.id
    if info is None:
        if exists:
            await conn.execute(delete(files).where(this))
        return
    if not exists:
        await conn.execute(insert(files), asdict(growing))
    await conn.execute(update(files).where(this).values(**_complete(batch, info, now)))


def _complete(batch: Batch, info: OutputInfo, now: datetime) -> dict[str, Any]:
    # The file's life counts from its completion: a batch may run longer than a short life lasts.
    ttl_s = FILE_TTL_S if batch.output_expires_after_s is None else batch.output_expires_after_s
    return {
        "status": "uploaded",
        "bytes": info.bytes,
        "lines": info.lines,
        "sha256": info.sha256,
        "blob_key": info.blob_key,
        "expires_at": now + timedelta(seconds=ttl_s),
    }
