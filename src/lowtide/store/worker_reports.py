"""`ports.worker_reports.WorkerReportStore` over SQL: a row per worker, its report as one value.

The table belongs to the schema of tables.py. Invariant: a worker has one row, its last report.
"""

from datetime import datetime
from typing import Final

from sqlalchemy import Column, Table, delete, insert, select, update

from lowtide.core.reporting.worker_report import WorkerReport
from lowtide.store.connection.database import Transactional
from lowtide.store.connection.dialect import lock_name
from lowtide.store.schema.columns import WORD, Instant, Json
from lowtide.store.schema.tables import metadata

worker_reports: Final = Table(
    "worker_reports",
    metadata,
    Column("worker_id", WORD, primary_key=True),
    Column("seen_at", Instant, nullable=False),
    Column("report", Json(WorkerReport), nullable=False),
)


class SqlWorkerReports(Transactional):
    """What workers say of themselves."""

    async def write(self, report: WorkerReport, *, forget_before: datetime) -> None:
        values = {"seen_at": report.seen_at, "report": report}
        mine = worker_reports.c.worker_id == report.worker_id
        async with self._db.write() as conn:
            await lock_name(conn, "worker reports")  # else two deletes may wait for each other
            known = await conn.execute(update(worker_reports).where(mine).values(values))
            if not known.rowcount:
                row = {"worker_id": report.worker_id, **values}
                await conn.execute(insert(worker_reports).values(row))
            await conn.execute(
                delete(worker_reports).where(~mine, worker_reports.c.seen_at < forget_before)
            )

    async def remove(self, worker_id: str) -> None:
        async with self._db.write() as conn:
            await conn.execute(
                delete(worker_reports).where(worker_reports.c.worker_id == worker_id)
            )

    async def all(self) -> list[WorkerReport]:
        async with self._db.read() as conn:
            rows = await conn.execute(
                select(worker_reports.c.report).order_by(worker_reports.c.worker_id)
            )
            return [row.report for row in rows]
