"""What all workers say of themselves, as every process that answers for batches reads it.

Called by service/batches/progress.py for the reason of a batch. The reports are read at most once
in `STANDING_FRESH_S`, however many clients watch; this process's own worker is asked itself, so
that a server that is one process tells what is, not what was written. Invariant: while the store is
away the last reading stands, with its age counted; how old a report is does not depend on its
worker's clock.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime

import msgspec

from lowtide import limits
from lowtide.core.reporting.report_age import ReportAges
from lowtide.core.reporting.standing import Hold, Standing, standing_of
from lowtide.core.reporting.worker_report import WorkerReport
from lowtide.core.scheduling.operating_hours import OperatingHours
from lowtide.ports.clock import Clock
from lowtide.ports.store import StoreError
from lowtide.ports.worker_reports import WorkerReportStore

OwnReport = Callable[[], WorkerReport | None]
"""What the worker of this process would report now; None where no worker runs in it."""


class Standings:
    """One instance per process."""

    def __init__(
        self,
        store: WorkerReportStore,
        clock: Clock,
        own: OwnReport = lambda: None,
        hours: Callable[[], Mapping[str, OperatingHours]] = dict,
    ) -> None:
        """`hours`: when models take batch work; one that is missing always does."""
        self._store = store
        self._clock = clock
        self._own = own
        self._hours = hours
        self._reports: list[WorkerReport] = []
        self._ages = ReportAges()
        self._read_at_s: float | None = None
        self._reading = asyncio.Lock()

    async def reports(self) -> list[WorkerReport]:
        """What each worker says of itself, with this process's own as of now."""
        async with self._reading:
            if self._is_stale():
                await self._read()
        own = self._own()
        read = self._ages.dated(self._reports, self._clock.now(), self._clock.monotonic())
        reports = {report.worker_id: report for report in read}
        if own is not None:
            reports[own.worker_id] = own
        return list(reports.values())

    async def now(self) -> Standing:
        """The standing at this moment, as far as it is known."""
        reports = await self.reports()
        now = self._clock.now()
        standing = standing_of(reports, now)
        closed = {
            model: Hold("closed", hours.opens, hours.opens, hours.closed_since(now))
            for model, hours in self._hours().items()
            if model in standing.models and not hours.is_open(now)
        }
        return msgspec.structs.replace(standing, models={**standing.models, **closed})

    def at(self) -> datetime:
        """The instant by which the age of a report is told."""
        return self._clock.now()

    def _is_stale(self) -> bool:
        now_s, at_s = self._clock.monotonic(), self._read_at_s
        return at_s is None or now_s - at_s >= limits.STANDING_FRESH_S

    async def _read(self) -> None:
        with suppress(StoreError):  # what was read last grows old, and says so
            self._reports = await self._store.all()
            self._ages.see(self._reports, self._clock.now(), self._clock.monotonic())
        self._read_at_s = self._clock.monotonic()
