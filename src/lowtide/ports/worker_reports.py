"""The port to what workers report of themselves: the state of their replicas, and what they do.

Same contract as ports/store.py: each method one transaction, foreign exceptions mapped. Nothing is
decided by these records: losing one costs a reason that is a heartbeat late, never a result.
"""

from datetime import datetime
from typing import Protocol

from lowtide.core.reporting.worker_report import WorkerReport


class WorkerReportStore(Protocol):
    """The last report of each worker."""

    async def write(self, report: WorkerReport, *, forget_before: datetime) -> None:
        """Replaces the worker's own report, and forgets those of others from before that
        instant.
        """

    async def remove(self, worker_id: str) -> None:
        """Removes the report of a worker that has stopped."""

    async def all(self) -> list[WorkerReport]:
        """The reports by worker id, one of each worker, also of those that have died since."""
