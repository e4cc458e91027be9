"""Every quarter of a minute: what all batches come to, for metrics, and which wait, for the log.

One bounded look at the store, never a scan of its large tables; the decisions are
`core.reporting.overview`'s. Every worker shows the same figures; of those that live, the first by
its id writes the records about batches, so that a fleet says each thing once. Invariant: nothing is
decided about the work.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import structlog

from lowtide import limits
from lowtide.core.batches.batch import Batch
from lowtide.core.reporting.overview import Overview, WaitingWatch, overview_of
from lowtide.core.reporting.progress import Progress
from lowtide.core.reporting.report_age import ReportAges
from lowtide.core.reporting.standing import split
from lowtide.ports.capacity import CapacityStore
from lowtide.ports.clock import Clock
from lowtide.ports.worker_reports import WorkerReportStore
from lowtide.service.scheduling.backlog_reading import BacklogReadings

log = structlog.get_logger(__name__)

ProgressOf = Callable[[Sequence[Batch]], Awaitable[Sequence[Progress]]]
"""How far batches are and why they wait, in their order: service/batches/progress.py."""


class OverviewLoop:
    """Counts all batches and logs those that wait; one per worker."""

    name = "overview"

    def __init__(
        self,
        worker_id: str,
        capacity: CapacityStore,
        readings: BacklogReadings,
        reports: WorkerReportStore,
        clock: Clock,
        progress: ProgressOf,
        on_update: Callable[[Overview], None] = lambda _: None,
    ) -> None:
        self._worker_id = worker_id
        self._capacity = capacity
        self._readings = readings
        self._reports = reports
        self._clock = clock
        self._on_update = on_update
        self._watch = WaitingWatch()
        self._ages = ReportAges()
        self._progress = progress

    async def tick(self, now: datetime) -> datetime | None:
        again_at = now + timedelta(seconds=limits.OVERVIEW_S)
        unfinished = await self._capacity.unfinished(limits.OVERVIEW_BATCHES_MAX)
        progress = await self._progress(unfinished.batches)
        backlog = (await self._readings.latest()).capacity.backlog
        self._on_update(overview_of(unfinished.states, backlog, progress, now))
        now_s = self._clock.monotonic()
        is_first = await self._is_first(now, now_s)
        events = self._watch.see(unfinished.batches, progress, now, now_s)
        if is_first:
            for event in events:
                log.info(
                    event.event,
                    batch=event.batch,
                    reason=event.reason,
                    since=event.since.isoformat(timespec="seconds"),
                    left_out=event.left_out,
                )
        return again_at

    async def _is_first(self, now: datetime, now_s: float) -> bool:
        """Whether this worker writes the records. Asked at each reading: only two readings tell how
        old a report is.
        """
        reports = await self._reports.all()
        self._ages.see(reports, now, now_s)
        live, _ = split(self._ages.dated(reports, now, now_s), now)
        return not live or live[0].worker_id == self._worker_id
