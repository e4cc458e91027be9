"""Reports of workers as the list of engines. Pure; the route, the console and the command call it.

Invariant: a replica that several workers report is shown as the one sees it that may call it.
"""

from collections.abc import Iterable
from datetime import datetime

from lowtide.api.objects.engines import (
    EngineList,
    EngineLoad,
    EngineObject,
    SourceObject,
    WorkerObject,
)
from lowtide.api.objects.instants import object_of
from lowtide.api.replicas.scaler_objects import scaler_list
from lowtide.core.reporting.standing import by_owner, split
from lowtide.core.reporting.worker_report import ReplicaReport, SourceReport, WorkerReport


def engine_list(reports: Iterable[WorkerReport], now: datetime) -> EngineList:
    """What the workers that live say of their replicas at `now`, and who has fallen silent."""
    live, gone = split(reports, now)
    label_of = {
        (report.worker_id, name): source.label
        for report in live
        for source in report.sources
        for name in source.engines
    }
    engines = [
        _engine(replica, worker_id, label_of.get((worker_id, replica.name)))
        for worker_id, replica in by_owner(live)
    ]
    return EngineList(
        data=sorted(engines, key=lambda each: (each.name, each.models, each.endpoints)),
        workers=[_worker(each, is_gone=False) for each in live]
        + [_worker(each, is_gone=True) for each in gone],
        sources=_sources(live),
        scalers=scaler_list(live),
    )


def _sources(live: Iterable[WorkerReport]) -> list[SourceObject]:
    """The sources by name; once for all workers that see the same in it."""
    seen: dict[tuple[str, tuple[str, ...], str], list[tuple[str, SourceReport]]] = {}
    for report in live:
        for source in report.sources:
            what = (source.label, source.engines, source.error)
            seen.setdefault(what, []).append((report.worker_id, source))
    return [
        SourceObject(
            source=label,
            engines=engines,
            stale_since=min(
                (int(s.stale_since.timestamp()) for _, s in sightings if s.stale_since is not None),
                default=None,
            ),
            trouble=error or None,
            workers=tuple(worker_id for worker_id, _ in sightings),
        )
        for (label, engines, error), sightings in sorted(seen.items(), key=lambda each: each[0])
    ]


def _engine(replica: ReplicaReport, worker_id: str, source: str | None) -> EngineObject:
    return object_of(
        EngineObject,
        replica,
        worker=worker_id,
        source=source,
        reason=replica.reason or None,
        remedy=replica.remedy or None,
        load=None if replica.load is None else object_of(EngineLoad, replica.load),
    )


def _worker(report: WorkerReport, *, is_gone: bool) -> WorkerObject:
    return object_of(WorkerObject, report, id=report.worker_id, is_gone=is_gone)
