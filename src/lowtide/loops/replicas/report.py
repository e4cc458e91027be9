"""Once a second: what changed about this worker's replicas and batches, for log, metrics and store.

The shell around `core.reporting.replica_watch` and `core.reporting.batch_watch`. Changes are logged
at once and written at once; with nothing new, the report is written every `REPORT_S`, so that every
other process sees that the worker lives. Invariant: this loop decides nothing about the work, and a
store that is away stops neither log lines nor metrics.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import msgspec
import structlog

from lowtide import limits
from lowtide.core.dispatch.replica import Replica
from lowtide.core.reporting.batch_watch import BatchWatch
from lowtide.core.reporting.replica_state import held_endpoints, state_of
from lowtide.core.reporting.replica_watch import ReplicaSnapshot, ReplicaWatch
from lowtide.core.reporting.tally import Tallies
from lowtide.core.reporting.worker_report import (
    ReplicaReport,
    ScalerReport,
    SourceReport,
    WorkerReport,
)
from lowtide.ports.clock import Clock
from lowtide.ports.store import StoreError
from lowtide.ports.worker_reports import WorkerReportStore

log = structlog.get_logger(__name__)


class Workings(Protocol):
    """The state of the worker's other loops, for its report."""

    @property
    def replicas(self) -> Sequence[Replica]: ...
    @property
    def sources(self) -> tuple[SourceReport, ...]: ...
    @property
    def scalers(self) -> tuple[ScalerReport, ...]: ...
    @property
    def tallies(self) -> Tallies: ...
    @property
    def batch_watch(self) -> BatchWatch: ...
    @property
    def leased_batches(self) -> frozenset[str]: ...
    @property
    def results_error(self) -> str | None: ...
    @property
    def validation_error(self) -> str | None: ...
    @property
    def validating(self) -> tuple[str, datetime] | None: ...


@dataclass(frozen=True, slots=True)
class PlaceReports:
    """What there is to report of where engines are found, and of what starts and stops them."""

    sources: Callable[[], tuple[SourceReport, ...]] = tuple
    scalers: Callable[[], tuple[ScalerReport, ...]] = tuple


NO_PLACES: Final = PlaceReports()


OnUpdate = Callable[[Sequence[ReplicaSnapshot], Mapping[str, str]], None]
"""Called with the replicas as they were seen, and the condition of each by its name."""


class ReportLoop:
    """Writes the report of one worker to the store."""

    name = "report"

    def __init__(
        self,
        worker_id: str,
        store: WorkerReportStore,
        clock: Clock,
        workings: Workings,
        *,
        on_update: OnUpdate = lambda *_: None,
    ) -> None:
        """`on_update` is given what was seen: the metrics are made of it."""
        self._worker_id = worker_id
        self._store = store
        self._clock = clock
        self._workings = workings
        self._on_update = on_update
        self._watch = ReplicaWatch()
        self._snapshots: list[ReplicaSnapshot] = []
        self._written: object = None
        self._written_at_s = float("-inf")

    async def tick(self, now: datetime) -> datetime | None:
        now_s = self._clock.monotonic()
        self.observe(now_s)
        report = self.report()
        news = _news(report)
        if news != self._written or now_s - self._written_at_s >= limits.REPORT_S:
            forget_before = now - timedelta(seconds=limits.REPORT_KEEP_S)
            await self._store.write(report, forget_before=forget_before)
            self._written, self._written_at_s = news, now_s
        return now + timedelta(seconds=limits.REPORT_TICK_S)

    def report(self) -> WorkerReport:
        """The report as of now; what it says of replicas is from the last tick."""
        now, now_s = self._clock.now(), self._clock.monotonic()
        workings = self._workings
        validating, validating_since = workings.validating or (None, None)
        return WorkerReport(
            worker_id=self._worker_id,
            seen_at=now,
            ttl_s=limits.REPORT_TTL_S,
            replicas=self._watch.reports(self._snapshots, now, now_s),
            results_error=_short(workings.results_error),
            validation_error=_short(workings.validation_error),
            validating=validating,
            validating_since=validating_since,
            batches=workings.batch_watch.reports(now, now_s),
            more_batches=workings.batch_watch.is_full,
            sources=workings.sources,
            scalers=workings.scalers,
        )

    async def leave(self) -> None:
        """Removes the report of the stopped worker."""
        try:
            await self._store.remove(self._worker_id)
        except StoreError as error:  # the others find it gone
            log.warning("report.not_removed", error=str(error))

    def observe(self, now_s: float) -> None:
        """Looks at the replicas and logs what changed. Also called before the first tick: a server
        answers for its worker from the start.
        """
        workings = self._workings
        workings.batch_watch.see_leased(workings.leased_batches, now_s)
        self._snapshots = [_snapshot(replica, now_s) for replica in workings.replicas]
        for event in self._watch.see(self._snapshots, now_s):
            fields = {k: v for k, v in msgspec.structs.asdict(event).items() if v}
            fields["for_s"] = round(event.for_s, 1)
            log.warning(**fields) if event.reason else log.info(**fields)
        for line in workings.batch_watch.take_rejected(now_s):
            log.warning("line.rejected", **msgspec.structs.asdict(line))
        self._on_update(self._snapshots, self._watch.conditions())


def _snapshot(replica: Replica, now_s: float) -> ReplicaSnapshot:
    state = state_of(replica)
    states, calls = {}, {}
    if state.condition != "ready":  # else no model of it is held
        states = {model: state_of(replica, model) for model in replica.models}
        calls = {
            (model, endpoint): state_of(replica, model, endpoint)
            for model in replica.models
            for endpoint in held_endpoints(replica, model)
        }
    return ReplicaSnapshot(
        replica=replica,
        state=state,
        states=states,
        calls=calls,
        is_open=replica.circuit.state != "closed",
        is_owned=now_s < replica.owned_until_s,
    )


def _news(report: WorkerReport) -> object:
    """The part of a report that is written at once when it changes; figures that move with every
    tick are left out.
    """
    replicas = [
        (each.name, each.endpoints, each.condition, each.is_owned, _bounds_steps(each))
        for each in report.replicas
    ]
    batches = [(each.id, each.failures > 0) for each in report.batches]
    errors = (bool(report.results_error), bool(report.validation_error))
    reported = (report.sources, report.scalers)
    return replicas, batches, errors, report.validating, report.more_batches, reported


def _bounds_steps(replica: ReplicaReport) -> bool:
    return replica.load is not None and replica.load.bounds_steps


def _short(error: str | None) -> str:
    return (error or "")[: limits.REPORT_TEXT_CHARS_MAX]
