"""Learns from the reports of all workers which models their engines serve.

Only where several processes share a store: a process that lists no replica of its own, or other
ones, learns there what a batch may name. Invariant: models are only ever added here; what a report
no longer says was served all the same, and stays known (wiring/replicas/engines.py bounds them).
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from lowtide import limits
from lowtide.ports.worker_reports import WorkerReportStore


class SeenModelsLoop:
    """Collects the models that any worker reports, for one process."""

    name = "seen-models"

    def __init__(self, store: WorkerReportStore, on_seen: Callable[[Iterable[str]], None]) -> None:
        self._store = store
        self._on_seen = on_seen

    async def tick(self, now: datetime) -> datetime | None:
        """Raises StoreError."""
        reports = await self._store.all()
        replicas = (replica for report in reports for replica in report.replicas)
        self._on_seen(sorted({model for replica in replicas for model in replica.models}))
        return now + timedelta(seconds=limits.MODELS_SEEN_POLL_S)
