"""Reports of workers as the list of engines. Pure; the route, the console and the command call it.

Invariant: a replica that several workers report is shown as the one sees it that may call it.
"""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from lowtide.api.objects.engines import EngineList, EngineLoad, EngineObject, WorkerObject
from lowtide.core.reporting.standing import by_owner, split
from lowtide.core.reporting.worker_report import ReplicaReport, WorkerReport


def engine_list(reports: Iterable[WorkerReport], now: datetime) -> EngineList:
    """What the workers that live say of their replicas at `now`, and who has fallen silent."""
    live, gone = split(reports, now)
    engines = [_engine(replica, worker_id) for worker_id, replica in by_owner(live)]
    return EngineList(
        data=sorted(engines, key=lambda each: (each.name, each.models, each.endpoints)),
        workers=[_worker(each, is_gone=False) for each in live]
        + [_worker(each, is_gone=True) for each in gone],
    )


def _engine(replica: ReplicaReport, worker_id: str) -> EngineObject:
    load = replica.load
    return EngineObject(
        name=replica.name,
        worker=worker_id,
        models=replica.models,
        endpoints=replica.endpoints,
        condition=replica.condition,
        reason=replica.reason or None,
        remedy=replica.remedy or None,
        since=int(replica.since.timestamp()) if replica.since is not None else None,
        load=EngineLoad(**msgspec.structs.asdict(load)) if load is not None else None,
    )


def _worker(report: WorkerReport, *, is_gone: bool) -> WorkerObject:
    return WorkerObject(
        id=report.worker_id, seen_at=int(report.seen_at.timestamp()), is_gone=is_gone
    )
